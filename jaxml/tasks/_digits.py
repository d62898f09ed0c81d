"""Classification of 1,797 handwritten digits of 8 x 8 pixels by a small network."""

from sklearn.datasets import load_digits

from jaxml.sweep import Task
from jaxml.tasks._network import classification_task, shuffle

NUM_PIXELS, NUM_CLASSES = 64, 10
MAX_PIXEL = 16  # black


def digits(*, hidden: int = 32) -> Task:
    """Classification of handwritten digits by a network with one hidden layer.

        logits = W₂ f(W₁ x + b₁) + b₂

    The point of a model holds two functions: `activation`, f, applied elementwise, and
    `loss`, (logits, labels) -> one loss per example. The metrics are `loss` and
    `accuracy`. Every run uses the same split: 1,437 images for training and 360 for
    validation.

    Args:
        hidden: Number of hidden units.

    Reference:
        Alpaydin and Kaynak, Optical recognition of handwritten digits, UCI Machine
        Learning Repository, 1998, https://doi.org/10.24432/C50P49

    Example:
        >>> x, y = digits().train
        >>> x.shape, y.shape
        ((1437, 64), (1437,))
    """
    x, y, num_train = shuffle(*load_digits(return_X_y=True))
    return classification_task(
        x / MAX_PIXEL, y, num_train, hidden=hidden, num_classes=NUM_CLASSES
    )

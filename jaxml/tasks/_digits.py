"""1,797 handwritten digits of 8 x 8 pixels, told apart by a small network."""

from sklearn.datasets import load_digits

from jaxml.sweep import Task
from jaxml.tasks._network import classifier, shuffled

PIXELS, CLASSES = 64, 10


def digits(*, hidden: int = 32) -> Task:
    """Handwritten digits of the UCI repository, and a network of one hidden layer.

        logits = W₂ f(W₁ x + b₁) + b₂

    Its point has two functions: `activation`, f of one number, and `loss`,
    (logits, labels) -> one loss for each example. It reports `loss` and `accuracy`.
    1,437 images are for training, the other 360 for validation: one split for all runs.

    Args:
        hidden: The number of hidden units.

    Reference:
        Alpaydin and Kaynak, Optical recognition of handwritten digits, UCI Machine
        Learning Repository, 1998, https://doi.org/10.24432/C50P49

    Example:
        >>> x, y = digits().train
        >>> x.shape, y.shape
        ((1437, 64), (1437,))
    """
    x, y, train = shuffled(*load_digits(return_X_y=True))
    return classifier(x / 16, y, train, hidden=hidden, classes=CLASSES)  # 16 is black

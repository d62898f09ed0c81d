"""1,797 handwritten digits of 8 x 8 pixels, told apart by a small network."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from sklearn.datasets import load_digits

from jaxml import losses
from jaxml.sweep import Point, Task

PIXELS, CLASSES, TRAIN = 64, 10, 1437


def digits(*, hidden: int = 32) -> Task:
    """Handwritten digits of the UCI repository, and a network of one hidden layer.

        logits = W₂ f(W₁ x + b₁) + b₂

    Its point has two functions: `activation`, f, and `loss`, (logits, labels) -> one
    loss for each example. It reports `loss` and `accuracy`. 1,437 images are for
    training, the other 360 for validation: one split for all runs.

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
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    x = jnp.asarray(images[order] / 16, jnp.float32)  # pixels count up to 16
    y = jnp.asarray(labels[order], jnp.int32)

    def init(key: Array, point: Point) -> dict[str, Array]:
        first, second = jax.random.split(key)
        return {
            "w1": he(first, PIXELS, hidden),
            "b1": jnp.zeros((1, hidden), jnp.float32),
            "w2": he(second, hidden, CLASSES),
            "b2": jnp.zeros((1, CLASSES), jnp.float32),
        }

    def logits(params: dict[str, Array], x: Array, point: Point) -> Array:
        h = point["activation"](x @ params["w1"] + params["b1"])
        return h @ params["w2"] + params["b2"]

    def loss(params: dict[str, Array], batch: tuple, point: Point) -> Array:
        x, y = batch
        return losses.mean(point["loss"](logits(params, x, point), y))

    def metrics(
        params: dict[str, Array], data: tuple, point: Point
    ) -> dict[str, Array]:
        x, y = data
        scores = logits(params, x, point)
        guesses = jnp.argmax(scores, -1).astype(y.dtype)
        return {
            "loss": losses.mean(point["loss"](scores, y)),
            "accuracy": jnp.mean(guesses == y, dtype=jnp.float32),
        }

    train, valid = (x[:TRAIN], y[:TRAIN]), (x[TRAIN:], y[TRAIN:])
    return Task(init, loss, metrics, train, valid)


def he(key: Array, inputs: int, outputs: int) -> Array:
    """Weights of variance 2 / inputs, which keep the scale of rectified units."""
    scale = float(np.sqrt(2 / inputs))
    return scale * jax.random.normal(key, (inputs, outputs), jnp.float32)

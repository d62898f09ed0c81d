"""Handwritten digits scattered over noise: which pixel belongs to which digit."""

import functools
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.custom_batching import sequential_vmap
from sklearn.datasets import load_digits

from jaxml import losses
from jaxml.sweep import Point, Task

SIDE, CELL, DIGIT = 20, 10, 8  # of an image, of one of its quarters, of a digit
CLASSES, TRAIN, VALID, SHOWN = 11, 128, 32, 4
DILATIONS = 1, 2, 2

Loss = Callable[[Array, Array], Array]


def _of_regions(loss: Callable[..., Array], **numbers: float) -> Loss:
    """The mean over classes. The batch is one image, in which few are absent."""

    def from_logits(logits: Array, labels: Array) -> Array:
        p, t = jax.nn.softmax(logits), jax.nn.one_hot(labels, CLASSES)
        return losses.mean(loss(p, t, axis=(0, 1, 2), **numbers))

    return from_logits


def _cross_entropy(logits: Array, labels: Array) -> Array:
    return losses.mean(losses.cross_entropy(logits, labels))


def _lovasz(logits: Array, labels: Array) -> Array:
    """The mean over the classes that occur in an image."""
    each = losses.lovasz_softmax_loss(jax.nn.softmax(logits), labels)
    return losses.mean(each, where=losses.present(labels, CLASSES))


LOSSES: dict[str, Loss] = {
    "cross_entropy": _cross_entropy,
    "dice_loss": _of_regions(losses.dice_loss),
    "tversky_loss": _of_regions(losses.tversky_loss, alpha=0.3, beta=0.7),
    "jaccard_loss": _of_regions(losses.jaccard_loss),
    "sensitivity_specificity_loss": _of_regions(losses.sensitivity_specificity_loss),
    "lovasz_softmax_loss": _lovasz,
}
"""Losses of this task, from logits."""


def digits_segmentation(*, channels: int = 6) -> Task:
    """Images with a digit in most of their quarters, and a small convolutional network.

        h₁ = f(W₁ ∗ x + b₁),    h₂ = f(W₂ ∗ h₁ + b₂),    logits = W₃ ∗ h₂ + b₃

    The label of a pixel is 0 on the background and 1 + the digit on its ink. Its point
    has two functions: `activation`, f, and `loss`, (logits, labels) -> the number to
    make small. It reports `loss` and `mean_iou`, the mean over classes of intersection
    over union. Images for training and for validation share no digit.

    Args:
        channels: Of the first layer. All are 3 x 3; the later skip every other pixel.

    Reference:
        Alpaydin and Kaynak, Optical recognition of handwritten digits, UCI Machine
        Learning Repository, 1998, https://doi.org/10.24432/C50P49

    Example:
        >>> x, y = digits_segmentation().train
        >>> x.shape, y.shape
        ((128, 20, 20, 1), (128, 20, 20))
    """
    images, digits = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(digits))
    ink, digits = images[order].reshape(-1, DIGIT, DIGIT) / 16, digits[order]
    split = len(digits) * 4 // 5
    train = _scattered(rng, ink[:split], digits[:split], TRAIN)
    valid = _scattered(rng, ink[split:], digits[split:], VALID)
    widths = [1, channels, 2 * channels, CLASSES]

    def init(key: Array, point: Point) -> dict[str, Array]:
        params = {}
        for i, (inputs, outputs) in enumerate(itertools.pairwise(widths), 1):
            shape, scale = (outputs, 9 * inputs), float(np.sqrt(2 / (9 * inputs)))
            own = jax.random.fold_in(key, i)
            params[f"w{i}"] = scale * jax.random.normal(own, shape, jnp.float32)
            params[f"b{i}"] = jnp.zeros((outputs, 1), jnp.float32)
        return params

    def logits(params: dict[str, Array], x: Array, point: Point) -> Array:
        x = x.reshape(1, -1, SIDE, SIDE)  # channels first: rows of pixels are long
        for i, dilation in enumerate(DILATIONS, 1):
            z = _convolved(dilation, params[f"w{i}"], x) + params[f"b{i}"]
            x = point["activation"](z) if i < len(DILATIONS) else z
            x = x.reshape(len(x), -1, SIDE, SIDE)
        return jnp.moveaxis(x, 0, -1)

    def loss(params: dict[str, Array], batch: tuple, point: Point) -> Array:
        x, y = batch
        return point["loss"](logits(params, x, point), y)

    def metrics(
        params: dict[str, Array], data: tuple, point: Point
    ) -> dict[str, Array]:
        x, y = data
        rows = x.reshape(-1, 8, SIDE, SIDE, 1)  # few images' patches are held at once
        scores = jax.lax.map(lambda x: logits(params, x, point), rows)
        scores = scores.reshape(*y.shape, CLASSES)
        index = jnp.arange(CLASSES).reshape(1, 1, 1, -1)
        ours = jnp.argmax(scores, -1)[..., None] == index
        true = y[..., None] == index
        both = jnp.sum(ours & true, (0, 1, 2), dtype=jnp.float32)
        union = jnp.sum(ours | true, (0, 1, 2), dtype=jnp.float32)
        return {"loss": point["loss"](scores, y), "mean_iou": jnp.mean(both / union)}

    def outputs(params: dict[str, Array], point: Point) -> dict[str, Array]:
        guesses = jnp.argmax(logits(params, valid[0][:SHOWN], point), -1)
        return {"labels": guesses.astype(jnp.uint8)}

    return Task(init, loss, metrics, train, valid, outputs)


def _in_turn(dilation: int, w: Array, x: Array) -> Array:
    """W ∗ x as [channels, pixels]. Many models take turns, each in a core's cache."""
    return sequential_vmap(functools.partial(_product, dilation))(w, x)


def _forward(dilation: int, w: Array, x: Array) -> tuple[Array, tuple]:
    return _in_turn(dilation, w, x), (w, x)


def _backward(dilation: int, kept: tuple, cotangent: Array) -> tuple[Array, Array]:
    def pulled(w: Array, x: Array, cotangent: Array) -> tuple[Array, Array]:
        return jax.vjp(functools.partial(_product, dilation), w, x)[1](cotangent)

    return sequential_vmap(pulled)(*kept, cotangent)


_convolved = jax.custom_vjp(_in_turn, nondiff_argnums=(0,))
_convolved.defvjp(_forward, _backward)


def _product(dilation: int, w: Array, x: Array) -> Array:
    """Each pixel beside its neighbours, so that a convolution is one product."""
    edge = (dilation, dilation)
    wide = jnp.pad(x, ((0, 0), (0, 0), edge, edge))
    starts = [dilation * i for i in range(3)]
    near = [wide[..., i : i + SIDE, j : j + SIDE] for i in starts for j in starts]
    patches = jnp.concatenate(near, 0)
    return w @ patches.reshape(len(patches), -1)


def _scattered(
    rng: np.random.Generator, ink: np.ndarray, digits: np.ndarray, count: int
) -> tuple[Array, Array]:
    """Images with their labels: in each quarter a digit somewhere, or none."""
    x = rng.normal(0.2, 0.15, (count, SIDE, SIDE, 1))
    y = np.zeros((count, SIDE, SIDE), np.int32)
    for image in range(count):
        for quarter in np.ndindex(2, 2):
            top, left = CELL * np.array(quarter) + rng.integers(0, CELL - DIGIT + 1, 2)
            if rng.random() < 0.75:
                i = rng.integers(len(digits))
                at = image, slice(top, top + DIGIT), slice(left, left + DIGIT)
                x[at][..., 0] += ink[i]
                y[at][ink[i] > 0.4] = digits[i] + 1
    return jnp.asarray(x, jnp.float32), jnp.asarray(y)

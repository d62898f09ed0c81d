"""Handwritten digits scattered over noise: which pixel belongs to which digit."""

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
from jaxml.tasks._network import he

CELL, DIGIT, SIDE = 9, 8, 18  # the sides of a quarter, of its digit, of an image
CLASSES, TRAIN, VALID, SHOWN = 11, 384, 48, 6
INK = 0.3  # of a pixel that belongs to its digit
IMAGE = (0, 1, 2)  # a batch counts as one image, in which few classes are absent

Loss = Callable[[Array, Array], Array]


def _cross_entropy(logits: Array, labels: Array) -> Array:
    return losses.mean(losses.cross_entropy(logits, labels))


def _of_regions(loss: Callable[..., Array], **numbers: float) -> Loss:
    """The mean over classes."""

    def from_logits(logits: Array, labels: Array) -> Array:
        p, t = jax.nn.softmax(logits), jax.nn.one_hot(labels, CLASSES)
        return losses.mean(loss(p, t, axis=IMAGE, **numbers))

    return from_logits


def _lovasz(logits: Array, labels: Array) -> Array:
    """The mean over the classes that occur."""
    each = losses.lovasz_softmax_loss(jax.nn.softmax(logits), labels, axis=IMAGE)
    return losses.mean(each, where=losses.present(labels, CLASSES, axis=IMAGE))


LOSSES: dict[str, Loss] = {
    "cross_entropy": _cross_entropy,
    "dice_loss": _of_regions(losses.dice_loss),
    "tversky_loss": _of_regions(losses.tversky_loss, alpha=0.3, beta=0.7),
    "jaccard_loss": _of_regions(losses.jaccard_loss),
    "sensitivity_specificity_loss": _of_regions(losses.sensitivity_specificity_loss),
    "lovasz_softmax_loss": _lovasz,
}
"""Losses of this task, from logits."""


def digits_segmentation(*, channels: int = 8) -> Task:
    """Images with a digit in most of their quarters, and a small convolutional network.

        h₁ = f(N(W₁ ∗ x)),    h₂ = f(N(W₂ ∗ h₁)), h₃, h₄ alike
        logits = U h₁ + V h₄ + b

    N makes each channel of an image have mean 0 and variance 1. From h₂ on, a pixel is
    four of the image, so that h₄ sees a digit whole. The label of a pixel is 0 on the
    background and 1 + the digit on its ink. Its point has two functions: `activation`,
    f, and `loss`, (logits, labels) -> the number to make small. It reports `loss` and
    `mean_iou`, the mean over classes of intersection over union. Images for training
    and for validation share no digit.

    Args:
        channels: Of h₁; h₂ has four times as many, h₃ and h₄ six times.

    Reference:
        Alpaydin and Kaynak, Optical recognition of handwritten digits, UCI Machine
        Learning Repository, 1998, https://doi.org/10.24432/C50P49

    Example:
        >>> x, y = digits_segmentation().train
        >>> x.shape, y.shape
        ((384, 18, 18, 1), (384, 18, 18))
    """
    images, digits = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(digits))
    ink, digits = images[order].reshape(-1, DIGIT, DIGIT) / 16, digits[order]
    split = len(digits) * 4 // 5
    train = _scattered(rng, ink[:split], digits[:split], TRAIN)
    valid = _scattered(rng, ink[split:], digits[split:], VALID)
    widths = [1, channels, 4 * channels, 6 * channels, 6 * channels]
    strides = [1, 2, 1, 1]

    def init(key: Array, point: Point) -> dict[str, Array]:
        sizes = {
            f"w{i}": (outputs, 9 * inputs)
            for i, (inputs, outputs) in enumerate(itertools.pairwise(widths), 1)
        }
        sizes |= {"u": (CLASSES, widths[1]), "v": (CLASSES, widths[-1])}
        keys = jax.random.split(key, len(sizes))
        params = {
            name: he(own, inputs, outputs)
            for own, (name, (outputs, inputs)) in zip(keys, sizes.items())
        }
        return params | {"b": jnp.zeros((CLASSES, 1, 1, 1), jnp.float32)}

    def logits(params: dict[str, Array], x: Array, point: Point) -> Array:
        h = [jnp.moveaxis(x, -1, 0)]  # channels first: rows of pixels are long
        for i, stride in enumerate(strides, 1):
            z = _convolved(params[f"w{i}"], h[-1], stride)
            h.append(point["activation"](jax.nn.standardize(z, axis=(-2, -1))))
        near = jnp.tensordot(params["u"], h[1], 1)
        wide = jnp.tensordot(params["v"], h[-1], 1)
        z = near + wide.repeat(2, -1).repeat(2, -2) + params["b"]
        return jnp.moveaxis(z, 0, -1)

    def loss(params: dict[str, Array], batch: tuple, point: Point) -> Array:
        def of(params: dict[str, Array], x: Array, y: Array) -> Array:
            return point["loss"](logits(params, x, point), y)

        return _in_turn(of)(params, *batch)

    def metrics(
        params: dict[str, Array], data: tuple, point: Point
    ) -> dict[str, Array]:
        def of(params: dict[str, Array], x: Array, y: Array) -> dict[str, Array]:
            rows = x.reshape(-1, 8, *x.shape[1:])  # few images' patches are held
            scores = jax.lax.map(lambda x: logits(params, x, point), rows)
            scores = scores.reshape(*y.shape, CLASSES)
            ours = jax.nn.one_hot(jnp.argmax(scores, -1), CLASSES, dtype=bool)
            true = jax.nn.one_hot(y, CLASSES, dtype=bool)
            both = jnp.sum(ours & true, IMAGE, dtype=jnp.float32)
            union = jnp.sum(ours | true, IMAGE, dtype=jnp.float32)
            return {
                "loss": point["loss"](scores, y),
                "mean_iou": jnp.mean(both / union),
            }

        return sequential_vmap(of)(params, *data)

    def outputs(params: dict[str, Array], point: Point) -> dict[str, Array]:
        guesses = jnp.argmax(logits(params, valid[0][:SHOWN], point), -1)
        return {"labels": guesses.astype(jnp.uint8)}

    return Task(init, loss, metrics, train, valid, outputs)


def _in_turn(loss: Callable[..., Array]) -> Callable[..., Array]:
    """`loss` of one of many models after another, each in a core's cache."""

    @jax.custom_vjp
    def value(params: dict[str, Array], x: Array, y: Array) -> Array:
        return sequential_vmap(loss)(params, x, y)

    def backward(g: dict[str, Array], cotangent: Array) -> tuple:
        return jax.tree.map(lambda g: cotangent * g, g), None, None

    value.defvjp(sequential_vmap(jax.value_and_grad(loss)), backward)
    return value


def _convolved(w: Array, x: Array, stride: int) -> Array:
    """W ∗ x: each pixel beside its neighbours, so that it is one product."""
    height, width = x.shape[-2:]
    framed = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    near = [
        framed[..., i : i + height : stride, j : j + width : stride]
        for i in range(3)
        for j in range(3)
    ]
    patches = jnp.concatenate(near, 0)
    return (w @ patches.reshape(len(patches), -1)).reshape(-1, *patches.shape[1:])


def _scattered(
    rng: np.random.Generator, ink: np.ndarray, digits: np.ndarray, count: int
) -> tuple[Array, Array]:
    """Images with their labels: in each quarter a digit somewhere, or none."""
    x = rng.normal(0.2, 0.1, (count, SIDE, SIDE, 1))
    y = np.zeros((count, SIDE, SIDE), np.int32)
    for image in range(count):
        for quarter in np.ndindex(2, 2):
            top, left = CELL * np.array(quarter) + rng.integers(0, CELL - DIGIT + 1, 2)
            if rng.random() < 0.95:
                i = rng.integers(len(digits))
                at = image, slice(top, top + DIGIT), slice(left, left + DIGIT)
                x[at][..., 0] += ink[i]
                y[at][ink[i] > INK] = digits[i] + 1
    return jnp.asarray(x, jnp.float32), jnp.asarray(y)

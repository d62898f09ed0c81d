"""Semantic segmentation of handwritten digits scattered over noise."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from sklearn.datasets import load_digits

from jaxml.sweep import Point, Task
from jaxml.tasks._convolution import conv3x3
from jaxml.tasks._digits import MAX_PIXEL
from jaxml.tasks._network import Params, he_normal

DIGIT_SIZE, CELL_SIZE, IMAGE_SIZE = 8, 9, 18  # pixels; an image is 2 x 2 cells
NUM_CLASSES, NUM_TRAIN, NUM_VALID = 11, 384, 48
NUM_SHOWN = 6  # images whose predictions are in the record
EVAL_BATCH_SIZE = 8
INK_THRESHOLD = 0.3  # a pixel with more ink has the label of its digit
ALL_PIXELS = (0, 1, 2)  # of a batch [images height width]


def digits_segmentation(*, channels: int = 8) -> Task:
    """Segmentation of images with a digit in most quarters, by a small convnet.

        h₁ = f(N(W₁ ∗ x)),    hᵢ = f(N(Wᵢ ∗ hᵢ₋₁)), i = 2, 3, 4
        logits = U h₁ + V h₄ + b

    N standardizes each channel of an image. h₂ to h₄ have half the resolution, so
    that h₄ sees a whole digit. The label of a pixel is 0 for the background and 1 + the
    digit for its ink. The point of a model holds two functions: `activation`, f, and
    `loss`, (logits, labels) -> a scalar. The metrics are `loss` and `mean_iou`, the
    mean over classes of intersection over union. Training and validation images show
    different handwritten digits.

    Args:
        channels: Channels of h₁; h₂ has four times as many, h₃ and h₄ six times.

    Reference:
        Alpaydin and Kaynak, Optical recognition of handwritten digits, UCI Machine
        Learning Repository, 1998, https://doi.org/10.24432/C50P49

    Example:
        >>> x, y = digits_segmentation().train
        >>> x.shape, y.shape
        ((384, 18, 18, 1), (384, 18, 18))
    """
    images, digits = map(np.asarray, load_digits(return_X_y=True))
    rng = np.random.default_rng(0)
    order = rng.permutation(len(digits))
    ink = images[order].reshape(-1, DIGIT_SIZE, DIGIT_SIZE) / MAX_PIXEL
    digits = digits[order]
    split = len(digits) * 4 // 5
    train = _make_scenes(rng, ink[:split], digits[:split], NUM_TRAIN)
    valid = _make_scenes(rng, ink[split:], digits[split:], NUM_VALID)
    widths = [1, channels, 4 * channels, 6 * channels, 6 * channels]
    strides = [1, 2, 1, 1]

    def init(key: Array, point: Point) -> Params:
        shapes = {
            f"w{i}": (outputs, 9 * inputs)
            for i, (inputs, outputs) in enumerate(itertools.pairwise(widths), 1)
        }
        shapes |= {"u": (NUM_CLASSES, widths[1]), "v": (NUM_CLASSES, widths[-1])}
        keys = jax.random.split(key, len(shapes))
        params = {
            name: he_normal(key, inputs, outputs)
            for key, (name, (outputs, inputs)) in zip(keys, shapes.items())
        }
        return params | {"b": jnp.zeros((NUM_CLASSES, 1, 1, 1), jnp.float32)}

    def predict(params: Params, x: Array, point: Point) -> Array:
        h = [jnp.moveaxis(x, -1, 0)]  # channels first keeps the last axis long
        for i, stride in enumerate(strides, 1):
            z = conv3x3(params[f"w{i}"], h[-1], stride)
            h.append(point["activation"](jax.nn.standardize(z, axis=(-2, -1))))
        fine = jnp.tensordot(params["u"], h[1], 1)
        coarse = jnp.tensordot(params["v"], h[-1], 1)
        logits = fine + coarse.repeat(2, -1).repeat(2, -2) + params["b"]
        return jnp.moveaxis(logits, 0, -1)

    def loss(params: Params, batch: tuple, point: Point) -> Array:
        x, y = batch
        return point["loss"](predict(params, x, point), y)

    def metrics(params: Params, data: tuple, point: Point) -> dict[str, Array]:
        # A few images at a time: patches take nine times the memory of their input.
        x, y = data
        batches = x.reshape(-1, EVAL_BATCH_SIZE, *x.shape[1:])
        logits = jax.lax.map(lambda x: predict(params, x, point), batches)
        logits = logits.reshape(*y.shape, NUM_CLASSES)
        return {
            "loss": point["loss"](logits, y),
            "mean_iou": _mean_iou(jnp.argmax(logits, -1), y),
        }

    def outputs(params: Params, point: Point) -> dict[str, Array]:
        logits = predict(params, valid[0][:NUM_SHOWN], point)
        return {"labels": jnp.argmax(logits, -1).astype(jnp.uint8)}

    return Task(init, loss, metrics, train, valid, outputs, sequential=True)


def _mean_iou(predictions: Array, labels: Array) -> Array:
    """Mean over classes of intersection over union, on the pixels of all images."""
    predicted = jax.nn.one_hot(predictions, NUM_CLASSES, dtype=bool)
    true = jax.nn.one_hot(labels, NUM_CLASSES, dtype=bool)
    intersection = jnp.sum(predicted & true, ALL_PIXELS, dtype=jnp.float32)
    union = jnp.sum(predicted | true, ALL_PIXELS, dtype=jnp.float32)
    return jnp.mean(intersection / union)


def _make_scenes(
    rng: np.random.Generator, ink: np.ndarray, digits: np.ndarray, num_images: int
) -> tuple[Array, Array]:
    """Images and their labels; each cell holds a digit with probability 0.95."""
    x = rng.normal(0.2, 0.1, (num_images, IMAGE_SIZE, IMAGE_SIZE, 1))
    y = np.zeros((num_images, IMAGE_SIZE, IMAGE_SIZE), np.int32)
    for image in range(num_images):
        for cell in np.ndindex(2, 2):
            offset = rng.integers(0, CELL_SIZE - DIGIT_SIZE + 1, 2)
            top, left = CELL_SIZE * np.array(cell) + offset
            if rng.random() < 0.95:
                i = rng.integers(len(digits))
                rows = slice(top, top + DIGIT_SIZE)
                columns = slice(left, left + DIGIT_SIZE)
                x[image, rows, columns, 0] += ink[i]
                y[image, rows, columns][ink[i] > INK_THRESHOLD] = digits[i] + 1
    return jnp.asarray(x, jnp.float32), jnp.asarray(y)

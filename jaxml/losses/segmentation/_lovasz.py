"""Segmentation by the Lovász extension of the Jaccard loss J, made for its own index.

Pixels are taken from the largest error e to the smallest, and each one weighs as much
as it adds to J when all pixels up to it are wrong:

    loss = Σᵢ eᵢ Δᵢ,    Δᵢ = J(1 ... i) - J(1 ... i-1)

The weights are constant in the errors, so they are the derivative. Of pixels with equal
errors any may come first: the loss is the same, and its derivative a subgradient.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float, Integer

from jaxml._core.masking import apply_mask
from jaxml._core.public import public
from jaxml._core.safe import multiply_no_nan
from jaxml._core.types import PyTree
from jaxml.losses._labels import label_index
from jaxml.losses.segmentation._pixels import check_pixel_axes

BLOCK = 2**14  # ranks of which a core holds the counts in its cache


@public
def lovasz_hinge_loss(
    logits: Float[Array, "*pixels"],
    targets: Float[Array, "*pixels"],
    *,
    axis: int | tuple[int, ...] = (-2, -1),
    where: Bool[Array, "*pixels"] | None = None,
) -> Float[Array, "*batch"]:
    """The Jaccard loss of one region, convex in its logits.

        loss = Σᵢ max(0, eᵢ) Δᵢ    with eᵢ = 1 - z for a pixel of the region, 1 + z else

    One value per image. At margins of 1 it is the Jaccard loss of the region z > 0.

    Args:
        logits: z, of which a positive one puts the pixel into the region.
        targets: 1 in the region, 0 elsewhere.
        axis: The pixel axes.
        where: The pixels that count.

    Reference:
        Berman, Triki and Blaschko, The Lovász-Softmax loss, CVPR 2018,
        https://arxiv.org/abs/1705.08790

    Example:
        >>> z, t = jnp.array([[3.0, -1.0, -2.0]]), jnp.array([[1.0, 1.0, 0.0]])
        >>> lovasz_hinge_loss(z, t)
        Array(1., dtype=float32)
    """
    check_pixel_axes(axis, logits, last=True)
    images = _Images(logits.shape, axis)
    inside = targets > 0.5
    errors = 1 - jnp.where(inside, logits, -logits)
    moved = images.last((errors, inside, where))
    each = jax.tree.map(lambda x: x.reshape(-1, *images.pixels), moved)
    steps = lax.map(lambda image: _steps(*image), each)
    steps = images.back(steps.reshape(*images.batch, *images.pixels))
    wrong = apply_mask(jnp.where(errors <= 0, 0.0, errors), where)
    return jnp.sum(multiply_no_nan(steps, wrong), images.axes)


@public
def lovasz_softmax_loss(
    probabilities: Float[Array, "*pixels classes"],
    labels: Integer[Array, "*pixels"],
    *,
    axis: int | tuple[int, ...] = (-2, -1),
    where: Bool[Array, "*pixels"] | None = None,
) -> Float[Array, "*batch classes"]:
    """The Jaccard loss of every class, convex in its probabilities.

        loss = Σᵢ eᵢ Δᵢ    with eᵢ = 1 - p for a pixel of the class, p elsewhere

    One value per image and class. A class that is absent costs its largest error; the
    usual mean leaves it out: `mean(loss, where=present(labels, classes))`.

    Args:
        probabilities: p in [0, 1].
        labels: The true classes; one that is no class gives NaN for its image.
        axis: The pixel axes of the labels.
        where: The pixels that count.

    Reference:
        Berman, Triki and Blaschko, The Lovász-Softmax loss, CVPR 2018,
        https://arxiv.org/abs/1705.08790

    Example:
        >>> p = jax.nn.one_hot(jnp.array([[0, 0, 1, 1]]), 3)
        >>> lovasz_softmax_loss(p, jnp.array([[0, 1, 1, 1]]))
        Array([0.5       , 0.33333334, 0.        ], dtype=float32)
    """
    check_pixel_axes(axis, labels, last=True)
    classes = probabilities.shape[-1]
    images = _Images(labels.shape, axis)
    loss = _by_class(images, probabilities, labels, where)
    unknown = apply_mask(label_index(labels, classes) < 0, where, False)
    return apply_mask(loss, ~jnp.any(unknown, images.axes)[..., None], jnp.nan)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _by_class(images: "_Images", p: Array, labels: Array, where: Array | None) -> Array:
    return _with_slopes(images, p, labels, where)[0]


@_by_class.defjvp
def _(images: "_Images", primals: tuple, tangents: tuple) -> tuple:
    loss, slopes = _with_slopes(images, *primals)
    return loss, jnp.sum(slopes * tangents[0], images.axes)


def _with_slopes(
    images: "_Images", p: Array, labels: Array, where: Array | None
) -> tuple[Array, Array]:
    """The losses, and their derivatives for p: one image and class after another."""
    p, labels, where = images.last((p, labels, where))
    classes = p.shape[-1]

    def enter(slopes: Array, i: Array) -> tuple[Array, Array]:
        *image, one = jnp.unravel_index(i, (*images.batch, classes))
        start = (*image, *(jnp.zeros_like(i) for _ in images.pixels))

        def here(x: Array, *own: Array) -> Array:
            sizes = (*(1 for _ in image), *images.pixels, *(1 for _ in own))
            return lax.dynamic_slice(x, (*start, *own), sizes)

        q, inside = here(p, one), here(labels)[..., None] == one.astype(labels.dtype)
        kept = None if where is None else here(where)[..., None]
        errors = apply_mask(jnp.where(inside, 1 - q, q), kept)
        steps = _steps(errors, inside, kept)
        slope = apply_mask(jnp.where(inside, -steps, steps), kept)
        slopes = lax.dynamic_update_slice(slopes, slope, (*start, one))
        return slopes, jnp.sum(steps * errors)

    pairs = jnp.arange(math.prod(images.batch) * classes, dtype=jnp.int32)
    slopes, loss = lax.scan(enter, jnp.zeros_like(p), pairs)
    return loss.reshape(*images.batch, classes), images.back(slopes)


class _Images:
    """The axes of arrays that begin with those of a shape, some of which are pixels."""

    def __init__(self, shape: tuple[int, ...], axis: int | tuple[int, ...]) -> None:
        axes = (axis,) if isinstance(axis, int) else axis
        self.axes = tuple(a % len(shape) for a in axes)
        self.ends = tuple(range(len(shape) - len(axes), len(shape)))
        self.batch = tuple(n for a, n in enumerate(shape) if a not in self.axes)
        self.pixels = tuple(shape[a] for a in self.axes)

    def last(self, arrays: PyTree) -> PyTree:
        """[*batch *pixels ...]"""
        return jax.tree.map(lambda x: jnp.moveaxis(x, self.axes, self.ends), arrays)

    def back(self, x: Array) -> Array:
        return jnp.moveaxis(x, self.ends, self.axes)


def _steps(errors: Array, inside: Array, kept: Array | None) -> Array:
    """Δ of each pixel, from the errors, what is inside the region, and what is kept.

    With P pixels inside, of which B come before, and N others before, the step is
    1/(P + N) inside and (P - B)/((P + N)(P + N + 1)) elsewhere: what the difference of
    two Jaccard losses is, without its cancellation.
    """
    shape, kept = errors.shape, None if kept is None else kept.reshape(-1)
    errors = apply_mask(lax.stop_gradient(errors).reshape(-1), kept, -jnp.inf)
    inside = apply_mask(inside.reshape(-1), kept, False)
    region = jnp.sum(inside, dtype=jnp.int32)  # P
    (size,) = errors.shape
    block = min(size, BLOCK)
    beyond = -size % block  # ranks of no pixel fill the last block
    index = jnp.arange(size + beyond, dtype=jnp.uint32)
    payload = index << 1 | jnp.pad(inside, (0, beyond)).astype(jnp.uint32)
    errors = jnp.pad(errors, (0, beyond), constant_values=-jnp.inf)
    order = _descending(errors, payload)

    def enter(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        """The steps of a block of ranks, to where their pixels are."""
        steps, before = carry
        packed = lax.dynamic_slice_in_dim(order, i * block, block)
        ranks = i * block + jnp.arange(block, dtype=jnp.int32)
        mine = (packed & 1).astype(jnp.int32)
        upto = before + jnp.cumsum(mine)
        left = (region - (upto - mine)).astype(errors.dtype)  # P - B
        union = (region + ranks - (upto - mine)).astype(errors.dtype)  # P + N
        step = jnp.where(mine == 1, 1.0, left / (union + 1)) / jnp.maximum(union, 1.0)
        first = (ranks == 0).astype(errors.dtype)  # where there is no region
        step = jnp.where(region == 0, first, step)
        steps = steps.at[packed >> 1].set(step, unique_indices=True, mode="drop")
        return steps, upto[-1]

    start = jnp.zeros(size, errors.dtype), jnp.zeros((), jnp.int32)
    first, last = jnp.int32(0), jnp.int32((size + beyond) // block)
    return lax.fori_loop(first, last, enter, start)[0].reshape(shape)


def _descending(errors: Array, payload: Array) -> Array:
    """The payload, that of the largest error first."""
    if errors.dtype == jnp.float64:
        return lax.sort((-errors, payload), num_keys=1)[1]
    bits = lax.bitcast_convert_type(errors, jnp.int32)
    key = jnp.where(bits < 0, bits & 0x7FFFFFFF, ~bits)  # rises as the error falls
    return lax.platform_dependent(key, payload, cpu=_packed, default=_paired)


def _packed(key: Array, payload: Array) -> Array:
    """Sorted as one integer: XLA's processors are five times faster at that."""
    with jax.enable_x64(True):
        wide = key.astype(jnp.int64) << jnp.int64(32) | payload.astype(jnp.int64)
        return lax.sort(wide).astype(jnp.uint32)


def _paired(key: Array, payload: Array) -> Array:
    """Sorted as 32 bits beside 32: GPUs have a radix sort for that, not for 64."""
    return lax.sort((key, payload), num_keys=1)[1]

"""Segmentation by the Lovász extension of the Jaccard loss: a convex surrogate of IoU.

The pixels are sorted by their errors e, the largest first. The weight of a pixel is the
increment of the Jaccard loss J when that pixel becomes wrong after all before it:

    loss = Σᵢ eᵢ Δᵢ,    Δᵢ = J(1 ... i) - J(1 ... i-1)

The weights are piecewise constant in the errors, so they are the gradient. Pixels with
equal errors may come in any order: the loss is the same, and the gradient is one of its
subgradients. `axis` names the pixel axes, which are the event.
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
from jaxml._core.sorting import sort_key
from jaxml._core.types import Axes, PyTree
from jaxml.losses._labels import label_index
from jaxml.losses.segmentation._confusion import pixel_axes

RANK_BLOCK = 2**14
"""Ranks per step. Their counts fit into the cache of one core."""


@public
def lovasz_hinge_loss(
    logits: Float[Array, "*pixels"],
    targets: Float[Array, "*pixels"],
    *,
    axis: Axes = (-2, -1),
    where: Bool[Array, "*pixels"] | None = None,
) -> Float[Array, "*batch"]:
    """A convex surrogate of the Jaccard loss of one region, from logits.

        loss = Σᵢ max(0, eᵢ) Δᵢ    with eᵢ = 1 - z inside the region, 1 + z outside

    One value per image. For logits of ±1 it is twice the Jaccard loss of the region
    z > 0.

    Args:
        logits: z; a pixel with z > 0 is predicted to lie in the region.
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
    axes = _PixelAxes(logits, axis)
    inside = targets > 0.5
    errors = 1 - jnp.where(inside, logits, -logits)
    images = jax.tree.map(
        lambda x: x.reshape(-1, *axes.pixel_shape),
        axes.move_last((errors, inside, where)),
    )
    increments = lax.map(lambda image: _jaccard_increments(*image), images)
    increments = axes.move_back(
        increments.reshape(*axes.batch_shape, *axes.pixel_shape)
    )
    hinge = apply_mask(jnp.where(errors <= 0, 0.0, errors), where)
    return jnp.sum(multiply_no_nan(increments, hinge), axes.pixel_axes)


@public
def lovasz_softmax_loss(
    probabilities: Float[Array, "*pixels classes"],
    labels: Integer[Array, "*pixels"],
    *,
    axis: Axes = (-2, -1),
    where: Bool[Array, "*pixels"] | None = None,
) -> Float[Array, "*batch classes"]:
    """A convex surrogate of the Jaccard loss of each class, from probabilities.

        loss = Σᵢ eᵢ Δᵢ    with eᵢ = 1 - p for a pixel of the class, p elsewhere

    One value per image and class. The loss of an absent class is its largest error. The
    usual mean leaves it out: `mean(loss, where=present(labels, num_classes))`.

    Args:
        probabilities: p in [0, 1].
        labels: The true classes. A label out of range makes the losses of its image
            NaN.
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
    axes = _PixelAxes(labels, axis)
    loss = _lovasz_softmax(axes, probabilities, labels, where)
    is_invalid = label_index(labels, probabilities.shape[-1]) < 0
    any_invalid = jnp.any(apply_mask(is_invalid, where, False), axes.pixel_axes)
    return apply_mask(loss, ~any_invalid[..., None], jnp.nan)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _lovasz_softmax(
    axes: "_PixelAxes", p: Array, labels: Array, where: Array | None
) -> Array:
    return _loss_and_gradient(axes, p, labels, where)[0]


@_lovasz_softmax.defjvp
def _lovasz_softmax_jvp(axes: "_PixelAxes", primals: tuple, tangents: tuple) -> tuple:
    p_dot, *_ = tangents
    loss, gradient = _loss_and_gradient(axes, *primals)
    return loss, jnp.sum(gradient * p_dot, axes.pixel_axes)


def _loss_and_gradient(
    axes: "_PixelAxes", p: Array, labels: Array, where: Array | None
) -> tuple[Array, Array]:
    """The losses and their gradients for p, one image and class at a time."""
    p, labels, where = axes.move_last((p, labels, where))
    num_classes = p.shape[-1]

    def body(gradients: Array, i: Array) -> tuple[Array, Array]:
        *image, c = jnp.unravel_index(i, (*axes.batch_shape, num_classes))
        start = (*image, *(jnp.zeros_like(i) for _ in axes.pixel_shape))
        sizes = (*(1 for _ in image), *axes.pixel_shape)

        def slice_image(x: Array) -> Array:
            return lax.dynamic_slice(x, start, sizes)[..., None]

        p_c = lax.dynamic_slice(p, (*start, c), (*sizes, 1))
        inside = slice_image(labels) == c.astype(labels.dtype)
        mask = None if where is None else slice_image(where)
        errors = apply_mask(jnp.where(inside, 1 - p_c, p_c), mask)
        increments = _jaccard_increments(errors, inside, mask)
        gradient = apply_mask(jnp.where(inside, -increments, increments), mask)
        gradients = lax.dynamic_update_slice(gradients, gradient, (*start, c))
        return gradients, jnp.sum(increments * errors)

    indices = jnp.arange(math.prod(axes.batch_shape) * num_classes, dtype=jnp.int32)
    gradients, loss = lax.scan(body, jnp.zeros_like(p), indices)
    return loss.reshape(*axes.batch_shape, num_classes), axes.move_back(gradients)


class _PixelAxes:
    """The pixel axes and the batch axes of an array, and of arrays with more axes."""

    def __init__(self, x: Array, axis: Axes) -> None:
        self.pixel_axes = pixel_axes(axis, x, allow_last=True)
        self.last_axes = tuple(range(x.ndim - len(self.pixel_axes), x.ndim))
        self.pixel_shape = tuple(x.shape[a] for a in self.pixel_axes)
        self.batch_shape = tuple(
            size for a, size in enumerate(x.shape) if a not in self.pixel_axes
        )

    def move_last(self, arrays: PyTree) -> PyTree:
        """The arrays as [*batch *pixels ...]."""
        return jax.tree.map(
            lambda x: jnp.moveaxis(x, self.pixel_axes, self.last_axes), arrays
        )

    def move_back(self, x: Array) -> Array:
        """The inverse of `move_last`."""
        return jnp.moveaxis(x, self.last_axes, self.pixel_axes)


def _jaccard_increments(errors: Array, inside: Array, mask: Array | None) -> Array:
    """Δ of each pixel of one image, from its error and whether it is in the region.

    With P pixels in the region, B of them before this pixel, and N pixels outside the
    region before it, Δ is 1/(P + N) inside and (P - B)/((P + N)(P + N + 1)) outside:
    the difference of two Jaccard losses, without cancellation.
    """
    shape, mask = errors.shape, None if mask is None else mask.reshape(-1)
    errors = apply_mask(lax.stop_gradient(errors).reshape(-1), mask, -jnp.inf)
    inside = apply_mask(inside.reshape(-1), mask, False)
    region_size = jnp.sum(inside, dtype=jnp.int32)  # P
    (num_pixels,) = errors.shape
    block = min(num_pixels, RANK_BLOCK)
    pad = -num_pixels % block  # fills the last block with indices of no pixel
    index = jnp.arange(num_pixels + pad, dtype=jnp.uint32)
    packed = index << 1 | jnp.pad(inside, (0, pad)).astype(jnp.uint32)
    errors = jnp.pad(errors, (0, pad), constant_values=-jnp.inf)
    ranked = _sort_descending(errors, packed)

    def body(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        """Scatters the increments of one block of ranks to their pixels."""
        increments, num_before = carry
        pixels = lax.dynamic_slice_in_dim(ranked, i * block, block)
        ranks = i * block + jnp.arange(block, dtype=jnp.int32)
        is_inside = (pixels & 1).astype(jnp.int32)
        num_through = num_before + jnp.cumsum(is_inside)
        num_inside = num_through - is_inside  # B
        remaining = (region_size - num_inside).astype(errors.dtype)  # P - B
        union = (region_size + ranks - num_inside).astype(errors.dtype)  # P + N
        increment = jnp.where(is_inside == 1, 1.0, remaining / (union + 1))
        increment = increment / jnp.maximum(union, 1.0)
        is_first = (ranks == 0).astype(errors.dtype)  # Δ of an empty region
        increment = jnp.where(region_size == 0, is_first, increment)
        increments = increments.at[pixels >> 1].set(
            increment, unique_indices=True, mode="drop"
        )
        return increments, num_through[-1]

    init = jnp.zeros(num_pixels, errors.dtype), jnp.zeros((), jnp.int32)
    first, last = jnp.int32(0), jnp.int32((num_pixels + pad) // block)
    return lax.fori_loop(first, last, body, init)[0].reshape(shape)


def _sort_descending(errors: Array, payload: Array) -> Array:
    """The payload in descending order of the errors."""
    if errors.dtype == jnp.float64:
        return lax.sort((-errors, payload), num_keys=1)[1]
    return lax.platform_dependent(
        ~sort_key(errors), payload, cpu=_sort_packed_int64, default=_sort_by_key
    )


def _sort_packed_int64(key: Array, payload: Array) -> Array:
    """Packs key and payload into one integer, which XLA:CPU sorts five times faster."""
    with jax.enable_x64(True):
        packed = key.astype(jnp.int64) << jnp.int64(32) | payload.astype(jnp.int64)
        return lax.sort(packed).astype(jnp.uint32)


def _sort_by_key(key: Array, payload: Array) -> Array:
    """Sorts 32-bit pairs: GPUs have a radix sort for these, but not for 64 bits."""
    return lax.sort((key, payload), num_keys=1)[1]

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
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float, Integer

from jaxml._core.blocks import scan_blocks
from jaxml._core.collectives import gather_rows, mean_shards
from jaxml._core.masking import apply_mask
from jaxml._core.public import public
from jaxml._core.safe import multiply_no_nan
from jaxml._core.sorting import sort_key
from jaxml._core.types import Axes, AxisName, PyTree, compute_dtype
from jaxml.losses._labels import label_index
from jaxml.losses.segmentation._confusion import pixel_axes

RANK_BLOCK = 2**14
"""Ranks per step on a CPU. Their counts fit into the cache of one core."""

SMALL_BATCH = 2**24
"""Probabilities of all images and classes that an accelerator sorts at once."""


@public
def lovasz_hinge_loss(
    logits: Float[Array, "*pixels"],
    targets: Float[Array, "*pixels"],
    *,
    axis: Axes = (-2, -1),
    where: Bool[Array, "*pixels"] | None = None,
    axis_name: AxisName | None = None,
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
        axis_name: The mesh axes over which the pixels, or the images of one batch, are
            sharded in `jax.shard_map`: each device sorts the pixels of all of them.

    Reference:
        Berman, Triki and Blaschko, The Lovász-Softmax loss, CVPR 2018,
        https://arxiv.org/abs/1705.08790

    Example:
        >>> z, t = jnp.array([[3.0, -1.0, -2.0]]), jnp.array([[1.0, 1.0, 0.0]])
        >>> lovasz_hinge_loss(z, t)
        Array(1., dtype=float32)
    """
    logits, targets, where = _gather_pixels((logits, targets, where), axis, axis_name)
    axes = _PixelAxes(logits, axis)
    inside = targets > 0.5
    errors = 1 - jnp.where(inside, logits, -logits)
    num_images = math.prod(axes.batch_shape)
    images = jax.tree.map(
        lambda x: x.reshape(num_images, *axes.pixel_shape),
        axes.move_last((lax.stop_gradient(errors), inside, where)),
    )
    increments = lax.map(lambda image: _jaccard_increments(*image), images)
    increments = axes.move_back(
        increments.reshape(*axes.batch_shape, *axes.pixel_shape)
    )
    hinge = apply_mask(jnp.where(errors <= 0, 0.0, errors), where)
    loss = jnp.sum(multiply_no_nan(increments, hinge), axes.pixel_axes)
    return mean_shards(loss, axis_name)


@public(upcast=False)
def lovasz_softmax_loss(
    probabilities: Float[Array, "*pixels classes"],
    labels: Integer[Array, "*pixels"],
    *,
    axis: Axes = (-2, -1),
    where: Bool[Array, "*pixels"] | None = None,
    axis_name: AxisName | None = None,
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
        axis_name: The mesh axes over which the pixels, or the images of one batch, are
            sharded in `jax.shard_map`: each device sorts the pixels of all of them.

    Reference:
        Berman, Triki and Blaschko, The Lovász-Softmax loss, CVPR 2018,
        https://arxiv.org/abs/1705.08790

    Example:
        >>> p = jax.nn.one_hot(jnp.array([[0, 0, 1, 1]]), 3)
        >>> lovasz_softmax_loss(p, jnp.array([[0, 1, 1, 1]]))
        Array([0.5       , 0.33333334, 0.        ], dtype=float32)
    """
    labels, probabilities, where = _gather_pixels(
        (labels, probabilities, where), axis, axis_name
    )
    axes = _PixelAxes(labels, axis)
    loss = _lovasz_softmax(axes, probabilities, labels, where)
    is_invalid = label_index(labels, probabilities.shape[-1]) < 0
    any_invalid = jnp.any(apply_mask(is_invalid, where, False), axes.pixel_axes)
    loss = apply_mask(loss, ~any_invalid[..., None], jnp.nan)
    return mean_shards(loss, axis_name)


def _gather_pixels(arrays: PyTree, axis: Axes, axis_name: AxisName | None) -> PyTree:
    """The pixels of all devices, along the first pixel axis: their order is free."""
    if axis_name is None:
        return arrays
    first, *_ = pixel_axes(axis, jax.tree.leaves(arrays)[0], allow_last=True)

    def gather(x: Array) -> Array:
        rows = gather_rows(jnp.moveaxis(x, first, 0), axis_name)
        return jnp.moveaxis(rows, 0, first)

    return jax.tree.map(gather, arrays)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _lovasz_softmax(
    axes: "_PixelAxes", p: Array, labels: Array, where: Array | None
) -> Array:
    return _loss_and_gradient(axes, p, labels, where)[0]


@_lovasz_softmax.defjvp
def _lovasz_softmax_jvp(axes: "_PixelAxes", primals: tuple, tangents: tuple) -> tuple:
    p_dot, *_ = tangents
    loss, gradient = _loss_and_gradient(axes, *primals)
    return loss, jnp.sum(gradient * p_dot.astype(gradient.dtype), axes.pixel_axes)


def _loss_and_gradient(
    axes: "_PixelAxes", p: Array, labels: Array, where: Array | None
) -> tuple[Array, Array]:
    """The losses and their gradients for p."""
    p, labels, where = axes.move_last((p, labels, where))
    loss_shape, dtype = (*axes.batch_shape, p.shape[-1]), compute_dtype(p.dtype)
    if not p.size:
        return jnp.zeros(loss_shape, dtype), axes.move_back(jnp.zeros_like(p, dtype))
    one_by_one = functools.partial(_each_image_and_class, axes)
    if p.size > SMALL_BATCH:
        loss, gradients = one_by_one(p, labels, where)
    else:
        loss, gradients = lax.platform_dependent(
            p,
            labels,
            where,
            cpu=one_by_one,
            default=functools.partial(_all_images_and_classes, axes),
        )
    return loss, axes.move_back(gradients)


def _all_images_and_classes(
    axes: "_PixelAxes", p: Array, labels: Array, where: Array | None
) -> tuple[Array, Array]:
    """All at once: few launches."""
    function = jax.vmap(_of_class, (-1, None, 0, None), (0, -1))
    for _ in axes.batch_shape:
        function = jax.vmap(function, (0, 0, None, 0))
    classes = jnp.arange(p.shape[-1]).astype(labels.dtype)
    return function(p.astype(compute_dtype(p.dtype)), labels, classes, where)


def _each_image_and_class(
    axes: "_PixelAxes", p: Array, labels: Array, where: Array | None
) -> tuple[Array, Array]:
    """One image and class at a time: little memory."""
    loss_shape, dtype = (*axes.batch_shape, p.shape[-1]), compute_dtype(p.dtype)

    def body(gradients: Array, i: Array) -> tuple[Array, Array]:
        *image, c = jnp.unravel_index(i, loss_shape)
        start = (*image, *(jnp.zeros_like(i) for _ in axes.pixel_shape))
        sizes = (*(1 for _ in image), *axes.pixel_shape)

        def slice_image(x: Array) -> Array:
            return lax.dynamic_slice(x, start, sizes)[..., None]

        p_c = lax.dynamic_slice(p, (*start, c), (*sizes, 1)).astype(dtype)
        mask = None if where is None else slice_image(where)
        loss, gradient = _of_class(
            p_c, slice_image(labels), c.astype(labels.dtype), mask
        )
        gradients = lax.dynamic_update_slice(gradients, gradient, (*start, c))
        return gradients, loss

    indices = jnp.arange(math.prod(loss_shape), dtype=jnp.int32)
    gradients, loss = lax.scan(body, jnp.zeros_like(p, dtype), indices)
    return loss.reshape(loss_shape), gradients


def _of_class(
    p: Array, labels: Array, c: Array, mask: Array | None
) -> tuple[Array, Array]:
    """The loss of one image and class, and its gradient for the probabilities."""
    inside = labels == c
    errors = apply_mask(jnp.where(inside, 1 - p, p), mask)
    increments = _jaccard_increments(lax.stop_gradient(errors), inside, mask)
    gradient = apply_mask(jnp.where(inside, -increments, increments), mask)
    return jnp.sum(increments * errors), gradient


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
    """Δ of each pixel of one image, from its error and whether it is in the region."""
    if not errors.size:
        return errors
    shape, mask = errors.shape, None if mask is None else mask.reshape(-1)
    errors = apply_mask(errors.reshape(-1), mask, -jnp.inf)
    inside = apply_mask(inside.reshape(-1), mask, False)
    increments = lax.platform_dependent(
        errors,
        inside,
        cpu=_increments_in_blocks,
        tpu=_increments_by_sort,
        default=_increments_by_scatter,
    )
    return increments.reshape(shape)


def _increments_in_blocks(errors: Array, inside: Array) -> Array:
    """Counts and scatters one block of ranks at a time, in the cache of a core."""
    ranked = _rank_pixels(_sort_packed_int64, errors, inside)
    region_size = jnp.sum(inside, dtype=jnp.int32)

    def step(carry: tuple, ranked: Array) -> tuple[tuple, None]:
        increments, *before = carry
        counts = _count_pixels(ranked, *before)
        values = _increments_of_ranks(ranked, *counts, region_size, errors.dtype)
        increments = _scatter(increments, ranked >> 1, values)
        return (increments, *(count[-1] for count in counts)), None

    zero = jnp.zeros_like(region_size)
    init = jnp.zeros_like(errors), zero, zero
    return scan_blocks(step, init, ranked, 1, RANK_BLOCK)[0][0]


def _increments_by_scatter(errors: Array, inside: Array) -> Array:
    """Counts all ranks at once, and scatters the increments to the pixels."""
    pixels, increments = _ranked_increments(errors, inside)
    return _scatter(jnp.zeros_like(errors), pixels, increments)


def _increments_by_sort(errors: Array, inside: Array) -> Array:
    """Sorts the increments of all ranks by pixel: scatters are slow on a TPU."""
    pixels, increments = _ranked_increments(errors, inside)
    return _sort_by_key(pixels, increments)


def _ranked_increments(errors: Array, inside: Array) -> tuple[Array, Array]:
    """The pixels, and their increments, in descending order of the errors."""
    ranked = _rank_pixels(_sort_by_key, errors, inside)
    counts = *_count_pixels(ranked), jnp.sum(inside, dtype=jnp.int32)
    return ranked >> 1, _increments_of_ranks(ranked, *counts, errors.dtype)


def _scatter(x: Array, pixels: Array, values: Array) -> Array:
    """x with these values at these pixels, which are all different."""
    return x.at[pixels].set(values, unique_indices=True, mode="promise_in_bounds")


def _count_pixels(
    ranked: Array, inside_before: Array | int = 0, outside_before: Array | int = 0
) -> tuple[Array, Array]:
    """The numbers of pixels inside and outside the region, up to each rank."""
    inside = jnp.cumsum((ranked & 1).astype(jnp.int32))
    outside = jnp.arange(1, len(ranked) + 1, dtype=jnp.int32) - inside
    return inside_before + inside, outside_before + outside


def _increments_of_ranks(
    ranked: Array, inside: Array, outside: Array, region_size: Array, dtype: Any
) -> Array:
    """Δ of each rank.

    With P pixels in the region, I of them and O others up to this rank, Δ is 1/(P + O)
    inside and (P - I)/((P + O)(P + O - 1)) outside: the difference of two Jaccard
    losses, without cancellation.
    """
    remaining = (region_size - inside).astype(dtype)  # P - I
    union = (region_size + outside).astype(dtype)  # P + O
    ratio = remaining / jnp.maximum(union - 1, 1.0)
    increments = jnp.where(ranked & 1 == 1, 1.0, ratio) / union
    is_first = (outside == 1).astype(dtype)  # Δ of an empty region
    return jnp.where(region_size == 0, is_first, increments)


def _rank_pixels(sort: Callable, errors: Array, inside: Array) -> Array:
    """2i + 1 for pixel i in the region, 2i outside, with the largest error first."""
    index = jnp.arange(len(errors), dtype=jnp.uint32)
    packed = index << 1 | inside.astype(jnp.uint32)
    if errors.dtype == jnp.float64:
        return _sort_by_key(-errors, packed)
    return sort(~sort_key(errors), packed)


def _sort_packed_int64(key: Array, payload: Array) -> Array:
    """Packs 32-bit pairs into one integer, which XLA:CPU sorts five times faster."""
    with jax.enable_x64(True):
        packed = key.astype(jnp.int64) << jnp.int64(32) | payload.astype(jnp.int64)
        return lax.sort(packed).astype(jnp.uint32)


def _sort_by_key(key: Array, payload: Array) -> Array:
    """The payload in ascending order of the key: a radix sort on a GPU."""
    return lax.sort((key, payload), num_keys=1, is_stable=False)[1]

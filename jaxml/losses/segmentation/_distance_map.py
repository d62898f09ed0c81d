"""Exact distances to the contours of regions, for losses that weigh errors by them.

`axis` names the pixel axes, the classes are the last axis. The squared distance is
computed along one axis after the other: with S the squares so far, negative outside the
region, the next axis makes of each line

    Dᵢ = minⱼ max(0, sign(Sᵢ) Sⱼ) + w² (i - j)²

because a pixel j on the other side is itself what i looks for.
"""

import functools
from typing import Annotated

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float, Integer

from jaxml._core.contract import raise_invalid
from jaxml._core.public import public
from jaxml._core.types import Axes, PerElement, Range, compute_dtype
from jaxml.losses.segmentation._confusion import pixel_axes

CPU_OFFSETS, CPU_LINES = 16, 64
"""Offsets per pass, and lines searched together, which the caches of a CPU hold."""


@public(upcast=False)
def distance_map(
    targets: Bool[Array, "*pixels classes"]
    | Integer[Array, "*pixels classes"]
    | Float[Array, "*pixels classes"],
    *,
    spacing: Annotated[PerElement, Range("be positive", lambda x: x > 0)] = 1.0,
    axis: Axes = (-3, -2),
) -> Float[Array, "*pixels classes"]:
    """The signed Euclidean distance of each pixel to the other side of the contour.

        φ = -d(pixels outside)  inside the region,    d(pixels inside)  outside it

    d is the distance between centers of pixels, exact up to rounding, so that |φ| is at
    least one pixel. Without a contour, where a region is empty or everything, φ = 0. It
    carries no gradient. `boundary_loss` takes it as distances.

    On a CPU, the time grows with the largest distance; elsewhere with the side.

    Args:
        targets: The region of each class is where it is above 1/2.
        spacing: The distance of two pixels: one number, or one for each pixel axis.
        axis: The pixel axes.

    Reference:
        Felzenszwalb and Huttenlocher, Distance transforms of sampled functions, Theory
        of Computing 2012, https://doi.org/10.4086/toc.2012.v008a019

    Example:
        >>> distance_map(jnp.array([[[1], [1], [0], [0]]]))[0, :, 0]
        Array([-2., -1.,  1.,  2.], dtype=float32)
    """
    axes = pixel_axes(axis, targets)
    dtype = jnp.float32
    if jnp.issubdtype(targets.dtype, jnp.floating):
        dtype = compute_dtype(targets.dtype)
    region = targets if targets.dtype == bool else targets.astype(dtype) > 0.5
    widths = _widths(spacing, len(axes)).astype(dtype)
    if targets.size == 0:
        return jnp.zeros(targets.shape, dtype)

    signed = jnp.where(region, jnp.inf, -jnp.inf).astype(dtype)
    for i, a in enumerate(axes):
        lines = jnp.moveaxis(signed, a, 0)
        rows = lines.reshape(len(lines), -1)
        rows = (_first_axis if i == 0 else _axis)(rows, widths[i])
        signed = jnp.moveaxis(rows.reshape(lines.shape), 0, a)
        if i == 0:  # regions without a contour need no search
            is_all = jnp.all(region, axes, keepdims=True)
            has_contour = jnp.any(region, axes, keepdims=True) & ~is_all
            signed = jnp.where(has_contour, signed, 0.0)
    return -jnp.sign(signed) * jnp.sqrt(jnp.abs(signed))


def _widths(spacing: PerElement, num_axes: int) -> Array:
    spacing = lax.stop_gradient(jnp.asarray(spacing))
    if spacing.shape not in ((), (num_axes,)):
        requirement = f"be a number or have shape [{num_axes}], one for each pixel axis"
        raise_invalid(TypeError, "spacing", requirement, spacing)
    return jnp.broadcast_to(spacing, (num_axes,))


def _first_axis(signed: Array, width: Array) -> Array:
    """The axis along which all squares are still infinite: [n lines]."""
    return lax.platform_dependent(
        signed, width, cpu=_by_last_change, default=_by_all_pairs
    )


def _axis(signed: Array, width: Array) -> Array:
    return lax.platform_dependent(signed, width, cpu=_by_offset, default=_by_all_pairs)


def _by_all_pairs(signed: Array, width: Array) -> Array:
    """All pixels of a line at once: one kernel, where a search launches many."""
    sign, squares = _sign(signed), _squares(jnp.arange(len(signed)), width)
    offset = jnp.abs(jnp.arange(len(signed))[:, None] - jnp.arange(len(signed))[None])
    seen = jnp.maximum(sign[:, None] * signed[None], 0) + squares[offset][:, :, None]
    return sign * jnp.min(seen, 1)


def _by_last_change(signed: Array, width: Array) -> Array:
    """Two passes that remember where the line last crossed the contour."""
    n, sign = len(signed), _sign(signed)
    index = jnp.arange(n, dtype=signed.dtype)[:, None]
    changes = sign[1:] != sign[:-1]
    after = jnp.pad(changes, ((1, 0), (0, 0)))
    last = lax.cummax(jnp.where(after, index - 1, -jnp.inf))
    before = jnp.pad(changes, ((0, 1), (0, 0)))
    following = lax.cummin(jnp.where(before, index + 1, jnp.inf), reverse=True)
    return sign * jnp.square(width * jnp.minimum(index - last, following - index))


def _by_offset(signed: Array, width: Array) -> Array:
    n, num_lines = signed.shape
    padded = jnp.pad(signed, ((0, 0), (0, -num_lines % CPU_LINES)))
    blocks = padded.reshape(n, -1, CPU_LINES).swapaxes(0, 1)
    blocks = lax.map(functools.partial(_search_by_offset, width=width), blocks)
    return blocks.swapaxes(0, 1).reshape(n, -1)[:, :num_lines]


def _search_by_offset(signed: Array, width: Array) -> Array:
    """Near pixels first, until none can be nearer than the nearest so far."""
    n, sign = len(signed), _sign(signed)
    margin, length = n + CPU_OFFSETS, n + CPU_OFFSETS - 1
    # beyond the end, its own value is never nearer than it is
    padded = jnp.pad(signed, ((margin, margin), (0, 0)), mode="edge")
    least = jnp.where(sign > 0, _least(signed), _least(-signed))
    max_before, max_after = _offsets_of_known(signed)

    def may_improve(state: tuple[Array, Array]) -> Array:
        offset, squared = state
        gap = jnp.max(jnp.where(jnp.isinf(least), 0.0, squared - least))
        is_in_line = offset <= jnp.maximum(max_before, max_after)
        return is_in_line & (_squares(offset, width) < gap)

    def nearest(squared: Array, offset: Array, first: Array, step: int) -> Array:
        part = lax.dynamic_slice_in_dim(padded, first, length)
        for k in range(CPU_OFFSETS):
            start = k if step > 0 else CPU_OFFSETS - 1 - k
            seen = jnp.maximum(sign * lax.slice_in_dim(part, start, start + n), 0)
            squared = jnp.minimum(squared, seen + _squares(offset + k, width))
        return squared

    def search(state: tuple[Array, Array]) -> tuple[Array, Array]:
        offset, squared = state
        for step, limit, first in (
            (-1, max_before, margin - offset - CPU_OFFSETS + 1),
            (1, max_after, margin + offset),
        ):
            look = functools.partial(nearest, offset=offset, first=first, step=step)
            squared = lax.cond(offset <= limit, look, lambda x: x, squared)
        return offset + CPU_OFFSETS, squared

    init = jnp.ones((), jnp.int32), jnp.abs(signed)
    return sign * lax.while_loop(may_improve, search, init)[1]


def _least(signed: Array) -> Array:
    """The least square that a pixel inside sees in its line."""
    return jnp.min(jnp.maximum(signed, 0), 0, keepdims=True)


def _offsets_of_known(signed: Array) -> tuple[Array, Array]:
    """How far before, and after, a pixel these lines have something to see."""
    n, sign = len(signed), _sign(signed)
    index = jnp.arange(n, dtype=jnp.int32)
    crosses = jnp.min(sign, 0) < jnp.max(sign, 0)
    is_known = jnp.any(jnp.isfinite(signed) | crosses[None], 1)
    first = jnp.min(jnp.where(is_known, index, n))
    last = jnp.max(jnp.where(is_known, index, -1))
    return n - 1 - first, last


def _sign(signed: Array) -> Array:
    return jnp.where(signed < 0, -1.0, 1.0).astype(signed.dtype)


def _squares(offset: Array, width: Array) -> Array:
    return jnp.square(width * offset.astype(width.dtype))

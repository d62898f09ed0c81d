"""Two regions as soft counts of pixels: p is predicted, t is true, both in [0, 1]."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jaxml._core.checks import check_pixel_axes
from jaxml._core.numerics import keep


class Counts(NamedTuple):
    """Sums over the kept pixels, of which no term is negative: nothing cancels."""

    both: Array  # Σ pt
    false: Array  # Σ p(1 - t)
    missed: Array  # Σ t(1 - p)


def counts(
    function: str,
    p: Array,
    t: Array,
    axis: int | tuple[int, ...],
    where: Array | None,
) -> Counts:
    """What the regions share, what is only predicted, and what is only true."""
    check_pixel_axes(function, axis, p)
    kept = None if where is None else where[..., None]
    p, t = keep(p, kept), keep(t, kept)
    return Counts(*(jnp.sum(x, axis) for x in (p * t, p * (1 - t), t * (1 - p))))


def unmarked(
    p: Array, t: Array, axis: int | tuple[int, ...], where: Array | None
) -> Array:
    """Σ (1 - p)(1 - t): the kept pixels that are in neither region."""
    kept = None if where is None else where[..., None]
    return jnp.sum((1 - keep(p, kept, 1.0)) * (1 - keep(t, kept, 1.0)), axis)

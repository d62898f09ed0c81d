"""Two regions as soft counts of pixels: p is predicted, t is true, both in [0, 1]."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jaxml._core.contract import describe, raise_invalid
from jaxml._core.masking import apply_mask
from jaxml._core.types import Axes


class Counts(NamedTuple):
    """Sums over the kept pixels, of which no term is negative: nothing cancels."""

    both: Array  # Σ pt
    false: Array  # Σ p(1 - t)
    missed: Array  # Σ t(1 - p)


def counts(
    p: Array,
    t: Array,
    axis: int | tuple[int, ...],
    where: Array | None,
) -> Counts:
    """What the regions share, what is only predicted, and what is only true."""
    check_pixel_axes(axis, p)
    kept = None if where is None else where[..., None]
    p, t = apply_mask(p, kept), apply_mask(t, kept)
    return Counts(*(jnp.sum(x, axis) for x in (p * t, p * (1 - t), t * (1 - p))))


def unmarked(
    p: Array, t: Array, axis: int | tuple[int, ...], where: Array | None
) -> Array:
    """Σ (1 - p)(1 - t): the kept pixels that are in neither region."""
    kept = None if where is None else where[..., None]
    return jnp.sum(
        (1 - apply_mask(p, kept, 1.0)) * (1 - apply_mask(t, kept, 1.0)), axis
    )


def check_pixel_axes(axis: Axes, array: Array, *, last: bool = False) -> None:
    """Raises a ValueError unless `axis` names different axes; `last` may be one too."""
    axes = (axis,) if isinstance(axis, int) else axis
    allowed = range(-array.ndim, array.ndim)
    named = {a % array.ndim for a in axes if a in allowed}
    if not last:
        named -= {array.ndim - 1}
    if not axes or len(named) < len(axes):
        requirement = f"name different axes of {describe(array)}"
        requirement += "" if last else ", not the last"
        raise_invalid(ValueError, "axis", requirement, axis)

"""Masks: True counts. A masked entry may hold anything and has gradient 0."""

import jax.numpy as jnp
from jax import Array, lax

from jaxml._core.safe import safe_divide


def apply_mask(x: Array, mask: Array | None, fill: float = 0.0) -> Array:
    """`x` where the mask is True, `fill` elsewhere; no mask keeps everything."""
    if mask is None:
        return x
    if mask.shape == x.shape:  # traces faster than `jnp.where`, which is jitted
        return lax.select(mask, x, lax.full_like(x, fill))
    return jnp.where(mask, x, fill)


def expand_dims_like(mask: Array, x: Array) -> Array:
    """The mask with axes of length 1 at its end, as many as x has more."""
    return mask.reshape(*mask.shape, *(1 for _ in range(x.ndim - mask.ndim)))


def masked_mean(x: Array, mask: Array) -> Array:
    """The mean of the unmasked entries, 0 if there are none."""
    count = jnp.sum(mask, dtype=x.dtype)
    return safe_divide(jnp.sum(apply_mask(x, mask)), count)

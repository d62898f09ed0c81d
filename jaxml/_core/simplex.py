"""The simplex of distributions, and the point of it that is nearest to some scores."""

import jax
import jax.numpy as jnp
from jax import Array

from jaxml._core.numerics import below_max


@jax.custom_jvp
def nearest(x: Array) -> Array:
    """max(0, x - τ) along the last axis, with τ such that the sum is 1."""
    _, z = below_max(x, -1)
    sorted_z = -jnp.sort(-z, -1)
    count = jnp.cumsum(jnp.ones_like(x), -1)
    thresholds = (jnp.cumsum(sorted_z, -1) - 1) / count  # if so many were positive
    threshold = jnp.max(thresholds, -1, keepdims=True)
    return jnp.maximum(z - threshold, 0.0)


@nearest.defjvp
def _(primals: tuple, tangents: tuple) -> tuple:
    y, (dx,) = nearest(*primals), tangents
    support = (y > 0).astype(y.dtype)
    moved = support * dx
    mean = jnp.sum(moved, -1, keepdims=True) / jnp.sum(support, -1, keepdims=True)
    return y, moved - support * mean

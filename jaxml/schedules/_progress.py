"""Where a step stands between two others, and the curves drawn between two values."""

import jax.numpy as jnp
from jax import Array

from jaxml._core.safe import safe_divide
from jaxml._core.types import Scalar


def number(value: Scalar) -> Array:
    """In the default float dtype, in which all schedules are computed."""
    return jnp.asarray(value, float)


def passed(step: Array, start: Array, end: Array) -> Array:
    """The share of the way from `start` to `end` that is behind: 0 before, 1 after."""
    share = jnp.clip(safe_divide(step - start, end - start), 0.0, 1.0)
    return jnp.where(step >= end, 1.0, share)


def left(step: Array, start: Array, end: Array) -> Array:
    """The share of the way from `start` to `end` that is ahead: 1 before, 0 after."""
    share = jnp.clip(safe_divide(end - step, end - start), 0.0, 1.0)
    return jnp.where(step >= end, 0.0, share)


def between(low: Scalar, high: Scalar, share: Array) -> Array:
    """low + (high - low) · share, exact at both ends."""
    return number(low) * (1 - share) + number(high) * share


def half_cosine(share: Array) -> Array:
    """½ (1 - cos(π share)), with all digits near 0."""
    return jnp.square(jnp.sin(jnp.pi / 2 * share))


def power(share: Array, exponent: Scalar) -> Array:
    """share^exponent, with all derivatives 0 where nothing is left."""
    some = jnp.where(share > 0, share, 1.0)
    return jnp.where(share > 0, some ** number(exponent), 0.0)


def turns(step: Array, every: Array) -> Array:
    """How often `every` fits into `step`, exact at its multiples.

    XLA may divide by multiplying with the reciprocal: 49 · (1/49) is less than 1.
    """
    turn = jnp.floor(step / every)
    turn = jnp.where((turn + 1) * every <= step, turn + 1, turn)
    return jnp.where(turn * every > step, turn - 1, turn)

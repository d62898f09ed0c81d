"""The fraction of an interval that is done at a step, and curves between two values."""

import jax.numpy as jnp
from jax import Array

from jaxml._core.safe import safe_divide
from jaxml._core.types import Scalar


def as_float(value: Scalar) -> Array:
    """The value in the default float dtype, in which all schedules are computed."""
    return jnp.asarray(value, float)


def fraction_done(step: Scalar, start: Scalar, end: Scalar) -> Array:
    """(step - start) / (end - start), clipped to [0, 1]; 1 from `end` on."""
    step, start, end = as_float(step), as_float(start), as_float(end)
    fraction = jnp.clip(safe_divide(step - start, end - start), 0.0, 1.0)
    return jnp.where(step >= end, 1.0, fraction)


def fraction_left(step: Scalar, start: Scalar, end: Scalar) -> Array:
    """(end - step) / (end - start), clipped to [0, 1]; 0 from `end` on."""
    step, start, end = as_float(step), as_float(start), as_float(end)
    fraction = jnp.clip(safe_divide(end - step, end - start), 0.0, 1.0)
    return jnp.where(step >= end, 0.0, fraction)


def lerp(low: Scalar, high: Scalar, fraction: Array) -> Array:
    """low + (high - low) · fraction, exact at both ends."""
    return as_float(low) * (1 - fraction) + as_float(high) * fraction


def half_cosine(fraction: Array) -> Array:
    """½ (1 - cos(π fraction)), without cancellation near 0."""
    return jnp.square(jnp.sin(jnp.pi / 2 * fraction))


def floor_divide(x: Array, y: Array) -> Array:
    """⌊x / y⌋, exact where x is a multiple of y.

    XLA may divide by multiplying with the reciprocal: 49 · (1/49) is less than 1.
    """
    quotient = jnp.floor(x / y)
    quotient = jnp.where((quotient + 1) * y <= x, quotient + 1, quotient)
    return jnp.where(quotient * y > x, quotient - 1, quotient)

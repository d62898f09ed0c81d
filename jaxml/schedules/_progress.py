"""The fraction of an interval that is done at a step, and curves between two values.

Float32 has no number for every step beyond 2²⁴. A step or a count is therefore split
into two parts, and differences of counts are exact before they are rounded once.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxml._core.safe import safe_divide
from jaxml._core.types import Scalar

LOW_BITS = 2**12 - 1


class Steps(NamedTuple):
    """A number of steps, high + low, in the default float dtype."""

    high: Array
    low: Array


def as_float(value: Scalar) -> Array:
    """The value in the default float dtype, in which all schedules are computed."""
    return jnp.asarray(value, float)


def split(count: Scalar | Steps) -> Steps:
    """The number as two floats, which are exact for integers up to 2³¹."""
    if isinstance(count, Steps):
        return count
    if isinstance(count, int | float):
        high = float(np.asarray(count, jax.dtypes.canonicalize_dtype(float)))
        return Steps(as_float(high), as_float(count - high))
    count = jnp.asarray(count)
    if not jnp.issubdtype(count.dtype, jnp.integer) or count.dtype.itemsize < 4:
        return Steps(as_float(count), jnp.zeros_like(count, float))
    low = count & LOW_BITS
    return Steps(as_float(count - low), as_float(low))


def add(x: Scalar | Steps, y: Scalar | Steps) -> Steps:
    """x + y, not rounded."""
    x, y = split(x), split(y)
    return Steps(x.high + y.high, x.low + y.low)


def difference(x: Scalar | Steps, y: Scalar | Steps) -> Array:
    """x - y, rounded once."""
    x, y = split(x), split(y)
    return (x.high - y.high) + (x.low - y.low)


def fraction_done(step: Scalar, start: Scalar | Steps, end: Scalar | Steps) -> Array:
    """(step - start) / (end - start), clipped to [0, 1]; 1 from `end` on."""
    fraction = safe_divide(difference(step, start), difference(end, start))
    return jnp.where(is_before(step, end), jnp.clip(fraction, 0.0, 1.0), 1.0)


def fraction_left(step: Scalar, start: Scalar | Steps, end: Scalar | Steps) -> Array:
    """(end - step) / (end - start), clipped to [0, 1]; 0 from `end` on."""
    fraction = safe_divide(difference(end, step), difference(end, start))
    return jnp.where(is_before(step, end), jnp.clip(fraction, 0.0, 1.0), 0.0)


def is_before(step: Scalar, count: Scalar | Steps) -> Array:
    """Whether the step is less than this number of steps."""
    return difference(step, count) < 0


def steps_since(start: Scalar, step: Scalar) -> Array:
    """max(step - start, 0): an integer if both are."""
    (n, n_is_whole), (first, first_is_whole) = as_whole(step), as_whole(start)
    if n_is_whole is True and first_is_whole is True:
        return jnp.maximum(n - first, 0)
    return jnp.maximum(difference(step, start), 0)


def lerp(low: Scalar, high: Scalar, fraction: Array) -> Array:
    """low + (high - low) · fraction, exact at both ends."""
    return as_float(low) * (1 - fraction) + as_float(high) * fraction


def half_cosine(fraction: Array) -> Array:
    """½ (1 - cos(π fraction)), without cancellation near 0."""
    return jnp.square(jnp.sin(jnp.pi / 2 * fraction))


def divide_steps(step: Scalar, size: Scalar) -> tuple[Array, Array]:
    """⌊step / size⌋ and the remainder, exact for integers.

    XLA may divide by multiplying with the reciprocal: 49 · (1/49) is less than 1.
    """
    (n, n_is_whole), (d, d_is_whole) = as_whole(step), as_whole(size)
    d = jnp.maximum(d, 1)
    x, y = as_float(step), as_float(size)
    quotient = jnp.floor(x / y)
    quotient = jnp.where((quotient + 1) * y <= x, quotient + 1, quotient)
    quotient = jnp.where(quotient * y > x, quotient - 1, quotient)
    is_whole = n_is_whole & d_is_whole
    remainder = jnp.where(is_whole, as_float(n % d), x - quotient * y)
    return jnp.where(is_whole, as_float(n // d), quotient), remainder


def as_whole(x: Scalar) -> tuple[Array, Array | bool]:
    """x as an integer, and whether it is one, below 2³¹."""
    if isinstance(x, int | float):
        is_whole = float(x).is_integer() and abs(x) < 2**31
        return jnp.asarray(int(x) if is_whole else 0), is_whole
    x = jnp.asarray(x)
    if jnp.issubdtype(x.dtype, jnp.integer):
        return jnp.asarray(x, int), True
    x = jax.lax.stop_gradient(x)
    is_whole = (jnp.floor(x) == x) & (jnp.abs(x) < 2**31)
    return jnp.asarray(jnp.where(is_whole, x, 0), int), is_whole

"""log(1 + x) over its whole domain, and the difference of two such logarithms."""

import jax.numpy as jnp
from jax import Array
from jax.lax import bitcast_convert_type, stop_gradient
from jax.typing import ArrayLike

from jaxml._core.special.exp import ldexp

LOG2_HI = 0.693147180369123816490  # log 2 in 32 bits: its product with k is exact
LOG2_LO = 1.90821492927058770002e-10


def wide_log1p(x: Array) -> Array:
    """log(1 + x) for x >= -1, within 1 ulp in float64 too.

    XLA's float64 log1p on a CPU is off by up to 128 ulp for x in (-0.42, -0.35)
    (https://github.com/jax-ml/jax/issues/39707).
    """
    if x.dtype != jnp.float64:
        return jnp.log1p(x)
    return _float64_log1p_ratio(x, jnp.zeros_like(x))


def log1p_ratio(x: Array, y: Array) -> Array:
    """log((1 + x) / (1 + y)) for x, y >= -1, accurate where x is near y too."""
    if x.dtype == jnp.float64:
        return _float64_log1p_ratio(x, y)
    ratio = (x - y) / (1 + y)
    is_small = jnp.abs(ratio) < 0.5
    small = jnp.log1p(jnp.where(is_small, ratio, 0.0))
    return jnp.where(is_small, small, jnp.log1p(x) - jnp.log1p(y))


def _float64_log1p_ratio(x: Array, y: Array) -> Array:
    """log((1 + x) / (1 + y)) within 1 ulp in float64.

    The result is k log 2 + log(a/b), where a = 2⁻ᵏ (1 + x) and b = 1 + y are within a
    factor of √2. With their mean m, u = (a - b) / m and z = (u/2)²,

        log(a/b) = 2 atanh(u/2) = u + u (z/3 + z²/5 + ...)

    Each of these numbers carries its rounding error `lo`.
    """
    rough = jnp.log1p(x) - jnp.log1p(y)
    is_moderate = jnp.abs(rough) < 600  # beyond, nothing cancels, but a may overflow
    x, y = (jnp.where(is_moderate, v, 0.0) for v in (x, y))
    k = jnp.where(is_moderate, jnp.round(stop_gradient(rough) / jnp.log(2.0)), 0.0)

    a, a_lo = (ldexp(part, -k.astype(jnp.int32)) for part in _sum(1.0, x))
    b, b_lo = _sum(1.0, y)
    m, m_lo = _sum(a / 2, b / 2)
    m_lo += a_lo / 2 + b_lo / 2
    difference, difference_lo = _sum(jnp.where(k == 0, x, a), -jnp.where(k == 0, y, b))
    difference_lo += jnp.where(k == 0, 0.0, a_lo - b_lo)
    u = difference / m
    u_lo = (_remainder(difference, u, m) + difference_lo - u * m_lo) / m

    z = (u / 2) ** 2
    series = jnp.zeros_like(u)
    for n in range(23, 1, -2):
        series = z * (1 / n + series)
    result, lo = _sum(k * LOG2_HI, u)
    lo += k * LOG2_LO + u_lo + u * series
    return jnp.where(is_moderate, result + lo, rough)


def _sum(x: ArrayLike, y: Array) -> tuple[Array, Array]:
    """x + y and its rounding error (Dekker, Numerische Mathematik 18, 1971).

    The selects also keep XLA from simplifying (1 + y) - 1 to y.
    """
    is_ordered = jnp.abs(x) > jnp.abs(y)
    large, small = jnp.where(is_ordered, x, y), jnp.where(is_ordered, y, x)
    total = large + small
    return total, small - (total - large)


def _remainder(x: Array, quotient: Array, y: Array) -> Array:
    """x - quotient · y, exact: each product has at most 53 bits."""
    q_hi, y_hi = _upper_half(quotient), _upper_half(y)
    q_lo, y_lo = quotient - q_hi, y - y_hi
    return ((x - q_hi * y_hi) - q_hi * y_lo - q_lo * y_hi) - q_lo * y_lo


def _upper_half(x: Array) -> Array:
    """x to its first 26 bits; constant under differentiation."""
    bits = bitcast_convert_type(stop_gradient(x), jnp.int64) & jnp.int64(-(1 << 27))
    return bitcast_convert_type(bits, x.dtype)

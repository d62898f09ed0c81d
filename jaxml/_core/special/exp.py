"""Exponentials to the last bits: those of XLA are off by up to 6 ulp in float32.

An error of 2⁻²⁴ in an exponent of 80 is an error of 80 ulp in the result. So an
exponent comes in two parts, hi + lo, where hi has few enough bits to be exact. A result
stays in the form (1 + q) · 2ᵏ and multiplies f as (f + f q) · 2ᵏ, which saves one
rounding and underflows only where the product does.

The constants come from `python -m bench.truths.fit_kernels`. In float64, XLA's
functions replace the polynomials: they are accurate to 1e-15. A part hi is constant
under differentiation and lo = x - hi carries the tangent, so every formula here can be
differentiated directly.
"""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.lax import bitcast_convert_type, stop_gradient
from jax.typing import ArrayLike

from jaxml._core.special.partials import with_partials

LOG2_HI = 0.693115234375  # log 2 in 12 bits: its product with k is exact
LOG2_LO = 3.194618494530942e-05
# fmt: off
EXP = (
    0.5, 0.1666666716337204, 0.041666463017463684, 0.00833331048488617,
    0.0013933731243014336, 0.000198910798644647,
)
LOG1P = (
    -0.5, 0.333332359790802, -0.24996760487556458, 0.19956707954406738,
    -0.16365152597427368, 0.13033364713191986, -0.09139414131641388,
    0.049309972673654556, -0.017184266820549965, 0.0028016420546919107,
)
# fmt: on


def is_float32(x: Array) -> bool:
    """Whether x has the dtype that the polynomials are made for."""
    return x.dtype == jnp.float32


def max_exponent(x: Array) -> float:
    """|x| beyond which eˣ is 0 or ∞ even after scaling by any float."""
    return 200.0 if is_float32(x) else 1600.0


def polynomial(x: Array, coefficients: tuple[float, ...]) -> Array:
    """c₀ + c₁ x + c₂ x² + ..."""
    *others, second_last, last = coefficients
    total = last * x + second_last
    for c in reversed(others):
        total = total * x + c
    return total


def split_hi_lo(x: Array) -> tuple[Array, Array]:
    """x = hi + lo with 12 bits in hi: the product of two such hi is exact."""
    if not is_float32(x):
        return x, jnp.zeros_like(x)
    bits = bitcast_convert_type(x, jnp.int32) & jnp.int32(-4096)
    hi = bitcast_convert_type(bits, x.dtype)
    return hi, x - hi


def exact_product(x: Array, y: ArrayLike, y_lo: ArrayLike) -> tuple[Array, Array]:
    """x (y + y_lo) in two parts, clipped to about ±`max_exponent`.

    y and y_lo come from `split_hi_lo`; a sum of them would let XLA merge the parts.
    """
    factor = y + y_lo
    x_limit = stop_gradient(max_exponent(x) / jnp.abs(factor)).astype(x.dtype)
    hi, lo = split_hi_lo(jnp.clip(x, -x_limit, x_limit))
    return hi * y, hi * y_lo + lo * factor


def split_quotient(x: Array, y: Array) -> tuple[Array, Array]:
    """x / y in two parts, clipped to ±`max_exponent`."""
    limit = max_exponent(x)
    quotient = jnp.clip(x / y, -limit, limit)
    is_inside = jnp.abs(quotient) < limit
    hi, _ = split_hi_lo(jnp.where(is_inside, quotient, 0.0))
    y_hi, y_lo = split_hi_lo(y)
    remainder = jnp.where(is_inside, x, 0.0) - hi * y_hi - hi * y_lo  # exact
    return (
        jnp.where(is_inside, hi, quotient),
        jnp.where(is_inside, remainder / y, 0.0),
    )


def split_half_square(x: Array) -> tuple[Array, Array]:
    """x²/2 in two parts."""
    hi, lo = split_hi_lo(x)
    return hi * hi / 2, (x + hi) * lo / 2


class ScaledExp(NamedTuple):
    """An exponential as (1 + q) · 2ᵏ."""

    q: Array
    k: Array


def scaled_exp(hi: Array, lo: ArrayLike = 0.0) -> ScaledExp:
    """e^(hi + lo) for hi <= 0 and |lo| small against 1 or |hi|.

    k is the integer next to (hi + lo) / log 2, which leaves the exponential of a small
    number r (Cody and Waite, Software manual for the elementary functions, 1980).
    """
    hi = jnp.maximum(hi, -max_exponent(hi))
    k = stop_gradient(jnp.round((hi + lo) * (1 / (LOG2_HI + LOG2_LO))))
    r = ((hi - k * LOG2_HI) - k * LOG2_LO) + lo
    q = r + r * r * polynomial(r, EXP) if is_float32(r) else jnp.expm1(r)
    return ScaledExp(q, k.astype(jnp.int32))


def to_float(e: ScaledExp) -> Array:
    """The exponential as a float, 0 below the range of normal numbers."""
    return (1 + e.q) * power_of_two(e.k, e.q)


def scale_by_exp(f: Array, e: ScaledExp, w: ArrayLike = 0.0) -> Array:
    """f (1 + w) e, with one rounding for the product."""
    return ldexp(f + f * (e.q + w * (1 + e.q)), e.k)


def exp(hi: Array, lo: ArrayLike = 0.0) -> Array:
    """e^(hi + lo), under the conditions of `scaled_exp`."""
    return to_float(scaled_exp(hi, lo))


def expm1(x: Array) -> Array:
    """eˣ - 1 for x <= 0."""
    e = scaled_exp(jnp.maximum(x, -40.0))
    return ldexp(e.q + (1 - power_of_two(-e.k, x)), e.k)


def log1p(x: Array) -> Array:
    """log(1 + x) for x in [0, 1]."""
    if not is_float32(x):
        return jnp.log1p(x)
    return x + x * x * polynomial(x, LOG1P)


def _expm1_minus_x_dx(x: Array) -> Array:
    return jnp.expm1(x)


@with_partials(_expm1_minus_x_dx)
def expm1_minus_x(x: Array) -> Array:
    """eˣ - 1 - x, by its series near 0, where the difference cancels."""
    is_small = jnp.abs(x) < 0.5
    small = jnp.where(is_small, x, 0.0)
    series = small * small * expm1_minus_x_over_x2(small)
    return jnp.where(is_small, series, jnp.expm1(x) - x)


def expm1_minus_x_over_x2(x: Array) -> Array:
    """(eˣ - 1 - x) / x² = 1/2! + x/3! + x²/4! + ... for |x| < 1."""
    total = jnp.zeros_like(x)
    for n in range(21 if x.dtype == jnp.float64 else 11, 1, -1):
        total = 1 / math.factorial(n) + x * total
    return total


def ldexp(f: Array, k: Array) -> Array:
    """f · 2ᵏ in two steps, because 2ᵏ may be out of range where the result is not."""
    half = k >> 1
    return f * power_of_two(half, f) * power_of_two(k - half, f)


def power_of_two(k: Array, like: Array) -> Array:
    """2ᵏ from its bits, 0 below the range of normal numbers."""
    integer, bias, bits = _float_format(like)
    biased = jnp.maximum(k + bias, 0).astype(integer)
    return bitcast_convert_type(biased << bits, like.dtype)


def exponent(x: Array) -> Array:
    """The k of x = m · 2ᵏ with m in [1, 2), for normal numbers x > 0; constant."""
    integer, bias, bits = _float_format(x)
    return (bitcast_convert_type(stop_gradient(x), integer) >> bits) - bias


def _float_format(x: Array) -> tuple[Any, int, int]:
    """The integer of its bits, the bias of its exponent, the bits of its mantissa."""
    return (jnp.int32, 127, 23) if is_float32(x) else (jnp.int64, 1023, 52)

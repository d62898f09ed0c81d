"""Exponentials to the last bit: XLA's own are off by up to 6 units there in float32.

An error of 2⁻²⁴ in an exponent of 80 is one of 80 units in the last place of the power.
So an exponent comes in two parts, hi + lo, of which hi carries no rounding; and a power
leaves as (1 + q) · 2ᵏ, to be multiplied by f as (f + f q) · 2ᵏ: one rounding less, and
no underflow where the product has none.

The constants come from `python -m bench.fit_kernels`. In float64, where XLA's functions are
right to 1e-15, they take the place of the polynomials. A part hi is held constant by
differentiation: lo = x - hi alone moves, so that every formula here may be
differentiated as it stands.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.lax import bitcast_convert_type, stop_gradient
from jax.typing import ArrayLike

LOG2_HI = 0.693115234375  # log 2 in 12 bits: times k, exact
LOG2_LO = 3.194618494530942e-05
EXP = (
    *(0.5, 0.1666666716337204, 0.041666463017463684, 0.00833331048488617),
    *(0.0013933731243014336, 0.000198910798644647),
)
LOG1P = (
    *(-0.5, 0.333332359790802, -0.24996760487556458),
    *(0.19956707954406738, -0.16365152597427368, 0.13033364713191986),
    *(-0.09139414131641388, 0.049309972673654556, -0.017184266820549965),
    *(0.0028016420546919107,),
)


def is_single(x: Array) -> bool:
    """Whether x is float32, which is what the kernels are made for."""
    return x.dtype == jnp.float32


def edge(x: Array) -> float:
    """An exponent beyond which a power is 0 or ∞, whatever float multiplies it."""
    return 200.0 if is_single(x) else 1600.0


def polynomial(x: Array, coefficients: tuple[float, ...]) -> Array:
    """c₀ + c₁ x + c₂ x² + ..."""
    *others, before, last = coefficients
    total = last * x + before
    for c in reversed(others):
        total = total * x + c
    return total


def split(x: Array) -> tuple[Array, Array]:
    """x = hi + lo with 12 bits in hi: the product of two such is exact in float32."""
    if not is_single(x):
        return x, jnp.zeros_like(x)
    bits = bitcast_convert_type(x, jnp.int32) & jnp.int32(-4096)
    hi = bitcast_convert_type(bits, x.dtype)
    return hi, x - hi


def product(x: Array, y: ArrayLike, y_lo: ArrayLike) -> tuple[Array, Array]:
    """x (y + y_lo) in two parts, an exponent: beyond ±`edge` it stays about there.

    y and y_lo are a `split`, so that XLA does not put them together again.
    """
    whole = y + y_lo
    far = stop_gradient(edge(x) / jnp.abs(whole)).astype(x.dtype)
    hi, lo = split(jnp.clip(x, -far, far))
    return hi * y, hi * y_lo + lo * whole


def ratio(x: Array, y: Array) -> tuple[Array, Array]:
    """x / y in two parts, an exponent: beyond ±`edge` it stays there."""
    rough = jnp.clip(x / y, -edge(x), edge(x))
    small = jnp.abs(rough) < edge(x)
    hi, _ = split(jnp.where(small, rough, 0.0))
    y_hi, y_lo = split(y)
    rest = jnp.where(small, x, 0.0) - hi * y_hi - hi * y_lo  # exact
    return jnp.where(small, hi, rough), jnp.where(small, rest / y, 0.0)


def half_square(x: Array) -> tuple[Array, Array]:
    """x²/2 in two parts."""
    hi, lo = split(x)
    return hi * hi / 2, (x + hi) * lo / 2


class Power(NamedTuple):
    """(1 + q) · 2ᵏ"""

    q: Array
    k: Array


def power(hi: Array, lo: ArrayLike = 0.0) -> Power:
    """e^(hi + lo), for hi <= 0 and lo small beside it or 1

    With k the integer next to (hi + lo) / log 2, what is left is the exponential of a
    small number (Cody and Waite, Software manual for the elementary functions, 1980).
    """
    hi = jnp.maximum(hi, -edge(hi))
    k = stop_gradient(jnp.round((hi + lo) * (1 / (LOG2_HI + LOG2_LO))))
    r = ((hi - k * LOG2_HI) - k * LOG2_LO) + lo
    small = r + r * r * polynomial(r, EXP) if is_single(r) else jnp.expm1(r)
    return Power(small, k.astype(jnp.int32))


def value(e: Power) -> Array:
    """The power itself, 0 below the range of normal numbers."""
    return (1 + e.q) * _power_of_two(e.k, e.q)


def times_power(f: Array, e: Power, w: ArrayLike = 0.0) -> Array:
    """f (1 + w) e, with one rounding for the product."""
    return ldexp(f + f * (e.q + w * (1 + e.q)), e.k)


def exp(hi: Array, lo: ArrayLike = 0.0) -> Array:
    """e^(hi + lo)"""
    return value(power(hi, lo))


def expm1(x: Array) -> Array:
    """eˣ - 1"""
    e = power(jnp.maximum(x, -40.0))
    return ldexp(e.q + (1 - _power_of_two(-e.k, x)), e.k)


def log1p(x: Array) -> Array:
    """log(1 + x) for x in [0, 1]."""
    if not is_single(x):
        return jnp.log1p(x)
    return x + x * x * polynomial(x, LOG1P)


def ldexp(f: Array, k: Array) -> Array:
    """f · 2ᵏ, in two steps: 2ᵏ may be out of range where the result is not."""
    half = k >> 1
    return f * _power_of_two(half, f) * _power_of_two(k - half, f)


def _power_of_two(k: Array, like: Array) -> Array:
    """2ᵏ by its bits; 0 below the range of normal numbers."""
    integer, bias, bits = (
        (jnp.int32, 127, 23) if is_single(like) else (jnp.int64, 1023, 52)
    )
    biased = jnp.maximum(k + bias, 0).astype(integer)
    return bitcast_convert_type(biased << bits, like.dtype)

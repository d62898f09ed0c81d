"""Numbers gated by a sigmoid of themselves, and the slopes of that.

With y odd and increasing, f(x) = x σ(y(x)) is e x / (1 + e) below 0, where e = e^y, and
its slope there is (1 + e + x y') e / (1 + e)²; above 0 it is 1 less the slope at -x.
That has a root near x = -1, about which it is e times a polynomial: see `Root`.
"""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jaxml._core.safe import multiply_no_nan
from jaxml._core.special import logistic
from jaxml._core.special.exp import (
    ScaledExp,
    exact_product,
    is_float32,
    log1p,
    max_exponent,
    polynomial,
    scale_by_exp,
    scaled_exp,
    split_hi_lo,
    to_float,
)
from jaxml._core.special.logistic import (
    sech_squared,
    sigmoid,
    sigmoid_derivative,
    tanh,
)
from jaxml._core.special.partials import with_partials

_SLOPE = 2 * math.sqrt(2 / math.pi)
QUICK_HI, SLOPE_HI, CUBE_HI = 1.70166015625, 1.595703125, 0.07135009765625  # 12 bits
QUICK_LO, SLOPE_LO = 1.702 - QUICK_HI, _SLOPE - SLOPE_HI
CUBE_LO = 0.044715 * _SLOPE - CUBE_HI


class Root(NamedTuple):
    """Where a slope over e is 0, and that ratio as d · polynomial(d) with d = root - t.

    The constants come from `python -m bench.fit_kernels`.
    """

    root: float
    rest: float  # of the root, which a float32 does not hold
    width: float
    polynomial: tuple[float, ...]

    def slope(self, d: Array, f: Array, g: Array, decay: ScaledExp) -> Array:
        """f / g e, or what is better where |d| < width."""
        if not is_float32(d):
            return scale_by_exp(f, decay) / g
        inside = jnp.abs(d) < self.width
        d = jnp.clip(d, -self.width, self.width)
        # beside the polynomial, or XLA would fold root and rest into one number
        near = d * polynomial(d, self.polynomial) + self.rest * self.polynomial[0]
        f = scale_by_exp(jnp.where(inside, near, f), decay)
        return f / jnp.where(inside, 1.0, g)


SWISH = Root(  # swish'(-t), β = 1
    *(1.2784645557403564, -1.2979282537628478e-08, 0.75),
    (
        *(0.7821882963180542, -0.2555546462535858, -0.06775778532028198),
        *(0.010503971949219704, 0.00965172704309225, 0.0009741766261868179),
        *(-0.0008197158458642662, -0.0002840584493242204, 2.6962765332427807e-05),
        *(3.085206481046043e-05,),
    ),
)
QUICK = Root(  # quick_gelu'(-t)
    *(0.7511542439460754, 1.1495213669832083e-08, 0.44),
    (
        *(1.331284523010254, -0.7402917146682739, -0.3340703248977661),
        *(0.08814380317926407, 0.13784867525100708, 0.02368079125881195),
        *(-0.033913418650627136, -0.02000310830771923, 0.00322949280962348),
        *(0.006295127794146538,),
    ),
)
GELU_TANH = Root(  # gelu_tanh'(-t)
    *(0.7524614334106445, -1.1339627903339533e-08, 1.2),
    (
        *(1.4741990566253662, -1.2038369178771973, 0.07738813012838364),
        *(0.11626550555229187, 0.026823215186595917, -0.02142263948917389),
        *(-0.006096004042774439, 0.0027894985396414995, 0.0009855034295469522),
        *(-0.0003263195394538343, -0.00012213390436954796, 3.834348535747267e-05),
        *(9.470743862038944e-06, -3.295757551313727e-06),
    ),
)
MISH = Root(  # mish'(-t)
    *(1.1924312114715576, 3.0439375464652585e-09, 1.2),
    (
        *(0.8796154260635376, -0.20500899851322174, -0.09670890867710114),
        *(-0.01418641023337841, 0.007925698533654213, 0.005422919988632202),
        *(0.0010973854223266244, -0.00035727990325540304, -0.00032149796606972814),
        *(-7.875664596213028e-05, 2.1689567802241072e-05, 1.8570743122836575e-05),
        *(1.0418866622785572e-06, -1.3040505564276827e-06),
    ),
)


def gated(x: Array, y: Array, *y_lo: Array) -> Array:
    """x σ(y + y_lo)"""
    decay, e = _decay(y, *y_lo)
    near = jnp.where(
        y > 1 - max_exponent(y), x, 0.0
    )  # further below, 0 even if x is -∞
    return jnp.where(y > 0, x, scale_by_exp(near, decay)) / (1 + e)


def swish(x: Array, beta: Array) -> Array:
    """x σ(βx)"""
    return gated(x, *exact_product(x, *split_hi_lo(beta)))


@with_partials(
    lambda x, beta: beta * swish_curvature(beta * x),
    lambda x, beta: multiply_no_nan(swish_curvature(beta * x), x),
)
def swish_slope(x: Array, beta: Array) -> Array:
    """σ(y) + y σ(y) σ(-y) with y = βx"""
    hi, lo = split_hi_lo(beta)
    y, y_lo = exact_product(x, hi, lo)
    return _swish_slope(y, y_lo, SWISH, _less(SWISH.root, jnp.abs(x), jnp.abs(beta)))


def silu(x: Array) -> Array:
    """x σ(x)"""
    return gated(x, x)


@with_partials(lambda x: swish_curvature(x))
def silu_slope(x: Array) -> Array:
    """σ(x) + x σ(x) σ(-x)"""
    y = jnp.clip(x, -max_exponent(x), max_exponent(x))
    decay, e = _decay(y)
    bracket = (1 - jnp.abs(y)) + e
    return _mirrored(y, SWISH, SWISH.root - jnp.abs(y), bracket, decay, e)


def _less(root: float, x: Array, y: Array) -> Array:
    """root - x y, exactly where that is small."""
    (x_hi, x_lo), (y_hi, y_lo) = split_hi_lo(x), split_hi_lo(y)
    return root - x_hi * y_hi - x_hi * y_lo - x_lo * y_hi - x_lo * y_lo


def _swish_slope(y: Array, y_lo: Array, root: Root, d: Array) -> Array:
    decay, e = _decay(y, y_lo)
    bracket = (1 - jnp.abs(y)) + (e - jnp.where(y > 0, y_lo, -y_lo))
    return _mirrored(y, root, d, bracket, decay, e)


def _mirrored(
    y: Array, root: Root, d: Array, bracket: Array, decay: ScaledExp, e: Array
) -> Array:
    """bracket · e / (1 + e)², or for y > 0 what is missing to 1."""
    below = root.slope(d, bracket, 1 + e * (2 + e), decay)
    return jnp.where(y > 0, 1.0, 0.0) + jnp.where(y > 0, -1.0, 1.0) * below


def swish_curvature(y: Array) -> Array:
    """The derivative of σ(y) + y σ(y) σ(-y)."""
    y = jnp.clip(y, -max_exponent(y), max_exponent(y))
    return sigmoid_derivative(y) * (2 - y * tanh(y / 2))


def quick_gelu(x: Array) -> Array:
    """x σ(1.702 x)"""
    return gated(x, *exact_product(x, QUICK_HI, QUICK_LO))


@with_partials(lambda x: 1.702 * swish_curvature(1.702 * x))
def quick_gelu_slope(x: Array) -> Array:
    """σ(y) + y σ(y) σ(-y) with y = 1.702 x"""
    y, y_lo = exact_product(x, QUICK_HI, QUICK_LO)
    return _swish_slope(y, y_lo, QUICK, QUICK.root - jnp.abs(x))


def gelu_tanh(x: Array) -> Array:
    """x σ(y) with y = 2√(2/π) (x + 0.044715 x³)"""
    return gated(x, *_cubic(x))


def _gelu_tanh_curvature(x: Array) -> Array:
    x = jnp.clip(x, -50, 50)
    slope, cube = SLOPE_HI + SLOPE_LO, CUBE_HI + CUBE_LO
    y, y1, y2 = slope * x + cube * x * x * x, slope + 3 * cube * x * x, 6 * cube * x
    return sigmoid_derivative(y) * (2 * y1 + x * y2 - x * y1 * y1 * tanh(y / 2))


@with_partials(_gelu_tanh_curvature)
def gelu_tanh_slope(x: Array) -> Array:
    """σ(y) + x y' σ(y) σ(-y), where x y' = y + 2 (y - 2√(2/π) x)"""
    t = jnp.minimum(jnp.abs(x), 50)
    y, y_lo = _cubic(t)
    decay, e = _decay(y, y_lo)
    hi, lo = split_hi_lo(t)
    cubic = (y - SLOPE_HI * hi) + (y_lo - SLOPE_HI * lo - SLOPE_LO * t)
    bracket = (1 - y) - 2 * cubic + (e - y_lo)
    return _mirrored(x, GELU_TANH, GELU_TANH.root - t, bracket, decay, e)


def _cubic(x: Array) -> tuple[Array, Array]:
    """2√(2/π) (x + 0.044715 x³) in two parts, for |x| <= 50: beyond, σ is 0 or 1."""
    x = jnp.clip(x, -50, 50)
    hi, lo = split_hi_lo(x)
    square, rest = split_hi_lo(hi * hi)
    rest = rest + (x + hi) * lo
    factor, _ = split_hi_lo(SLOPE_HI + CUBE_HI * square)
    small = ((SLOPE_HI - factor) + CUBE_HI * square) + (
        CUBE_HI * rest + CUBE_LO * (square + rest) + SLOPE_LO
    )
    return hi * factor, hi * small + lo * (factor + small)


def mish(x: Array) -> Array:
    """x tanh(log(1 + eˣ)) = x ((1 + eˣ)² - 1) / ((1 + eˣ)² + 1)"""
    decay, e = _decay(x)
    near = jnp.where(x > -max_exponent(x), x, 0.0)
    below = scale_by_exp(near, decay, -e * (1 + e) / (2 + e * (2 + e)))
    finite = jnp.where(x < max_exponent(x), x, 0.0)
    above = x - finite * (2 * e * e / (1 + 2 * e * (1 + e)))
    return jnp.where(x > 0, above, below)


def _mish_curvature(x: Array) -> Array:
    x = jnp.clip(x, -max_exponent(x), max_exponent(x))
    inner = logistic.softplus(x)
    bell = sech_squared(inner) * sigmoid(x)
    return bell * (2 + x * (sigmoid(-x) - 2 * tanh(inner) * sigmoid(x)))


@with_partials(_mish_curvature)
def mish_slope(x: Array) -> Array:
    """tanh(s) + x σ(x) / cosh²(s) with s = log(1 + eˣ), over one denominator"""
    t = jnp.minimum(jnp.abs(x), max_exponent(x))
    decay, e = _decay(x)
    more = e * (2 + e)
    f = 4 * (1 - t) + e * (6 - 4 * t + e * (4 + e))
    below = MISH.slope(MISH.root - t, f, 4 + more * (4 + more), decay)
    total = 1 + 2 * e * (1 + e)
    above = 1 + 2 * e * e * (2 * t * (1 + e) / total - 1) / total
    return jnp.where(x > 0, above, below)


def softplus(x: Array, beta: Array) -> Array:
    """log(1 + e^(βx)) / β"""
    y, y_lo = exact_product(x, *split_hi_lo(beta))
    _, e = _decay(y, y_lo)
    return jnp.where(y > 0, x, 0.0) + log1p(e) / beta


@with_partials(
    lambda x, beta: beta * sigmoid_derivative(beta * x),
    lambda x, beta: multiply_no_nan(sigmoid_derivative(beta * x), x),
)
def softplus_slope(x: Array, beta: Array) -> Array:
    """σ(βx)"""
    y, y_lo = exact_product(x, *split_hi_lo(beta))
    _, e = _decay(y, y_lo)
    return jnp.where(y > 0, 1.0, e) / (1 + e)


def _decay(*y: Array) -> tuple[ScaledExp, Array]:
    """e^-|y|, to multiply with and as it is, for y in one part or two."""
    above = y[0] > 0
    decay = scaled_exp(*(jnp.where(above, -part, part) for part in y))
    return decay, to_float(decay)

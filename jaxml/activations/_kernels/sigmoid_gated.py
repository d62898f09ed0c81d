"""Activations x σ(y(x)) and mish, with their derivatives; y is odd and increasing.

For x <= 0, with e = e^y, the value is x e / (1 + e) and the derivative is
(1 + e + x y') e / (1 + e)². For x > 0, the derivative is 1 minus its value at -x. The
numerator 1 + e + x y' has a root near x = -1, where it cancels: see `DerivativeRoot`.
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

# y = c x in quick_gelu and y = a x + b x³ in gelu_tanh; each hi has 12 bits
C_HI, A_HI, B_HI = 1.70166015625, 1.595703125, 0.07135009765625
_A = 2 * math.sqrt(2 / math.pi)
C_LO, A_LO, B_LO = 1.702 - C_HI, _A - A_HI, 0.044715 * _A - B_HI


class DerivativeRoot(NamedTuple):
    """A root of f'(-t), and a polynomial for f'(-t) near it.

    With d = root + root_lo - t, f'(-t) is e · d · polynomial(d) for |d| < width. The
    constants come from `python -m bench.truths.fit_kernels`.
    """

    root: float
    root_lo: float  # the part of the root that float32 cannot hold
    width: float
    polynomial: tuple[float, ...]

    def derivative(
        self, d: Array, numerator: Array, denominator: Array, scaled_e: ScaledExp
    ) -> Array:
        """numerator / denominator · e, by the polynomial near the root; d = root - t"""
        if not is_float32(d):
            return scale_by_exp(numerator, scaled_e) / denominator
        is_near = jnp.abs(d) < self.width
        d = jnp.clip(d, -self.width, self.width)
        # as a term of its own: XLA would merge root + root_lo into one float
        near = d * polynomial(d, self.polynomial) + self.root_lo * self.polynomial[0]
        numerator = scale_by_exp(jnp.where(is_near, near, numerator), scaled_e)
        return numerator / jnp.where(is_near, 1.0, denominator)


# fmt: off
SWISH = DerivativeRoot(  # with β = 1
    1.2784645557403564, -1.2979282537628478e-08, width=0.75, polynomial=(
        0.7821882963180542, -0.2555546462535858, -0.06775778532028198,
        0.010503971949219704, 0.00965172704309225, 0.0009741766261868179,
        -0.0008197158458642662, -0.0002840584493242204, 2.6962765332427807e-05,
        3.085206481046043e-05,
    ),
)
QUICK_GELU = DerivativeRoot(
    0.7511542439460754, 1.1495213669832083e-08, width=0.44, polynomial=(
        1.331284523010254, -0.7402917146682739, -0.3340703248977661,
        0.08814380317926407, 0.13784867525100708, 0.02368079125881195,
        -0.033913418650627136, -0.02000310830771923, 0.00322949280962348,
        0.006295127794146538,
    ),
)
GELU_TANH = DerivativeRoot(
    0.7524614334106445, -1.1339627903339533e-08, width=1.2, polynomial=(
        1.4741990566253662, -1.2038369178771973, 0.07738813012838364,
        0.11626550555229187, 0.026823215186595917, -0.02142263948917389,
        -0.006096004042774439, 0.0027894985396414995, 0.0009855034295469522,
        -0.0003263195394538343, -0.00012213390436954796, 3.834348535747267e-05,
        9.470743862038944e-06, -3.295757551313727e-06,
    ),
)
MISH = DerivativeRoot(
    1.1924312114715576, 3.0439375464652585e-09, width=1.2, polynomial=(
        0.8796154260635376, -0.20500899851322174, -0.09670890867710114,
        -0.01418641023337841, 0.007925698533654213, 0.005422919988632202,
        0.0010973854223266244, -0.00035727990325540304, -0.00032149796606972814,
        -7.875664596213028e-05, 2.1689567802241072e-05, 1.8570743122836575e-05,
        1.0418866622785572e-06, -1.3040505564276827e-06,
    ),
)
# fmt: on


def x_times_sigmoid(x: Array, y: Array, *y_lo: Array) -> Array:
    """x σ(y + y_lo)"""
    scaled_e, e = _exp_neg_abs(y, *y_lo)
    x_negative = jnp.where(y > 1 - max_exponent(y), x, 0.0)  # avoids -∞ · 0
    return jnp.where(y > 0, x, scale_by_exp(x_negative, scaled_e)) / (1 + e)


def swish_second_derivative(y: Array) -> Array:
    """The derivative of σ(y) + y σ(y) σ(-y): swish's second derivative at β = 1."""
    y = jnp.clip(y, -max_exponent(y), max_exponent(y))
    return sigmoid_derivative(y) * (2 - y * tanh(y / 2))


def swish(x: Array, beta: Array) -> Array:
    """x σ(βx)"""
    return x_times_sigmoid(x, *exact_product(x, *split_hi_lo(beta)))


@with_partials(
    lambda x, beta: beta * swish_second_derivative(beta * x),
    lambda x, beta: multiply_no_nan(swish_second_derivative(beta * x), x),
)
def swish_derivative(x: Array, beta: Array) -> Array:
    """σ(y) + y σ(y) σ(-y) with y = βx"""
    hi, lo = split_hi_lo(beta)
    y, y_lo = exact_product(x, hi, lo)
    d = _root_minus_product(SWISH.root, jnp.abs(x), jnp.abs(beta))
    return _linear_derivative(y, y_lo, SWISH, d)


def _root_minus_product(root: float, x: Array, y: Array) -> Array:
    """root - x y, exact where it is small"""
    (x_hi, x_lo), (y_hi, y_lo) = split_hi_lo(x), split_hi_lo(y)
    return root - x_hi * y_hi - x_hi * y_lo - x_lo * y_hi - x_lo * y_lo


def _linear_derivative(y: Array, y_lo: Array, root: DerivativeRoot, d: Array) -> Array:
    """The derivative of x σ(y) for y proportional to x."""
    scaled_e, e = _exp_neg_abs(y, y_lo)
    numerator = (1 - jnp.abs(y)) + (e - jnp.where(y > 0, y_lo, -y_lo))
    return _reflect(y, root, d, numerator, scaled_e, e)


def _reflect(
    y: Array,
    root: DerivativeRoot,
    d: Array,
    numerator: Array,
    scaled_e: ScaledExp,
    e: Array,
) -> Array:
    """numerator · e / (1 + e)² for y <= 0, and 1 minus that for y > 0"""
    negative = root.derivative(d, numerator, 1 + e * (2 + e), scaled_e)
    return jnp.where(y > 0, 1.0, 0.0) + jnp.where(y > 0, -1.0, 1.0) * negative


def silu(x: Array) -> Array:
    """x σ(x)"""
    return x_times_sigmoid(x, x)


@with_partials(swish_second_derivative)
def silu_derivative(x: Array) -> Array:
    """σ(x) + x σ(x) σ(-x)"""
    y = jnp.clip(x, -max_exponent(x), max_exponent(x))
    scaled_e, e = _exp_neg_abs(y)
    numerator = (1 - jnp.abs(y)) + e
    return _reflect(y, SWISH, SWISH.root - jnp.abs(y), numerator, scaled_e, e)


def quick_gelu(x: Array) -> Array:
    """x σ(1.702 x)"""
    return x_times_sigmoid(x, *exact_product(x, C_HI, C_LO))


@with_partials(lambda x: 1.702 * swish_second_derivative(1.702 * x))
def quick_gelu_derivative(x: Array) -> Array:
    """σ(y) + y σ(y) σ(-y) with y = 1.702 x"""
    y, y_lo = exact_product(x, C_HI, C_LO)
    return _linear_derivative(y, y_lo, QUICK_GELU, QUICK_GELU.root - jnp.abs(x))


def gelu_tanh(x: Array) -> Array:
    """x σ(y) with y = a x + b x³, a = 2√(2/π) and b = 0.044715 a"""
    return x_times_sigmoid(x, *_cubic_hi_lo(x))


def _gelu_tanh_second_derivative(x: Array) -> Array:
    """(2y' + x y'' - x y'² tanh(y/2)) σ(y) σ(-y)"""
    x = jnp.clip(x, -50, 50)
    a, b = A_HI + A_LO, B_HI + B_LO
    y, y1, y2 = a * x + b * x * x * x, a + 3 * b * x * x, 6 * b * x
    return sigmoid_derivative(y) * (2 * y1 + x * y2 - x * y1 * y1 * tanh(y / 2))


@with_partials(_gelu_tanh_second_derivative)
def gelu_tanh_derivative(x: Array) -> Array:
    """σ(y) + x y' σ(y) σ(-y), where x y' = y + 2 b x³"""
    t = jnp.minimum(jnp.abs(x), 50)
    y, y_lo = _cubic_hi_lo(t)
    scaled_e, e = _exp_neg_abs(y, y_lo)
    hi, lo = split_hi_lo(t)
    bt3 = (y - A_HI * hi) + (y_lo - A_HI * lo - A_LO * t)
    numerator = (1 - y) - 2 * bt3 + (e - y_lo)
    return _reflect(x, GELU_TANH, GELU_TANH.root - t, numerator, scaled_e, e)


def _cubic_hi_lo(x: Array) -> tuple[Array, Array]:
    """a x + b x³ in two parts, with |x| clipped to 50, where σ is 0 or 1."""
    x = jnp.clip(x, -50, 50)
    hi, lo = split_hi_lo(x)
    square, square_lo = split_hi_lo(hi * hi)
    square_lo = square_lo + (x + hi) * lo
    factor, _ = split_hi_lo(A_HI + B_HI * square)
    factor_lo = ((A_HI - factor) + B_HI * square) + (
        B_HI * square_lo + B_LO * (square + square_lo) + A_LO
    )
    return hi * factor, hi * factor_lo + lo * (factor + factor_lo)


def mish(x: Array) -> Array:
    """x tanh(log(1 + eˣ)) = x ((1 + eˣ)² - 1) / ((1 + eˣ)² + 1)"""
    scaled_e, e = _exp_neg_abs(x)
    x_negative = jnp.where(x > -max_exponent(x), x, 0.0)
    negative = scale_by_exp(x_negative, scaled_e, -e * (1 + e) / (2 + e * (2 + e)))
    x_positive = jnp.where(x < max_exponent(x), x, 0.0)
    positive = x - x_positive * (2 * e * e / (1 + 2 * e * (1 + e)))
    return jnp.where(x > 0, positive, negative)


def _mish_second_derivative(x: Array) -> Array:
    x = jnp.clip(x, -max_exponent(x), max_exponent(x))
    s = logistic.softplus(x)
    tanh_s_derivative = sech_squared(s) * sigmoid(x)
    return tanh_s_derivative * (2 + x * (sigmoid(-x) - 2 * tanh(s) * sigmoid(x)))


@with_partials(_mish_second_derivative)
def mish_derivative(x: Array) -> Array:
    """tanh(s) + x σ(x) / cosh²(s) with s = log(1 + eˣ), over one denominator"""
    t = jnp.minimum(jnp.abs(x), max_exponent(x))
    scaled_e, e = _exp_neg_abs(x)
    u = e * (2 + e)
    numerator = 4 * (1 - t) + e * (6 - 4 * t + e * (4 + e))
    negative = MISH.derivative(MISH.root - t, numerator, 4 + u * (4 + u), scaled_e)
    v = 1 + 2 * e * (1 + e)
    positive = 1 + 2 * e * e * (2 * t * (1 + e) / v - 1) / v
    return jnp.where(x > 0, positive, negative)


def softplus(x: Array, beta: Array) -> Array:
    """log(1 + e^(βx)) / β"""
    y, y_lo = exact_product(x, *split_hi_lo(beta))
    _, e = _exp_neg_abs(y, y_lo)
    return jnp.where(y > 0, x, 0.0) + log1p(e) / beta


@with_partials(
    lambda x, beta: beta * sigmoid_derivative(beta * x),
    lambda x, beta: multiply_no_nan(sigmoid_derivative(beta * x), x),
)
def softplus_derivative(x: Array, beta: Array) -> Array:
    """σ(βx)"""
    y, y_lo = exact_product(x, *split_hi_lo(beta))
    _, e = _exp_neg_abs(y, y_lo)
    return jnp.where(y > 0, 1.0, e) / (1 + e)


def _exp_neg_abs(*y: Array) -> tuple[ScaledExp, Array]:
    """e = e^-|y|, as a `ScaledExp` and as a float, for y in one part or two."""
    is_positive = y[0] > 0
    scaled_e = scaled_exp(*(jnp.where(is_positive, -part, part) for part in y))
    return scaled_e, to_float(scaled_e)

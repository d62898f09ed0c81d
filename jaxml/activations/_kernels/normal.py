"""The normal distribution, in full precision in both tails, and gelu.

For x < 0 and t = -x, every function is e^(-t²/2) times a smooth factor, and t² is
formed without rounding. Each smooth factor is a simple formula times 1 + w, where w is
a rational function of t whose constants come from `python -m bench.truths.fit_kernels`.
"""

import jax.numpy as jnp
from jax import Array
from jax.scipy.special import erfc

from jaxml._core.special.exp import (
    ScaledExp,
    exp,
    is_float32,
    max_exponent,
    polynomial,
    scale_by_exp,
    scaled_exp,
    split_half_square,
)
from jaxml._core.special.partials import with_partials

# fmt: off
TAIL_NUMERATOR = (  # of w / t, where 2 (1 + t) e^(t²/2) Φ(-t) = 1 + w
    0.20211544632911682, 0.04274050146341324, -0.021523885428905487,
    -0.01257665827870369, -0.002230493351817131,
)
TAIL_DENOMINATOR = (
    1.0, 1.6853009462356567, 1.2193989753723145, 0.48099178075790405,
    0.10576914995908737, 0.011036179959774017,
)
GELU_ROOT, GELU_ROOT_LO = 0.7517915368080139, -1.211444988769017e-08  # gelu'(-t) = 0
GELU_NUMERATOR = (  # of w, where 2 e^(t²/2) gelu'(-t) / (root - t) = 1 + w
    0.33015596866607666, 0.10852944105863571, -0.03720919042825699,
    -0.02881161868572235, -0.005289207678288221,
)
GELU_DENOMINATOR = (
    1.0, 1.3988409042358398, 0.7932389974594116, 0.2201891541481018,
    0.02616984397172928,
)
# fmt: on


def _normal_pdf_derivative(x: Array) -> Array:
    return -normal_pdf(x) * _clip_to_support(x)


@with_partials(_normal_pdf_derivative)
def normal_pdf(x: Array) -> Array:
    """φ(x) = e^(-x²/2) / √(2π)"""
    hi, lo = split_half_square(_clip_to_support(x))
    return exp(-hi, -lo) * 0.3989422804014327


@with_partials(normal_pdf)
def normal_cdf(x: Array) -> Array:
    """Φ(x) = ½ erfc(-x/√2)"""
    if not is_float32(x):
        return erfc(-x / jnp.sqrt(2).astype(x.dtype)) / 2
    sign = jnp.where(x > 0, -1.0, 1.0)
    return jnp.where(x > 0, 1.0, 0.0) + _times_upper_tail(sign, x)


def _gelu_second_derivative(x: Array) -> Array:
    x_clipped = _clip_to_support(x)
    return normal_pdf(x) * (2 - x_clipped * x_clipped)


@with_partials(_gelu_second_derivative)
def gelu_derivative(x: Array) -> Array:
    """Φ(x) + x φ(x), which is 1 minus its value at -x"""
    if not is_float32(x):
        return normal_cdf(x) + _clip_to_support(x) * normal_pdf(x)
    t = jnp.abs(_clip_to_support(x))
    half_root_minus_t = (GELU_ROOT - t) / 2 + GELU_ROOT_LO / 2
    w = _rational(t, GELU_NUMERATOR, GELU_DENOMINATOR)
    negative = scale_by_exp(half_root_minus_t, _gaussian_factor(t), w)
    return jnp.where(x > 0, 1 - negative, negative)


@with_partials(gelu_derivative)
def gelu(x: Array) -> Array:
    """x Φ(x)"""
    if not is_float32(x):
        return jnp.where(x > 0, x, _clip_to_support(x)) * normal_cdf(x)
    return jnp.maximum(x, 0) + _times_upper_tail(-jnp.abs(_clip_to_support(x)), x)


def _times_upper_tail(f: Array, x: Array) -> Array:
    """f Φ(-|x|)"""
    t = jnp.abs(_clip_to_support(x))
    w = t * _rational(t, TAIL_NUMERATOR, TAIL_DENOMINATOR)
    return scale_by_exp(f / (2 + 2 * t), _gaussian_factor(t), w)


def _gaussian_factor(t: Array) -> ScaledExp:
    """e^(-t²/2)"""
    hi, lo = split_half_square(t)
    return scaled_exp(-hi, -lo)


def _rational(
    t: Array, numerator: tuple[float, ...], denominator: tuple[float, ...]
) -> Array:
    return polynomial(t, numerator) / polynomial(t, denominator)


def _clip_to_support(x: Array) -> Array:
    """x clipped to where φ(x) > 0 in floating point."""
    limit = jnp.sqrt(2 * max_exponent(x)).astype(x.dtype)
    return jnp.clip(x, -limit, limit)

"""The normal distribution, with every digit in its tails, and what gelu needs of it.

Below 0, with t = -x, everything is e^(-t²/2) times something smooth, and t² is formed
without rounding. The smooth factors are near one simple formula each, from which they
differ by a quotient of polynomials; `python -m bench.fit_kernels` finds them.
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

TAIL = (  # w / t, where 2 (1 + t) e^(t²/2) Φ(-t) = 1 + w
    (
        *(0.20211544632911682, 0.04274050146341324, -0.021523885428905487),
        *(-0.01257665827870369, -0.002230493351817131),
    ),
    (
        *(1.0, 1.6853009462356567, 1.2193989753723145),
        *(0.48099178075790405, 0.10576914995908737, 0.011036179959774017),
    ),
)
SLOPE_ROOT = 0.7517915368080139, -1.211444988769017e-08  # gelu'(-t) = 0
SLOPE = (  # w, where 2 e^(t²/2) gelu'(-t) / (root - t) = 1 + w
    (
        *(0.33015596866607666, 0.10852944105863571, -0.03720919042825699),
        *(-0.02881161868572235, -0.005289207678288221),
    ),
    (
        *(1.0, 1.3988409042358398, 0.7932389974594116),
        *(0.2201891541481018, 0.02616984397172928),
    ),
)


def _normal_pdf_slope(x: Array) -> Array:
    return -normal_pdf(x) * _within(x)


@with_partials(_normal_pdf_slope)
def normal_pdf(x: Array) -> Array:
    """φ(x) = e^(-x²/2) / √(2π)"""
    hi, lo = split_half_square(_within(x))
    return exp(-hi, -lo) * 0.3989422804014327


@with_partials(normal_pdf)
def normal_cdf(x: Array) -> Array:
    """Φ(x) = ½ erfc(-x/√2)"""
    if not is_float32(x):
        return erfc(-x / jnp.sqrt(2).astype(x.dtype)) / 2
    return jnp.where(x > 0, 1.0, 0.0) + _times_tail(jnp.where(x > 0, -1.0, 1.0), x)


def _gelu_derivative(x: Array) -> Array:
    return gelu_slope(x)


@with_partials(_gelu_derivative)
def gelu(x: Array) -> Array:
    """x Φ(x)"""
    if not is_float32(x):
        return jnp.where(x > 0, x, _within(x)) * normal_cdf(x)
    return jnp.maximum(x, 0) + _times_tail(-jnp.abs(_within(x)), x)


def _times_tail(f: Array, x: Array) -> Array:
    """f Φ(-|x|)"""
    t = jnp.abs(_within(x))
    w = t * _quotient(t, TAIL)
    return scale_by_exp(f / (2 + 2 * t), _decay(t), w)


def _gelu_second_derivative(x: Array) -> Array:
    near = _within(x)
    return normal_pdf(x) * (2 - near * near)


@with_partials(_gelu_second_derivative)
def gelu_slope(x: Array) -> Array:
    """Φ(x) + x φ(x), which is 1 less what it is at -x."""
    if not is_float32(x):
        return normal_cdf(x) + _within(x) * normal_pdf(x)
    t = jnp.abs(_within(x))
    root, rest = SLOPE_ROOT
    from_root = (root - t) / 2 + rest / 2
    below = scale_by_exp(from_root, _decay(t), _quotient(t, SLOPE))
    return jnp.where(x > 0, 1 - below, below)


def _decay(t: Array) -> ScaledExp:
    """e^(-t²/2)"""
    hi, lo = split_half_square(t)
    return scaled_exp(-hi, -lo)


def _quotient(t: Array, polynomials: tuple[tuple[float, ...], ...]) -> Array:
    above, below = polynomials
    return polynomial(t, above) / polynomial(t, below)


def _within(x: Array) -> Array:
    """x, at most so far from 0 that the density there is 0."""
    far = jnp.sqrt(2 * max_exponent(x)).astype(x.dtype)
    return jnp.clip(x, -far, far)

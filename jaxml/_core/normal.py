"""The normal distribution, with every digit in its tails, and what gelu needs of it.

Below 0, with t = -x, everything is e^(-t²/2) times something smooth, and t² is formed
without rounding. The smooth factors are polynomials in c = (t - a) / (t + a), with an a
for each, which maps [0, ∞] onto [-1, 1]; `python -m bench.kernels` finds them.
"""

import jax.numpy as jnp
from jax import Array
from jax.scipy.special import erfc

from jaxml._core.derivatives import with_derivatives
from jaxml._core.exponentials import (
    Power,
    edge,
    exp,
    half_square,
    is_single,
    polynomial,
    power,
    reciprocal,
    rest_of_sum,
    times_power,
)

TAIL_CENTRE = 0.9117223024368286
TAIL = (  # w, where (t + a) e^(t²/2) Φ(-t) = (1 + w)/2
    *(6.634778060288227e-09, 0.009548778645694256, -0.14172732830047607),
    *(-0.08653183281421661, -0.022969935089349747, 0.00929017923772335),
    *(0.016844986006617546, 0.012364725582301617, 0.005406712647527456),
    *(0.0019244581926614046, 0.00046870289952494204, -0.0032028304412961006),
    *(-0.00488306162878871, -0.001127408817410469, 0.001660353853367269),
    *(0.0008120626443997025,),
)
SLOPE_ROOT = 0.7517915368080139, -1.211444988769017e-08  # gelu'(-t) = 0
SLOPE_CENTRE = 2.1380293369293213
SLOPE = (  # w, where e^(t²/2) gelu'(-t) / (root - t) = (1 + w)/2
    *(3.2888456402702104e-09, -0.270459920167923, 0.06921742111444473),
    *(0.005321074742823839, -0.005751046817749739, -0.0013043212238699198),
    *(0.0005607656203210354, 0.0003703465627040714, 1.3717211004404817e-05),
    *(-6.379905244102702e-05, -2.149274223484099e-05),
)


def _normal_pdf_slope(x: Array) -> Array:
    return -normal_pdf(x) * _within(x)


@with_derivatives(_normal_pdf_slope)
def normal_pdf(x: Array) -> Array:
    """φ(x) = e^(-x²/2) / √(2π)"""
    hi, lo = half_square(_within(x))
    return exp(-hi, -lo) * 0.3989422804014327


@with_derivatives(normal_pdf)
def normal_cdf(x: Array) -> Array:
    """Φ(x) = ½ erfc(-x/√2)"""
    if not is_single(x):
        return erfc(-x / jnp.sqrt(2).astype(x.dtype)) / 2
    return jnp.where(x > 0, 1.0, 0.0) + _times_tail(jnp.where(x > 0, -1.0, 1.0), x)


def _gelu_derivative(x: Array) -> Array:
    return gelu_slope(x)


@with_derivatives(_gelu_derivative)
def gelu(x: Array) -> Array:
    """x Φ(x)"""
    if not is_single(x):
        return jnp.where(x > 0, x, _within(x)) * normal_cdf(x)
    return jnp.maximum(x, 0) + _times_tail(-jnp.abs(_within(x)), x)


def _times_tail(f: Array, x: Array) -> Array:
    """f Φ(-|x|)"""
    t = jnp.abs(_within(x))
    total = TAIL_CENTRE + t
    inverse = reciprocal(total)
    w = polynomial((t - TAIL_CENTRE) * inverse, TAIL)
    rest = rest_of_sum(total, TAIL_CENTRE, t)
    return times_power(f, _decay(t), w - rest * inverse) / (2 * total)


def _gelu_second_derivative(x: Array) -> Array:
    near = _within(x)
    return normal_pdf(x) * (2 - near * near)


@with_derivatives(_gelu_second_derivative)
def gelu_slope(x: Array) -> Array:
    """Φ(x) + x φ(x), which is 1 less what it is at -x."""
    if not is_single(x):
        return normal_cdf(x) + _within(x) * normal_pdf(x)
    t = jnp.abs(_within(x))
    root, rest = SLOPE_ROOT
    w = polynomial((t - SLOPE_CENTRE) * reciprocal(t + SLOPE_CENTRE), SLOPE)
    from_root = (root - t) / 2 + rest / 2
    below = times_power(from_root, _decay(t), w)
    return jnp.where(x > 0, 1 - below, below)


def _decay(t: Array) -> Power:
    """e^(-t²/2)"""
    hi, lo = half_square(t)
    return power(-hi, -lo)


def _within(x: Array) -> Array:
    """x, at most so far from 0 that the density there is 0."""
    far = jnp.sqrt(2 * edge(x)).astype(x.dtype)
    return jnp.clip(x, -far, far)

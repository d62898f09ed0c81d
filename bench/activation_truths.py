"""The truth about activations: values and derivatives in float64, right to 1e-10.

Near a root the derivative is its Taylor series about the root, since a float64 formula
loses there what float32 still resolves; the series comes from mpmath, in 40 digits.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import mpmath as mp
import numpy as np
from scipy import special

Array = np.ndarray
Formula = Callable[[Array], Array]
σ = special.expit
Φ = special.ndtr


class Truth(NamedTuple):
    value: Formula
    slope: Formula
    scale: float = 0.0  # errors of the slope are relative to this at least


def step(*pieces: tuple[float, float]) -> Formula:
    """Pieces (end, slope): the slope up to and with that end, so the left one there."""

    def slope(x: Array) -> Array:
        out = np.ones_like(x)
        for end, height in reversed(pieces):
            out = np.where(x <= end, height, out)
        return out

    return slope


def rooted(slope: Formula, exactly: Callable[[Any], Any], guess: float) -> Formula:
    """The slope, by its Taylor series within 1/200 of the root."""

    @functools.cache
    def series() -> tuple[float, float, list[float]]:
        with mp.workdps(40):
            root = mp.findroot(exactly, guess)
            high = float(root)
            terms = mp.taylor(exactly, root, 6)[:0:-1]
            return high, float(root - high), [*map(float, terms), 0.0]

    def whole(x: Array) -> Array:
        high, low, coefficients = series()
        d = (x - high) - low
        near = np.abs(d) < 0.005
        return np.where(near, np.polyval(coefficients, np.where(near, d, 0)), slope(x))

    return whole


def far(x: Array, bound: float = 1e4) -> Array:
    """x, but no further from 0 than where every exponential is 0 or ∞."""
    return np.clip(x, -bound, bound)


# Formulas in float64


def density(x: Array) -> Array:
    return np.exp(-(far(x) ** 2) / 2) / np.sqrt(2 * np.pi)


def swish_slope(y: Array) -> Array:
    return σ(y) + far(y) * σ(y) * σ(-y)


A, B = 2 * np.sqrt(2 / np.pi), 2 * np.sqrt(2 / np.pi) * 0.044715


def cubic(x: Array) -> Array:
    return A * far(x) + B * far(x) ** 3


def gelu_tanh_slope(x: Array) -> Array:
    y = cubic(x)
    return σ(y) + (A * far(x) + 3 * B * far(x) ** 3) * σ(y) * σ(-y)


def tanh_of_softplus(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    below = e * (2 + e) / (2 + e * (2 + e))
    return np.where(x > 0, (1 + 2 * e) / (1 + 2 * e * (1 + e)), below)


def mish_slope(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    below, above = 2 + e * (2 + e), 1 + 2 * e * (1 + e)
    bell = 4 * e * (1 + e) * np.where(x > 0, e / above**2, 1 / below**2)
    return tanh_of_softplus(x) + far(x) * bell


def tanh_shrink(x: Array) -> Array:
    near = np.clip(x, -0.01, 0.01)
    series = near**3 * (1 / 3 - near**2 * (2 / 15 - near**2 * 17 / 315))
    return np.where(np.abs(x) < 0.01, series, x - np.tanh(x))


def logit(p: Array) -> Array:
    middle = 2 * np.arctanh(np.clip(2 * p - 1, -0.6, 0.6))
    return np.where(np.abs(p - 0.5) < 0.25, middle, np.log(p) - np.log1p(-p))


def hypotenuse(x: Array) -> Array:
    return np.sqrt(x * x + 4)


def squareplus(x: Array) -> Array:
    return np.where(x > 0, x + hypotenuse(x), 4 / (hypotenuse(x) - x)) / 2


def elu(x: Array) -> Array:
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def elu_slope(x: Array) -> Array:
    return np.where(x > 0, 1.0, np.exp(np.minimum(x, 0)))


def sech_squared(x: Array) -> Array:
    return 4 * σ(2 * x) * σ(-2 * x)


# And in any number of digits, for their roots


def mp_gelu(x: Any) -> Any:
    return mp.ncdf(x) + x * mp.npdf(x)


def mp_swish(y: Any) -> Any:
    s = 1 / (1 + mp.exp(-y))
    return s + y * s * (1 - s)


def mp_quick(x: Any) -> Any:
    return mp_swish(mp.mpf("1.702") * x)


def mp_gelu_tanh(x: Any) -> Any:
    a = 2 * mp.sqrt(2 / mp.pi)
    b = a * mp.mpf("0.044715")
    s = 1 / (1 + mp.exp(-a * x - b * x**3))
    return s + (a * x + 3 * b * x**3) * s * (1 - s)


def mp_mish(x: Any) -> Any:
    inner = mp.log(1 + mp.exp(x))
    return mp.tanh(inner) + x / (mp.cosh(inner) ** 2 * (1 + mp.exp(-x)))


INF = np.inf
LAMBDA, ALPHA = 1.0507009873554804934, 1.6732632423543772848
SWISH = Truth(lambda x: x * σ(x), rooted(swish_slope, mp_swish, -1.28))
TRUTHS = {
    "sigmoid": Truth(σ, lambda x: σ(x) * σ(-x)),
    "log_sigmoid": Truth(lambda x: -np.logaddexp(-x, 0), lambda x: σ(-x)),
    "hard_sigmoid": Truth(
        lambda x: np.clip(x + 3, 0, 6) / 6, step((-3, 0), (3, 1 / 6), (INF, 0))
    ),
    "logit": Truth(logit, lambda p: 1 / np.where((p < 0) | (p > 1), INF, p * (1 - p))),
    "tanh": Truth(np.tanh, sech_squared),
    "hard_tanh": Truth(lambda x: np.clip(x, -1, 1), step((-1, 0), (1, 1), (INF, 0))),
    "softsign": Truth(
        lambda x: x / (1 + np.abs(x)), lambda x: 1 / (1 + np.abs(x)) ** 2
    ),
    "relu": Truth(lambda x: np.maximum(x, 0), step((0, 0))),
    "relu6": Truth(lambda x: np.clip(x, 0, 6), step((0, 0), (6, 1), (INF, 0))),
    "leaky_relu": Truth(lambda x: np.where(x > 0, x, 0.01 * x), step((0, 0.01))),
    "elu": Truth(elu, elu_slope),
    "celu": Truth(elu, elu_slope),
    "selu": Truth(
        lambda x: LAMBDA * elu(x) * np.where(x > 0, 1, ALPHA),
        lambda x: LAMBDA * elu_slope(x) * np.where(x > 0, 1, ALPHA),
    ),
    "threshold": Truth(lambda x: np.where(x > 1, x, 0), step((1, 0))),
    "hard_shrink": Truth(
        lambda x: np.where(np.abs(x) > 0.5, x, 0),
        lambda x: np.where(np.abs(x) > 0.5, 1.0, 0),
    ),
    "soft_shrink": Truth(
        lambda x: np.sign(x) * np.maximum(np.abs(x) - 0.5, 0), step((-0.5, 1), (0.5, 0))
    ),
    "tanh_shrink": Truth(tanh_shrink, lambda x: np.tanh(x) ** 2),
    "gelu": Truth(
        lambda x: x * Φ(x), rooted(lambda x: Φ(x) + far(x) * density(x), mp_gelu, -0.75)
    ),
    "gelu_tanh": Truth(
        lambda x: x * σ(cubic(x)), rooted(gelu_tanh_slope, mp_gelu_tanh, -0.75)
    ),
    "quick_gelu": Truth(
        lambda x: x * σ(1.702 * x),
        rooted(lambda x: swish_slope(1.702 * x), mp_quick, -0.75),
    ),
    "swish": SWISH,
    "silu": SWISH,
    "mish": Truth(
        lambda x: x * tanh_of_softplus(x), rooted(mish_slope, mp_mish, -1.19)
    ),
    "softplus": Truth(lambda x: np.logaddexp(x, 0), σ),
    "squareplus": Truth(squareplus, lambda x: squareplus(x) / hypotenuse(x)),
    "hard_swish": Truth(
        lambda x: x * np.clip(x + 3, 0, 6) / 6,
        lambda x: np.where(x > 3, 1, np.where(x > -3, (2 * x + 3) / 6, 0.0)),
    ),
    "snake": Truth(
        lambda x: x + np.sin(x) ** 2,
        lambda x: 1 + np.sin(2 * x),
        1.0,  # sin has no digits left where the slope is next to 0
    ),
}

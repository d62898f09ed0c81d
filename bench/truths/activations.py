"""True values and derivatives of elementwise activations, in NumPy and float64.

The contract tests compare with the values, at any hyperparameters; the accuracy test
and `python -m bench.accuracy` compare value and derivative with the defaults. Both are
exact to about 1e-12, derivatives near their roots too: there a float64 formula cancels,
and the Taylor series about the root replaces it, from mpmath in 40 digits.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import mpmath as mp
import numpy as np
from scipy import special

Array = np.ndarray
Formula = Callable[..., Array]
σ = special.expit
Φ = special.ndtr


class Truth(NamedTuple):
    value: Formula  # of x and the hyperparameters
    derivative: Callable[[Array], Array]  # with default hyperparameters
    min_scale: float = 0.0  # errors of the derivative are relative to at least this


def piecewise_constant(*pieces: tuple[float, float]) -> Formula:
    """The derivative from pieces (right end, derivative), and 1 beyond the last end.

    At an end, the derivative is that of the piece, the left one.
    """

    def derivative(x: Array) -> Array:
        result = np.ones_like(x)
        for right_end, constant in reversed(pieces):
            result = np.where(x <= right_end, constant, result)
        return result

    return derivative


def with_root_series(
    derivative: Formula, mp_derivative: Callable[[Any], Any], guess: float
) -> Formula:
    """The derivative, by its Taylor series within 1/200 of its root."""

    @functools.cache
    def series() -> tuple[float, float, list[float]]:
        with mp.workdps(40):
            root = mp.findroot(mp_derivative, guess)
            root_hi = float(root)
            coefficients = mp.taylor(mp_derivative, root, 6)[:0:-1]
            return root_hi, float(root - root_hi), [*map(float, coefficients), 0.0]

    def accurate(x: Array) -> Array:
        root_hi, root_lo, coefficients = series()
        d = (x - root_hi) - root_lo
        is_near = np.abs(d) < 0.005
        near = np.polyval(coefficients, np.where(is_near, d, 0))
        return np.where(is_near, near, derivative(x))

    return accurate


def clip(x: Array, limit: float = 1e4) -> Array:
    """x clipped to where every exponential is 0 or ∞ already."""
    return np.clip(x, -limit, limit)


# Formulas in float64


def normal_pdf(x: Array) -> Array:
    return np.exp(-(clip(x) ** 2) / 2) / np.sqrt(2 * np.pi)


def gelu_derivative(x: Array) -> Array:
    return Φ(x) + clip(x) * normal_pdf(x)


def swish(x: Array, beta: float = 1.0) -> Array:
    return x * σ(beta * x)


def swish_derivative(y: Array) -> Array:
    return σ(y) + clip(y) * σ(y) * σ(-y)


# gelu_tanh(x) = x σ(y) with y = a x + b x³
A, B = 2 * np.sqrt(2 / np.pi), 2 * np.sqrt(2 / np.pi) * 0.044715


def gelu_tanh(x: Array) -> Array:
    return x * σ(A * clip(x) + B * clip(x) ** 3)


def gelu_tanh_derivative(x: Array) -> Array:
    x = clip(x)
    y = A * x + B * x**3
    return σ(y) + (A * x + 3 * B * x**3) * σ(y) * σ(-y)


def tanh_softplus(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    negative = e * (2 + e) / (2 + e * (2 + e))
    return np.where(x > 0, (1 + 2 * e) / (1 + 2 * e * (1 + e)), negative)


def mish_derivative(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    u, v = 2 + e * (2 + e), 1 + 2 * e * (1 + e)
    tanh_derivative = 4 * e * (1 + e) * np.where(x > 0, e / v**2, 1 / u**2)
    return tanh_softplus(x) + clip(x) * tanh_derivative


def softplus(x: Array, beta: float = 1.0) -> Array:
    return np.logaddexp(beta * x, 0) / beta


def tanh_shrink(x: Array) -> Array:
    """Near 0 by its Taylor series, from mpmath in 40 digits."""
    with mp.workdps(40):
        taylor = [float(c) for c in mp.taylor(lambda v: v - mp.tanh(v), 0, 17)]
    near = np.clip(x, -0.1, 0.1)
    return np.where(np.abs(x) < 0.1, np.polyval(taylor[::-1], near), x - np.tanh(x))


def logit(p: Array) -> Array:
    middle = 2 * np.arctanh(np.clip(2 * p - 1, -0.6, 0.6))
    return np.where(np.abs(p - 0.5) < 0.25, middle, np.log(p) - np.log1p(-p))


def logit_derivative(p: Array) -> Array:
    return 1 / np.where((p < 0) | (p > 1), INF, p * (1 - p))


def squareplus(x: Array, b: float = 4.0) -> Array:
    root = np.sqrt(x * x + b)
    sum_of_sizes = np.abs(x) + root
    quotient = b / np.where(sum_of_sizes == 0, 1.0, sum_of_sizes)
    return np.where(x > 0, sum_of_sizes, quotient) / 2


def elu(x: Array, alpha: float = 1.0) -> Array:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def celu(x: Array, alpha: float = 1.0) -> Array:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0) / alpha))


def elu_derivative(x: Array) -> Array:
    return np.where(x > 0, 1.0, np.exp(np.minimum(x, 0)))


LAMBDA, ALPHA = 1.0507009873554804934, 1.6732632423543772848


def selu(x: Array) -> Array:
    return LAMBDA * elu(x, ALPHA)


def selu_derivative(x: Array) -> Array:
    return LAMBDA * elu_derivative(x) * np.where(x > 0, 1, ALPHA)


def threshold(x: Array, threshold: float = 1.0, value: float = 0.0) -> Array:
    return np.where(x > threshold, x, value)


def hard_shrink(x: Array, threshold: float = 0.5) -> Array:
    return np.where(np.abs(x) > threshold, x, 0)


def soft_shrink(x: Array, threshold: float = 0.5) -> Array:
    return np.sign(x) * np.maximum(np.abs(x) - threshold, 0)


def hard_swish_derivative(x: Array) -> Array:
    return np.where(x > 3, 1, np.where(x > -3, (2 * x + 3) / 6, 0.0))


# The derivatives with roots, in mpmath's precision


def mp_gelu_derivative(x: Any) -> Any:
    return mp.ncdf(x) + x * mp.npdf(x)


def mp_swish_derivative(y: Any) -> Any:
    s = 1 / (1 + mp.exp(-y))
    return s + y * s * (1 - s)


def mp_quick_gelu_derivative(x: Any) -> Any:
    return mp_swish_derivative(mp.mpf("1.702") * x)


def mp_gelu_tanh_derivative(x: Any) -> Any:
    a = 2 * mp.sqrt(2 / mp.pi)
    b = a * mp.mpf("0.044715")
    s = 1 / (1 + mp.exp(-a * x - b * x**3))
    return s + (a * x + 3 * b * x**3) * s * (1 - s)


def mp_mish_derivative(x: Any) -> Any:
    s = mp.log(1 + mp.exp(x))
    return mp.tanh(s) + x / (mp.cosh(s) ** 2 * (1 + mp.exp(-x)))


INF = np.inf
SWISH_DERIVATIVE = with_root_series(swish_derivative, mp_swish_derivative, -1.28)
TRUTHS = {
    "sigmoid": Truth(σ, lambda x: σ(x) * σ(-x)),
    "log_sigmoid": Truth(lambda x: -np.logaddexp(-x, 0), lambda x: σ(-x)),
    "hard_sigmoid": Truth(
        lambda x: np.clip(x + 3, 0, 6) / 6,
        piecewise_constant((-3, 0), (3, 1 / 6), (INF, 0)),
    ),
    "logit": Truth(logit, logit_derivative),
    "tanh": Truth(np.tanh, lambda x: 4 * σ(2 * x) * σ(-2 * x)),
    "hard_tanh": Truth(
        lambda x: np.clip(x, -1, 1), piecewise_constant((-1, 0), (1, 1), (INF, 0))
    ),
    "softsign": Truth(
        lambda x: x / (1 + np.abs(x)), lambda x: 1 / (1 + np.abs(x)) ** 2
    ),
    "relu": Truth(lambda x: np.maximum(x, 0), piecewise_constant((0, 0))),
    "relu_squared": Truth(
        lambda x: np.maximum(x, 0) ** 2, lambda x: 2 * np.maximum(x, 0)
    ),
    "relu6": Truth(
        lambda x: np.clip(x, 0, 6), piecewise_constant((0, 0), (6, 1), (INF, 0))
    ),
    "leaky_relu": Truth(
        lambda x, negative_slope=0.01: np.where(x > 0, x, negative_slope * x),
        piecewise_constant((0, 0.01)),
    ),
    "elu": Truth(elu, elu_derivative),
    "celu": Truth(celu, elu_derivative),
    "selu": Truth(selu, selu_derivative),
    "threshold": Truth(threshold, piecewise_constant((1, 0))),
    "hard_shrink": Truth(hard_shrink, lambda x: np.where(np.abs(x) > 0.5, 1.0, 0)),
    "soft_shrink": Truth(soft_shrink, piecewise_constant((-0.5, 1), (0.5, 0))),
    "tanh_shrink": Truth(tanh_shrink, lambda x: np.tanh(x) ** 2),
    "gelu": Truth(
        lambda x: x * Φ(x), with_root_series(gelu_derivative, mp_gelu_derivative, -0.75)
    ),
    "gelu_tanh": Truth(
        gelu_tanh,
        with_root_series(gelu_tanh_derivative, mp_gelu_tanh_derivative, -0.75),
    ),
    "quick_gelu": Truth(
        lambda x: swish(x, 1.702),
        with_root_series(
            lambda x: swish_derivative(1.702 * x), mp_quick_gelu_derivative, -0.75
        ),
    ),
    "swish": Truth(swish, SWISH_DERIVATIVE),
    "silu": Truth(swish, SWISH_DERIVATIVE),
    "mish": Truth(
        lambda x: x * tanh_softplus(x),
        with_root_series(mish_derivative, mp_mish_derivative, -1.19),
    ),
    "softplus": Truth(softplus, σ),
    "squareplus": Truth(squareplus, lambda x: squareplus(x) / np.sqrt(x * x + 4)),
    "hard_swish": Truth(
        lambda x: x * np.clip(x + 3, 0, 6) / 6,
        hard_swish_derivative,
    ),
    "prelu": Truth(
        lambda x, slope=0.25: np.where(x > 0, x, slope * x),
        piecewise_constant((0, 0.25)),
    ),
    "snake": Truth(
        lambda x, alpha=1.0: x + np.sin(alpha * x) ** 2 / alpha,
        lambda x: 1 + np.sin(2 * x),
        min_scale=1.0,  # sin has no relative accuracy near a root of the derivative
    ),
}

"""The constants of jaxml's polynomial kernels.

    python -m bench.truths.fit_kernels

prints each constant as it is written in the library, with the error of the fit. A fit
interpolates at Chebyshev nodes in 60 digits: its error is within a small factor of that
of the best polynomial of its degree, and it is the same on every machine.
"""

import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import mpmath as mp
import numpy as np

from bench.truths.activations import (
    mp_gelu_derivative,
    mp_gelu_tanh_derivative,
    mp_mish_derivative,
    mp_quick_gelu_derivative,
    mp_swish_derivative,
)

mp.mp.dps = 60
Function = Callable[[Any], Any]


def chebyshev_nodes(low: Any, high: Any, count: int) -> list[Any]:
    angles = [(2 * i + 1) * mp.pi / (2 * count) for i in range(count)]
    return [(low + high) / 2 + (high - low) / 2 * mp.cos(angle) for angle in angles]


def fit_polynomial(f: Function, low: Any, high: Any, degree: int) -> list[Any]:
    """Coefficients c₀, c₁, ... of the interpolant of f on [low, high]."""
    nodes = chebyshev_nodes(mp.mpf(low), mp.mpf(high), degree + 1)
    vandermonde = mp.matrix([[x**j for j in range(degree + 1)] for x in nodes])
    return list(mp.lu_solve(vandermonde, mp.matrix([f(x) for x in nodes])))


def fit_rational(
    f: Function, high: Any, degrees: tuple[int, int]
) -> tuple[list[Any], list[Any]]:
    """Numerator and denominator of the rational interpolant of f on [0, high].

    The nodes are Chebyshev's for c = (t - a)/(t + a) with a = 3, which maps [0, ∞] to
    [-1, 1]. The denominator is 1 at 0.
    """
    n, m = degrees
    c_high = mp.mpf(high - 3) / (high + 3)
    nodes = [
        3 * (1 + c) / (1 - c) for c in chebyshev_nodes(mp.mpf(-1), c_high, n + m + 1)
    ]
    equations = [
        [t**j for j in range(n + 1)] + [-f(t) * t**j for j in range(1, m + 1)]
        for t in nodes
    ]
    solution = mp.lu_solve(mp.matrix(equations), mp.matrix([f(t) for t in nodes]))
    coefficients = list(solution)
    return coefficients[: n + 1], [mp.mpf(1), *coefficients[n + 1 :]]


def polynomial(coefficients: Sequence[Any], x: Any) -> Any:
    return mp.polyval(coefficients[::-1], x)


def print_floats(coefficients: Sequence[Any], indent: int = 4) -> None:
    """Float32 literals in indented lines of at most 88 columns."""
    text = ", ".join(repr(float(np.float32(c))) for c in coefficients) + ","
    margin = " " * indent
    print(textwrap.fill(text, 88, initial_indent=margin, subsequent_indent=margin))


def print_tuple(name: str, coefficients: Sequence[Any], comment: str) -> None:
    print(f"{name} = (  # {comment}")
    print_floats(coefficients)
    print(")")


def relative_error(coefficients: list[Any], f: Function, low: Any, high: Any) -> str:
    points = [low + (high - low) * mp.mpf(2 * i + 1) / 800 for i in range(400)]
    error = max(abs((polynomial(coefficients, x) - f(x)) / f(x)) for x in points)
    return f"relative error {mp.nstr(error, 2)}"


def print_polynomial(name: str, f: Function, low: Any, high: Any, degree: int) -> None:
    coefficients = fit_polynomial(f, low, high, degree)
    print_tuple(name, coefficients, relative_error(coefficients, f, low, high))


def print_rational(name: str, f: Function, degrees: tuple[int, int]) -> None:
    numerator, denominator = fit_rational(f, 14, degrees)
    points = [14 * (mp.mpf(2 * i + 1) / 800) ** 2 for i in range(400)]
    error = max(
        abs(polynomial(numerator, t) / polynomial(denominator, t) - f(t))
        for t in points
    )
    print_tuple(f"{name}_NUMERATOR", numerator, f"error {mp.nstr(error, 2)}")
    print_tuple(f"{name}_DENOMINATOR", denominator, "1 at 0")


def find_root(f: Function, guess: float) -> Any:
    return mp.findroot(f, (guess - 0.1, guess + 0.1), solver="anderson")


def float32_hi_lo(x: Any) -> str:
    """A constant as a float32 and its remainder."""
    hi = float(np.float32(float(x)))
    return f"{hi!r}, {float(np.float32(float(x - hi)))!r}"


def print_hi_lo(name: str, x: Any) -> None:
    """A constant as its leading 12 bits, which multiply exactly, and the remainder."""
    _, exponent = mp.frexp(x)
    hi = mp.floor(mp.ldexp(x, 12 - exponent)) * mp.mpf(2) ** (exponent - 12)
    print(f"{name}_HI, {name}_LO = {float(hi)!r}, {float(x - hi)!r}")


def upper_tail(t: Any) -> Any:
    """e^(t²/2) Φ(-t), which is 1/2 at 0 and decreases like 1/t"""
    return mp.exp(t * t / 2) * mp.erfc(t / mp.sqrt(2)) / 2


def without_exp(derivative: Function, y: Function) -> Function:
    """f'(-t) e^y(t), from which the exponential decay is removed"""
    return lambda t: derivative(-t) * mp.exp(y(t))


def print_derivative_root(
    name: str, f: Function, guess: float, width: float, degree: int
) -> None:
    """The root of f, and f(t) / d as a polynomial in d = root - t for |d| < width."""
    root = find_root(f, guess)

    def quotient(d: Any) -> Any:
        return f(root - d) / d

    coefficients = fit_polynomial(quotient, -width, width, degree)
    error = relative_error(coefficients, quotient, -width, width)
    print(f"{name} = DerivativeRoot(  # {error}")
    print(f"    {float32_hi_lo(root)}, width={width}, polynomial=(")
    print_floats(coefficients, indent=8)
    print("    ),\n)")


def main() -> None:
    print_hi_lo("LOG2", mp.log(2))
    limit = mp.log(2) / 2 * mp.mpf("1.001")
    print_polynomial("EXP", lambda r: (mp.exp(r) - 1 - r) / r**2, -limit, limit, 5)
    print_polynomial("LOG1P", lambda x: (mp.log1p(x) - x) / x**2, 0, 1, 9)

    def artanh_remainder(z: Any) -> Any:
        w = mp.sqrt(z)
        return 2 * (mp.atanh(w) - w) / w**3

    def tanh_remainder(z: Any) -> Any:
        x = mp.sqrt(z)
        return (mp.tanh(x) - x) / x**3

    print_polynomial("LOGIT", artanh_remainder, 0, mp.mpf("0.25"), 6)
    print_polynomial("TANH", tanh_remainder, 0, 1, 7)
    high = mp.mpf("2.26")
    print_polynomial("TANH_SHRINK", lambda z: -tanh_remainder(z), 0, high, 10)

    print_rational("TAIL", lambda t: (2 * (1 + t) * upper_tail(t) - 1) / t, (4, 5))
    gelu = without_exp(mp_gelu_derivative, lambda t: t * t / 2)
    root = find_root(gelu, 0.75)
    print(f"GELU_ROOT, GELU_ROOT_LO = {float32_hi_lo(root)}")
    print_rational("GELU", lambda t: 2 * gelu(t) / (root - t) - 1, (4, 4))

    a = 2 * mp.sqrt(2 / mp.pi)
    b, c = a * mp.mpf("0.044715"), mp.mpf("1.702")
    swish = without_exp(mp_swish_derivative, lambda t: t)
    quick_gelu = without_exp(mp_quick_gelu_derivative, lambda t: c * t)
    gelu_tanh = without_exp(mp_gelu_tanh_derivative, lambda t: a * t + b * t**3)
    mish = without_exp(mp_mish_derivative, lambda t: t)
    print_derivative_root("SWISH", swish, 1.28, 0.75, 9)
    print_derivative_root("QUICK_GELU", quick_gelu, 0.75, 0.44, 9)
    print_derivative_root("GELU_TANH", gelu_tanh, 0.75, 1.2, 13)
    print_derivative_root("MISH", mish, 1.19, 1.2, 13)
    print_hi_lo("A", a)
    print_hi_lo("B", b)
    print_hi_lo("C", c)


if __name__ == "__main__":
    main()

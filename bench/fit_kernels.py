"""Where the coefficients of jaxml's polynomial kernels come from.

    python -m bench.fit_kernels

prints each one as it stands in the library, with the relative error of the fit. A fit
is the interpolant at Chebyshev's nodes, in 60 digits: within a small factor of the best
polynomial of its degree, and the same wherever it is run.
"""

from collections.abc import Callable
from typing import Any

import mpmath as mp
import numpy as np

mp.mp.dps = 60
Function = Callable[[Any], Any]


def fit(f: Function, low: float, high: float, degree: int) -> list[Any]:
    """Coefficients c₀, c₁, ... of the interpolant of f on [low, high]."""
    low, high = mp.mpf(low), mp.mpf(high)
    angles = [(2 * i + 1) * mp.pi / (2 * degree + 2) for i in range(degree + 1)]
    nodes = [(low + high) / 2 + (high - low) / 2 * mp.cos(angle) for angle in angles]
    vandermonde = mp.matrix([[x**j for j in range(degree + 1)] for x in nodes])
    return list(mp.lu_solve(vandermonde, mp.matrix([f(x) for x in nodes])))


def report(name: str, f: Function, low: Any, high: Any, degree: int) -> None:
    """Prints the fit of f."""
    coefficients = fit(f, low, high, degree)
    points = [low + (high - low) * mp.mpf(2 * i + 1) / 800 for i in range(400)]
    worst = max(abs((mp.polyval(coefficients[::-1], x) - f(x)) / f(x)) for x in points)
    print(f"{name}  # relative error {mp.nstr(worst, 2)}")
    print("    " + ", ".join(repr(float(np.float32(c))) for c in coefficients))


def pair(name: str, x: Any) -> None:
    """A constant as a float32 and the rest of it."""
    high = np.float32(float(x))
    print(f"{name}  {float(high)!r}, {float(np.float32(float(x - float(high))))!r}")


def cut(name: str, x: Any) -> None:
    """A constant as its leading 12 bits, which multiply exactly, and the rest."""
    _, exponent = mp.frexp(x)
    high = mp.floor(mp.ldexp(x, 12 - exponent)) * mp.mpf(2) ** (exponent - 12)
    print(f"{name}  {float(high)!r}, {float(x - high)!r}")


# For x < 0 and t = -x, Φ(x) = e^(-t²/2) K(t): K falls from 1/2 as slowly as 1/t does.


def tail(t: Any) -> Any:
    return mp.exp(t * t / 2) * mp.erfc(t / mp.sqrt(2)) / 2


def gelu_bracket(t: Any) -> Any:
    """gelu'(-t) e^(t²/2) = K(t) - t/√(2π)"""
    return tail(t) - t / mp.sqrt(2 * mp.pi)


def quotient(name: str, f: Function, above: int, below: int) -> None:
    """f(t) for t in [0, 14] as a quotient of polynomials of these degrees.

    It interpolates at Chebyshev's nodes of c = (t - a)/(t + a), which maps [0, ∞] onto
    [-1, 1], with a = 3; its denominator is 1 at 0.
    """
    count, last = above + below + 1, mp.mpf(14 - 3) / (14 + 3)
    angles = [(2 * i + 1) * mp.pi / (2 * count) for i in range(count)]
    middles = [(last - 1) / 2 + (last + 1) / 2 * mp.cos(angle) for angle in angles]
    nodes = [3 * (1 + c) / (1 - c) for c in middles]
    equations = mp.matrix(
        [
            [t**j for j in range(above + 1)]
            + [-f(t) * t**j for j in range(1, below + 1)]
            for t in nodes
        ]
    )
    solved = list(mp.lu_solve(equations, mp.matrix([f(t) for t in nodes])))
    parts = solved[: above + 1], [mp.mpf(1), *solved[above + 1 :]]
    points = [14 * (mp.mpf(2 * i + 1) / 800) ** 2 for i in range(400)]
    worst = max(abs(_at(t, *parts) - f(t)) for t in points)
    print(f"{name}  # error {mp.nstr(worst, 2)}")
    for part in parts:
        print("    " + ", ".join(repr(float(np.float32(c))) for c in part))


def _at(t: Any, above: list[Any], below: list[Any]) -> Any:
    return mp.polyval(above[::-1], t) / mp.polyval(below[::-1], t)


# The self-gated: f(x) = x σ(y(x)), y odd, has f'(-t) = (1 + e - t y') e / (1 + e)² with
# e = e^-y(t). What is fitted is f'(-t) / e / (root - t).


def swish_slope(t: Any) -> Any:
    e = mp.exp(-t)
    return (1 + e - t) / (1 + e) ** 2


QUICK = mp.mpf("1.702")
GELU_TANH = 2 * mp.sqrt(2 / mp.pi), 2 * mp.sqrt(2 / mp.pi) * mp.mpf("0.044715")


def gelu_tanh_slope(t: Any) -> Any:
    a, b = GELU_TANH
    e = mp.exp(-a * t - b * t**3)
    return (1 + e - a * t - 3 * b * t**3) / (1 + e) ** 2


def mish_slope(t: Any) -> Any:
    e = mp.exp(-t)
    return ((e + 2) * (e * e + 2 * e + 2) - 4 * t * (1 + e)) / (e * e + 2 * e + 2) ** 2


def about_root(name: str, f: Function, guess: float, width: float, degree: int) -> None:
    """The root of f, and f(t) / d as a polynomial of d = root - t for |d| < width."""
    root = mp.findroot(f, guess)
    pair(f"{name}'s root", root)
    report(name, lambda d: f(root - d) / d, -width, width, degree)


def main() -> None:
    cut("log 2", mp.log(2))
    half = mp.log(2) / 2 * mp.mpf("1.001")
    report("exp", lambda r: (mp.exp(r) - 1 - r) / r**2, -half, half, 5)

    report("log1p", lambda x: (mp.log1p(x) - x) / x**2, 0, 1, 9)

    def atanh(z: Any) -> Any:
        w = mp.sqrt(z)
        return 2 * (mp.atanh(w) - w) / w**3

    report("logit", atanh, 0, 1 / mp.mpf(4), 6)

    def tanh(z: Any) -> Any:
        x = mp.sqrt(z)
        return (mp.tanh(x) - x) / x**3

    report("tanh", tanh, 0, 1, 7)
    report("tanh_shrink", lambda z: -tanh(z), 0, mp.mpf("2.26"), 10)

    quotient("normal tail", lambda t: (2 * (1 + t) * tail(t) - 1) / t, 4, 5)
    root = mp.findroot(gelu_bracket, 0.75)
    pair("gelu's root", root)
    quotient("gelu", lambda t: 2 * gelu_bracket(t) / (root - t) - 1, 4, 4)
    about_root("swish", swish_slope, 1.28, 0.75, 9)
    about_root("quick_gelu", lambda t: swish_slope(QUICK * t), 0.75, 0.44, 9)
    about_root("gelu_tanh", gelu_tanh_slope, 0.75, 1.2, 13)
    about_root("mish", mish_slope, 1.19, 1.2, 13)
    cut("2√(2/π)", GELU_TANH[0])
    cut("0.044715 · 2√(2/π)", GELU_TANH[1])
    cut("1.702", QUICK)


if __name__ == "__main__":
    main()

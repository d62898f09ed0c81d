"""Least-squares problems with published minima.

From Moré, Garbow and Hillstrom, Testing unconstrained optimization software, 1981,
https://doi.org/10.1145/355934.355936. A comment gives each problem's number there.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array


class Problem(NamedTuple):
    residuals: Callable[[Array], Array]
    start: tuple[float, ...]
    minima: tuple[float, ...]  # of Σ rᵢ²; a second one is local


def rosenbrock(x: Array) -> Array:  # 1
    return jnp.stack([10 * (x[1] - x[0] ** 2), 1 - x[0]])


def freudenstein_roth(x: Array) -> Array:  # 2
    a, b = x
    return jnp.stack(
        [-13 + a + ((5 - b) * b - 2) * b, -29 + a + ((b + 1) * b - 14) * b]
    )


def powell_badly_scaled(x: Array) -> Array:  # 3
    return jnp.stack([1e4 * x[0] * x[1] - 1, jnp.exp(-x[0]) + jnp.exp(-x[1]) - 1.0001])


def brown_badly_scaled(x: Array) -> Array:  # 4
    return jnp.stack([x[0] - 1e6, x[1] - 2e-6, x[0] * x[1] - 2])


def beale(x: Array) -> Array:  # 5
    return jnp.stack([y - x[0] * (1 - x[1] ** i) for i, y in enumerate(BEALE, 1)])


def jennrich_sampson(x: Array) -> Array:  # 6
    i = one_to(10)
    return 2 + 2 * i - (jnp.exp(i * x[0]) + jnp.exp(i * x[1]))


def helical_valley(x: Array) -> Array:  # 7
    angle = jnp.arctan(x[1] / x[0]) / (2 * jnp.pi) + jnp.where(x[0] < 0, 0.5, 0.0)
    radius = jnp.sqrt(x[0] ** 2 + x[1] ** 2)
    return jnp.stack([10 * (x[2] - 10 * angle), 10 * (radius - 1), x[2]])


def bard(x: Array) -> Array:  # 8
    u = one_to(15)
    v = 16 - u
    return jnp.array(BARD) - (x[0] + u / (v * x[1] + jnp.minimum(u, v) * x[2]))


def meyer(x: Array) -> Array:  # 10
    return x[0] * jnp.exp(x[1] / (45 + 5 * one_to(16) + x[2])) - jnp.array(MEYER)


def box(x: Array) -> Array:  # 12
    t = one_to(10) / 10
    return (
        jnp.exp(-t * x[0])
        - jnp.exp(-t * x[1])
        - x[2] * (jnp.exp(-t) - jnp.exp(-10 * t))
    )


def powell_singular(x: Array) -> Array:  # 13
    a, b, c, d = x
    return jnp.stack(
        [a + 10 * b, 5**0.5 * (c - d), (b - 2 * c) ** 2, 10**0.5 * (a - d) ** 2]
    )


def kowalik_osborne(x: Array) -> Array:  # 15
    u = jnp.array(KOWALIK_U)
    return jnp.array(KOWALIK_Y) - x[0] * (u**2 + u * x[1]) / (u**2 + u * x[2] + x[3])


def brown_dennis(x: Array) -> Array:  # 16
    t = one_to(20) / 5
    exp_error = x[0] + t * x[1] - jnp.exp(t)
    cos_error = x[2] + x[3] * jnp.sin(t) - jnp.cos(t)
    return exp_error**2 + cos_error**2


def osborne(x: Array) -> Array:  # 17
    t = 10 * (one_to(33) - 1)
    return jnp.array(OSBORNE) - (
        x[0] + x[1] * jnp.exp(-t * x[3]) + x[2] * jnp.exp(-t * x[4])
    )


def watson(x: Array) -> Array:  # 20
    j = jnp.arange(len(x), dtype=x.dtype)
    powers = (one_to(29)[:, None] / 29) ** j[None, :]
    derivative, squared = powers[:, :-1] @ (j * x)[1:], (powers @ x) ** 2
    return jnp.concatenate(
        [derivative - squared - 1, jnp.stack([x[0], x[1] - x[0] ** 2 - 1])]
    )


def one_to(n: int) -> Array:
    """1, 2, ..., n."""
    return jnp.arange(1.0, n + 1)


def parse_floats(text: str) -> np.ndarray:
    return np.array(text.split(), np.float64)


BEALE = (1.5, 2.25, 2.625)
BARD = parse_floats("""
    0.14 0.18 0.22 0.25 0.29 0.32 0.35 0.39 0.37 0.58 0.73 0.96 1.34 2.10 4.39
""")
MEYER = parse_floats("""
    34780 28610 23650 19630 16370 13720 11540 9744
    8261 7030 6005 5147 4427 3820 3307 2872
""")
KOWALIK_U = parse_floats("4 2 1 0.5 0.25 0.167 0.125 0.1 0.0833 0.0714 0.0625")
KOWALIK_Y = parse_floats("""
    0.1957 0.1947 0.1735 0.1600 0.0844 0.0627 0.0456 0.0342 0.0323 0.0235 0.0246
""")
OSBORNE = parse_floats("""
    0.844 0.908 0.932 0.936 0.925 0.908 0.881 0.850 0.818 0.784 0.751
    0.718 0.685 0.658 0.628 0.603 0.580 0.558 0.538 0.522 0.506 0.490
    0.478 0.467 0.457 0.448 0.438 0.431 0.424 0.420 0.414 0.411 0.406
""")

PROBLEMS = {
    "rosenbrock": Problem(rosenbrock, (-1.2, 1.0), (0.0,)),
    "freudenstein_roth": Problem(freudenstein_roth, (0.5, -2.0), (0.0, 48.98425)),
    "powell_badly_scaled": Problem(powell_badly_scaled, (0.0, 1.0), (0.0,)),
    "brown_badly_scaled": Problem(brown_badly_scaled, (1.0, 1.0), (0.0,)),
    "beale": Problem(beale, (1.0, 1.0), (0.0,)),
    "jennrich_sampson": Problem(jennrich_sampson, (0.3, 0.4), (124.362182,)),
    "helical_valley": Problem(helical_valley, (-1.0, 0.0, 0.0), (0.0,)),
    "bard": Problem(bard, (1.0, 1.0, 1.0), (8.21487e-3,)),
    "meyer": Problem(meyer, (0.02, 4000.0, 250.0), (87.94586,)),
    "box": Problem(box, (0.0, 10.0, 20.0), (0.0,)),
    "powell_singular": Problem(powell_singular, (3.0, -1.0, 0.0, 1.0), (0.0,)),
    "kowalik_osborne": Problem(
        kowalik_osborne, (0.25, 0.39, 0.415, 0.39), (3.07505e-4,)
    ),
    "brown_dennis": Problem(brown_dennis, (25.0, 5.0, -5.0, -1.0), (85822.2016,)),
    "osborne": Problem(osborne, (0.5, 1.5, -1.0, 0.01, 0.02), (5.46489e-5,)),
    "watson": Problem(watson, (0.0,) * 6, (2.28767e-3,)),
}

"""Activations: the truth is one number at a time, in NumPy and SciPy."""

from collections.abc import Callable

import numpy as np
from scipy import special

from cases import Case, Extreme
from jaxml import activations

INF = np.inf


def elementwise(one: Callable[..., float]) -> Callable[..., np.ndarray]:
    """The truth of a whole array from the truth of one number."""

    def truth(x: np.ndarray, **numbers: float) -> np.ndarray:
        return np.array([one(v, **numbers) for v in x.ravel()]).reshape(x.shape)

    return truth


def normal(rng: np.random.Generator) -> tuple[np.ndarray]:
    return (3 * rng.normal(size=(3, 5)),)


def at(values: dict[float, float], **numbers: float) -> Extreme:
    """The value at each point."""
    points, results = map(np.array, (list(values), list(values.values())))
    return Extreme((points,), results, numbers)


def elu(x: float, alpha: float = 1.0) -> float:
    return x if x > 0 else alpha * np.expm1(x)


def swish(x: float, beta: float = 1.0) -> float:
    return x * special.expit(beta * x)


CASES = [
    Case(
        activations.sigmoid,
        normal,
        elementwise(special.expit),
        extremes=(at({-INF: 0, -1e30: 0, 0: 0.5, 1e30: 1, INF: 1, -60: np.exp(-60)}),),
    ),
    Case(
        activations.tanh,
        normal,
        elementwise(np.tanh),
        extremes=(at({-INF: -1, -1e30: -1, 0: 0, 1e-20: 1e-20, 1e30: 1, INF: 1}),),
    ),
    Case(
        activations.relu,
        normal,
        elementwise(lambda x: max(x, 0.0)),
        extremes=(at({-INF: 0, -1e30: 0, 0: 0, 1e30: 1e30, INF: INF}),),
    ),
    Case(
        activations.leaky_relu,
        normal,
        elementwise(lambda x, slope=0.01: x if x > 0 else slope * x),
        numbers={"slope": (0.0, 0.25, 1.0)},
        extremes=(at({-1e30: -1e28, 0: 0, 1e30: 1e30, INF: INF, -INF: -INF}),),
    ),
    Case(
        activations.elu,
        normal,
        elementwise(elu),
        numbers={"alpha": (0.0, 0.5, 2.0)},
        extremes=(at({-INF: -1, -1e30: -1, -1e-20: -1e-20, 0: 0, 1e30: 1e30}),),
    ),
    Case(
        activations.gelu,
        normal,
        elementwise(lambda x: x * special.ndtr(x)),
        extremes=(at({-INF: 0, -1e30: 0, 0: 0, 1e30: 1e30, INF: INF}),),
    ),
    Case(
        activations.swish,
        normal,
        elementwise(swish),
        numbers={"beta": (0.0, -0.5, 1.7)},
        extremes=(
            at({-INF: 0, -1e30: 0, 0: 0, 1e30: 1e30, INF: INF}),
            at({-1e30: 0, 0: 0, 1e30: 1e30}, beta=1e10),
        ),
    ),
]

"""Second order: the path of each method from a start, as its paper steps, in NumPy.

A row turns a method into a function of the start [3] that returns what it reaches in
each step [steps, 3], on one objective with a quartic, or on four residuals.
"""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cases import Case, Extreme
from jaxml import optimizers

STEPS = 7
A = np.array([[4.0, 1.0, 0.5], [1.0, 3.0, -1.0], [0.5, -1.0, 20.0]])
B = np.array([1.0, -2.0, 3.0])


def quartic(x: jax.Array) -> jax.Array:
    return x @ (jnp.asarray(A) @ x) / 2 - jnp.asarray(B) @ x + jnp.sum(x**4)


def residuals(x: jax.Array) -> jax.Array:
    a, b, c = x
    return jnp.stack([a**2 + b - 1.1, b**2 - c + 0.3, a * c - 0.7, a + b + c - 1])


def half_square(x: jax.Array) -> jax.Array:
    return jnp.sum(residuals(x) ** 2) / 2


def path(make: Callable[..., Any], objective: Any, **functions: Any) -> Any:
    @jax.jit
    def positions(start: jax.Array, **numbers: Any) -> jax.Array:
        optimizer = make(**numbers)

        def step(carry: Any, _: Any) -> Any:
            x, state = carry
            gradient = jax.grad(objective)(x)
            update, state = optimizer.update(gradient, state, x, **functions)
            return (x + update, state), x + update

        start = jnp.asarray(start)
        return jax.lax.scan(step, (start, optimizer.init(start)), length=STEPS)[1]

    # All numbers are given each time, so that one program serves every row.
    parameters = inspect.signature(make).parameters.values()
    defaults = {p.name: p.default for p in parameters}
    return lambda start, **numbers: positions(start, **defaults | numbers)


# The truth


def value(x):
    return x @ A @ x / 2 - B @ x + (x**4).sum()


def gradient(x):
    return A @ x - B + 4 * x**3


def hessian(x):
    return A + np.diag(12 * x**2)


def errors(x):
    a, b, c = x
    return np.array([a**2 + b - 1.1, b**2 - c + 0.3, a * c - 0.7, a + b + c - 1])


def jacobian(x):
    a, b, c = x
    rows = [2 * a, 1, 0], [0, 2 * b, -1], [c, 0, a], [1, 1, 1]
    return np.array(rows, float)


def searched(f, x, direction, slope, rate):
    """Armijo: halved until f falls by a part of what the slope promises."""
    while f(x + rate * direction) > f(x) + 1e-4 * rate * slope + 1e-14 * abs(f(x)):
        rate = rate / 2
    return x + rate * direction


def newton(x, damping=0.0, learning_rate=1.0):
    for _ in range(STEPS):
        g = gradient(x)
        direction = -np.linalg.solve(hessian(x) + damping * np.eye(3), g)
        x = searched(value, x, direction, g @ direction, learning_rate)
        yield x


def newton_cg(x, radius=1.0, max_radius=1e3, forcing=0.5):
    before = 0.0
    for _ in range(STEPS):
        g, h = gradient(x), hessian(x)
        length = np.linalg.norm(g)
        share = min(forcing, (length / before) ** 2 if before else 1.0)
        share = max(share, 2.0**-52)
        s, at_edge = steihaug(g, h, radius, share * length)
        rounding = 10 * 2.0**-52 * abs(value(x))
        gained = value(x) - value(x + s) + rounding
        ratio = gained / (-g @ s - s @ h @ s / 2 + 2 * rounding)
        if ratio < 0.25:
            radius = np.linalg.norm(s) / 4
        elif ratio > 0.75 and at_edge:
            radius = min(2 * radius, max_radius)
        x, before = x + s * (ratio > 1e-4), length
        yield x


def steihaug(g, h, radius, tolerance):
    s, r, d = 0 * g, g, -g
    for _ in range(200):
        ahead = s + r @ r / (d @ h @ d) * d
        if d @ h @ d <= 0 or np.linalg.norm(ahead) >= radius:
            a, b, c = d @ d, 2 * s @ d, s @ s - radius**2
            return s + (-b + np.sqrt(b * b - 4 * a * c)) / (2 * a) * d, True
        old, s = r, ahead
        r = g + h @ s
        if np.linalg.norm(r) <= tolerance:
            break
        d = -r + r @ r / (old @ old) * d
    return s, False


def gauss_newton(x, damping=0.0):
    def f(x):
        return errors(x) @ errors(x) / 2

    for _ in range(STEPS):
        r, j = errors(x), jacobian(x)
        direction = -np.linalg.solve(j.T @ j + damping * np.eye(3), j.T @ r)
        x = searched(f, x, direction, r @ j @ direction, 1.0)
        yield x


def levenberg_marquardt(x, damping=1e-3):
    mu, growth = damping * np.diag(jacobian(x).T @ jacobian(x)).max(), 2.0
    for _ in range(STEPS):
        r, j = errors(x), jacobian(x)
        s = -np.linalg.solve(j.T @ j + mu * np.eye(3), j.T @ r)
        after, rounding = errors(x + s), 10 * 2.0**-52 * (r @ r) / 2
        gained = (r @ r - after @ after) / 2 + rounding
        ratio = gained / (s @ (mu * s - j.T @ r) / 2 + 2 * rounding)
        if ratio > 1e-4:
            x, mu, growth = x + s, mu * max(1 / 3, 1 - (2 * ratio - 1) ** 3), 2.0
        else:
            mu, growth = mu * growth, 2 * growth
        yield x


def row(
    make: Callable[..., Any], truth: Any, numbers: Any, problem: tuple[Any, Any, Any]
) -> Case:
    objective, functions, solution = problem
    return Case(
        make,
        lambda rng: (rng.normal(size=3),),
        lambda start, **numbers: np.array(list(truth(start, **numbers))),
        hyperparams=numbers,
        adapter=path(make, objective, **functions),
        rtol=1e-10,  # of a position; rounding adds up over the steps
        dtypes=(),  # a loop that ends by its data has no reverse derivative
        extremes=(
            Extreme((solution,), solution, check_grads_of=()),
            Extreme((np.full(3, 1e6),), None, check_grads_of=()),
            Extreme((np.full(3, 1e200),), np.full(3, 1e200), check_grads_of=()),
        ),
    )


def solved(truth: Any, start: Any) -> np.ndarray:
    for _ in range(20):
        *_, start = truth(start)
    return start


QUARTIC = quartic, {"value_fn": quartic}, solved(newton, np.zeros(3))
SQUARES = (
    half_square,
    {"residual_fn": residuals},
    solved(levenberg_marquardt, np.ones(3)),
)
CASES = [
    row(
        optimizers.newton,
        newton,
        {"damping": (0.5, 30.0), "learning_rate": (0.3, 1.9)},
        QUARTIC,
    ),
    row(
        optimizers.newton_cg,
        newton_cg,
        {"radius": (0.1, 9.0), "forcing": (0.0, 0.9)},
        QUARTIC,
    ),
    row(optimizers.gauss_newton, gauss_newton, {"damping": (0.1, 3.0)}, SQUARES),
    row(
        optimizers.levenberg_marquardt,
        levenberg_marquardt,
        {"damping": (1e-6, 1.0)},
        SQUARES,
    ),
]

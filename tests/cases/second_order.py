"""Second-order optimizers: the truth is each paper's algorithm in NumPy.

A row turns an optimizer into a function of the initial parameters [3] that returns the
parameters after each step [steps, 3]. The objective is a quartic, or the sum of squares
of four residuals.
"""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cases import Case, Extreme
from jaxml import optimizers

NUM_STEPS = 7
FLOAT64_EPS = 2.0**-52
A = np.array([[4.0, 1.0, 0.5], [1.0, 3.0, -1.0], [0.5, -1.0, 20.0]])
B = np.array([1.0, -2.0, 3.0])


def quartic(x: jax.Array) -> jax.Array:
    return x @ (jnp.asarray(A) @ x) / 2 - jnp.asarray(B) @ x + jnp.sum(x**4)


def residuals(x: jax.Array) -> jax.Array:
    a, b, c = x
    return jnp.stack([a**2 + b - 1.1, b**2 - c + 0.3, a * c - 0.7, a + b + c - 1])


def half_sum_of_squares(x: jax.Array) -> jax.Array:
    return jnp.sum(residuals(x) ** 2) / 2


def make_trajectory(make: Callable[..., Any], f: Any, **functions: Any) -> Any:
    """(initial parameters, **hyperparams) -> the parameters after each step."""

    @jax.jit
    def compiled(x: jax.Array, **hyperparams: Any) -> jax.Array:
        optimizer = make(**hyperparams)

        def step(carry: Any, _: Any) -> Any:
            x, state = carry
            update, state = optimizer.update(jax.grad(f)(x), state, x, **functions)
            return (x + update, state), x + update

        x = jnp.asarray(x)
        return jax.lax.scan(step, (x, optimizer.init(x)), length=NUM_STEPS)[1]

    # All hyperparameters are given in every call, so that all rows share one program.
    parameters = inspect.signature(make).parameters.values()
    defaults = {p.name: p.default for p in parameters}
    return lambda x, **hyperparams: compiled(x, **defaults | hyperparams)


# The truth


def quartic_truth(x):
    return x @ A @ x / 2 - B @ x + (x**4).sum()


def quartic_gradient(x):
    return A @ x - B + 4 * x**3


def quartic_hessian(x):
    return A + np.diag(12 * x**2)


def residuals_truth(x):
    a, b, c = x
    return np.array([a**2 + b - 1.1, b**2 - c + 0.3, a * c - 0.7, a + b + c - 1])


def jacobian(x):
    a, b, c = x
    rows = [2 * a, 1, 0], [0, 2 * b, -1], [c, 0, a], [1, 1, 1]
    return np.array(rows, float)


def line_search(f, x, p, directional_derivative, t):
    """Halves t until Armijo's condition holds, up to rounding errors."""

    def armijo_bound(t):
        return f(x) + 1e-4 * t * directional_derivative + 1e-14 * abs(f(x))

    while f(x + t * p) > armijo_bound(t):
        t = t / 2
    return x + t * p


def newton(x, damping=0.0, learning_rate=1.0):
    for _ in range(NUM_STEPS):
        g = quartic_gradient(x)
        p = -np.linalg.solve(quartic_hessian(x) + damping * np.eye(3), g)
        x = line_search(quartic_truth, x, p, g @ p, learning_rate)
        yield x


def newton_cg(x, radius=1.0, max_radius=1e3, forcing=0.5):
    previous_norm = 0.0
    for _ in range(NUM_STEPS):
        f, g, h = quartic_truth(x), quartic_gradient(x), quartic_hessian(x)
        g_norm = np.linalg.norm(g)
        decrease = (g_norm / previous_norm) ** 2 if previous_norm else 1.0
        rtol = max(min(forcing, decrease), FLOAT64_EPS)
        s, hit_boundary = steihaug_cg(g, h, radius, rtol * g_norm)
        rounding_error = 10 * FLOAT64_EPS * abs(f)
        actual_reduction = f - quartic_truth(x + s) + rounding_error
        predicted_reduction = -g @ s - s @ h @ s / 2 + 2 * rounding_error
        rho = actual_reduction / predicted_reduction
        if rho < 0.25:
            radius = np.linalg.norm(s) / 4
        elif rho > 0.75 and hit_boundary:
            radius = min(2 * radius, max_radius)
        x, previous_norm = x + s * (rho > 1e-4), g_norm
        yield x


def steihaug_cg(g, h, radius, atol):
    s, r, d = 0 * g, g, -g
    for _ in range(200):
        next_s = s + r @ r / (d @ h @ d) * d
        if d @ h @ d <= 0 or np.linalg.norm(next_s) >= radius:
            a, b, c = d @ d, 2 * s @ d, s @ s - radius**2
            return s + (-b + np.sqrt(b * b - 4 * a * c)) / (2 * a) * d, True
        previous_r, s = r, next_s
        r = g + h @ s
        if np.linalg.norm(r) <= atol:
            break
        d = -r + r @ r / (previous_r @ previous_r) * d
    return s, False


def gauss_newton(x, damping=0.0):
    def f(x):
        return residuals_truth(x) @ residuals_truth(x) / 2

    for _ in range(NUM_STEPS):
        r, j = residuals_truth(x), jacobian(x)
        p = -np.linalg.solve(j.T @ j + damping * np.eye(3), j.T @ r)
        x = line_search(f, x, p, r @ j @ p, 1.0)
        yield x


def levenberg_marquardt(x, damping=1e-3):
    mu, nu = damping * np.diag(jacobian(x).T @ jacobian(x)).max(), 2.0
    for _ in range(NUM_STEPS):
        r, j = residuals_truth(x), jacobian(x)
        s = -np.linalg.solve(j.T @ j + mu * np.eye(3), j.T @ r)
        trial_r = residuals_truth(x + s)
        rounding_error = 10 * FLOAT64_EPS * (r @ r) / 2
        actual_reduction = (r @ r - trial_r @ trial_r) / 2 + rounding_error
        predicted_reduction = s @ (mu * s - j.T @ r) / 2 + 2 * rounding_error
        rho = actual_reduction / predicted_reduction
        if rho > 1e-4:
            x, mu, nu = x + s, mu * max(1 / 3, 1 - (2 * rho - 1) ** 3), 2.0
        else:
            mu, nu = mu * nu, 2 * nu
        yield x


def last_iterate(truth: Any, x: Any) -> np.ndarray:
    for _ in range(20):
        *_, x = truth(x)
    return x


# The table


def second_order_case(
    make: Callable[..., Any],
    truth: Any,
    hyperparams: Any,
    problem: tuple[Any, Any, Any],
) -> Case:
    f, functions, minimizer = problem
    return Case(
        make,
        lambda rng: (rng.normal(size=3),),
        lambda x, **hyperparams: np.array(list(truth(x, **hyperparams))),
        hyperparams=hyperparams,
        adapter=make_trajectory(make, f, **functions),
        rtol=1e-10,  # rounding errors accumulate over the steps
        dtypes=(),  # no reverse-mode derivative through `lax.while_loop`
        extremes=(
            Extreme((minimizer,), minimizer, check_grads_of=()),
            Extreme((np.full(3, 1e6),), None, check_grads_of=()),
            Extreme((np.full(3, 1e200),), np.full(3, 1e200), check_grads_of=()),
        ),
    )


QUARTIC = (
    quartic,
    {"value_fn": quartic},
    last_iterate(newton, np.zeros(3)),
)
SQUARES = (
    half_sum_of_squares,
    {"residual_fn": residuals},
    last_iterate(levenberg_marquardt, np.ones(3)),
)
CASES = [
    second_order_case(
        optimizers.newton,
        newton,
        {"damping": (0.5, 30.0), "learning_rate": (0.3, 1.9)},
        QUARTIC,
    ),
    second_order_case(
        optimizers.newton_cg,
        newton_cg,
        {"radius": (0.1, 9.0), "forcing": (0.0, 0.9)},
        QUARTIC,
    ),
    second_order_case(
        optimizers.gauss_newton, gauss_newton, {"damping": (0.1, 3.0)}, SQUARES
    ),
    second_order_case(
        optimizers.levenberg_marquardt,
        levenberg_marquardt,
        {"damping": (1e-6, 1.0)},
        SQUARES,
    ),
]

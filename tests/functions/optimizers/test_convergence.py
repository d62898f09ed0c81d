"""Second-order optimizers: convergence to known minima."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from minimize import make_minimizer, minimize

from bench.truths.least_squares import PROBLEMS
from jaxml import optimizers

pytestmark = pytest.mark.usefixtures("no_xla_optimizations")

CONVERGENT = (
    "powell_badly_scaled",
    "brown_badly_scaled",
    "jennrich_sampson",
    "bard",
    "meyer",
    "powell_singular",
    "kowalik_osborne",
    "brown_dennis",
    "osborne",
)


@functools.cache
def minimize_problem() -> Any:
    """Levenberg-Marquardt on a problem that is chosen by its index, compiled once.

    Residuals are padded with zeros, and parameters with unused ones, to one shape.
    """

    def padded(problem: Any) -> Any:
        def residuals(x: jax.Array) -> jax.Array:
            r = problem.residuals(x[: len(problem.start)])
            return jnp.pad(r, (0, 33 - len(r)))

        return residuals

    def residuals(x: jax.Array, index: jax.Array) -> jax.Array:
        branches = [padded(PROBLEMS[name]) for name in CONVERGENT]
        return jax.lax.switch(index, branches, x)

    def f(x: jax.Array, index: jax.Array) -> jax.Array:
        return jnp.sum(residuals(x, index) ** 2) / 2

    optimizer = optimizers.levenberg_marquardt()
    return make_minimizer(optimizer, f, 200, residual_fn=residuals)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONVERGENT)
def test_levenberg_marquardt_reaches_published_minima(name) -> None:
    problem = PROBLEMS[name]
    start = np.zeros(6)
    start[: len(problem.start)] = problem.start
    _, states = minimize_problem()(start, index=CONVERGENT.index(name))
    minimum = problem.minima[0]
    np.testing.assert_allclose(2 * states.value[-1], minimum, rtol=1e-5, atol=1e-15)
    assert (np.diff(states.value) <= 1e-12 * states.value[0]).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "num_steps"), [(optimizers.newton, 8), (optimizers.newton_cg, 20)]
)
def test_ill_conditioned_logistic_regression(make, num_steps) -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(300, 20)) * np.logspace(0, -3, 20)
    logits = features @ rng.normal(size=20)
    signs = np.where(logits + rng.logistic(size=300) > 0, 1, -1)
    signed_features = jnp.asarray(features * signs[:, None])

    def f(x: jax.Array) -> jax.Array:
        nll = jnp.mean(jax.nn.softplus(-signed_features @ x))
        return nll + 5e-8 * jnp.sum(x**2)

    x, states = minimize(make(), f, jnp.zeros(20), num_steps, value_fn=f)
    assert jnp.linalg.norm(jax.grad(f)(x)) < 1e-7
    assert (np.diff(states.value) <= 1e-15).all()


@pytest.mark.parametrize("make", [optimizers.newton, optimizers.newton_cg])
def test_rosenbrock(make) -> None:
    def f(x: jax.Array) -> jax.Array:
        return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)

    x, _ = minimize(make(), f, jnp.zeros(10), 80, value_fn=f)
    np.testing.assert_allclose(x, 1.0, rtol=1e-9)


# Where the pure Newton step fails

LANDSCAPES = {  # the objective, a start and the minimum
    "saddle point": (lambda x: x[0] * x[1] + jnp.sum(x**4), [1e-3, 0.0], -0.125),
    "indefinite": (lambda x: x[1] ** 2 - jnp.cos(x[0]), [3.0, 0.5], -1.0),
    "singular": (lambda x: jnp.sum(x) ** 2, [3.0, 2.0], 0.0),
    "constant": (lambda x: 0.0 * jnp.sum(x), [3.0, 2.0], 0.0),
    "concave": (lambda x: jnp.sum(jnp.sin(x)), [1.5, 1.6], -2.0),
    "overshooting": (lambda x: jnp.sum(jnp.sqrt(1 + x**2)), [30.0, 2.0], 2.0),
    "nan outside": (lambda x: jnp.sum(x - 2 * jnp.sqrt(x)), [9.0, 0.01], -2.0),
}


@functools.cache
def minimize_landscape(make: Any) -> Any:
    """A landscape is chosen by its index, so that all share one program."""
    branches = [f for f, *_ in LANDSCAPES.values()]

    def f(x: jax.Array, index: jax.Array) -> jax.Array:
        return jax.lax.switch(index, branches, x)

    return make_minimizer(make(), f, 40, value_fn=f)


@pytest.mark.parametrize("make", [optimizers.newton, optimizers.newton_cg])
@pytest.mark.parametrize("name", LANDSCAPES)
def test_newton_converges_on_difficult_landscapes(make, name) -> None:
    _, start, minimum = LANDSCAPES[name]
    index = list(LANDSCAPES).index(name)
    x, states = minimize_landscape(make)(jnp.array(start), index=index)
    np.testing.assert_allclose(states.value[-1], minimum, atol=1e-9)
    assert np.isfinite(x).all() and np.isfinite(states.value).all()


@pytest.mark.parametrize(
    "make", [optimizers.gauss_newton, optimizers.levenberg_marquardt]
)
def test_rank_deficient_least_squares_gives_the_minimum_norm_solution(make) -> None:
    """J has rank 2 and r is never 0. Rounding must not move x along the null space."""
    j = np.array([[1, 2, 3], [-1, 4, 3], [2, 0, 2], [0.5, -3, -2.5]])
    target = np.array([1.0, -2.0, 4.0, 0.3])

    def residuals(x: jax.Array) -> jax.Array:
        return jnp.asarray(j) @ x - target

    def f(x: jax.Array) -> jax.Array:
        return jnp.sum(residuals(x) ** 2) / 2

    x, states = minimize(make(), f, jnp.zeros(3), 150, residual_fn=residuals)
    np.testing.assert_allclose(x, np.linalg.pinv(j) @ target, atol=2e-6)
    assert (states.gain_ratio > 0).all()

"""Second order: the minima that are reached, and from where."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from minimize import descend, descent

from bench.least_squares_problems import PROBLEMS
from jaxml import optimizers

pytestmark = pytest.mark.usefixtures("no_xla_optimizations")

LEAST = (
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
def least_squares() -> Any:
    """Levenberg and Marquardt's descent on any of the problems, compiled once.

    All have as many parameters and residuals, of which some do nothing.
    """

    def padded(problem: Any) -> Any:
        def residuals(x: jax.Array) -> jax.Array:
            r = problem.residuals(x[: len(problem.start)])
            return jnp.pad(r, (0, 33 - len(r)))

        return residuals

    def residuals(x: jax.Array, which: jax.Array) -> jax.Array:
        return jax.lax.switch(which, [padded(PROBLEMS[name]) for name in LEAST], x)

    def f(x: jax.Array, which: jax.Array) -> jax.Array:
        return jnp.sum(residuals(x, which) ** 2) / 2

    return descent(optimizers.levenberg_marquardt(), f, 200, residual_fn=residuals)


@pytest.mark.slow
@pytest.mark.parametrize("name", LEAST)
def test_published_minima_are_reached(name) -> None:
    problem = PROBLEMS[name]
    start = np.zeros(6)
    start[: len(problem.start)] = problem.start
    _, state = least_squares()(start, which=LEAST.index(name))
    least = problem.minima[0]
    np.testing.assert_allclose(2 * state.value[-1], least, rtol=1e-5, atol=1e-15)
    assert (np.diff(state.value) <= 1e-12 * state.value[0]).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "most"), [(optimizers.newton, 8), (optimizers.newton_cg, 20)]
)
def test_ill_conditioned_logistic_regression(make, most) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(300, 20)) * np.logspace(0, -3, 20)
    signs = np.where(rows @ rng.normal(size=20) + rng.logistic(size=300) > 0, 1, -1)
    rows = jnp.asarray(rows * signs[:, None])

    def f(x: jax.Array) -> jax.Array:
        return jnp.mean(jax.nn.softplus(-rows @ x)) + 5e-8 * jnp.sum(x**2)

    x, state = descend(make(), f, jnp.zeros(20), most, value_fn=f)
    assert jnp.linalg.norm(jax.grad(f)(x)) < 1e-7
    assert (np.diff(state.value) <= 1e-15).all()


@pytest.mark.parametrize("make", [optimizers.newton, optimizers.newton_cg])
def test_rosenbrock(make) -> None:
    def f(x: jax.Array) -> jax.Array:
        return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)

    x, _ = descend(make(), f, jnp.zeros(10), 80, value_fn=f)
    np.testing.assert_allclose(x, 1.0, rtol=1e-9)


# Where Newton's own step fails

LANDSCAPES = {
    "saddle": (lambda x: x[0] * x[1] + jnp.sum(x**4), [1e-3, 0.0], -0.125),
    "ridge": (lambda x: x[1] ** 2 - jnp.cos(x[0]), [3.0, 0.5], -1.0),
    "singular": (lambda x: jnp.sum(x) ** 2, [3.0, 2.0], 0.0),
    "flat": (lambda x: 0.0 * jnp.sum(x), [3.0, 2.0], 0.0),
    "concave": (lambda x: jnp.sum(jnp.sin(x)), [1.5, 1.6], -2.0),
    "overshot": (lambda x: jnp.sum(jnp.sqrt(1 + x**2)), [30.0, 2.0], 2.0),
    "nan beyond": (lambda x: jnp.sum(x - 2 * jnp.sqrt(x)), [9.0, 0.01], -2.0),
}


@functools.cache
def down(make: Any) -> Any:
    branches = [f for f, *_ in LANDSCAPES.values()]

    def f(x: jax.Array, which: jax.Array) -> jax.Array:
        return jax.lax.switch(which, branches, x)

    return descent(make(), f, 40, value_fn=f)


@pytest.mark.parametrize("make", [optimizers.newton, optimizers.newton_cg])
@pytest.mark.parametrize("name", LANDSCAPES)
def test_every_start_leads_down(make, name) -> None:
    _, start, least = LANDSCAPES[name]
    x, states = down(make)(jnp.array(start), which=list(LANDSCAPES).index(name))
    np.testing.assert_allclose(states.value[-1], least, atol=1e-9)
    assert np.isfinite(x).all() and np.isfinite(states.value).all()


@pytest.mark.parametrize(
    "make", [optimizers.gauss_newton, optimizers.levenberg_marquardt]
)
def test_of_many_least_squares_the_nearest_is_reached_and_kept(make) -> None:
    """J has rank 2 and r is never 0: rounding must not carry x along the valley."""
    j = np.array([[1, 2, 3], [-1, 4, 3], [2, 0, 2], [0.5, -3, -2.5]])
    target = np.array([1.0, -2.0, 4.0, 0.3])
    residuals = lambda x: jnp.asarray(j) @ x - target  # noqa: E731
    f = lambda x: jnp.sum(residuals(x) ** 2) / 2  # noqa: E731
    x, states = descend(make(), f, jnp.zeros(3), 150, residual_fn=residuals)
    np.testing.assert_allclose(x, np.linalg.pinv(j) @ target, atol=2e-6)
    assert (states.gain_ratio > 0).all()

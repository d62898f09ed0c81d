"""What activations promise beyond the contract of every function."""

import inspect
import re
from collections.abc import Callable
from typing import Any

import hypothesis
import hypothesis.extra.numpy as arrays
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import strategies as st

from bench import accuracy
from bench.activation_truths import TRUTHS
from bench.activations import scanned
from jaxml import activations


@pytest.mark.parametrize("name", TRUTHS)
def test_every_digit_of_value_and_slope(name: str) -> None:
    both, truth = accuracy.with_slope(accuracy.ours(name)), TRUTHS[name]
    inputs = {
        "float32": next(accuracy.stratified(per_binade=8, even=20_001, about=200)),
        "bfloat16": accuracy.every_short(ml_dtypes.bfloat16),
        "float16": accuracy.every_short(np.float16),
    }
    for dtype, x in inputs.items():
        found = accuracy.worst(both, truth, x)
        assert found["value"] <= accuracy.BOUNDS[dtype], found
        assert found["derivative"] <= accuracy.BOUNDS[dtype], found


@pytest.mark.parametrize("name", TRUTHS)
def test_the_backward_pass_keeps_the_input_alone(name: str) -> None:
    x = jnp.linspace(-3, 3, 8).astype(jnp.bfloat16)
    _, backward = jax.vjp(accuracy.ours(name), x)
    kept = sum(leaf.nbytes for leaf in jax.tree.leaves(backward) if leaf.ndim)
    assert kept <= x.nbytes


@pytest.mark.parametrize("name", ["gelu", "gelu_tanh", "swish", "mish", "softplus"])
def test_a_scan_keeps_the_input_alone(name: str) -> None:
    with jax.enable_x64(False):
        assert scanned(getattr(activations, name)) <= 115


@pytest.mark.parametrize("name", ["relu", "relu6", "hard_tanh"])
def test_a_scan_keeps_one_byte_where_the_slope_is_0_or_1(name: str) -> None:
    with jax.enable_x64(False):
        assert scanned(getattr(activations, name)) <= 72


KINKS = {
    "relu": ({}, {0: 0}),
    "relu6": ({}, {0: 0, 6: 1}),
    "leaky_relu": ({"negative_slope": 0.3}, {0: 0.3}),
    "elu": ({"alpha": 0.5}, {0: 0.5}),
    "celu": ({"alpha": 0.5}, {0: 1}),
    "selu": ({}, {0: 1.7580993408473769}),
    "threshold": ({"threshold": 2.0, "value": 1.0}, {2: 0}),
    "hard_shrink": ({}, {-0.5: 0, 0.5: 0}),
    "soft_shrink": ({}, {-0.5: 1, 0.5: 0}),
    "hard_tanh": ({}, {-1: 0, 1: 1}),
    "hard_sigmoid": ({}, {-3: 0, 3: 1 / 6}),
    "hard_swish": ({}, {-3: 0, 3: 1.5}),
}


@pytest.mark.parametrize("name", KINKS)
def test_the_slope_at_a_kink_is_the_stated_one(name: str) -> None:
    numbers, slopes = KINKS[name]
    function = getattr(activations, name)
    for point, slope in slopes.items():
        got = jax.grad(lambda x: function(x, **numbers))(float(point))
        np.testing.assert_allclose(got, slope, rtol=1e-15, err_msg=str(point))
    assert re.search(rf"{name}'\(.+\) =|left", page(function)), "not in the docstring"


def page(function: Callable[..., Any]) -> str:
    module = inspect.getmodule(function)
    assert module
    return f"{function.__doc__} {module.__doc__}"


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_the_slope_of_prelu_is_learned_per_channel(axis: int) -> None:
    rng = np.random.default_rng(0)
    x, weights = rng.normal(size=(2, 2, 3, 4))
    slope = rng.normal(size=x.shape[axis])

    def total(slope: jax.Array) -> jax.Array:
        return jnp.sum(weights * activations.prelu(jnp.asarray(x), slope, axis=axis))

    expected = np.zeros_like(slope)
    for place in np.ndindex(x.shape):
        expected[place[axis]] += weights[place] * min(x[place], 0.0)
    np.testing.assert_allclose(jax.grad(total)(jnp.asarray(slope)), expected, 1e-12)
    shared = jax.grad(total)(jnp.asarray(0.25))
    np.testing.assert_allclose(shared, expected.sum(), 1e-12)


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda x: activations.prelu(x, jnp.ones(3)), TypeError, "slope must"),
        (lambda x: activations.prelu(x, jnp.ones(3), axis=2), ValueError, "axis must"),
        (lambda x: activations.softmax(x, axis=2), ValueError, "axis must"),
        (lambda x: activations.l2_normalize(x, axis=-3), ValueError, "axis must"),
        (lambda x: activations.glu(x, axis=0), TypeError, "x must have an even"),
        (
            lambda x: activations.maxout(x, pieces=3),
            TypeError,
            "x must have a multiple",
        ),
        (lambda x: activations.maxout(x, pieces=0), ValueError, "pieces must"),
        (lambda x: activations.logit(x.astype(int)), TypeError, "p must"),
    ],
)
def test_what_is_wrong_is_named(call: Any, error: type, sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        call(jnp.ones((3, 4)))


def test_the_mean_of_stochastic_gelu_is_gelu() -> None:
    x = jnp.linspace(-3, 3, 13)
    keys = jax.random.split(jax.random.key(0), 20_000)
    draws = jax.vmap(activations.stochastic_gelu, (0, None))(keys, x)
    error = np.abs(draws.mean(0) - activations.gelu(x))
    assert np.all(error <= 5 * np.std(draws, 0) / np.sqrt(len(keys)) + 1e-12)

    slopes = jax.vmap(jax.grad(activations.stochastic_gelu, 1), (None, 0))(keys[0], x)
    expected = jax.vmap(jax.grad(activations.gelu))(x)
    np.testing.assert_allclose(slopes, expected, rtol=1e-12)


def test_the_slopes_of_rrelu_are_uniform() -> None:
    x = -jnp.ones(100_000)
    slopes = -activations.rrelu(jax.random.key(0), x, lower=0.2, upper=0.6)
    assert slopes.min() >= 0.2 and slopes.max() <= 0.6
    np.testing.assert_allclose(slopes.mean(), 0.4, atol=2e-3)
    np.testing.assert_allclose(slopes.std(), 0.4 / np.sqrt(12), atol=2e-3)


@pytest.mark.parametrize(
    "function", [activations.softmax, activations.log_softmax, activations.sparsemax]
)
def test_a_row_without_anything_kept(function: Any) -> None:
    where = jnp.array([[True, True, False], [False] * 3])
    x = jnp.array([[1.0, 2.0, jnp.nan], [jnp.nan, jnp.inf, 0.0]])
    weights = jnp.arange(6.0).reshape(2, 3)

    def total(x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(where, weights * function(x, where=where), 0))

    nothing = -np.inf if function is activations.log_softmax else 0
    np.testing.assert_array_equal(function(x, where=where)[~where], nothing)
    for slopes in (jax.grad(total)(x), jax.hessian(total)(x)):
        assert np.isfinite(slopes).all()
    assert not jax.grad(total)(x)[~where].any()


@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(
    arrays.arrays(np.float64, 6, elements=st.floats(-100, 100)), st.floats(-1e3, 1e3)
)
@pytest.mark.parametrize("function", [activations.softmax, activations.sparsemax])
def test_probabilities_do_not_see_a_shift(
    function: Any, x: np.ndarray, shift: float
) -> None:
    p = function(jnp.asarray(x))
    np.testing.assert_allclose(p, function(jnp.asarray(x + shift)), atol=1e-12)
    np.testing.assert_allclose(p.sum(), 1, rtol=1e-12)
    assert np.all(p >= 0)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16, jnp.bfloat16])
def test_the_derivative_of_l2_normalize_is_bounded_at_0(dtype: Any) -> None:
    slopes = jax.jacobian(activations.l2_normalize)(jnp.zeros(3, dtype))
    bound = 1e4 if dtype == jnp.float16 else 1e6
    np.testing.assert_allclose(np.float64(slopes), bound * np.eye(3), rtol=1e-2)
    tiny = activations.l2_normalize(jnp.full(3, 1e-7, dtype))
    assert np.isfinite(tiny).all()

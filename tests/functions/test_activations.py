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
from bench.activations import scan_temporaries_mb
from bench.truths.activations import TRUTHS
from jaxml import activations


def is_elementwise(function: Callable[..., Any]) -> bool:
    """By the signature: the shape of x, no axis to reduce, and no random key."""
    signature = inspect.signature(function)
    keeps_shape = getattr(signature.return_annotation, "dim_str", "") == "*shape"
    reduces_axis = "axis" in signature.parameters and function is not activations.prelu
    return keeps_shape and not reduces_axis and "key" not in signature.parameters


ELEMENTWISE = [
    name
    for name, value in vars(activations).items()
    if inspect.isfunction(value) and is_elementwise(value)
]


def test_every_elementwise_activation_has_an_accuracy_truth() -> None:
    assert sorted(TRUTHS) == sorted(ELEMENTWISE)


@pytest.mark.parametrize("name", TRUTHS)
def test_value_and_derivative_are_accurate(name: str) -> None:
    compute = accuracy.value_and_derivative(accuracy.unary(name))
    inputs = {
        "float32": accuracy.stratified_float32(
            per_binade=8, num_even=20_001, num_neighbors=200
        ),
        "bfloat16": accuracy.all_16_bit(ml_dtypes.bfloat16),
        "float16": accuracy.all_16_bit(np.float16),
    }
    for dtype, x in inputs.items():
        errors = accuracy.max_errors(compute, TRUTHS[name], x)
        assert errors["value"] <= accuracy.BOUNDS[dtype], errors
        assert errors["derivative"] <= accuracy.BOUNDS[dtype], errors


@pytest.mark.parametrize("b", [0.0, 1e-6, 0.25, 9.0, 1e6, 1e20])
def test_squareplus_is_accurate_at_any_bend(b: float) -> None:
    """Its value, and both derivatives, where x/2 is a normal number too."""
    b = float(np.float32(b))
    x = accuracy.stratified_float32(per_binade=8, num_even=20_001, num_neighbors=200)
    x = x[np.abs(x) > 1e-37]
    exact_x = x.astype(np.float64)
    root, value = np.sqrt(exact_x**2 + b), TRUTHS["squareplus"].value(exact_x, b)

    @jax.jit
    def compute(x: jax.Array, b: jax.Array) -> tuple[jax.Array, ...]:
        y, pullback = jax.vjp(lambda x, b: activations.squareplus(x, b=b), x, b)
        return y, *pullback(jnp.ones_like(y))

    results = jax.vmap(compute, (0, None))(jnp.asarray(x), jnp.float32(b))
    for result, truth in zip(results, (value, value / root, 0.25 / root)):
        assert accuracy.ulp_errors(result, truth, np.float32).max() <= 4


def test_the_limit_of_swiglu_clips_the_gate_from_above_only() -> None:
    """At the kinks a = ±c and b = c the derivative is the left one."""
    limit = jnp.array(2.0)
    gradient = jax.grad(lambda x, limit: activations.swiglu(x, limit=limit)[0], (0, 1))
    for a, b in np.ndindex(7, 7):
        a, b = a - 3.0, b - 3.0
        x_bar, limit_bar = gradient(jnp.array([a, b]), limit)
        gate, slope = TRUTHS["silu"].value(min(b, 2.0)), TRUTHS["silu"].derivative
        clipped = min(max(a, -2.0), 2.0)
        expected = (
            gate * (-2 < a <= 2),
            clipped * float(slope(np.array(b))) * (b <= 2),
        )
        np.testing.assert_allclose(x_bar, expected, rtol=1e-12)
        by_limit = np.sign(a) * gate * (a > 2 or a <= -2)
        by_limit += clipped * float(slope(np.array(2.0))) * (b > 2)
        np.testing.assert_allclose(limit_bar, by_limit, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", TRUTHS)
def test_backward_pass_saves_only_the_input(name: str) -> None:
    x = jnp.linspace(-3, 3, 8).astype(jnp.bfloat16)
    _, backward = jax.vjp(accuracy.unary(name), x)
    saved = sum(leaf.nbytes for leaf in jax.tree.leaves(backward) if leaf.ndim)
    assert saved <= x.nbytes


@pytest.mark.parametrize("name", ["gelu", "gelu_tanh", "swish", "mish", "softplus"])
def test_scan_saves_only_the_input(name: str) -> None:
    with jax.enable_x64(False):
        assert scan_temporaries_mb(getattr(activations, name)) <= 115


@pytest.mark.parametrize("name", ["relu", "relu6", "hard_tanh"])
def test_scan_saves_one_byte_where_the_derivative_is_0_or_1(name: str) -> None:
    with jax.enable_x64(False):
        assert scan_temporaries_mb(getattr(activations, name)) <= 72


# What the docstring of an elementwise activation states, in a fixed form:
#
#     Range: [0, 6]. Derivative at 0: 0.
#     Kinks: relu6'(0) = 0, relu6'(6) = 1.

HYPERPARAMS = {  # at which the statements are checked; kinks at multiples of 1/8
    "leaky_relu": [{"negative_slope": 0.25}],
    "elu": [{"alpha": 0.5}, {"alpha": 2.0}],
    "celu": [{"alpha": 0.5}, {"alpha": 2.0}],
    "threshold": [{"threshold": 2.0, "value": 1.0}, {"threshold": -2.0, "value": -3.0}],
    "hard_shrink": [{"threshold": 0.5}, {"threshold": 2.0}],
    "soft_shrink": [{"threshold": 0.5}, {"threshold": 2.0}],
    "swish": [{"beta": 0.5}, {"beta": 2.0}],
    "softplus": [{"beta": 0.5}, {"beta": 2.0}],
    "squareplus": [{"b": 0.25}, {"b": 9.0}],
    "prelu": [{"slope": 0.25}],
    "snake": [{"alpha": 2.0}],
}
documented = pytest.mark.parametrize(
    ("name", "hyperparams"),
    [
        pytest.param(name, hyperparams, id=f"{name} {hyperparams or ''}".strip())
        for name in ELEMENTWISE
        for hyperparams in HYPERPARAMS.get(name, [{}])
    ],
)


def docstring_of(name: str) -> str:
    return inspect.getdoc(getattr(activations, name)) or ""


def stated(name: str, pattern: str) -> str:
    match = re.search(pattern, docstring_of(name))
    assert match, f"the docstring of {name} has no sentence '{pattern}'"
    return match[1]


def evaluate(name: str, text: str, hyperparams: dict[str, float]) -> float:
    """A formula of numbers and letters, such as `-0.2785/β` or `0 for θ >= 0, else 1`.

    Args explains a hyperparameter by its letter (`beta: β, ...`). Other letters have
    their values in the text (`λ = 1.05`).
    """
    doc = docstring_of(name)
    letters = {s: float(v) for s, v in re.findall(r"(\S) = (\d+\.\d+)", doc)}
    for argument, value in hyperparams.items():
        letters[stated(name, rf"\n    {argument}: (\S)[,.]")] = value
    text = re.sub(r"(.+) for (.+), else (.+)", r"\1 if \2 else \3", text)
    text = re.sub(r"([α-ω])(?=[α-ω])", r"\1*", text).replace("∞", "inf")
    return float(eval(text, {"inf": np.inf} | letters))


def bind(name: str, hyperparams: dict[str, float]) -> Callable[[Any], jax.Array]:
    arguments = {n: jnp.asarray(v) for n, v in hyperparams.items()}
    return lambda x: getattr(activations, name)(x, **arguments)


@documented
def test_range_is_the_stated_one(name: str, hyperparams: dict[str, float]) -> None:
    statement = stated(name, r"Range: (.+?)(?: for .+)?\. Derivative")
    function = bind(name, hyperparams)
    moderate = function(jnp.asarray(np.arange(-15 * 1024, 15 * 1024 + 1) / 1024))
    extreme = function(jnp.array([-1e30, -1e10, -100, 0, 1, 100, 1e10, 1e30]))
    y = np.concatenate([moderate, extreme])
    in_range = np.isnan(y)  # logit outside [0, 1]
    for interval in statement.split(" ∪ "):
        ends = interval[1:-1].split(", ")
        low, high = (evaluate(name, end, hyperparams) for end in (ends[0], ends[-1]))
        # decimal ends are rounded to 4 digits
        margin = 5e-4 * abs(low) if "." in interval else 1e-15
        in_interval = (y >= low - margin) & (y <= high + margin)
        in_range |= in_interval
        for end, bracket in ((low, interval[0]), (high, interval[-1])):
            if np.isinf(end):
                assert np.max(np.sign(end) * y[in_interval]) >= 1e29, "it is bounded"
                continue
            is_attained = np.any(np.abs(moderate - end) <= margin)
            assert is_attained == (bracket in "[]{}"), f"{bracket} at {end}"
            assert np.min(np.abs(y[in_interval] - end)) <= 2e-3, f"far from {end}"
    assert in_range.all(), y[~in_range]


@documented
def test_derivative_at_0_is_the_stated_one(
    name: str, hyperparams: dict[str, float]
) -> None:
    statement = stated(name, r"Derivative at 0: (.+)\.(?:\n|$)")
    derivative = jax.grad(bind(name, hyperparams))(0.0)
    expected = evaluate(name, statement, hyperparams)
    np.testing.assert_allclose(derivative, expected, rtol=1e-14)


@documented
def test_kinks_are_the_stated_ones(name: str, hyperparams: dict[str, float]) -> None:
    function = bind(name, hyperparams)
    derivative = jax.vmap(jax.grad(function))
    x, h = jnp.linspace(-8, 8, 129), 1e-9
    is_defined = np.isfinite(function(x - h) + function(x + h))
    jump = np.abs(derivative(x + h) - derivative(x - h))
    kinks = x[is_defined & (jump > 1e-6)]
    kinks = dict(zip(kinks.tolist(), derivative(kinks).tolist()))

    expected = {}
    if kinks or "Kinks:" in docstring_of(name):
        for kink in stated(name, r"Kinks: (.+)\.\n").split(", "):
            match = re.fullmatch(rf"{name}'\((.+)\) = (.+)", kink)
            assert match, kink
            at, value = (evaluate(name, text, hyperparams) for text in match.groups())
            expected[at] = value
    assert kinks == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_gradient_of_the_prelu_slope_is_summed_per_channel(axis: int) -> None:
    rng = np.random.default_rng(0)
    x, weights = rng.normal(size=(2, 2, 3, 4))
    slope = rng.normal(size=x.shape[axis])

    def weighted_sum(slope: jax.Array) -> jax.Array:
        return jnp.sum(weights * activations.prelu(jnp.asarray(x), slope, axis=axis))

    expected = np.zeros_like(slope)
    for i in np.ndindex(x.shape):
        expected[i[axis]] += weights[i] * min(x[i], 0.0)
    per_channel = jax.grad(weighted_sum)(jnp.asarray(slope))
    np.testing.assert_allclose(per_channel, expected, 1e-12)
    shared = jax.grad(weighted_sum)(jnp.asarray(0.25))
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
        (lambda x: activations.elu(x, alpha=-1.0), ValueError, "alpha must"),
        (lambda x: activations.celu(x, alpha=0.0), ValueError, "alpha must"),
        (lambda x: activations.softplus(x, beta=0.0), ValueError, "beta must"),
        (lambda x: activations.l2_normalize(x, eps=0.0), ValueError, "eps must"),
        (lambda x: activations.squareplus(x, b=-1.0), ValueError, "b must be non-neg"),
        (lambda x: activations.swiglu(x, limit=0.0), ValueError, "limit must be pos"),
    ],
)
def test_an_invalid_argument_is_named(call: Any, error: type, sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        call(jnp.ones((3, 4)))


def test_mean_of_stochastic_gelu_is_gelu() -> None:
    x = jnp.linspace(-3, 3, 13)
    keys = jax.random.split(jax.random.key(0), 20_000)
    samples = jax.vmap(activations.stochastic_gelu, (0, None))(keys, x)
    error = np.abs(samples.mean(0) - activations.gelu(x))
    assert np.all(error <= 5 * np.std(samples, 0) / np.sqrt(len(keys)) + 1e-12)

    gradient = jax.vmap(jax.grad(activations.stochastic_gelu, 1), (None, 0))
    expected = jax.vmap(jax.grad(activations.gelu))(x)
    np.testing.assert_allclose(gradient(keys[0], x), expected, rtol=1e-12)


def test_slopes_of_rrelu_are_uniform() -> None:
    x = -jnp.ones(100_000)
    slopes = -activations.rrelu(jax.random.key(0), x, lower=0.2, upper=0.6)
    assert slopes.min() >= 0.2 and slopes.max() <= 0.6
    np.testing.assert_allclose(slopes.mean(), 0.4, atol=2e-3)
    np.testing.assert_allclose(slopes.std(), 0.4 / np.sqrt(12), atol=2e-3)


@pytest.mark.usefixtures("no_xla_optimizations")
@pytest.mark.parametrize(
    "function", [activations.softmax, activations.log_softmax, activations.sparsemax]
)
def test_a_fully_masked_row_has_gradient_0(function: Any) -> None:
    where = jnp.array([[True, True, False], [False] * 3])
    x = jnp.array([[1.0, 2.0, jnp.nan], [jnp.nan, jnp.inf, 0.0]])
    weights = jnp.arange(6.0).reshape(2, 3)

    def weighted_sum(x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(where, weights * function(x, where=where), 0))

    fill = -np.inf if function is activations.log_softmax else 0
    np.testing.assert_array_equal(function(x, where=where)[~where], fill)
    for derivatives in (jax.grad(weighted_sum)(x), jax.hessian(weighted_sum)(x)):
        assert np.isfinite(derivatives).all()
    assert not jax.grad(weighted_sum)(x)[~where].any()


@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(
    arrays.arrays(np.float64, 6, elements=st.floats(-100, 100)), st.floats(-1e3, 1e3)
)
@pytest.mark.parametrize("function", [activations.softmax, activations.sparsemax])
def test_probabilities_are_invariant_to_a_shift(
    function: Any, x: np.ndarray, shift: float
) -> None:
    p = function(jnp.asarray(x))
    np.testing.assert_allclose(p, function(jnp.asarray(x + shift)), atol=1e-12)
    np.testing.assert_allclose(p.sum(), 1, rtol=1e-12)
    assert np.all(p >= 0)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16, jnp.bfloat16])
def test_derivative_of_l2_normalize_is_bounded_at_0(dtype: Any) -> None:
    jacobian = jax.jacobian(activations.l2_normalize)(jnp.zeros(3, dtype))
    bound = 1e4 if dtype == jnp.float16 else 1e6
    np.testing.assert_allclose(np.float64(jacobian), bound * np.eye(3), rtol=1e-2)
    tiny = activations.l2_normalize(jnp.full(3, 1e-7, dtype))
    assert np.isfinite(tiny).all()

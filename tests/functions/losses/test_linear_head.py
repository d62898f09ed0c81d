"""Log-probabilities and divergences of a head: precision, memory and derivatives."""

from collections.abc import Callable
from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilation import jit_without_fusion_emitters
from jax import Array

from jaxml import losses

DIVERGENCES = losses.linear_kl_divergence, losses.linear_js_divergence
Arrays = tuple[Array, ...]


def dense_log_prob(x: Any, w: Any, labels: Any) -> Array:
    """[fields rows]"""
    z = jnp.asarray(x, jnp.float64) @ jnp.asarray(w, jnp.float64)
    log_p = jax.nn.log_softmax(z)
    entropy = -jnp.sum(jnp.where(log_p > -800, jnp.exp(log_p) * log_p, 0), -1)
    rows = jnp.arange(len(labels))
    return jnp.stack([log_p[rows, labels], entropy, jax.nn.logsumexp(z, -1)])


def dense_kl(log_q: Array, log_p: Array) -> Array:
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q), -1)


def dense_divergence(function: Callable, heads: Arrays, dtype: Any = None) -> Array:
    x, w, teacher_x, teacher_w = (jnp.asarray(a, dtype) for a in heads)
    log_q, log_p = map(jax.nn.log_softmax, (x @ w, teacher_x @ teacher_w))
    if function is losses.linear_kl_divergence:
        return dense_kl(log_q, log_p)
    log_m = jnp.logaddexp(log_q, log_p) - jnp.log(2)
    return (dense_kl(log_m, log_p) + dense_kl(log_m, log_q)) / 2


def two_heads(n: int, classes: int, dtype: Any = jnp.float64) -> Arrays:
    rng = np.random.default_rng(n)
    shapes = (n, 6), (6, classes), (n, 4), (4, classes)
    return tuple(jnp.asarray(rng.normal(size=s), dtype) for s in shapes)


@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0, 40.0])
def test_bfloat16_gives_the_float64_result_of_the_same_inputs(scale: float) -> None:
    rng = np.random.default_rng(1)
    x, w = (
        jnp.asarray(rng.normal(size=shape), jnp.bfloat16)
        for shape in [(16, 32), (32, 3001)]
    )
    x, labels = (x * scale).astype(jnp.bfloat16), rng.integers(0, 3001, 16)
    got = jnp.stack(losses.linear_log_prob(x, w, labels))
    # the logits themselves are sums in float32
    np.testing.assert_allclose(got, dense_log_prob(x, w, labels), rtol=2e-6, atol=2e-5)


def test_float32_at_logits_of_ten_thousand() -> None:
    """Integer logits are exact in float32; so is what follows, up to 10⁻⁶."""
    rng = np.random.default_rng(2)
    z = np.concatenate(
        [
            rng.integers(-10_000, 10_000, (4, 513)),
            9_990 + rng.integers(0, 9, (4, 513)),  # near uniform, with an offset
            rng.integers(-10_000, -9_000, (4, 513)),
        ]
    ).astype(np.float32)
    labels = np.argmax(z, -1)
    labels[::2] = rng.integers(0, 513, len(labels[::2]))
    rows = np.eye(len(z), dtype=np.float32)
    got = losses.linear_log_prob(rows, z, labels)
    expected = dense_log_prob(rows, z, labels)
    np.testing.assert_allclose(got.log_prob, expected[0], rtol=2e-6, atol=1e-15)
    np.testing.assert_allclose(got.entropy, expected[1], rtol=5e-6, atol=1e-15)
    np.testing.assert_allclose(got.lse, expected[2], rtol=1e-6)


@pytest.mark.parametrize("label", [0, 1, 700])
@pytest.mark.parametrize("sure", [0, 600])
def test_a_sure_row_has_a_small_and_precise_entropy(label: int, sure: int) -> None:
    """One class has all but 10⁻¹² of the probability, which is 0 next to 1."""
    z = np.zeros((1, 1031), np.float32)
    z[0, sure] = np.float32(np.log(1e12))
    got = losses.linear_log_prob(np.ones((1, 1), np.float32), z, np.array([label]))
    z = np.float64(z[0])
    others = np.sum(np.exp(z - z[sure])) - 1
    entropy = np.log1p(others) + others * (z[sure]) / (1 + others)
    nll = np.log1p(others) + z[sure] - z[label]
    np.testing.assert_allclose(got.entropy, entropy, rtol=2e-6)
    np.testing.assert_allclose(-got.log_prob, nll, rtol=2e-6)


def test_the_entropy_is_never_negative() -> None:
    rng = np.random.default_rng(3)
    x = jnp.asarray(rng.normal(size=(256, 8)) * 100, jnp.float32)
    w, labels = jnp.asarray(rng.normal(size=(8, 1031)), jnp.float32), jnp.arange(256)
    fields = losses.linear_log_prob(x, w, labels)
    assert jnp.all(fields.entropy >= 0)
    assert jnp.all(fields.log_prob <= 0)


@pytest.mark.parametrize("function", DIVERGENCES)
@pytest.mark.parametrize("exponent", [4, 8, 12])
def test_close_heads_have_a_precise_divergence(
    function: Callable, exponent: int
) -> None:
    """The logits are exact in float32 and differ by multiples of 2⁻¹² or more."""
    rng = np.random.default_rng(exponent)
    teacher = rng.integers(-1024, 1024, (8, 1031)) / 256
    student = teacher + rng.integers(-3, 4, (8, 1031)) * 2.0**-exponent
    rows = np.eye(8, dtype=np.float32)
    heads = rows, student.astype(np.float32), rows, teacher.astype(np.float32)
    log_q, log_p = map(jax.nn.log_softmax, map(jnp.asarray, (student, teacher)))
    expected = {
        losses.linear_kl_divergence: losses.kl_divergence,
        losses.linear_js_divergence: losses.js_divergence,
    }[function](log_q, log_p)
    np.testing.assert_allclose(function(*heads), expected, rtol=1e-5)
    offset = jnp.full(1031, 4096.0, jnp.float32)
    shifted = function(*heads, bias=offset)
    np.testing.assert_allclose(shifted, expected, rtol=1e-5 if exponent == 4 else 1)


@pytest.mark.parametrize("function", DIVERGENCES)
def test_a_divergence_is_never_negative_and_0_of_equal_heads(
    function: Callable,
) -> None:
    x, w, _, _ = two_heads(64, 1031, jnp.float32)
    rng = np.random.default_rng(4)
    for scale in 1e-7, 1e-5, 1e-3:
        noise = jnp.asarray(scale * rng.normal(size=w.shape), jnp.float32)
        assert jnp.all(function(x, w, x, w + noise) >= 0)
    np.testing.assert_array_equal(function(x, w, x, w), 0)
    gradient = jax.grad(lambda w: jnp.sum(function(x, w, x, w)))(w)
    np.testing.assert_array_equal(gradient, 0)


def test_bfloat16_heads_give_the_float64_divergence_of_the_same_inputs() -> None:
    heads = two_heads(32, 3001, jnp.bfloat16)
    for function in DIVERGENCES:
        expected = dense_divergence(function, heads, jnp.float64)
        got = function(*heads)
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, expected, atol=2e-5)


def test_the_divergence_tends_to_both_directions_of_kl() -> None:
    x, w, teacher_x, teacher_w = heads = two_heads(5, 40)
    beta = 1e-6
    js = partial(losses.linear_js_divergence, *heads)
    forward = losses.linear_kl_divergence(*heads)
    reverse = losses.linear_kl_divergence(teacher_x, teacher_w, x, w)
    np.testing.assert_allclose(js(beta=beta) / beta, forward, rtol=1e-3)
    np.testing.assert_allclose(js(beta=1 - beta) / beta, reverse, rtol=1e-3)
    np.testing.assert_array_equal([js(beta=0.0), js(beta=1.0)], 0)


@pytest.mark.parametrize("function", DIVERGENCES)
def test_the_teacher_has_no_gradient(function: Callable) -> None:
    heads = two_heads(5, 40)
    bias = jnp.ones(40)

    def total(x: Array, w: Array, bias: Array) -> Array:
        return jnp.sum(function(*heads[:2], x, w, teacher_bias=bias))

    gradients = jax.grad(total, (0, 1, 2))(*heads[2:], bias)
    assert not any(jnp.any(gradient) for gradient in gradients)


@pytest.mark.parametrize("function", DIVERGENCES)
def test_the_temperature_divides_the_logits_of_both(function: Callable) -> None:
    x, w, teacher_x, teacher_w = two_heads(5, 40)
    got = function(x, w, teacher_x, teacher_w, temperature=2.0)
    expected = function(x / 2, w, teacher_x / 2, teacher_w)
    np.testing.assert_allclose(got, expected, rtol=1e-12)


def log_prob_sum(x: Array, w: Array, bias: Array, temperature: Array, *_: Any) -> Array:
    fields = losses.linear_log_prob(
        x, w, jnp.arange(len(x)), bias=bias, temperature=temperature, block=4
    )
    return jnp.sum(fields.log_prob * fields.entropy + fields.lse**2)


def dense_log_prob_sum(
    x: Array, w: Array, bias: Array, temperature: Array, *_: Any
) -> Array:
    z = (x @ w + bias[None]) / temperature
    log_p, lse = jax.nn.log_softmax(z), jax.nn.logsumexp(z, -1)
    entropy = -jnp.sum(jnp.exp(log_p) * log_p, -1)
    return jnp.sum(jnp.diagonal(log_p) * entropy + lse**2)


def divergence_sum(function: Callable, *arrays: Array) -> Array:
    x, w, bias, temperature, *teacher = arrays
    values = function(x, w, *teacher, bias=bias, temperature=temperature, block=4)
    return jnp.sum(values**2)


def dense_divergence_sum(function: Callable, *arrays: Array) -> Array:
    x, w, bias, temperature, teacher_x, teacher_w = arrays
    student = jnp.concatenate([x, jnp.ones((len(x), 1))], 1) / temperature
    heads = student, jnp.concatenate([w, bias[None]]), teacher_x / temperature
    return jnp.sum(dense_divergence(function, (*heads, teacher_w)) ** 2)


FORMS = {
    "log_prob": (log_prob_sum, dense_log_prob_sum),
    "kl": tuple(
        partial(form, DIVERGENCES[0]) for form in (divergence_sum, dense_divergence_sum)
    ),
    "js": tuple(
        partial(form, DIVERGENCES[1]) for form in (divergence_sum, dense_divergence_sum)
    ),
}


@pytest.mark.usefixtures("no_xla_optimizations")
@pytest.mark.parametrize("name", FORMS)
def test_derivatives_equal_those_of_the_dense_form(name: str) -> None:
    x, w, *teacher = two_heads(7, 11)
    at = x, w, jnp.cos(jnp.arange(11.0)), jnp.float64(0.7)
    v = jax.tree.map(
        lambda a: jnp.sin(1.0 + jnp.arange(float(a.size))).reshape(a.shape), at
    )

    def first_and_second(form: Callable) -> Any:
        gradient = jax.grad(lambda at: form(*at, *teacher))
        return jax.jvp(gradient, (at,), (v,))

    got, expected = (
        jit_without_fusion_emitters(partial(first_and_second, form))()
        for form in FORMS[name]
    )
    chex.assert_trees_all_close(got, expected, rtol=1e-9, atol=1e-11)


def objectives(block: int | None = None) -> dict[str, Callable[..., Array]]:
    """Functions of two heads, per row."""

    def log_prob(x: Array, w: Array, *_: Array, where: Any = None) -> Array:
        labels = jnp.arange(len(x)) % w.shape[1]
        fields = losses.linear_log_prob(x, w, labels, block=block, where=where)
        return fields.log_prob + fields.entropy + fields.lse

    kl, js = (partial(function, block=block) for function in DIVERGENCES)
    return {"log_prob": log_prob, "kl": kl, "js": js}


@pytest.mark.parametrize("name", FORMS)
def test_the_logits_are_never_held(name: str) -> None:
    n, d, classes = 512, 64, 8192
    objective = objectives(block=256)[name]
    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in [(n, d), (d, classes)] * 2]
    gradient = jax.value_and_grad(lambda *heads: objective(*heads).sum(), (0, 1))
    memory = jax.jit(gradient).lower(*shapes).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 4 * n * classes / 4


@pytest.mark.parametrize("name", FORMS)
def test_masked_rows_may_hold_nan(name: str) -> None:
    objective = objectives()[name]
    heads = two_heads(8, 11)
    where = jnp.arange(8) % 3 != 0
    spoiled = [
        jnp.where(where[:, None], a, jnp.nan) if len(a) == 8 else a for a in heads
    ]
    gradient = jax.value_and_grad(
        lambda x, w, *teacher: jnp.sum(objective(x, w, *teacher, where=where)), (0, 1)
    )
    chex.assert_trees_all_equal(gradient(*spoiled), gradient(*heads))
    assert not np.any(objective(*spoiled, where=where)[~where])


def test_a_label_out_of_range_has_no_gradient() -> None:
    x, w, _, _ = two_heads(6, 11)
    labels = jnp.array([0, -1, 5, 11, 10, 2**31 - 1])
    is_valid = (labels >= 0) & (labels < 11)

    def total(x: Array, w: Array) -> tuple[Array, losses.LogProb]:
        fields = losses.linear_log_prob(x, w, labels)
        return sum(losses.mean(f, where=is_valid) for f in fields), fields

    x = jnp.where(is_valid[:, None], x, jnp.nan)
    (x_grad, w_grad), fields = jax.grad(total, (0, 1), has_aux=True)(x, w)
    for field in fields:
        np.testing.assert_array_equal(jnp.isnan(field), ~is_valid)
    assert not jnp.any(x_grad[~is_valid])
    chex.assert_tree_all_finite((x_grad, w_grad))


@pytest.mark.parametrize("classes", [1, 2, 513, 151_936])
@pytest.mark.parametrize("name", FORMS)
def test_any_vocabulary(name: str, classes: int) -> None:
    heads = two_heads(3, classes)
    got = objectives()[name](*heads)
    if name == "log_prob":
        expected = dense_log_prob(*heads[:2], np.arange(3) % classes).sum(0)
    else:
        function = dict(zip(["kl", "js"], DIVERGENCES))[name]
        expected = dense_divergence(function, heads)
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("shape", [(0, 6), (2, 0, 6), (0, 2, 6)])
@pytest.mark.parametrize("function", [losses.linear_log_prob, *DIVERGENCES])
def test_an_empty_batch(function: Callable, shape: tuple[int, ...]) -> None:
    x, w = jnp.ones(shape), jnp.ones((6, 5))
    is_labeled = function is losses.linear_log_prob
    truth = (jnp.zeros(shape[:-1], int),) if is_labeled else (x, w)
    fields = jax.tree.leaves(function(x, w, *truth))
    assert all(field.shape == shape[:-1] for field in fields)
    gradient = jax.grad(lambda w: sum(map(jnp.sum, function(x, w, *truth))))
    if is_labeled:
        np.testing.assert_array_equal(gradient(w), 0)


@pytest.mark.parametrize("function", DIVERGENCES)
def test_heads_that_do_not_fit_are_refused(function: Callable) -> None:
    x, w, teacher_x, teacher_w = two_heads(2, 5)
    vocabulary = r"teacher_w must be .* where w is \[d classes\] = float64\[6,5\], got"
    with pytest.raises(TypeError, match=vocabulary):
        function(x, w, teacher_x, teacher_w[:, :4])
    width = r"teacher_w must be .* where teacher_x is \[\*batch teacher_d\] = .*, got"
    with pytest.raises(TypeError, match=width):
        function(x, w, teacher_x, teacher_w[:3])
    with pytest.raises(ValueError, match=r"temperature must be positive, got -1\.0\."):
        function(x, w, teacher_x, teacher_w, temperature=-1.0)


def test_a_masked_token_has_probability_0() -> None:
    """A bias of -∞ excludes a class from both distributions."""
    heads = two_heads(4, 11)
    bias = jnp.zeros(11).at[3].set(-jnp.inf)
    without = [jnp.delete(a, 3, 1) if a.shape[1] == 11 else a for a in heads]
    for function in DIVERGENCES:
        both = partial(function, bias=bias, teacher_bias=bias)
        np.testing.assert_allclose(both(*heads), function(*without), rtol=1e-12)
        _, pullback = jax.vjp(both, *heads)
        chex.assert_tree_all_finite(pullback(jnp.ones(4)))
    got = losses.linear_log_prob(*heads[:2], jnp.arange(4), bias=bias)
    expected = losses.linear_log_prob(*without[:2], jnp.arange(4))
    np.testing.assert_allclose(got.entropy, expected.entropy, rtol=1e-12)
    assert got.log_prob[3] == -jnp.inf

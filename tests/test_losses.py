"""Losses: what the table of cases cannot say, above all where peers fail."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxml import losses

FINITE = st.floats(-30, 30, width=32)
SCORES = st.lists(FINITE, min_size=4, max_size=4)
QUICK = settings(max_examples=60, deadline=None)


def exact_kl(p, q):
    return float(mpmath.fsum(a * mpmath.log(a / b) for a, b in zip(p, q)))


def test_kl_keeps_its_digits_when_the_distributions_are_close() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=6)
    with mpmath.workdps(50):
        for distance in (1e-2, 1e-4, 1e-5):
            other = logits + distance * rng.normal(size=6)
            p, q = (
                [mpmath.exp(v) / mpmath.fsum(map(mpmath.exp, row)) for v in row]
                for row in (logits, other)
            )
            log_p, log_q = (
                np.array([float(mpmath.log(v)) for v in row]) for row in (p, q)
            )
            got = losses.kl_divergence(jnp.asarray(log_q), jnp.asarray(log_p))
            np.testing.assert_allclose(got, exact_kl(p, q), rtol=1e-9)


def test_kl_in_float32_is_right_to_1e5_of_its_value() -> None:
    """p and q differ by 1e-5: the plain sum of p (log p - log q) has no digit left."""
    p = np.array([0.25, 0.25, 0.5])
    log_p = np.log(p).astype(np.float32)
    log_q = (log_p + np.array([1e-5, -1e-5, 0.0])).astype(np.float32)
    u = log_q.astype(float) - log_p.astype(float)
    truth = np.sum(np.exp(log_p.astype(float)) * (np.expm1(u) - u))
    got = losses.kl_divergence(jnp.asarray(log_q), jnp.asarray(log_p))
    np.testing.assert_allclose(got, truth, rtol=1e-5)
    plain = np.sum(np.exp(log_p) * (log_p - log_q))
    assert abs(plain - truth) > 0.1 * truth


@QUICK
@given(SCORES, SCORES)
def test_kl_is_never_negative_and_zero_only_for_equals(first, second) -> None:
    log_p, log_q = (
        jax.nn.log_softmax(jnp.array(row, jnp.float32)) for row in (first, second)
    )
    assert losses.kl_divergence(log_q, log_p) >= 0
    assert losses.kl_divergence(log_p, log_p) == 0
    assert losses.js_divergence(log_p, log_p) == 0
    js = losses.js_divergence(log_q, log_p)
    assert js >= 0
    np.testing.assert_allclose(js, losses.js_divergence(log_p, log_q), rtol=1e-5)


@QUICK
@given(SCORES, SCORES)
def test_cross_entropy_is_entropy_plus_divergence(first, second) -> None:
    logits, log_p = jnp.array(first), jax.nn.log_softmax(jnp.array(second))
    log_q = jax.nn.log_softmax(logits)
    np.testing.assert_allclose(
        losses.soft_cross_entropy(logits, jnp.exp(log_p)),
        losses.entropy(log_p) + losses.kl_divergence(log_q, log_p),
        rtol=1e-9,
        atol=1e-12,
    )


@QUICK
@given(SCORES, FINITE, st.integers(0, 3))
def test_a_constant_added_to_all_logits_changes_nothing(row, shift, label) -> None:
    z, y = jnp.array([row]), jnp.array([label])
    for loss in (losses.cross_entropy, losses.focal_loss, losses.poly_loss):
        np.testing.assert_allclose(
            loss(z + shift, y), loss(z, y), rtol=1e-9, atol=1e-12
        )


def test_soft_targets_of_one_label_are_that_label() -> None:
    z = jnp.asarray(np.random.default_rng(1).normal(size=(6, 4)))
    y = jnp.arange(6) % 4
    one_hot = jax.nn.one_hot(y, 4, dtype=z.dtype)
    for label_smoothing in (0.0, 0.1):
        soft = losses.smooth_labels(one_hot, label_smoothing=label_smoothing)
        np.testing.assert_allclose(
            losses.cross_entropy(z, y, label_smoothing=label_smoothing),
            losses.soft_cross_entropy(z, soft),
            rtol=1e-12,
        )


def test_saturated_logits_keep_the_tail_of_loss_and_gradient() -> None:
    z = jnp.array([[69.0, 0.0, 0.0]], jnp.float32)

    def loss(z):
        return losses.cross_entropy(z, jnp.array([0])).sum()

    tail = np.exp(-69.0)
    np.testing.assert_allclose(loss(z), 2 * tail, rtol=1e-5)
    np.testing.assert_allclose(jax.grad(loss)(z)[0], [-2 * tail, tail, tail], rtol=1e-5)


@pytest.mark.parametrize(
    "loss",
    [
        losses.cross_entropy,
        losses.focal_loss,
        losses.poly_loss,
        losses.generalized_cross_entropy,
        losses.nll_loss,
        losses.multiclass_hinge_loss,
        losses.multi_margin_loss,
    ],
)
@pytest.mark.parametrize("label", [-100, -1, 4, 31_900])
def test_a_label_that_is_no_class_is_loud_alone_and_can_be_removed(loss, label) -> None:
    z = jnp.asarray(np.random.default_rng(2).normal(size=(3, 4)))
    y = jnp.array([1, label, 2])
    got = loss(z, y)
    assert np.isnan(got).tolist() == [False, True, False]

    def kept(z):
        return losses.mean(loss(z, y), where=(y >= 0) & (y < 4))

    np.testing.assert_allclose(kept(z), got[jnp.array([0, 2])].mean())
    gradient = jax.grad(kept)(z)
    assert not gradient[1].any()
    assert np.isfinite(gradient).all()


def test_narrow_labels_do_not_overflow() -> None:
    z = jnp.zeros((2, 300))
    labels = jnp.array([-100, 100], jnp.int8)
    assert np.isnan(losses.cross_entropy(z, labels)).tolist() == [True, False]


def test_bfloat16_sums_in_float32() -> None:
    """optax stays in bfloat16: off by up to 0.14 per row at 1,000 classes."""
    rng = np.random.default_rng(3)
    z = jnp.asarray(5 * rng.normal(size=(64, 1000)), jnp.bfloat16)
    y = jnp.asarray(rng.integers(0, 1000, 64))
    exact = losses.cross_entropy(z.astype(jnp.float64), y)
    np.testing.assert_allclose(
        np.float64(losses.cross_entropy(z, y)), exact, rtol=0.51 * 2**-7
    )


def test_large_bfloat16_logits_of_a_head() -> None:
    rng = np.random.default_rng(4)
    x = jnp.asarray(rng.normal(size=(16, 32)), jnp.bfloat16)
    w = jnp.asarray(rng.normal(size=(32, 200)) * 40, jnp.bfloat16)
    y = jnp.asarray(rng.integers(0, 200, 16))
    z = x.astype(jnp.float64) @ w.astype(jnp.float64)
    assert abs(z).max() > 640
    exact = losses.cross_entropy(z, y)
    got = losses.linear_cross_entropy(x.astype(jnp.float32), w.astype(jnp.float32), y)
    np.testing.assert_allclose(got, exact, atol=1e-2)
    rounded = losses.linear_cross_entropy(x, w, y)
    np.testing.assert_allclose(np.float64(rounded), exact, rtol=2**-8, atol=1e-2)


def test_the_head_holds_no_logits_and_has_second_derivatives() -> None:
    n, d, v = 512, 64, 8192
    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in [(n, d), (d, v)]]
    labels = jnp.arange(n) % v

    def loss(x, w):
        return losses.linear_cross_entropy(x, w, labels, block=256).sum()

    gradient = jax.jit(jax.value_and_grad(loss, (0, 1)))
    held = gradient.lower(*shapes).compile().memory_analysis()
    assert held.temp_size_in_bytes < 4 * n * v / 8

    rng = np.random.default_rng(5)
    x, w = (jnp.asarray(rng.normal(size=s)) for s in [(7, 3), (3, 11)])
    y = jnp.arange(7)

    def dense(x, w):
        return losses.cross_entropy(x @ w, y).sum()

    def tiled(x, w):
        return losses.linear_cross_entropy(x, w, y, block=4).sum()

    along = jnp.ones_like(x), jnp.ones_like(w)
    for one, other in zip(
        *(jax.jvp(jax.grad(f, (0, 1)), (x, w), along)[1] for f in (tiled, dense))
    ):
        np.testing.assert_allclose(one, other, rtol=1e-10)


@pytest.mark.usefixtures("no_xla_optimizations")
def test_classes_that_do_not_exist_are_not_in_the_hessian() -> None:
    """By reverse over reverse, which differentiates what was selected away too."""
    scores = np.array([1.0, -2.0, 0.5, -np.inf])
    rows = np.stack([np.where([1, 1, 1, 0], scores, v) for v in (np.nan, 1e300, 5.0)])
    rows = np.concatenate([rows, np.full((2, 4), np.nan), scores[None]])
    rows[3, 0] = 7.0
    where = np.array([[1, 1, 1, 0]] * 3 + [[1, 0, 0, 0], [0] * 4, [1] * 4], bool)

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, 0, None))
    def hessian(z: jax.Array, where: jax.Array, label_smoothing: float) -> jax.Array:
        def loss(z: jax.Array) -> jax.Array:
            label = jnp.array(0)
            return losses.cross_entropy(
                z, label, label_smoothing=label_smoothing, where=where
            )

        return jax.jacrev(jax.jacrev(loss))(z)

    for label_smoothing in (0.0, 0.1):
        got = hessian(jnp.asarray(rows), jnp.asarray(where), label_smoothing)
        for z, kept, found in zip(rows, where, got):
            powers = np.exp(np.where(kept, z, -np.inf))
            p = powers / powers.sum() if kept.any() else powers
            expected = np.diag(p) - np.outer(p, p)
            np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.usefixtures("no_xla_optimizations")
def test_the_bound_of_a_cross_entropy_may_be_learned_from_none() -> None:
    """∂/∂q of (1 - e^(-q s)) / q, at q = 0 and near it, of a surprise s."""
    z = jnp.array([[0.0, 0.0], [40.0, 0.0], [-3.0, 0.0], [-60.0, 0.0]])

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, None))
    def slope(z: jax.Array, q: float) -> jax.Array:
        return jax.grad(
            lambda q: losses.generalized_cross_entropy(z, jnp.array(0), q=q)
        )(q)

    for q in (0.0, 1e-200, 1e-12, 1e-6, 1e-3, 0.02, 0.3, 1.0):
        with mpmath.workdps(500):
            surprise = [mpmath.log1p(mpmath.exp(-v[0])) for v in z.tolist()]
            y = [q * s for s in surprise]
            truth = [
                -(s**2) / 2
                if q == 0
                else -(1 - (1 + y) * mpmath.exp(-y)) / mpmath.mpf(q) ** 2
                for s, y in zip(surprise, y)
            ]
        got = slope(z, q)
        np.testing.assert_allclose(got, [float(v) for v in truth], rtol=1e-13)


def test_weights_of_classes() -> None:
    z = jnp.asarray(np.random.default_rng(6).normal(size=(5, 3)))
    y, weights = jnp.array([0, 1, 2, 2, 0]), jnp.array([1.0, 2.0, 5.0])
    each = losses.cross_entropy(z, y)
    expected = sum(weights[y] * each) / sum(weights[y])
    np.testing.assert_allclose(losses.mean(each, weights=weights[y]), expected)


def test_an_infinite_logit_has_a_slope_for_its_target() -> None:
    """w log(1 + e⁻ˣ) - log(1 + eˣ), for every w, and with its digits near 0."""
    x = jnp.array([-jnp.inf, -1e30, -2.0, 1e-20, 0.0, 3.0, 1e30, jnp.inf])
    slope = jax.jit(
        jax.grad(
            lambda t, w: jnp.sum(
                losses.binary_cross_entropy_with_logits(x, t, pos_weight=w)
            )
        )
    )
    for w in (1.0, 0.5, 3.0):
        with mpmath.workdps(50):
            finite = [
                float(w * mpmath.log1p(mpmath.exp(-v)) - mpmath.log1p(mpmath.exp(v)))
                if abs(v) < 100
                else -v * (w if v < 0 else 1)
                for v in map(float, x)
            ]
        np.testing.assert_allclose(slope(jnp.full(8, 0.3), w), finite, rtol=1e-14)


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"linear_cross_entropy: block must be at least 1"
    ):
        losses.linear_cross_entropy(
            jnp.ones((1, 2)), jnp.ones((2, 3)), jnp.array([0]), block=0
        )
    with pytest.raises(
        ValueError, match=r"dice_loss: axis must name different axes of"
    ):
        losses.dice_loss(jnp.ones((2, 2, 1)), jnp.ones((2, 2, 1)), axis=(0, 0))
    with pytest.raises(ValueError, match=r"not the last, got \(-2, -1\)\."):
        losses.dice_loss(jnp.ones((2, 2, 1)), jnp.ones((2, 2, 1)), axis=(-2, -1))


def test_relative_entropy_is_curved_where_both_distributions_are_one() -> None:
    log_p = np.log(np.array([0.2, 0.3, 0.5], np.float32))
    curvature = jax.hessian(losses.kl_divergence)(log_p, log_p)
    np.testing.assert_allclose(curvature, np.diag([0.2, 0.3, 0.5]), rtol=1e-6)


def cross_entropy(z: np.ndarray, label_smoothing: float) -> tuple:
    """The value, the gradient and the Hessian for the label 1."""
    e = np.exp(z - z.max())
    p, target = e / e.sum(), np.eye(3)[1] * (1 - label_smoothing) + label_smoothing / 3
    value = z.max() + np.log(e.sum()) - target @ z
    return value, p - target, np.diag(p) - np.outer(p, p)


def log_cosh(z: np.ndarray) -> tuple:
    e = np.exp(-2 * np.abs(z))
    value = np.sum(np.abs(z) + np.log1p(e) - np.log(2))
    return value, np.tanh(z), np.diag(4 * e / (1 + e) ** 2)


@pytest.mark.parametrize(
    ("loss", "truth"),
    [
        (lambda z: losses.cross_entropy(z, 1), lambda z: cross_entropy(z, 0.0)),
        (
            lambda z: losses.cross_entropy(z, 1, label_smoothing=0.1),
            lambda z: cross_entropy(z, 0.1),
        ),
        (lambda z: losses.log_cosh_loss(z, jnp.zeros_like(z)).sum(), log_cosh),
    ],
    ids=["cross_entropy", "smoothed", "log_cosh"],
)
def test_a_second_derivative_goes_through_a_scan(loss: Any, truth: Any) -> None:
    def squared(z: jax.Array) -> jax.Array:
        total = jax.lax.scan(lambda sum, _: (sum + loss(z), None), 0.0, length=3)[0]
        return total**2

    z = np.array([-1.0, 0.5, 800.0])
    value, slope, curvature = truth(z)
    np.testing.assert_allclose(
        jax.hessian(squared)(jnp.asarray(z)),
        18 * (value * curvature + np.outer(slope, slope)),
        rtol=1e-9,
        atol=1e-12,
    )


@pytest.mark.parametrize("scale", [1e-36, 1e-20, 1e30])
def test_the_slope_of_a_cosine_is_right_for_rows_of_any_length(scale: float) -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)

    def slope(x: Any) -> jax.Array:
        return jax.grad(lambda x: losses.cosine_distance(x, y).sum())(jnp.asarray(x))

    got = scale * slope(np.float32(scale) * x)
    np.testing.assert_allclose(got, slope(x), rtol=1e-4, atol=1e-5)

"""Properties of losses that the table of cases cannot state."""

import functools
from collections.abc import Callable

import chex
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
FAST = settings(max_examples=60, deadline=None)


def exact_softmax(z: np.ndarray) -> list:
    exps = [mpmath.exp(v) for v in z]
    return [e / mpmath.fsum(exps) for e in exps]


def exact_kl(p: list, q: list) -> float:
    return float(mpmath.fsum(a * mpmath.log(a / b) for a, b in zip(p, q)))


@pytest.mark.parametrize("distance", [1e-2, 1e-4, 1e-5])
def test_kl_divergence_of_close_distributions_is_precise(distance: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=6)
    with mpmath.workdps(50):
        p = exact_softmax(logits)
        q = exact_softmax(logits + distance * rng.normal(size=6))
        log_p, log_q = (jnp.array([float(mpmath.log(v)) for v in d]) for d in (p, q))
        expected = exact_kl(p, q)
    np.testing.assert_allclose(losses.kl_divergence(log_q, log_p), expected, rtol=1e-9)


def test_kl_divergence_is_precise_in_float32() -> None:
    """log p and log q differ by 1e-5, where Σ p (log p - log q) is all noise."""
    p = np.array([0.25, 0.25, 0.5])
    log_p = np.log(p).astype(np.float32)
    log_q = (log_p + np.array([1e-5, -1e-5, 0.0])).astype(np.float32)
    u = log_q.astype(float) - log_p.astype(float)
    expected = np.sum(np.exp(log_p.astype(float)) * (np.expm1(u) - u))
    np.testing.assert_allclose(
        losses.kl_divergence(jnp.asarray(log_q), jnp.asarray(log_p)),
        expected,
        rtol=1e-5,
    )
    naive = np.sum(np.exp(log_p) * (log_p - log_q))
    assert abs(naive - expected) > 0.1 * expected


@FAST
@given(SCORES, SCORES)
def test_divergences_are_non_negative_and_zero_for_equal_arguments(
    first: list, second: list
) -> None:
    log_q = jax.nn.log_softmax(jnp.array(first, jnp.float32))
    log_p = jax.nn.log_softmax(jnp.array(second, jnp.float32))
    assert losses.kl_divergence(log_q, log_p) >= 0
    assert losses.js_divergence(log_q, log_p) >= 0
    assert losses.kl_divergence(log_p, log_p) == 0
    assert losses.js_divergence(log_p, log_p) == 0


@FAST
@given(SCORES, SCORES)
def test_js_divergence_is_symmetric(first: list, second: list) -> None:
    log_q = jax.nn.log_softmax(jnp.array(first, jnp.float32))
    log_p = jax.nn.log_softmax(jnp.array(second, jnp.float32))
    chex.assert_trees_all_close(
        losses.js_divergence(log_q, log_p),
        losses.js_divergence(log_p, log_q),
        rtol=1e-5,
    )


@FAST
@given(SCORES, SCORES)
def test_cross_entropy_is_entropy_plus_kl_divergence(first: list, second: list) -> None:
    logits, log_p = jnp.array(first), jax.nn.log_softmax(jnp.array(second))
    log_q = jax.nn.log_softmax(logits)
    chex.assert_trees_all_close(
        losses.soft_cross_entropy(logits, jnp.exp(log_p)),
        losses.entropy(log_p) + losses.kl_divergence(log_q, log_p),
        rtol=1e-9,
        atol=1e-12,
    )


def test_kl_divergence_has_the_hessian_of_p_at_equal_arguments() -> None:
    log_p = np.log(np.array([0.2, 0.3, 0.5], np.float32))
    hessian = jax.hessian(losses.kl_divergence)(log_p, log_p)
    np.testing.assert_allclose(hessian, np.diag([0.2, 0.3, 0.5]), rtol=1e-6)


@pytest.mark.parametrize(
    "loss", [losses.cross_entropy, losses.focal_loss, losses.poly_loss]
)
@FAST
@given(SCORES, FINITE, st.integers(0, 3))
def test_classification_is_invariant_to_a_common_offset(
    loss: Callable, scores: list, offset: float, label: int
) -> None:
    z, y = jnp.array([scores]), jnp.array([label])
    chex.assert_trees_all_close(loss(z + offset, y), loss(z, y), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_integer_labels_equal_one_hot_targets(label_smoothing: float) -> None:
    z = jnp.asarray(np.random.default_rng(1).normal(size=(6, 4)))
    y = jnp.arange(6) % 4
    one_hot = jax.nn.one_hot(y, 4, dtype=z.dtype)
    targets = losses.smooth_labels(one_hot, label_smoothing=label_smoothing)
    chex.assert_trees_all_close(
        losses.cross_entropy(z, y, label_smoothing=label_smoothing),
        losses.soft_cross_entropy(z, targets),
        rtol=1e-12,
    )


def sum_of_cross_entropy(z: jax.Array) -> jax.Array:
    return losses.cross_entropy(z, jnp.array([0])).sum()


def test_cross_entropy_is_precise_at_saturated_logits() -> None:
    z = jnp.array([[69.0, 0.0, 0.0]], jnp.float32)
    loss, gradient = jax.value_and_grad(sum_of_cross_entropy)(z)
    p = np.exp(-69.0)
    np.testing.assert_allclose(loss, 2 * p, rtol=1e-5)
    np.testing.assert_allclose(gradient[0], [-2 * p, p, p], rtol=1e-5)


@pytest.mark.parametrize("label", [-100, -1, 4, 31_900])
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
def test_an_out_of_range_label_gives_nan_that_a_masked_mean_removes(
    loss: Callable, label: int
) -> None:
    z = jnp.asarray(np.random.default_rng(2).normal(size=(3, 4)))
    y = jnp.array([1, label, 2])
    values = loss(z, y)
    assert np.isnan(values).tolist() == [False, True, False]

    def masked_mean(z: jax.Array) -> jax.Array:
        return losses.mean(loss(z, y), where=(y >= 0) & (y < 4))

    mean, gradient = jax.value_and_grad(masked_mean)(z)
    np.testing.assert_allclose(mean, (values[0] + values[2]) / 2)
    chex.assert_tree_all_finite(gradient)
    assert not gradient[1].any()


def test_int8_labels_of_300_classes() -> None:
    labels = jnp.array([-100, 100], jnp.int8)
    loss = losses.cross_entropy(jnp.zeros((2, 300)), labels)
    assert np.isnan(loss).tolist() == [True, False]


def test_bfloat16_logits_are_summed_in_float32() -> None:
    """optax sums in bfloat16, with errors up to 0.14 per example at 1,000 classes."""
    rng = np.random.default_rng(3)
    z = jnp.asarray(5 * rng.normal(size=(64, 1000)), jnp.bfloat16)
    y = jnp.asarray(rng.integers(0, 1000, 64))
    exact = losses.cross_entropy(z.astype(jnp.float64), y)
    np.testing.assert_allclose(
        np.float64(losses.cross_entropy(z, y)), exact, rtol=0.51 * 2**-7
    )


@jax.jit
@functools.partial(jax.vmap, in_axes=(0, 0, None))
def hessian_by_reverse_mode(
    z: jax.Array, where: jax.Array, label_smoothing: float
) -> jax.Array:
    """Reverse over reverse, which also differentiates the masked branch."""

    def loss(z: jax.Array) -> jax.Array:
        return losses.cross_entropy(
            z, jnp.array(0), label_smoothing=label_smoothing, where=where
        )

    return jax.jacrev(jax.jacrev(loss))(z)


def expected_hessian(z: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """diag(p) - p pᵀ over the unmasked classes."""
    exps = np.exp(np.where(mask, z, -np.inf))
    p = exps / max(exps.sum(), 1e-300)
    return np.diag(p) - np.outer(p, p)


@pytest.mark.usefixtures("no_xla_optimizations")
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize(
    ("logits", "mask"),
    [
        ([1.0, -2.0, 0.5, np.nan], [1, 1, 1, 0]),
        ([1.0, -2.0, 0.5, 1e300], [1, 1, 1, 0]),
        ([1.0, -2.0, 0.5, 5.0], [1, 1, 1, 0]),
        ([7.0, np.nan, np.nan, np.nan], [1, 0, 0, 0]),
        ([np.nan, np.nan, np.nan, np.nan], [0, 0, 0, 0]),
        ([1.0, -2.0, 0.5, -np.inf], [1, 1, 1, 1]),
    ],
)
def test_masked_classes_are_not_in_the_hessian(
    logits: list, mask: list, label_smoothing: float
) -> None:
    z, where = np.array([logits]), np.array([mask], bool)
    np.testing.assert_allclose(
        hessian_by_reverse_mode(z, where, label_smoothing)[0],
        expected_hessian(z[0], where[0]),
        rtol=1e-12,
        atol=1e-15,
    )


@jax.jit
@functools.partial(jax.vmap, in_axes=(0, None))
def generalized_cross_entropy_dq(z: jax.Array, q: float) -> jax.Array:
    def loss(q: jax.Array) -> jax.Array:
        return losses.generalized_cross_entropy(z, jnp.array(0), q=q)

    return jax.grad(loss)(q)


def exact_generalized_cross_entropy_dq(logit: float, q: float) -> float:
    """∂/∂q (1 - e^(-q s)) / q with s = -log p, for logits [logit, 0] and label 0."""
    with mpmath.workdps(500):
        s = mpmath.log1p(mpmath.exp(-logit))
        if q == 0:
            return float(-(s**2) / 2)
        y = q * s
        return float(-(1 - (1 + y) * mpmath.exp(-y)) / mpmath.mpf(q) ** 2)


@pytest.mark.usefixtures("no_xla_optimizations")
@pytest.mark.parametrize("q", [0.0, 1e-200, 1e-12, 1e-6, 1e-3, 0.02, 0.3, 1.0])
def test_generalized_cross_entropy_is_differentiable_in_q(q: float) -> None:
    logits = [0.0, 40.0, -3.0, -60.0]
    z = jnp.array([[logit, 0.0] for logit in logits])
    np.testing.assert_allclose(
        generalized_cross_entropy_dq(z, q),
        [exact_generalized_cross_entropy_dq(logit, q) for logit in logits],
        rtol=1e-13,
    )


def test_mean_with_class_weights() -> None:
    z = jnp.asarray(np.random.default_rng(6).normal(size=(5, 3)))
    y, class_weights = jnp.array([0, 1, 2, 2, 0]), jnp.array([1.0, 2.0, 5.0])
    values, weights = losses.cross_entropy(z, y), class_weights[y]
    np.testing.assert_allclose(
        losses.mean(values, weights=weights), sum(weights * values) / sum(weights)
    )


def exact_bce_dt(x: float, w: float) -> float:
    """w log(1 + e⁻ˣ) - log(1 + eˣ), or its limit for large |x|."""
    if abs(x) > 100:
        return -x * (w if x < 0 else 1)
    with mpmath.workdps(50):
        return float(w * mpmath.log1p(mpmath.exp(-x)) - mpmath.log1p(mpmath.exp(x)))


@pytest.mark.parametrize("pos_weight", [1.0, 0.5, 3.0])
def test_binary_cross_entropy_is_differentiable_in_its_target(
    pos_weight: float,
) -> None:
    logits = jnp.array([-jnp.inf, -1e30, -2.0, 1e-20, 0.0, 3.0, 1e30, jnp.inf])

    def total(targets: jax.Array) -> jax.Array:
        loss = losses.binary_cross_entropy_with_logits(
            logits, targets, pos_weight=pos_weight
        )
        return jnp.sum(loss)

    np.testing.assert_allclose(
        jax.grad(total)(jnp.full(8, 0.3)),
        [exact_bce_dt(float(x), pos_weight) for x in logits],
        rtol=1e-14,
    )


def test_repeated_and_last_axes_are_refused() -> None:
    images = jnp.ones((2, 2, 1))
    with pytest.raises(
        ValueError, match=r"dice_loss: axis must name different axes of"
    ):
        losses.dice_loss(images, images, axis=(0, 0))
    with pytest.raises(ValueError, match=r"not the last, got \(-2, -1\)\."):
        losses.dice_loss(images, images, axis=(-2, -1))


@pytest.mark.parametrize(
    ("loss", "argument", "value", "requirement"),
    [
        (losses.binary_focal_loss, "gamma", -1.0, "be non-negative"),
        (losses.binary_focal_loss, "alpha", 1.5, r"be in \[0, 1\]"),
        (losses.binary_cross_entropy, "pos_weight", -1.0, "be non-negative"),
        (losses.huber_loss, "delta", 0.0, "be positive"),
        (losses.smooth_l1_loss, "beta", -1.0, "be non-negative"),
        (losses.quantile_loss, "quantile", 1.0, r"be in \(0, 1\)"),
    ],
)
def test_hyperparameters_out_of_range_are_refused(
    loss: Callable, argument: str, value: float, requirement: str
) -> None:
    message = rf"{loss.__name__}: {argument} must {requirement}, got {value}\."
    with pytest.raises(ValueError, match=message):
        loss(jnp.zeros(2), jnp.zeros(2), **{argument: value})


def cross_entropy_derivatives(z: np.ndarray, label_smoothing: float) -> tuple:
    """The value, the gradient and the Hessian for the label 1 of 3 classes."""
    exps = np.exp(z - z.max())
    p = exps / exps.sum()
    target = np.eye(3)[1] * (1 - label_smoothing) + label_smoothing / 3
    value = z.max() + np.log(exps.sum()) - target @ z
    return value, p - target, np.diag(p) - np.outer(p, p)


def log_cosh_derivatives(z: np.ndarray) -> tuple:
    """The value, the gradient and the Hessian of Σ log cosh z."""
    e = np.exp(-2 * np.abs(z))
    value = np.sum(np.abs(z) + np.log1p(e) - np.log(2))
    return value, np.tanh(z), np.diag(4 * e / (1 + e) ** 2)


@pytest.mark.parametrize(
    ("loss", "derivatives"),
    [
        (
            lambda z: losses.cross_entropy(z, 1),
            lambda z: cross_entropy_derivatives(z, 0.0),
        ),
        (
            lambda z: losses.cross_entropy(z, 1, label_smoothing=0.1),
            lambda z: cross_entropy_derivatives(z, 0.1),
        ),
        (
            lambda z: losses.log_cosh_loss(z, jnp.zeros_like(z)).sum(),
            log_cosh_derivatives,
        ),
    ],
    ids=["cross_entropy", "label_smoothing", "log_cosh_loss"],
)
def test_second_derivatives_through_a_scan(
    loss: Callable, derivatives: Callable
) -> None:
    """The scan sums the loss f three times: ∇² (3f)² = 18 (f ∇²f + ∇f ∇fᵀ)."""

    def squared_sum(z: jax.Array) -> jax.Array:
        total, _ = jax.lax.scan(lambda sum, _: (sum + loss(z), None), 0.0, length=3)
        return total**2

    z = np.array([-1.0, 0.5, 800.0])
    value, gradient, hessian = derivatives(z)
    np.testing.assert_allclose(
        jax.hessian(squared_sum)(jnp.asarray(z)),
        18 * (value * hessian + np.outer(gradient, gradient)),
        rtol=1e-9,
        atol=1e-12,
    )


@pytest.mark.parametrize("scale", [1e-36, 1e-20, 1e30])
def test_cosine_distance_has_a_gradient_at_any_norm(scale: float) -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)

    def total(x: jax.Array) -> jax.Array:
        return losses.cosine_distance(x, jnp.asarray(y)).sum()

    gradient = jax.grad(total)(jnp.asarray(x))
    scaled_gradient = jax.grad(total)(jnp.asarray(np.float32(scale) * x))
    np.testing.assert_allclose(scale * scaled_gradient, gradient, rtol=1e-4, atol=1e-5)

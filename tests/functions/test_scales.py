"""Values and derivatives in float32 and float16 at scales where squares overflow."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxml import activations, losses, mining

pytestmark = pytest.mark.usefixtures("no_xla_optimizations")
F32, F16 = jnp.float32, jnp.float16
REGION_LOSSES = [
    losses.dice_loss,
    losses.tversky_loss,
    losses.jaccard_loss,
    losses.focal_tversky_loss,
    losses.generalized_dice_loss,
    losses.matthews_loss,
]
PROXY_LOSSES = [
    losses.arcface_loss,
    losses.cosface_loss,
    losses.normalized_softmax_loss,
    losses.proxy_nca_loss,
    losses.proxy_anchor_loss,
]


def f32(*values: float) -> jax.Array:
    return jnp.array(values, F32)


@pytest.mark.parametrize("loss", REGION_LOSSES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("logit", [-48.0, -80.0, -100.0])
def test_a_class_that_is_surely_absent_has_gradient_0(loss: Any, logit: float) -> None:
    targets = jnp.zeros((1, 8, 8, 1), F32)
    logits = jnp.full_like(targets, logit)
    gradient = jax.grad(lambda z: jnp.sum(loss(jax.nn.sigmoid(z), targets)))(logits)
    np.testing.assert_allclose(gradient, 0, atol=1e-15)


@pytest.mark.parametrize("scale", [1e-36, 1e-20, 1.0, 1e20, 1e37])
def test_weights_of_any_scale(scale: float) -> None:
    def mean(weights: jax.Array) -> jax.Array:
        return losses.mean(f32(1.0, 3.0), weights=weights)

    value, gradient = jax.value_and_grad(mean)(f32(scale, 2 * scale))
    np.testing.assert_allclose(value, 7 / 3, rtol=1e-6)
    # (v - mean) / Σw
    expected = np.array([1 - 7 / 3, 3 - 7 / 3]) / 3 / scale
    np.testing.assert_allclose(gradient, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("residual", "variance", "value", "slope"),
    [
        (1e11, 1e20, (np.log(1e20) + 100) / 2, -4.95e-19),
        (1e-12, 1e-22, (np.log(1e-22) + 0.01) / 2, 4.95e21),
        (1e20, 1e30, 5e9, -5e-21),
    ],
)
def test_gaussian_nll(
    residual: float, variance: float, value: float, slope: float
) -> None:
    def of_variance(variance: jax.Array) -> jax.Array:
        zero = jnp.zeros((), F32)
        return losses.gaussian_nll_loss(zero, zero + residual, variance=variance)

    def of_log(log_variance: jax.Array) -> jax.Array:
        zero = jnp.zeros((), F32)
        return losses.gaussian_nll_loss(
            zero, zero + residual, log_variance=log_variance
        )

    got = jax.value_and_grad(of_variance)(jnp.asarray(variance, F32))
    np.testing.assert_allclose(got, (value, slope), rtol=1e-5)
    got = jax.value_and_grad(of_log)(jnp.log(jnp.asarray(variance, F32)))
    np.testing.assert_allclose(got, (value, slope * variance), rtol=1e-4)


def test_a_variance_of_each_feature_broadcasts_and_others_are_refused() -> None:
    mean, targets, variance = jnp.zeros((2, 3)), jnp.ones((2, 3)), jnp.arange(1.0, 4)
    got = losses.gaussian_nll_loss(mean, targets, variance=variance)
    expected = (np.log(variance) + 1 / variance) / 2
    np.testing.assert_allclose(got, np.tile(expected, (2, 1)), rtol=1e-14)
    sentence = r"variance must have a shape that broadcasts to float64\[2,3\], got "
    with pytest.raises(TypeError, match=sentence):
        losses.gaussian_nll_loss(mean, targets, variance=jnp.ones(2))
    with pytest.raises(TypeError, match="variance must be given, or else log_variance"):
        losses.gaussian_nll_loss(mean, targets)


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_absolute_percentage_error_by_the_truth(scale: float) -> None:
    derivative = jax.grad(
        lambda y: losses.absolute_percentage_error(f32(3 * scale), y)[0]
    )
    np.testing.assert_allclose(derivative(f32(scale)), [-3 / scale], rtol=1e-6)


@pytest.mark.parametrize("offset", [-1e6, -1e4, 0.0, 1e4, 1e6])
def test_losses_of_softmax_do_not_see_a_common_offset(offset: float) -> None:
    logits, label = f32(0.0, 0.0, 0.0) + F32(offset), jnp.array(0)
    for loss in (
        losses.cross_entropy(logits, label),
        losses.focal_loss(logits, label, gamma=0.0),
        losses.poly_loss(logits, label, epsilon=0.0),
        losses.generalized_cross_entropy(logits, label, q=0.0),
    ):
        np.testing.assert_allclose(loss, np.log(3), rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-36, 1e-20, 1.0, 1e20, 5e37])
def test_losses_of_distances_are_proportional_to_the_scale(scale: float) -> None:
    x, y, z = (scale * f32(*row) for row in ((3, 0), (0, 0), (3, 1)))

    def triplet(x: jax.Array) -> jax.Array:
        return losses.triplet_loss(x, y, z, margin=scale)

    def energy(x: jax.Array) -> jax.Array:
        return losses.energy_score(jnp.stack([x, z]), y)

    value, gradient = jax.jit(jax.value_and_grad(triplet))(x)
    np.testing.assert_allclose(value, 3 * scale, rtol=1e-6)  # 3 - 1 + 1
    np.testing.assert_allclose(gradient, [1, 1], rtol=1e-6)
    value, gradient = jax.jit(jax.value_and_grad(energy))(x)
    np.testing.assert_allclose(value, (2 + np.sqrt(10)) / 2 * scale, rtol=1e-6)
    np.testing.assert_allclose(gradient, [0.5, 0.5], rtol=1e-6)


def test_a_row_whose_norm_overflows_has_a_cosine_and_a_direction() -> None:
    x, y = f32(2.1e38, 3.0e38), f32(1.0, 1.0)
    unit = np.array([2.1, 3.0]) / np.hypot(2.1, 3.0)
    cosine = unit.sum() / np.sqrt(2)
    np.testing.assert_allclose(losses.cosine_distance(x, y), 1 - cosine, rtol=1e-5)
    assert np.all(np.isfinite(jax.grad(losses.cosine_distance)(x, y)))
    np.testing.assert_allclose(
        mining.cosine_similarity(x[None], y[None])[0, 0], cosine, rtol=1e-6
    )
    np.testing.assert_allclose(activations.l2_normalize(x), unit, rtol=1e-6)


@pytest.mark.parametrize("loss", PROXY_LOSSES, ids=lambda f: f.__name__)
def test_rows_of_zeros_in_float16_have_finite_gradients(loss: Any) -> None:
    x, proxies = jnp.zeros((2, 3), F16), jnp.eye(3, dtype=F16)

    def total(x: jax.Array, proxies: jax.Array) -> jax.Array:
        return jnp.sum(loss(x, proxies, jnp.array([0, 2])))

    for gradient in jax.grad(total, (0, 1))(x, proxies):
        assert np.all(np.isfinite(gradient))


def test_a_row_without_a_label_may_hold_nan() -> None:
    x = jnp.array([[jnp.nan, 1.0], [1.0, 2.0]])
    labels = jnp.array([-100, 0])

    def head(w: jax.Array) -> jax.Array:
        loss = losses.linear_cross_entropy(x, w, labels)
        return losses.mean(loss, where=labels >= 0)

    def proxies(w: jax.Array) -> jax.Array:
        loss = losses.normalized_softmax_loss(x, w.T, labels)
        return losses.mean(loss, where=labels >= 0)

    w = jnp.arange(6.0).reshape(2, 3)
    for function in head, proxies:
        assert np.all(np.isfinite(jax.grad(function)(w)))


def test_weights_of_each_label() -> None:
    logits, targets = jnp.ones((2, 3)), jnp.ones((2, 3))
    weights = jnp.array([1.0, 2.0, 3.0])

    def bce(weights: jax.Array) -> jax.Array:
        return losses.binary_cross_entropy_with_logits(
            logits, targets, pos_weight=weights
        )

    np.testing.assert_allclose(bce(weights)[1], weights * bce(jnp.array(1.0))[0, 0])
    gradient = jax.grad(lambda w: jnp.sum(bce(w)))(weights)
    np.testing.assert_allclose(gradient, 2 * bce(jnp.array(1.0))[0, :1].repeat(3))
    with pytest.raises(TypeError, match="pos_weight must have a shape that broadcasts"):
        bce(jnp.ones(2))


def test_a_weight_is_not_rounded_to_the_16_bits_of_the_logits() -> None:
    logits = jnp.linspace(-4, 4, 64).astype(jnp.bfloat16)
    loss = losses.binary_cross_entropy_with_logits(
        logits, jnp.ones_like(logits), pos_weight=0.3
    )
    expected = 0.3 * np.logaddexp(0, -np.float64(logits))
    np.testing.assert_allclose(np.float64(loss), expected, rtol=0.51 * 2**-7)


def test_several_quantiles_at_once() -> None:
    quantiles = jnp.array([0.1, 0.5, 0.9])
    x, y = jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 7.0]]), jnp.full((2, 3), 2.5)
    loss = losses.quantile_loss(x, y, quantile=quantiles)
    # q (y - x) below the truth and (1 - q) (x - y) above it
    expected = [[0.1 * 1.5, 0.5 * 0.5, 0.1 * 0.5], [0.9 * 1.5, 0.5 * 2.5, 0.1 * 4.5]]
    np.testing.assert_allclose(loss, expected, rtol=1e-14)
    with pytest.raises(TypeError, match="quantile must have a shape that broadcasts"):
        losses.quantile_loss(x, y, quantile=jnp.full(2, 0.5))


def test_activations_keep_nan_and_infinite_second_derivatives() -> None:
    assert jnp.isnan(activations.hard_shrink(jnp.nan))
    assert jnp.isnan(activations.soft_shrink(jnp.nan))
    second = jax.grad(jax.grad(activations.logit))
    assert second(jnp.asarray(1e-30, F32)) == -jnp.inf

"""What segmentation losses promise beyond the contract."""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bench import measure
from jaxml import losses

PIXELS = 2**14


def published_increments(errors: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Δ of each pixel by the published formula, a difference of cumulative sums."""
    order = np.argsort(-errors, kind="stable")
    t = inside[order].astype(float)
    jaccard = 1 - (t.sum() - t.cumsum()) / (t.sum() + (1 - t).cumsum())
    increments = np.empty(len(errors))
    increments[order] = np.diff(jaccard, prepend=0.0)
    return increments


def random_image(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits and targets of one image, with 30% of the pixels in the region."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=PIXELS).astype(np.float32)
    return logits, (rng.random(PIXELS) < 0.3).astype(np.float32)


def lovasz_hinge(logits: jax.Array, targets: jax.Array) -> jax.Array:
    return losses.lovasz_hinge_loss(logits, targets, axis=-1)


def lovasz_softmax(probabilities: jax.Array, labels: jax.Array) -> jax.Array:
    return losses.lovasz_softmax_loss(probabilities, labels, axis=-1)


def test_lovasz_hinge_in_float32_equals_the_published_formula() -> None:
    z, t = random_image()
    sign = np.where(t > 0, 1.0, -1.0)
    errors = (1 - z * np.float32(sign)).astype(float)
    increments = published_increments(errors, t > 0) * (errors > 0)
    value, gradient = jax.jit(jax.value_and_grad(lovasz_hinge))(z, t)
    np.testing.assert_allclose(value, np.sum(errors * increments), rtol=1e-6)
    np.testing.assert_allclose(gradient, -sign * increments, rtol=1e-6)


def test_lovasz_softmax_in_float32_equals_the_published_formula() -> None:
    p = np.random.default_rng(1).dirichlet(np.ones(3), PIXELS).astype(np.float32)
    y = np.random.default_rng(2).integers(0, 2, PIXELS)  # class 2 is absent
    value, vjp = jax.vjp(lambda p: lovasz_softmax(p, y), p)
    (gradient,) = vjp(jnp.ones(3, jnp.float32))
    for c in range(3):
        inside = y == c
        errors = np.where(inside, np.float32(1) - p[:, c], p[:, c]).astype(float)
        increments = (errors == errors.max()).astype(float)
        if inside.any():
            increments = published_increments(errors, inside)
        np.testing.assert_allclose(value[c], np.sum(errors * increments), rtol=1e-6)
        expected = np.where(inside, -increments, increments)
        np.testing.assert_allclose(gradient[:, c], expected, rtol=1e-6)


def test_lovasz_does_not_depend_on_the_order_of_pixels_or_of_equal_errors() -> None:
    z, t = random_image()
    order = np.random.default_rng(3).permutation(PIXELS)
    for logits in (z, np.round(z, 1), np.zeros_like(z)):
        value, gradient = jax.value_and_grad(lovasz_hinge)(logits, t)
        np.testing.assert_allclose(
            value, lovasz_hinge(logits[order], t[order]), rtol=1e-6
        )
        # the loss is convex, so it lies above the plane of a subgradient
        nearby = z / 100 + logits
        plane = float(value) + np.sum(gradient * (nearby - logits), dtype=float)
        assert float(lovasz_hinge(nearby, t)) >= plane - 1e-6


def test_lovasz_of_an_empty_region_is_the_largest_error() -> None:
    z, _ = random_image()
    value, gradient = jax.value_and_grad(lovasz_hinge)(z, np.zeros_like(z))
    np.testing.assert_allclose(value, 1 + z.max(), rtol=1e-6)
    np.testing.assert_array_equal(gradient, z == z.max())


@pytest.mark.slow
def test_lovasz_has_second_derivatives_after_a_softmax_and_in_a_scan() -> None:
    z = jnp.asarray(np.random.default_rng(4).normal(size=(30, 3)))
    labels, v = jnp.arange(30) % 3, jnp.ones((30, 3)).at[:, 0].set(-1.0)

    def f(z: jax.Array) -> jax.Array:
        return jnp.exp(lovasz_softmax(jax.nn.softmax(z), labels)).sum()

    def f_in_scan(z: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda s, _: (s + f(z), None), 0.0, None, 2)[0] / 2

    h = 1e-6
    numeric = (jax.grad(f)(z + h * v) - jax.grad(f)(z - h * v)) / 2 / h
    np.testing.assert_allclose(hvp(f, z, v), numeric, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(hvp(f_in_scan, z, v), numeric, rtol=1e-5, atol=1e-8)


def hvp(f: Callable, x: jax.Array, v: jax.Array) -> jax.Array:
    """The Hessian of f times v, compiled."""
    return jax.jit(lambda x: jax.jvp(jax.grad(f), (x,), (v,))[1])(x)


def temp_bytes_per_pixel(loss: Callable, *shapes: jax.ShapeDtypeStruct) -> float:
    gradient = jax.value_and_grad(lambda *arrays: loss(*arrays).sum())
    return measure.temporaries(gradient, *shapes) / (512 * 256)


@pytest.mark.parametrize("num_classes", [1, 8])
def test_lovasz_softmax_needs_26_bytes_per_pixel_for_any_classes(num_classes) -> None:
    p = jax.ShapeDtypeStruct((1, 512, 256, num_classes), jnp.float32)
    labels = jax.ShapeDtypeStruct((1, 512, 256), jnp.int32)
    assert temp_bytes_per_pixel(losses.lovasz_softmax_loss, p, labels) <= 26


def test_lovasz_hinge_needs_26_bytes_per_pixel() -> None:
    z = jax.ShapeDtypeStruct((1, 512, 256), jnp.float32)
    assert temp_bytes_per_pixel(losses.lovasz_hinge_loss, z, z) <= 26


def test_lovasz_runs_with_x64_disabled() -> None:
    z, t = random_image()
    with jax.enable_x64(False):
        value = jax.jit(jax.vmap(lovasz_hinge))(jnp.stack([z, -z]), jnp.stack([t, t]))
        chex.assert_type(value, jnp.float32)
    expected = [lovasz_hinge(z, t), lovasz_hinge(-z, t)]
    np.testing.assert_allclose(value, expected, rtol=1e-6)


@pytest.mark.parametrize(
    "loss", [losses.dice_loss, losses.tversky_loss, losses.matthews_loss]
)
def test_channels_first_is_reported_with_both_shapes(loss: Callable) -> None:
    channels_first, channels_last = jnp.ones((2, 3, 8, 8)), jnp.ones((2, 8, 8, 3))
    with pytest.raises(TypeError, match=r"float64\[2,3,8,8\], got float64\[2,8,8,"):
        loss(channels_first, channels_last)


def test_channels_first_does_not_fit_labels_or_a_mask_of_pixels() -> None:
    p = jnp.ones((2, 3, 8, 8))
    with pytest.raises(TypeError, match=r"= float64\[2,3,8,8\], got int64\[2,8,8\]"):
        losses.lovasz_softmax_loss(p, jnp.zeros((2, 8, 8), int))
    with pytest.raises(TypeError, match=r"= float64\[2,3,8,8\], got bool\[2,8,8\]"):
        losses.dice_loss(p, p, where=jnp.ones((2, 8, 8), bool))


def test_axis_must_name_different_pixel_axes() -> None:
    with pytest.raises(ValueError, match=r"present: axis must name different axes of"):
        losses.present(jnp.zeros((2, 3), int), 2, axis=(0, 0))
    p = jnp.ones((2, 8, 8, 3))
    with pytest.raises(ValueError, match=r"not the last, got \(-2, -1\)\."):
        losses.jaccard_loss(p, p, axis=(-2, -1))


def test_losses_of_almost_equal_regions_keep_their_precision() -> None:
    """2²⁰ pixels with one error in a thousand: one minus a ratio would cancel."""
    t = np.zeros((2**10, 2**10, 1), np.float32)
    t[:300] = 1.0
    is_wrong = np.random.default_rng(5).random(t.shape) < 1e-3
    p = np.abs(t - is_wrong).astype(t.dtype)
    tp, fp = np.sum(p * t, dtype=float), np.sum(p * (1 - t), dtype=float)
    fn, tn = np.sum(t * (1 - p), dtype=float), np.sum((1 - p) * (1 - t), dtype=float)
    root = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    for loss, expected in [
        (losses.dice_loss, (fp + fn) / (2 * tp + fp + fn)),
        (losses.jaccard_loss, (fp + fn) / (tp + fp + fn)),
        (losses.matthews_loss, 1 - (tp * tn - fp * fn) / root),
    ]:
        np.testing.assert_allclose(loss(p, t), [expected], rtol=1e-6)

"""Segmentation: what the table of cases cannot say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxml import losses

PIXELS = 2**14


def published(errors, inside):
    """Δ of each pixel by the published formula, a difference of cumulative sums."""
    order = np.argsort(-errors, kind="stable")
    mine = inside[order].astype(float)
    jaccard = 1 - (mine.sum() - mine.cumsum()) / (mine.sum() + (1 - mine).cumsum())
    steps = np.empty(len(errors))
    steps[order] = np.diff(jaccard, prepend=0.0)
    return steps


def one_image(seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=PIXELS).astype(np.float32)
    return logits, (rng.random(PIXELS) < 0.3).astype(np.float32)


def hinge(logits, targets):
    return losses.lovasz_hinge_loss(logits, targets, axis=-1)


def softmax(probabilities, labels):
    return losses.lovasz_softmax_loss(probabilities, labels, axis=-1)


def test_lovasz_in_float32_is_right_to_1e6_of_the_published_formula() -> None:
    z, t = one_image()
    sign = np.where(t > 0, 1.0, -1.0)
    errors = (1 - z * np.float32(sign)).astype(float)
    steps = published(errors, t > 0) * (errors > 0)
    value, gradient = jax.jit(jax.value_and_grad(hinge))(z, t)
    np.testing.assert_allclose(value, np.sum(errors * steps), rtol=1e-6)
    np.testing.assert_allclose(gradient, -sign * steps, rtol=1e-6)

    p = np.random.default_rng(1).dirichlet(np.ones(3), PIXELS).astype(np.float32)
    y = np.random.default_rng(2).integers(0, 2, PIXELS)  # class 2 is absent
    value, back = jax.vjp(lambda p: softmax(p, y), p)
    (gradient,) = back(jnp.ones(3, jnp.float32))
    for c in range(3):
        own = y == c
        errors = np.where(own, np.float32(1) - p[:, c], p[:, c]).astype(float)
        steps = published(errors, own) if own.any() else 1.0 * (errors == errors.max())
        np.testing.assert_allclose(value[c], np.sum(errors * steps), rtol=1e-6)
        expected = np.where(own, -steps, steps)
        np.testing.assert_allclose(gradient[:, c], expected, rtol=1e-6)


def test_lovasz_does_not_see_the_order_of_pixels_nor_of_equal_errors() -> None:
    z, t = one_image()
    order = np.random.default_rng(3).permutation(PIXELS)
    for logits in (z, np.round(z, 1), np.zeros_like(z)):
        value, gradient = jax.value_and_grad(hinge)(logits, t)
        other = hinge(logits[order], t[order])
        np.testing.assert_allclose(value, other, rtol=1e-6)
        nearby = z / 100 + logits  # a subgradient lies below: the loss is convex
        below = float(value) + np.sum(gradient * (nearby - logits), dtype=float)
        assert float(hinge(nearby, t)) >= below - 1e-6


def test_lovasz_of_no_region_costs_the_largest_error() -> None:
    z, _ = one_image()
    value, gradient = jax.value_and_grad(hinge)(z, np.zeros_like(z))
    np.testing.assert_allclose(value, 1 + z.max(), rtol=1e-6)
    np.testing.assert_array_equal(gradient, z == z.max())


@pytest.mark.slow
def test_lovasz_has_second_derivatives_behind_a_softmax_in_a_scan() -> None:
    z = jnp.asarray(np.random.default_rng(4).normal(size=(30, 3)))
    y, along = jnp.arange(30) % 3, jnp.ones((30, 3)).at[:, 0].set(-1.0)

    def total(z):
        return jnp.exp(softmax(jax.nn.softmax(z), y)).sum()

    def scanned(z):
        return jax.lax.scan(lambda s, _: (s + total(z), None), 0.0, None, 2)[0] / 2

    h = 1e-6
    numeric = (jax.grad(total)(z + h * along) - jax.grad(total)(z - h * along)) / 2 / h
    for f in (total, scanned):
        got = jax.jit(lambda z, f=f: jax.jvp(jax.grad(f), (z,), (along,))[1])(z)
        np.testing.assert_allclose(got, numeric, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("classes", [1, 8])
def test_lovasz_holds_26_bytes_a_pixel_whatever_the_classes(classes) -> None:
    p = jax.ShapeDtypeStruct((1, 512, 256, classes), jnp.float32)
    labels = jax.ShapeDtypeStruct(p.shape[:-1], jnp.int32)
    both = jax.value_and_grad(lambda *given: losses.lovasz_softmax_loss(*given).sum())
    hinged = jax.value_and_grad(lambda *given: losses.lovasz_hinge_loss(*given).sum())
    z = jax.ShapeDtypeStruct(p.shape[:-1], jnp.float32)
    for program, given in [(both, (p, labels)), (hinged, (z, z))]:
        held = jax.jit(program).lower(*given).compile().memory_analysis()
        assert held.temp_size_in_bytes <= 26 * 512 * 256


def test_lovasz_runs_without_64_bits() -> None:
    z, t = one_image()
    with jax.enable_x64(False):
        value = jax.jit(jax.vmap(hinge))(jnp.stack([z, -z]), jnp.stack([t, t]))
        assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, [hinge(z, t), hinge(-z, t)], rtol=1e-6)


def test_channels_first_is_refused_with_both_shapes() -> None:
    first, last = jnp.ones((2, 3, 8, 8)), jnp.ones((2, 8, 8, 3))
    for loss in (losses.dice_loss, losses.tversky_loss, losses.matthews_loss):
        with pytest.raises(TypeError, match=r"float64\[2,3,8,8\], got float64\[2,8,8,"):
            loss(first, last)
    with pytest.raises(TypeError, match=r"= float64\[2,3,8,8\], got int64\[2,8,8\]"):
        losses.lovasz_softmax_loss(first, jnp.zeros((2, 8, 8), int))
    with pytest.raises(TypeError, match=r"= float64\[2,3,8,8\], got bool\[2,8,8\]"):
        losses.dice_loss(first, first, where=jnp.ones((2, 8, 8), bool))
    with pytest.raises(ValueError, match=r"present: axis must name different axes of"):
        losses.present(jnp.zeros((2, 3), int), 2, axis=(0, 0))
    with pytest.raises(ValueError, match=r"not the last, got \(-2, -1\)\."):
        losses.jaccard_loss(first, first, axis=(-2, -1))


def test_counts_of_many_pixels_keep_their_digits() -> None:
    """2^20 pixels, of which one in a thousand is wrong: 1 - a ratio would cancel."""
    t = np.zeros((2**10, 2**10, 1), np.float32)
    t[:300] = 1.0
    p = np.abs(t - (np.random.default_rng(5).random(t.shape) < 1e-3)).astype(t.dtype)
    tp, fp = np.sum(p * t, dtype=float), np.sum(p * (1 - t), dtype=float)
    fn, tn = np.sum(t * (1 - p), dtype=float), np.sum((1 - p) * (1 - t), dtype=float)
    root = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    for loss, expected in [
        (losses.dice_loss, (fp + fn) / (2 * tp + fp + fn)),
        (losses.jaccard_loss, (fp + fn) / (tp + fp + fn)),
        (losses.matthews_loss, 1 - (tp * tn - fp * fn) / root),
    ]:
        np.testing.assert_allclose(loss(p, t), [expected], rtol=1e-6)

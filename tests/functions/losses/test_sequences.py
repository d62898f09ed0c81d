"""Losses of sequences, beyond the promises of all functions."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxml import losses


def random_sequences(num_frames=70, classes=6, length=5):
    rng = np.random.default_rng(0)
    z = jnp.asarray(2 * rng.normal(size=(3, num_frames, classes)))
    return z, jnp.asarray(rng.integers(1, classes, (3, length)))


def value_and_gradient(z, labels, **keywords):
    return jax.value_and_grad(
        lambda z: jnp.sum(losses.ctc_loss(z, labels, **keywords))
    )(z)


def test_ctc_of_a_sure_sequence_has_digits_in_float32() -> None:
    """optax issue 1771: the only wrong alignment is blank, blank."""
    z = jnp.array([[[0.0, 17.0], [0.0, 17.0]]], jnp.float32)
    p = 1 / (1 + np.exp(17.0))
    loss = losses.ctc_loss(z, jnp.array([[1]]))
    np.testing.assert_allclose(loss, [-np.log1p(-p * p)], rtol=1e-6)


def complement(z: np.ndarray, labels: list[int]) -> float:
    """The probability of all alignments that do not read as the labels."""
    total = 0.0
    log_p = np.float64(jax.nn.log_softmax(z))
    for alignment in itertools.product(range(z.shape[1]), repeat=len(z)):
        if [k for k, _ in itertools.groupby(alignment) if k != 0] != labels:
            total += np.exp(sum(log_p[t, k] for t, k in enumerate(alignment)))
    return total


@pytest.mark.parametrize("reading", [[1, 0, 1, 2, 2], [0, 3, 1, 0, 0]])
@pytest.mark.parametrize("scale", [4.0, 10.0, 20.0, 60.0])
def test_ctc_is_as_exact_near_0_as_elsewhere(scale: float, reading: list[int]) -> None:
    """One class of each frame is likely, and some of the others are equally so."""
    noise = np.random.default_rng(0).normal(size=(5, 4)).round(0)
    z = jnp.asarray(scale * np.eye(4)[reading] + noise)
    labels = [k for k, _ in itertools.groupby(reading) if k != 0]
    expected = -np.log1p(-complement(z, labels))
    for dtype, rtol in ((jnp.float64, 1e-12), (jnp.float32, 2e-6)):
        got = losses.ctc_loss(z.astype(dtype), jnp.array(labels))
        np.testing.assert_allclose(got, expected, rtol=rtol)
    assert scale < 60 or 0 < expected < 1e-24


def test_gradients_of_ctc_keep_their_digits_over_2000_frames() -> None:
    z, labels = random_sequences(2000, length=100)
    loss, gradient = value_and_gradient(z, labels)
    narrow = value_and_gradient(z.astype(jnp.float32), labels)
    np.testing.assert_allclose(narrow[0], loss, rtol=1e-6)
    np.testing.assert_allclose(narrow[1], gradient, atol=1e-5)


def test_second_derivatives_of_ctc_over_2000_frames() -> None:
    """There the backward pass computes a part of the forward pass again."""
    z, labels = random_sequences(2000, length=100)
    v = jnp.sin(jnp.arange(z.size)).reshape(z.shape)
    gradient = jax.jit(jax.grad(lambda z: jnp.sum(losses.ctc_loss(z, labels))))
    hessian_v = jax.jvp(gradient, (z,), (v,))[1]
    numeric = (gradient(z + 1e-5 * v) - gradient(z - 1e-5 * v)) / 2e-5
    np.testing.assert_allclose(hessian_v, numeric, atol=1e-7)


def test_masked_frames_and_labels_of_ctc_are_left_out_anywhere() -> None:
    z, labels = random_sequences()
    frames, is_label = (
        jnp.arange(70) % 3 > 0,
        jnp.array([True, False, True, True, False]),
    )
    loss, gradient = value_and_gradient(
        jnp.where(frames[:, None], z, jnp.nan),
        jnp.where(is_label, labels, -100),
        logit_mask=jnp.broadcast_to(frames, (3, 70)),
        label_mask=jnp.broadcast_to(is_label, (3, 5)),
    )
    expected, expected_gradient = value_and_gradient(z[:, frames], labels[:, is_label])
    np.testing.assert_allclose(loss, expected, rtol=1e-12)
    np.testing.assert_allclose(gradient[:, frames], expected_gradient, atol=1e-12)
    assert not np.any(gradient[:, ~frames])


def test_sequences_of_ctc_whose_lengths_differ() -> None:
    z, labels = random_sequences()
    logit_mask = jnp.arange(70)[None] < jnp.array([[70], [33], [0]])
    label_mask = jnp.arange(5)[None] < jnp.array([[0], [5], [0]])
    got = losses.ctc_loss(z, labels, logit_mask=logit_mask, label_mask=label_mask)
    blanks = -jnp.sum(jax.nn.log_softmax(z[0])[:, 0])
    second = losses.ctc_loss(z[1:2, :33], labels[1:2])[0]
    np.testing.assert_allclose(got, [blanks, second, 0.0], rtol=1e-12)


def test_the_blank_of_ctc_may_be_any_class() -> None:
    z, labels = random_sequences()
    expected = losses.ctc_loss(z, labels)
    got = losses.ctc_loss(jnp.roll(z, -1, -1), labels - 1, blank=5)
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    for blank in (-1, 6):
        with pytest.raises(ValueError, match=r"ctc_loss: blank must be in \[0, 6\)"):
            losses.ctc_loss(z, labels, blank=blank)


def test_an_invalid_label_of_ctc_affects_its_sequence_alone() -> None:
    z, labels = random_sequences()
    for label, dtype in (6, jnp.uint8), (0, jnp.int8), (-1, jnp.int32):
        wrong = labels.at[1, 2].set(label).astype(dtype)
        got = losses.ctc_loss(z, wrong)
        expected = losses.ctc_loss(z, labels).at[1].set(jnp.nan)
        np.testing.assert_array_equal(got, expected)


def test_nan_logits_of_ctc_affect_their_sequence_alone() -> None:
    z, labels = random_sequences()
    expected, gradient = losses.ctc_loss(z, labels), value_and_gradient(z, labels)[1]
    z = z.at[1, 3, 2].set(jnp.nan)
    got = losses.ctc_loss(z, labels)
    np.testing.assert_array_equal(got, expected.at[1].set(jnp.nan))
    got = value_and_gradient(z, labels)[1]
    np.testing.assert_array_equal(got[::2], gradient[::2])
    assert np.isnan(got[1, 3, 2])


def test_ctc_of_no_sequences_and_of_no_frames() -> None:
    z, labels = random_sequences()
    assert value_and_gradient(z[:0], labels[:0])[1].shape == (0, 70, 6)
    np.testing.assert_array_equal(losses.ctc_loss(z[:, :0], labels[:, :0]), [0, 0, 0])


def test_ctc_without_alignment_has_no_gradient() -> None:
    z, labels = random_sequences(num_frames=6)
    labels = labels.at[1].set(1)  # five equal labels need four blanks
    loss = losses.ctc_loss(z, labels)
    gradient = value_and_gradient(z, labels)[1]
    assert np.isinf(loss[1]) and not np.any(gradient[1])
    assert np.all(np.isfinite(loss[::2])) and np.all(np.any(gradient[::2], (1, 2)))


def test_ctc_holds_few_frames_at_a_time() -> None:
    """Its temporaries grow by the logits and by an eighth of frames × labels."""

    def temporaries(num_frames: int) -> int:
        z = jax.ShapeDtypeStruct((4, num_frames, 8), jnp.float32)
        labels = jax.ShapeDtypeStruct((4, 200), jnp.int32)
        program = jax.jit(jax.value_and_grad(lambda z, y: losses.ctc_loss(z, y).sum()))
        memory = program.lower(z, labels).compile().memory_analysis()
        return memory.temp_size_in_bytes

    all_states = 4 * 2048 * 401 * 4
    assert temporaries(4096) - temporaries(2048) < all_states / 2

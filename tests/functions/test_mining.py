"""What mining and the proxy losses promise beyond the contract."""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import measure
from jaxml import losses, mining

EIGHTHS = st.lists(st.integers(0, 8), min_size=25, max_size=25)
LABELS = st.lists(st.integers(-1, 2), min_size=5, max_size=5)


@settings(max_examples=60, deadline=None)
@given(EIGHTHS, LABELS, st.sampled_from([0.0, 0.125, 0.2]))
def test_every_valid_triplet_is_easy_semihard_or_hard(eighths, labels, margin) -> None:
    """Distances are multiples of 1/8, so that many are equal or a margin apart."""
    d = jnp.array(eighths, jnp.float32).reshape(5, 5) / 8
    labels = jnp.array(labels)
    masks = (
        mining.easy_triplets(d, labels, margin=margin),
        mining.semihard_triplets(d, labels, margin=margin),
        mining.hard_triplets(d, labels),
    )
    p, n = mining.positives(labels), mining.negatives(labels)
    is_valid = p[:, :, None] & n[:, None]
    np.testing.assert_array_equal(sum(np.int32(mask) for mask in masks), is_valid)


def test_distance_weighted_samples_in_proportion_to_the_weights() -> None:
    """Over 4,000 keys, within five standard deviations of the paper's weights."""
    d = np.array([[0.0, 0.3, 0.6, 0.8, 1.1, 1.39, 1.5, 0.9]])
    labels, reference_labels = jnp.zeros(1, int), jnp.array([0, 1, 1, 1, 1, 1, 1, 0])
    positives, candidates, beyond_farthest = [0, 7], slice(1, 6), 6
    keys = jax.random.split(jax.random.key(0), 4000)

    def sample(key: jax.Array) -> jax.Array:
        return mining.distance_weighted(
            key, jnp.asarray(d), labels, reference_labels, dimension=4.0
        )

    sampled = np.asarray(jax.vmap(sample)(keys))[:, 0]
    assert sampled[:, positives].all() and not sampled[:, beyond_farthest].any()
    x = np.maximum(d[0, candidates], 0.5)
    weights = x**-2 * (1 - x**2 / 4) ** -0.5
    p = weights / weights.sum()
    standard_deviation = np.sqrt(p * (1 - p) / len(keys))
    frequencies = sampled[:, candidates].mean(0)
    assert (abs(frequencies - p) < 5 * standard_deviation).all()
    assert (sampled[:, candidates].sum(1) == 1).all()


def test_distance_weighted_does_not_overflow_in_many_dimensions() -> None:
    """In 512 dimensions the densities span 200 orders of magnitude."""
    d, reference_labels = jnp.array([[0.5, 1.0, 1.3]], jnp.float32), jnp.ones(3, int)

    def sample(count: int) -> jax.Array:
        return mining.distance_weighted(
            jax.random.key(1),
            d,
            jnp.array([0]),
            reference_labels,
            dimension=512,
            count=count,
        )

    assert sample(3).all()
    np.testing.assert_array_equal(sample(1), [[True, False, False]])


@pytest.mark.parametrize("distance", [mining.euclidean, mining.squared_euclidean])
def test_distances_of_close_embeddings_keep_their_precision(distance) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 64)).astype(np.float32)
    y = (x + 1e-3 * rng.normal(size=x.shape)).astype(np.float32)
    expected = np.linalg.norm(np.float64(x) - np.float64(y), axis=1)
    expected = expected**2 if distance is mining.squared_euclidean else expected
    got = np.diag(distance(jnp.asarray(x), jnp.asarray(y)))
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    # the usual expansion into a matrix product is off by more than 1 percent
    expansion = np.sum(x**2, 1) + np.sum(y**2, 1) - 2 * np.sum(x * y, 1)
    assert np.max(abs(expansion / np.linalg.norm(x - y, axis=1) ** 2 - 1)) > 1e-2


def test_lp_materializes_no_array_per_feature() -> None:
    def total(x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.sum(mining.lp(x, y, p=3.0))

    x, y = jnp.ones((64, 128), jnp.float32), jnp.ones((96, 128), jnp.float32)
    one_array = 64 * 96 * 4
    assert measure.temporaries(jax.grad(total, (0, 1)), x, y) < 10 * one_array


def test_has_positive_materializes_no_pairs() -> None:
    labels = jnp.zeros(4096, jnp.int32)
    assert measure.temporaries(mining.has_positive, labels) < 2**20


def test_n_pair_loss_materializes_one_block_of_products() -> None:
    def total(a: jax.Array, p: jax.Array) -> jax.Array:
        return jnp.sum(losses.n_pair_loss(a, p, block=64))

    def temp_bytes(n: int) -> int:
        x = jnp.ones((n, 32), jnp.float32)
        return measure.temporaries(jax.value_and_grad(total, (0, 1)), x, x)

    bytes_of_1024 = temp_bytes(1024)
    assert bytes_of_1024 < 4 * 64 * 1024 * 4 + 2**20
    assert temp_bytes(2048) < 2.2 * bytes_of_1024


@pytest.mark.parametrize("loss", [losses.arcface_loss, losses.proxy_anchor_loss])
def test_proxy_losses_materialize_one_block_of_cosines(loss: Callable) -> None:
    embeddings, labels = jnp.ones((4096, 8), jnp.float32), jnp.zeros(4096, jnp.int32)
    proxies = jnp.ones((2048, 8), jnp.float32)

    def total(embeddings: jax.Array, proxies: jax.Array) -> jax.Array:
        return jnp.sum(loss(embeddings, proxies, labels))

    gradient = jax.value_and_grad(total, (0, 1))
    all_cosines = 4096 * 2048 * 4
    assert measure.temporaries(gradient, embeddings, proxies) < 0.75 * all_cosines


def test_arcface_is_accurate_near_0_and_pi() -> None:
    """√(1 - cos²) loses half its digits there, and its derivative is infinite."""
    proxies, label = jnp.array([[1.0, 0.0], [0.0, -1.0]], jnp.float32), jnp.array([0])

    def loss(x: jax.Array, **hyperparams: float) -> jax.Array:
        return losses.arcface_loss(x, proxies, label, **hyperparams)[0]

    derivatives = jax.jit(lambda x: (jax.grad(loss)(x), jax.hessian(loss)(x)))
    for angle in (0.0, 1e-4, 1e-3, np.pi - 1e-3, np.pi):
        x = jnp.array([[np.cos(angle), np.sin(angle)]], jnp.float32)
        cosine, sine = np.float64(x[0])
        theta, m = np.arctan2(sine, cosine), 0.5
        is_beyond = theta > np.pi - m
        logit = np.cos(theta) - m * np.sin(m) if is_beyond else np.cos(theta + m)
        expected = np.log1p(np.exp(-np.sin(theta) - logit))
        np.testing.assert_allclose(loss(x, scale=1.0), expected, rtol=3e-7)
        gradient, hessian = derivatives(x)
        chex.assert_tree_all_finite((gradient, hessian))
        assert jnp.linalg.norm(gradient) < 128


def test_arcface_increases_with_the_angle() -> None:
    """Beyond π - m too."""
    angles = jnp.linspace(0.0, jnp.pi, 200)
    x = jnp.stack([jnp.cos(angles), jnp.sin(angles), 0 * angles], 1)
    proxies = jnp.array([[1.0, 0, 0], [0, 0, 1]])
    loss = losses.arcface_loss(x, proxies, jnp.zeros(200, int), scale=4.0)
    assert (jnp.diff(loss) > 0).all()


def test_proxy_anchor_ignores_masked_embeddings() -> None:
    x = jnp.asarray(np.random.default_rng(0).normal(size=(6, 4)))
    proxies, labels = jnp.eye(3, 4), jnp.array([0, 1, -100, 1, 0, 9])
    where = jnp.array([True, True, False, True, True, False])
    with_nans = jnp.where(where[:, None], x, jnp.nan)

    def loss(x: jax.Array) -> jax.Array:
        return losses.proxy_anchor_loss(x, proxies, labels, where=where)

    value, gradient = jax.value_and_grad(loss)(with_nans)
    expected = losses.proxy_anchor_loss(x[where], proxies, labels[where])
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    chex.assert_trees_all_equal(gradient, jax.grad(loss)(x))
    assert not gradient[~where].any()


def test_proxy_anchor_without_embeddings_is_zero() -> None:
    x, labels = jnp.ones((2, 4)), jnp.array([-100, 9])
    nowhere = jnp.zeros(2, bool)
    assert losses.proxy_anchor_loss(x, jnp.eye(3, 4), labels, where=nowhere) == 0
    assert jnp.isnan(losses.proxy_anchor_loss(x, jnp.eye(3, 4), labels))


def test_distances_without_references_must_be_square() -> None:
    with pytest.raises(TypeError, match="hard_pairs: distances must be square where"):
        mining.hard_pairs(jnp.zeros((2, 3)), jnp.array([0, 1]))


def test_miners_have_no_gradient_and_compile_with_the_loss() -> None:
    labels = jnp.array([0, 0, 1, 1])
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)))

    @jax.jit
    def loss(x: jax.Array) -> jax.Array:
        d = mining.euclidean(x, x)
        where = mining.multi_similarity_pairs(d, labels) | mining.hard_pairs(d, labels)
        return losses.mean(jnp.where(mining.positives(labels), d, -d), where=where)

    chex.assert_tree_all_finite((jax.grad(loss)(x), jax.grad(loss)(jnp.zeros((4, 3)))))

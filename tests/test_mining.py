"""Metric learning: what the table of cases cannot say, above all where peers fail."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxml import losses, mining

EIGHTHS = st.lists(st.integers(0, 8), min_size=25, max_size=25)
LABELS = st.lists(st.integers(-1, 2), min_size=5, max_size=5)


@settings(max_examples=60, deadline=None)
@given(EIGHTHS, LABELS, st.sampled_from([0.0, 0.125, 0.2]))
def test_every_valid_triplet_is_easy_semihard_or_hard(eighths, labels, margin) -> None:
    """Distances are multiples of 1/8, so that many are equal or a margin apart."""
    d = jnp.array(eighths, jnp.float32).reshape(5, 5) / 8
    labels = jnp.array(labels)
    kinds = (
        mining.easy_triplets(d, labels, margin=margin),
        mining.semihard_triplets(d, labels, margin=margin),
        mining.hard_triplets(d, labels),
    )
    p, n = mining.positives(labels), mining.negatives(labels)
    valid = p[:, :, None] & n[:, None]
    np.testing.assert_array_equal(sum(np.int32(kind) for kind in kinds), valid)


def test_distance_weighted_draws_in_proportion_to_rarity() -> None:
    """Over 4,000 keys, within five standard deviations of the paper's weights."""
    d = np.array([[0.0, 0.3, 0.6, 0.8, 1.1, 1.39, 1.5, 0.9]])
    labels, others = jnp.zeros(1, int), jnp.array([0, 1, 1, 1, 1, 1, 1, 0])
    keys = jax.random.split(jax.random.key(0), 4000)

    def draw(key: jax.Array) -> jax.Array:
        return mining.distance_weighted(
            key, jnp.asarray(d), labels, others, dimension=4.0
        )

    drawn = np.asarray(jax.vmap(draw)(keys))[:, 0]
    assert drawn[:, [0, 7]].all() and not drawn[:, 6].any()
    at = np.maximum(d[0, 1:6], 0.5)
    weights = at**-2 * (1 - at**2 / 4) ** -0.5
    expected = weights / weights.sum()
    deviation = np.sqrt(expected * (1 - expected) / len(keys))
    assert (abs(drawn[:, 1:6].mean(0) - expected) < 5 * deviation).all()
    assert (drawn[:, 1:6].sum(1) == 1).all()


def test_distance_weighted_stays_in_range_in_many_dimensions() -> None:
    """At 512 dimensions the densities themselves span 10²⁰⁰."""
    d, classes = jnp.array([[0.5, 1.0, 1.3]], jnp.float32), jnp.array([1, 1, 1])
    keep = mining.distance_weighted(
        jax.random.key(1), d, jnp.array([0]), classes, dimension=512, count=3
    )
    assert keep.all()
    nearest = mining.distance_weighted(
        jax.random.key(1), d, jnp.array([0]), classes, dimension=512
    )
    np.testing.assert_array_equal(nearest, [[True, False, False]])


@pytest.mark.parametrize("distance", [mining.euclidean, mining.squared_euclidean])
def test_distances_keep_their_digits_where_rows_are_close(distance) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 64)).astype(np.float32)
    near = (x + 1e-3 * rng.normal(size=x.shape)).astype(np.float32)
    exact = np.linalg.norm(np.float64(x) - np.float64(near), axis=1)
    exact = exact**2 if distance is mining.squared_euclidean else exact
    got = np.diag(distance(jnp.asarray(x), jnp.asarray(near)))
    np.testing.assert_allclose(got, exact, rtol=1e-5)
    expanded = np.sum(x**2, 1) + np.sum(near**2, 1) - 2 * np.sum(x * near, 1)
    worst = np.max(abs(expanded / np.linalg.norm(x - near, axis=1) ** 2 - 1))
    assert worst > 1e-2  # what a matrix product would have given


def test_lp_holds_no_table_for_each_feature() -> None:
    def total(x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.sum(mining.lp(x, y, p=3.0))

    x, y = jnp.ones((64, 128), jnp.float32), jnp.ones((96, 128), jnp.float32)
    assert temporaries(jax.grad(total, (0, 1)), x, y) < 10 * 64 * 96 * 4  # not 128


def test_has_positive_holds_no_table_of_pairs() -> None:
    labels = jnp.zeros(4096, jnp.int32)
    assert temporaries(mining.has_positive, labels) < 2**20


def test_n_pair_loss_holds_a_block_of_the_products() -> None:
    def total(a: jax.Array, p: jax.Array) -> jax.Array:
        return jnp.sum(losses.n_pair_loss(a, p, block=64))

    held = []
    for n in (1024, 2048):
        rows = jnp.ones((n, 32), jnp.float32)
        held += [temporaries(jax.value_and_grad(total, (0, 1)), rows, rows)]
    assert held[0] < 4 * 64 * 1024 * 4 + 2**20
    assert held[1] < 2.2 * held[0]


def test_proxy_losses_hold_a_block_of_the_cosines() -> None:
    rows, labels = jnp.ones((4096, 8), jnp.float32), jnp.zeros(4096, jnp.int32)
    proxies = jnp.ones((2048, 8), jnp.float32)
    for loss in (losses.arcface_loss, losses.proxy_anchor_loss):

        def total(x: jax.Array, v: jax.Array, loss=loss) -> jax.Array:
            return jnp.sum(loss(x, v, labels))

        held = temporaries(jax.value_and_grad(total, (0, 1)), rows, proxies)
        assert held < 4096 * 2048 * 4 * 0.75


def temporaries(function, *arrays) -> int:
    analysis = jax.jit(function).lower(*arrays).compile().memory_analysis()
    return analysis.temp_size_in_bytes


@pytest.mark.parametrize("angle", [0.0, 1e-4, 1e-3, np.pi - 1e-3, np.pi])
def test_arcface_is_right_near_its_ends(angle) -> None:
    """√(1 - cos²) has lost half its digits there, and its derivative is infinite."""
    row = jnp.array([[np.cos(angle), np.sin(angle)]], jnp.float32)
    proxies, label = jnp.array([[1.0, 0.0], [0.0, -1.0]], jnp.float32), jnp.array([0])
    got = losses.arcface_loss(row, proxies, label, scale=1.0)[0]
    exact = np.arctan2(*np.float64(row[0])[::-1])
    past = np.cos(exact) - 0.5 * np.sin(0.5)
    own = np.cos(exact + 0.5) if exact <= np.pi - 0.5 else past
    np.testing.assert_allclose(got, np.log1p(np.exp(-np.sin(exact) - own)), rtol=3e-7)

    def loss(row: jax.Array) -> jax.Array:
        return losses.arcface_loss(row, proxies, label)[0]

    gradient = jax.grad(loss)(row)
    assert jnp.isfinite(gradient).all() and jnp.linalg.norm(gradient) < 128
    assert jnp.isfinite(jax.hessian(loss)(row)).all()


def test_arcface_never_rewards_a_wider_angle() -> None:
    """The label's logit falls from one end to the other, past π - m too."""
    angles = jnp.linspace(0.0, jnp.pi, 200)
    rows = jnp.stack([jnp.cos(angles), jnp.sin(angles), 0 * angles], 1)
    proxies = jnp.array([[1.0, 0, 0], [0, 0, 1]])
    loss = losses.arcface_loss(rows, proxies, jnp.zeros(200, int), scale=4.0)
    assert (jnp.diff(loss) > 0).all()


def test_proxy_anchor_leaves_out_rows() -> None:
    rng = np.random.default_rng(0)
    rows, proxies = jnp.asarray(rng.normal(size=(6, 4))), jnp.asarray(np.eye(3, 4))
    labels = jnp.array([0, 1, -100, 1, 0, 9])
    kept = jnp.array([True, True, False, True, True, False])
    dirty = jnp.where(kept[:, None], rows, jnp.nan)

    def loss(rows: jax.Array) -> jax.Array:
        return losses.proxy_anchor_loss(rows, proxies, labels, where=kept)

    value, gradient = jax.value_and_grad(loss)(dirty)
    few = losses.proxy_anchor_loss(rows[kept], proxies, labels[kept])
    np.testing.assert_allclose(value, few, rtol=1e-12)
    np.testing.assert_array_equal(gradient, jax.grad(loss)(rows))
    assert not gradient[~kept].any()
    assert jnp.isnan(losses.proxy_anchor_loss(rows, proxies, labels))
    nothing = losses.proxy_anchor_loss(rows, proxies, labels, where=jnp.zeros(6, bool))
    assert nothing == 0


def test_distances_without_references_have_to_be_square() -> None:
    with pytest.raises(TypeError, match="hard_pairs: distances must be square where"):
        mining.hard_pairs(jnp.zeros((2, 3)), jnp.array([0, 1]))


def test_miners_pass_no_gradient_and_are_compiled_with_the_loss() -> None:
    labels = jnp.array([0, 0, 1, 1])
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)))

    @jax.jit
    def loss(x: jax.Array) -> jax.Array:
        d = mining.euclidean(x, x)
        keep = mining.multi_similarity_pairs(d, labels) | mining.hard_pairs(d, labels)
        return losses.mean(jnp.where(mining.positives(labels), d, -d), where=keep)

    assert jnp.isfinite(jax.grad(loss)(x)).all()
    assert jnp.isfinite(jax.grad(loss)(jnp.zeros((4, 3)))).all()

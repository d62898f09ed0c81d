"""What losses over the pairs of a batch promise beyond the contract."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import cases, mining
from cases.losses import inbatch, proxies

from bench import measure
from jaxml import losses

LABELLED = {
    case.function.__name__: case
    for case in cases()
    if case.function.__name__
    in (
        *("nt_xent", "supcon_loss", "multi_similarity_loss", "circle_loss"),
        *("smooth_ap_loss", "batch_contrastive_loss", "margin_loss", "nca_loss"),
        *("batch_hard_triplet_loss", "batch_semihard_triplet_loss"),
        *("batch_all_triplet_loss", "lifted_structure_loss", "angular_loss"),
    )
}
EVERY = pytest.mark.parametrize("name", LABELLED)
LABELS = np.array([3, 3, 1, 1, 2, 3, 1])


def rows(count: int, seed: int = 0, features: int = 4) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=(count, features)))


@EVERY
def test_a_memory_bank_is_compared_with(name: str) -> None:
    x, bank, labels = rows(3), rows(7, 1), np.array([1, 2, 9])
    given = {"references": bank, "reference_labels": jnp.asarray(LABELS)}
    got = LABELLED[name](x, jnp.asarray(labels), **given)
    expected = LABELLED[name].truth(
        np.asarray(x), labels, references=np.asarray(bank), reference_labels=LABELS
    )
    np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-12)
    assert got[2] == 0 or name in ("multi_similarity_loss", "margin_loss") or got[2] > 0


@pytest.mark.usefixtures("no_xla_optimizations")
@pytest.mark.parametrize(
    "name", ["lifted_structure_loss", "angular_loss", "margin_loss"]
)
def test_slots_of_a_bank_that_are_not_filled_count_for_nothing(name: str) -> None:
    x, bank, labels = rows(3), rows(7, 1), np.array([1, 2, 3])
    empty = np.isin(np.arange(9), (2, 5))
    references = jnp.full((9, 4), jnp.nan).at[~empty].set(bank)
    theirs = np.full(9, 3)
    theirs[~empty] = LABELS

    @jax.jit
    def total(x: jax.Array, references: jax.Array) -> tuple[jax.Array, jax.Array]:
        given = {"reference_labels": jnp.asarray(theirs), "references": references}
        where = jnp.asarray(np.tile(~empty, (3, 1)))
        values = LABELLED[name](x, jnp.asarray(labels), where=where, **given)
        return jnp.sum(values), values

    slopes, got = jax.grad(total, (0, 1), has_aux=True)(x, references)
    expected = LABELLED[name].truth(
        np.asarray(x), labels, references=np.asarray(bank), reference_labels=LABELS
    )
    np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-12)
    assert all(np.isfinite(slope).all() for slope in slopes)
    assert not slopes[1][empty].any()


@EVERY
def test_nobody_to_compare_with_costs_nothing(name: str) -> None:
    x, labels = rows(3), jnp.array([1, 2, 1])
    bank = {"references": x[:0], "reference_labels": labels[:0]}
    value, slope = jax.value_and_grad(
        lambda x: LABELLED[name](x, labels, **bank).sum()
    )(x)
    assert value == 0 and not slope.any()
    assert LABELLED[name](x[:0], labels[:0]).shape == (0,)


@pytest.mark.parametrize("name", ["info_nce", "clip_loss", "n_pair_loss"])
def test_no_views_have_no_loss(name: str) -> None:
    assert getattr(losses, name)(rows(0), rows(0)).shape == (0,)


def test_proxies_without_a_batch_cost_nothing() -> None:
    assert losses.proxy_anchor_loss(rows(0), rows(3), jnp.zeros(0, int)) == 0


@pytest.mark.usefixtures("no_xla_optimizations")
@pytest.mark.parametrize("scale", [1e6, 1e8, 1e15])
def test_the_angles_of_long_rows_have_derivatives(scale: float) -> None:
    x, labels = scale * rows(9, features=3), jnp.array([0, 0, 1, 1, 2, 2, 0, 1, 3])

    def slope(x: jax.Array) -> jax.Array:
        return jax.grad(lambda x: losses.angular_loss(x, labels).sum())(x)

    expected = slope(x)
    got, again = jax.jvp(slope, *2 * [(x.astype(jnp.float32),)])
    assert np.isfinite(again).all()
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4 * abs(expected).max())


@pytest.mark.slow
@pytest.mark.usefixtures("no_xla_optimizations")
@EVERY
def test_a_block_changes_nothing(name: str) -> None:
    x, labels = rows(7), jnp.asarray(LABELS)

    def total(block: int | None, x: jax.Array) -> jax.Array:
        return jnp.sum(LABELLED[name](x, labels, block=block) * jnp.arange(7.0))

    whole, of_whole = jax.jit(jax.value_and_grad(functools.partial(total, None)))(x)
    value, slope = jax.jit(jax.value_and_grad(functools.partial(total, 3)))(x)
    np.testing.assert_allclose(value, whole, rtol=1e-12)
    np.testing.assert_allclose(slope, of_whole, rtol=1e-10, atol=1e-12)


@pytest.mark.slow
@pytest.mark.usefixtures("no_xla_optimizations")
@EVERY
def test_pairs_left_out_count_for_nothing(name: str) -> None:
    x, labels = rows(7), jnp.asarray(LABELS)
    where = np.random.default_rng(2).random((7, 7)) < 0.7
    where[4] = where[:, 4] = False
    spoilt = x.at[4].set(jnp.nan)

    def total(x: jax.Array) -> jax.Array:
        return jnp.sum(LABELLED[name](x, labels, where=jnp.asarray(where)))

    value, slope = jax.value_and_grad(total)(spoilt)
    np.testing.assert_array_equal(value, total(x))
    assert np.isfinite(slope).all() and not slope[4].any()
    if name not in ("lifted_structure_loss", "angular_loss"):  # masks of several pairs
        expected = LABELLED[name].truth(np.asarray(x), LABELS, where=where)
        np.testing.assert_allclose(value, expected.sum(), rtol=1e-11)


@pytest.mark.slow
@EVERY
def test_labels_are_names_and_rows_have_no_order(name: str) -> None:
    x, order = rows(7), np.random.default_rng(3).permutation(7)
    got = LABELLED[name](x, jnp.asarray(LABELS))
    renamed = jnp.asarray(-1000 * LABELS.astype(np.int32))
    np.testing.assert_array_equal(got, LABELLED[name](x, renamed))
    moved = LABELLED[name](x[order], jnp.asarray(LABELS[order]))
    np.testing.assert_allclose(moved, got[order], rtol=1e-11, atol=1e-13)


@EVERY
def test_wrong_pairs_are_named(name: str) -> None:
    x, labels = rows(7), jnp.asarray(LABELS)
    with pytest.raises(TypeError, match=r"where must be of shape \[7,7\], all pairs"):
        LABELLED[name](x, labels, where=jnp.ones((7, 6), bool))
    with pytest.raises(TypeError, match="references must come with reference_labels"):
        LABELLED[name](x, labels, references=x)
    with pytest.raises(ValueError, match="block must be at least 1, got 0"):
        LABELLED[name](x, labels, block=0)


@pytest.mark.usefixtures("no_xla_optimizations")
def test_the_weights_of_the_circle_carry_no_derivative() -> None:
    x, labels = rows(7) / 3, jnp.asarray(LABELS)
    fixed = np.asarray(x @ x.T)

    def with_fixed_weights(x: jax.Array) -> jax.Array:
        same = LABELS[:, None] == LABELS
        near, far = same & ~np.eye(7, dtype=bool), ~same
        s, total = x @ x.T, 0.0
        for i in range(7):
            pull = [
                max(0, 1.4 - fixed[i, j]) * (0.6 - s[i, j])
                for j in np.where(near[i])[0]
            ]
            push = [
                max(0, fixed[i, j] + 0.4) * (s[i, j] - 0.4) for j in np.where(far[i])[0]
            ]
            if pull and push:
                both = 80 * (jnp.array(pull)[:, None] + jnp.array(push)[None])
                total += jnp.logaddexp(0.0, jax.nn.logsumexp(both))
        return jnp.asarray(total)

    got = jax.grad(lambda x: jnp.sum(losses.circle_loss(x, labels)))(x)
    np.testing.assert_allclose(got, jax.grad(with_fixed_weights)(x), rtol=1e-9)
    assert losses.circle_loss(x.astype(jnp.bfloat16), labels).dtype == jnp.bfloat16


@pytest.mark.usefixtures("no_xla_optimizations")
def test_angular_loss_takes_rows_of_any_length() -> None:
    x, labels = np.asarray(rows(7)), jnp.asarray(LABELS)
    total = jax.jit(
        jax.value_and_grad(lambda x: jnp.sum(losses.angular_loss(x, labels)))
    )
    for scale in (0.1, 5.0, 50.0):  # the last beyond what a product of powers holds
        value, slope = total(jnp.asarray(scale * x, jnp.float32))
        expected = LABELLED["angular_loss"].truth(scale * x, LABELS)
        np.testing.assert_allclose(value, expected.sum(), 1e-6)
        _, exact = total(scale * x)
        np.testing.assert_allclose(slope, exact, 1e-4, 1e-5 * np.abs(exact).max())


def test_info_nce_has_more_keys_than_queries_and_pairs_left_out() -> None:
    q, k = rows(3), rows(5, 1)
    where = jnp.asarray([[1, 1, 0, 1, 1], [1, 0, 1, 1, 1], [1, 1, 1, 0, 0]], bool)
    spoilt = k.at[3].set(jnp.nan)
    where = where.at[:, 3].set(False)
    got = losses.info_nce(q, spoilt, temperature=0.5, where=where)
    s = np.where(where, np.asarray(q @ k.T) / 0.5, -np.inf)
    expected = np.log(np.exp(s).sum(1)) - np.diagonal(s)
    np.testing.assert_allclose(got, np.where(np.diagonal(where), expected, 0), 1e-12)
    slopes = jax.grad(
        lambda k: jnp.sum(losses.info_nce(q, k, temperature=0.5, where=where))
    )(spoilt)
    assert np.isfinite(slopes).all() and not slopes[3].any()
    with pytest.raises(TypeError, match="keys must be at least as many as queries"):
        losses.info_nce(k, q)


def test_a_pair_that_is_found_keeps_the_digits_of_its_loss() -> None:
    x = 30.0 * jnp.eye(3, dtype=jnp.float32)
    for loss in (losses.info_nce, losses.clip_loss):
        got = loss(x, jnp.eye(3, dtype=jnp.float32), temperature=0.5)
        np.testing.assert_allclose(got, 2 * np.exp(-60.0), rtol=1e-5)


def dense_info_nce(q: jax.Array, k: jax.Array, t: Any) -> jax.Array:
    s = q @ k.T / t
    return jax.nn.logsumexp(s, 1) - jnp.diagonal(s)


def dense_clip(a: jax.Array, b: jax.Array, t: Any) -> jax.Array:
    return (dense_info_nce(a, b, t) + dense_info_nce(b, a, t)) / 2


@pytest.mark.usefixtures("no_xla_optimizations")
@pytest.mark.parametrize(
    ("total", "alike"),
    [
        (jnp.mean, False),
        (lambda loss: jnp.sum(loss * jnp.arange(5.0)), False),
        (lambda loss: jnp.sum(jnp.square(loss)), True),
    ],
    ids=["mean", "weighted", "squared"],
)
@pytest.mark.parametrize("loss", [losses.info_nce, losses.clip_loss])
def test_a_tiled_derivative_may_be_differentiated(
    loss: Callable[..., jax.Array], total: Callable, alike: bool
) -> None:
    """Rows that are alike have equal cotangents, of which the changes are not."""
    a, b = (jnp.eye(5), 2 * jnp.eye(5)) if alike else (rows(5, 0, 5), rows(5, 1, 5))
    point, along = (
        (a, b, jnp.array(0.5)),
        (rows(5, 2, 5), rows(5, 3, 5), jnp.array(0.7)),
    )

    def slopes(loss: Callable[..., jax.Array]) -> Any:
        gradient = jax.grad(lambda *x: total(loss(*x)), (0, 1, 2))
        onward = jax.grad(
            lambda *x: sum(jnp.vdot(*pair) for pair in zip(gradient(*x), along))
        )
        return *jax.jvp(gradient, point, along), onward(*point)

    dense = dense_info_nce if loss is losses.info_nce else dense_clip
    tiled = slopes(lambda a, b, t: loss(a, b, temperature=t, block=2))
    for got, expected in zip(jax.tree.leaves(tiled), jax.tree.leaves(slopes(dense))):
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12)


def test_clip_has_its_value_though_a_first_block_has_no_rival() -> None:
    a, b = rows(3), rows(3, 1)
    s = np.asarray(a @ b.T) / 0.07
    both = np.log(np.exp(s).sum(1)) + np.log(np.exp(s).sum(0))
    expected = both / 2 - np.diagonal(s)
    got = losses.clip_loss(a, b, block=1)
    np.testing.assert_allclose(got, expected, rtol=1e-12)


@pytest.mark.usefixtures("no_xla_optimizations")
def test_derivatives_at_a_kink_are_0() -> None:
    x, labels = jnp.array([[0.0], [0.5], [0.75]]), jnp.array([7, 7, 8])
    for loss, numbers in [
        (losses.margin_loss, {"margin": 0.0, "beta": 0.5}),
        (losses.batch_hard_triplet_loss, {"margin": 0.25}),
        (losses.batch_semihard_triplet_loss, {"margin": 0.25}),
        (losses.batch_all_triplet_loss, {"margin": 0.25}),
    ]:
        slope = jax.grad(lambda x: loss(x, labels, **numbers)[0])(x)  # noqa: B023
        np.testing.assert_array_equal(slope, 0.0)


def test_distances_of_near_rows_keep_three_digits() -> None:
    """At 1/1000 of the norm, where ‖x‖² + ‖y‖² - 2 x·y has none in float32."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 64))
    x[1] = x[0] * (1 + 1e-3 * rng.normal(size=64))
    x[3] = x[2] * (1 + 1e-3 * rng.normal(size=64))
    x = x.astype(np.float32)
    labels = jnp.array([0, 0, 1, 1])
    got = losses.batch_contrastive_loss(jnp.asarray(x), labels)
    expected = LABELLED["batch_contrastive_loss"].truth(
        x.astype(np.float64), np.asarray(labels)
    )
    np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_products_are_as_precise_as_their_factors(dtype: Any) -> None:
    """By default a GPU rounds those of float32 to 10 bits, in the derivatives too."""
    found = 0
    heads = [case for case in cases() if case.name == "losses.linear_cross_entropy"]
    others = [*inbatch.CASES[1:], *proxies.CASES, *mining.CASES[:5]]
    for case in heads + others * (dtype == jnp.float32):
        arrays = [jnp.asarray(a) for a in case.sample(np.random.default_rng(0))]
        floats = [jnp.issubdtype(a.dtype, jnp.floating) for a in arrays]
        arrays = [a.astype(dtype) if f else a for a, f in zip(arrays, floats)]

        def total(x: jax.Array, case: Any = case, others: Any = arrays[1:]) -> Any:
            return jnp.sum(case(x, *others).astype(float))

        lowered = jax.jit(jax.value_and_grad(total)).lower(arrays[0])
        for line in lowered.as_text().splitlines():
            if "dot_general" in line:
                found += 1
                precise = "precision = [HIGHEST, HIGHEST]" in line
                assert precise == (dtype == jnp.float32), (case.name, line)
    assert found > (60 if dtype == jnp.float32 else 3)


MEBIBYTES = {  # of value and gradient, float32, 128 features
    ("info_nce", 8192): 40,
    ("clip_loss", 8192): 40,
    ("nt_xent", 4096): 24,
    ("supcon_loss", 4096): 24,
    ("batch_all_triplet_loss", 4096): 20,
    ("batch_hard_triplet_loss", 4096): 32,
    ("batch_semihard_triplet_loss", 4096): 32,
}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "n"), MEBIBYTES)
def test_nothing_quadratic_is_held(name: str, n: int) -> None:
    views = name in ("info_nce", "clip_loss")

    def held(n: int) -> float:
        x = jax.ShapeDtypeStruct((n, 128), jnp.float32)
        other = x if views else jax.ShapeDtypeStruct((n,), jnp.int32)
        loss = getattr(losses, name)
        total = jax.value_and_grad(lambda x, other: jnp.sum(loss(x, other)))
        return measure.temporaries(total, x, other) / 2**20

    with jax.enable_x64(False):
        once = held(n)
        assert once <= MEBIBYTES[name, n]
        if name in ("info_nce", "supcon_loss", "batch_all_triplet_loss"):
            assert held(2 * n) <= 2 * once

"""What in-batch losses promise beyond the contract."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import cases, mining
from cases.losses import inbatch, proxies
from compilation import jit_without_fusion_emitters

from bench import measure
from jaxml import losses

ANCHOR_LOSSES = {
    case.function.__name__: case
    for case in cases()
    if "references" in inspect.signature(case.function).parameters
}
anchor_losses = pytest.mark.parametrize("name", ANCHOR_LOSSES)
LABELS = np.array([3, 3, 1, 1, 2, 3, 1])


def embeddings(n: int, seed: int = 0, d: int = 4) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=(n, d)))


@anchor_losses
def test_candidates_from_a_memory_bank(name: str) -> None:
    x, bank, labels = embeddings(3), embeddings(7, 1), np.array([1, 2, 9])
    loss = ANCHOR_LOSSES[name]
    got = loss(
        x, jnp.asarray(labels), references=bank, reference_labels=jnp.asarray(LABELS)
    )
    expected = loss.truth(
        np.asarray(x), labels, references=np.asarray(bank), reference_labels=LABELS
    )
    np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-12)
    counts_negatives = name in ("multi_similarity_loss", "margin_loss")
    assert got[2] == 0 or counts_negatives or got[2] > 0


@pytest.mark.usefixtures("no_xla_optimizations")
@pytest.mark.parametrize(
    "name", ["lifted_structure_loss", "angular_loss", "margin_loss"]
)
def test_empty_slots_of_a_memory_bank_have_no_effect(name: str) -> None:
    x, bank, labels = embeddings(3), embeddings(7, 1), np.array([1, 2, 3])
    is_empty = np.isin(np.arange(9), (2, 5))
    references = jnp.full((9, 4), jnp.nan).at[~is_empty].set(bank)
    reference_labels = np.full(9, 3)
    reference_labels[~is_empty] = LABELS

    def sum_and_losses(x: jax.Array, references: jax.Array) -> tuple:
        values = ANCHOR_LOSSES[name](
            x,
            jnp.asarray(labels),
            references=references,
            reference_labels=jnp.asarray(reference_labels),
            where=jnp.asarray(np.tile(~is_empty, (3, 1))),
        )
        return jnp.sum(values), values

    gradient = jax.grad(sum_and_losses, (0, 1), has_aux=True)
    grads, got = jit_without_fusion_emitters(gradient)(x, references)
    expected = ANCHOR_LOSSES[name].truth(
        np.asarray(x), labels, references=np.asarray(bank), reference_labels=LABELS
    )
    np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-12)
    chex.assert_tree_all_finite(grads)
    assert not grads[1][is_empty].any()


@anchor_losses
def test_no_candidates_and_no_anchors(name: str) -> None:
    x, labels = embeddings(3), jnp.array([1, 2, 1])
    bank = {"references": x[:0], "reference_labels": labels[:0]}
    value, grad = jax.value_and_grad(
        lambda x: ANCHOR_LOSSES[name](x, labels, **bank).sum()
    )(x)
    assert value == 0 and not grad.any()
    assert ANCHOR_LOSSES[name](x[:0], labels[:0]).shape == (0,)


@pytest.mark.parametrize("name", ["info_nce", "clip_loss", "n_pair_loss"])
def test_empty_views(name: str) -> None:
    assert getattr(losses, name)(embeddings(0), embeddings(0)).shape == (0,)


def test_proxy_anchor_loss_of_an_empty_batch_is_0() -> None:
    x, labels = embeddings(0), jnp.zeros(0, int)
    assert losses.proxy_anchor_loss(x, embeddings(3), labels) == 0


@pytest.mark.usefixtures("no_xla_optimizations")
def test_angular_loss_has_derivatives_at_large_norms() -> None:
    labels = jnp.array([0, 0, 1, 1, 2, 2, 0, 1, 3])

    def gradient(x: jax.Array) -> jax.Array:
        return jax.grad(lambda x: losses.angular_loss(x, labels).sum())(x)

    float64_gradient = jit_without_fusion_emitters(gradient)
    derivatives = jit_without_fusion_emitters(lambda x: jax.jvp(gradient, (x,), (x,)))
    for scale in (1e6, 1e8, 1e15):
        x = scale * embeddings(9, d=3)
        expected = float64_gradient(x)
        got, second_derivative = derivatives(x.astype(jnp.float32))
        chex.assert_tree_all_finite(second_derivative)
        atol = 1e-4 * abs(expected).max()
        np.testing.assert_allclose(got, expected, rtol=0, atol=atol)


@pytest.mark.slow
@pytest.mark.usefixtures("no_xla_optimizations")
@anchor_losses
def test_the_block_size_does_not_change_the_result(name: str) -> None:
    x, labels = embeddings(7), jnp.asarray(LABELS)

    def weighted_sum(block: int | None, x: jax.Array) -> jax.Array:
        return jnp.sum(ANCHOR_LOSSES[name](x, labels, block=block) * jnp.arange(7.0))

    def value_and_grad(block: int | None) -> tuple[jax.Array, jax.Array]:
        function = jax.value_and_grad(functools.partial(weighted_sum, block))
        return jit_without_fusion_emitters(function)(x)

    (whole_value, whole_grad), (value, grad) = value_and_grad(None), value_and_grad(3)
    np.testing.assert_allclose(value, whole_value, rtol=1e-12)
    np.testing.assert_allclose(grad, whole_grad, rtol=1e-10, atol=1e-12)


@pytest.mark.slow
@pytest.mark.usefixtures("no_xla_optimizations")
@anchor_losses
def test_masked_pairs_have_no_effect(name: str) -> None:
    x, labels = embeddings(7), jnp.asarray(LABELS)
    where = np.random.default_rng(2).random((7, 7)) < 0.7
    where[4] = where[:, 4] = False
    with_nans = x.at[4].set(jnp.nan)

    def total(x: jax.Array) -> jax.Array:
        return jnp.sum(ANCHOR_LOSSES[name](x, labels, where=jnp.asarray(where)))

    value, grad = jax.value_and_grad(total)(with_nans)
    np.testing.assert_array_equal(value, total(x))
    chex.assert_tree_all_finite(grad)
    assert not grad[4].any()
    if name not in ("lifted_structure_loss", "angular_loss"):  # truths without a mask
        expected = ANCHOR_LOSSES[name].truth(np.asarray(x), LABELS, where=where)
        np.testing.assert_allclose(value, expected.sum(), rtol=1e-11)


@pytest.mark.slow
@anchor_losses
def test_invariant_to_renamed_labels_and_permuted_rows(name: str) -> None:
    x, permutation = embeddings(7), np.random.default_rng(3).permutation(7)
    loss = ANCHOR_LOSSES[name]
    got = loss(x, jnp.asarray(LABELS))
    renamed = jnp.asarray(-1000 * LABELS.astype(np.int32))
    np.testing.assert_array_equal(got, loss(x, renamed))
    permuted = loss(x[permutation], jnp.asarray(LABELS[permutation]))
    np.testing.assert_allclose(permuted, got[permutation], rtol=1e-11, atol=1e-13)


@anchor_losses
def test_invalid_shared_arguments_are_refused(name: str) -> None:
    x, labels = embeddings(7), jnp.asarray(LABELS)
    loss = ANCHOR_LOSSES[name]
    with pytest.raises(TypeError, match=r"where must be of shape \[7,7\], all pairs"):
        loss(x, labels, where=jnp.ones((7, 6), bool))
    with pytest.raises(TypeError) as refusal:
        loss(x, labels, references=x)
    requirement = "references must be given together with reference_labels"
    assert str(refusal.value) == f"{name}: {requirement}, got float64[7,4]."
    with pytest.raises(TypeError, match=f"{requirement}, got None."):
        loss(x, labels, reference_labels=labels)
    with pytest.raises(ValueError, match="block must be at least 1, got 0"):
        loss(x, labels, block=0)


@pytest.mark.parametrize(
    ("name", "hyperparam", "value", "requirement"),
    [
        ("nt_xent", "temperature", 0.0, "be positive"),
        ("batch_hard_triplet_loss", "margin", -0.1, "be non-negative"),
        ("circle_loss", "margin", 1.5, r"be in \[0, 1\]"),
        ("angular_loss", "angle", 1.6, r"be in \(0, π/2\)"),
    ],
)
def test_hyperparameters_out_of_range_are_refused(
    name: str, hyperparam: str, value: float, requirement: str
) -> None:
    with pytest.raises(ValueError, match=f"{hyperparam} must {requirement}, got"):
        ANCHOR_LOSSES[name](embeddings(7), jnp.asarray(LABELS), **{hyperparam: value})


@pytest.mark.usefixtures("no_xla_optimizations")
def test_the_weights_of_circle_loss_carry_no_derivative() -> None:
    x, labels = embeddings(7) / 3, jnp.asarray(LABELS)
    constant_s = np.asarray(x @ x.T)

    def loss_with_constant_weights(x: jax.Array) -> jax.Array:
        is_same, s, total = LABELS[:, None] == LABELS, x @ x.T, 0.0
        is_positive = is_same & ~np.eye(7, dtype=bool)
        logits_p = np.maximum(0, 1.4 - constant_s) * (0.6 - s)
        logits_n = np.maximum(0, constant_s + 0.4) * (s - 0.4)
        for i in range(7):
            p, n = logits_p[i, is_positive[i]], logits_n[i, ~is_same[i]]
            if p.size and n.size:
                total += jnp.logaddexp(0, jax.nn.logsumexp(80 * (p[:, None] + n[None])))
        return jnp.asarray(total)

    got = jax.grad(lambda x: jnp.sum(losses.circle_loss(x, labels)))(x)
    expected = jit_without_fusion_emitters(jax.grad(loss_with_constant_weights))(x)
    np.testing.assert_allclose(got, expected, rtol=1e-9)


@pytest.mark.usefixtures("no_xla_optimizations")
def test_angular_loss_is_accurate_at_all_norms() -> None:
    x, labels = np.asarray(embeddings(7)), jnp.asarray(LABELS)
    value_and_grad = jax.jit(
        jax.value_and_grad(lambda x: jnp.sum(losses.angular_loss(x, labels)))
    )
    for scale in (0.1, 5.0, 50.0):  # at 50 the product of exponentials underflows
        value, grad = value_and_grad(jnp.asarray(scale * x, jnp.float32))
        expected = ANCHOR_LOSSES["angular_loss"].truth(scale * x, LABELS)
        np.testing.assert_allclose(value, expected.sum(), 1e-6)
        _, expected_grad = value_and_grad(scale * x)
        atol = 1e-5 * np.abs(expected_grad).max()
        np.testing.assert_allclose(grad, expected_grad, 1e-4, atol)


def test_info_nce_with_extra_keys_and_masked_pairs() -> None:
    q, k = embeddings(3), embeddings(5, 1)
    where = jnp.asarray([[1, 1, 0, 0, 1], [1, 0, 1, 0, 1], [1, 1, 1, 0, 0]], bool)
    with_nans = k.at[3].set(jnp.nan)
    got = losses.info_nce(q, with_nans, temperature=0.5, where=where)
    s = np.where(where, np.asarray(q @ k.T) / 0.5, -np.inf)
    expected = np.log(np.exp(s).sum(1)) - np.diagonal(s)
    np.testing.assert_allclose(got, np.where(np.diagonal(where), expected, 0), 1e-12)
    grad = jax.grad(
        lambda k: jnp.sum(losses.info_nce(q, k, temperature=0.5, where=where))
    )(with_nans)
    chex.assert_tree_all_finite(grad)
    assert not grad[3].any()
    with pytest.raises(TypeError, match="keys must be at least as many as queries"):
        losses.info_nce(k, q)


@pytest.mark.parametrize("loss", [losses.info_nce, losses.clip_loss])
def test_losses_near_0_keep_full_precision(loss: Callable[..., jax.Array]) -> None:
    x = jnp.eye(3, dtype=jnp.float32)
    got = loss(30 * x, x, temperature=0.5)
    np.testing.assert_allclose(got, 2 * np.exp(-60.0), rtol=1e-5)


def dense_info_nce(q: jax.Array, k: jax.Array, temperature: Any) -> jax.Array:
    s = q @ k.T / temperature
    return jax.nn.logsumexp(s, 1) - jnp.diagonal(s)


def dense_clip(a: jax.Array, b: jax.Array, temperature: Any) -> jax.Array:
    return (dense_info_nce(a, b, temperature) + dense_info_nce(b, a, temperature)) / 2


@pytest.mark.usefixtures("no_xla_optimizations")
@pytest.mark.parametrize(
    ("reduce", "has_equal_rows"),
    [
        (jnp.mean, False),
        (lambda loss: jnp.sum(loss * jnp.arange(5.0)), False),
        (lambda loss: jnp.sum(jnp.square(loss)), True),
    ],
    ids=["mean", "weighted", "squared"],
)
@pytest.mark.parametrize(
    ("loss", "dense"),
    [(losses.info_nce, dense_info_nce), (losses.clip_loss, dense_clip)],
    ids=["info_nce", "clip_loss"],
)
def test_second_derivatives_of_tiled_losses(
    loss: Callable, dense: Callable, reduce: Callable, has_equal_rows: bool
) -> None:
    """Equal rows have equal cotangents, whose tangents are not equal."""
    a, b = embeddings(5, 0, 5), embeddings(5, 1, 5)
    if has_equal_rows:
        a, b = jnp.eye(5), 2 * jnp.eye(5)
    primals = a, b, jnp.array(0.5)
    tangents = embeddings(5, 2, 5), embeddings(5, 3, 5), jnp.array(0.7)

    def derivatives(loss: Callable[..., jax.Array]) -> Any:
        gradient = jax.grad(lambda *x: reduce(loss(*x)), (0, 1, 2))

        def directional(*x: jax.Array) -> jax.Array:
            return sum(jnp.vdot(g, x_dot) for g, x_dot in zip(gradient(*x), tangents))

        @jit_without_fusion_emitters
        def in_both_orders(*x: jax.Array) -> Any:
            forward_over_reverse = jax.jvp(gradient, x, tangents)
            reverse_over_reverse = jax.grad(directional, (0, 1, 2))(*x)
            return forward_over_reverse, reverse_over_reverse

        return in_both_orders(*primals)

    got = derivatives(lambda a, b, t: loss(a, b, temperature=t, block=2))
    chex.assert_trees_all_close(got, derivatives(dense), rtol=1e-9, atol=1e-12)


def test_clip_loss_with_a_first_block_of_one_row() -> None:
    """Column 0 has no negative in it, so the running sum starts empty."""
    a, b = embeddings(3), embeddings(3, 1)
    got = losses.clip_loss(a, b, block=1)
    np.testing.assert_allclose(got, dense_clip(a, b, 0.07), rtol=1e-12)


@pytest.mark.usefixtures("no_xla_optimizations")
@pytest.mark.parametrize(
    ("loss", "hyperparams"),
    [
        (losses.margin_loss, {"margin": 0.0, "beta": 0.5}),
        (losses.batch_hard_triplet_loss, {"margin": 0.25}),
        (losses.batch_semihard_triplet_loss, {"margin": 0.25}),
        (losses.batch_all_triplet_loss, {"margin": 0.25}),
    ],
)
def test_derivatives_at_a_kink_are_0(loss: Callable, hyperparams: dict) -> None:
    x, labels = jnp.array([[0.0], [0.5], [0.75]]), jnp.array([7, 7, 8])
    grad = jax.grad(lambda x: loss(x, labels, **hyperparams)[0])(x)
    np.testing.assert_array_equal(grad, 0.0)


def test_distances_of_close_rows_keep_full_precision() -> None:
    """At 1/1000 of the norm, where ‖x‖² + ‖y‖² - 2 x·y has no correct digit."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 64))
    x[1] = x[0] * (1 + 1e-3 * rng.normal(size=64))
    x[3] = x[2] * (1 + 1e-3 * rng.normal(size=64))
    x, labels = x.astype(np.float32), np.array([0, 0, 1, 1])
    got = losses.batch_contrastive_loss(jnp.asarray(x), jnp.asarray(labels))
    truth = ANCHOR_LOSSES["batch_contrastive_loss"].truth
    np.testing.assert_allclose(got, truth(x.astype(np.float64), labels), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_matrix_products_have_the_precision_of_their_factors(dtype: Any) -> None:
    """By default a GPU rounds float32 factors to 10 bits, in derivatives too."""
    num_products = 0
    head_cases = [c for c in cases() if c.name == "losses.linear_cross_entropy"]
    other_cases = [*inbatch.CASES[1:], *proxies.CASES, *mining.CASES[:5]]
    for case in head_cases + other_cases * (dtype == jnp.float32):
        arrays = [jnp.asarray(a) for a in case.sample(np.random.default_rng(0))]
        arrays = [
            a.astype(dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a
            for a in arrays
        ]

        def total(x: jax.Array, case: Any = case, others: Any = arrays[1:]) -> Any:
            return jnp.sum(case(x, *others).astype(float))

        lowered = jax.jit(jax.value_and_grad(total)).lower(arrays[0])
        for line in lowered.as_text().splitlines():
            if "dot_general" in line:
                num_products += 1
                is_highest = "precision = [HIGHEST, HIGHEST]" in line
                assert is_highest == (dtype == jnp.float32), (case.name, line)
    assert num_products > (60 if dtype == jnp.float32 else 3)


MAX_MEBIBYTES = {  # temporaries of value and gradient, float32, 128 features
    ("info_nce", 8192): 40,
    ("clip_loss", 8192): 40,
    ("nt_xent", 4096): 24,
    ("supcon_loss", 4096): 24,
    ("batch_all_triplet_loss", 4096): 20,
    ("batch_hard_triplet_loss", 4096): 32,
    ("batch_semihard_triplet_loss", 4096): 32,
}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "n"), MAX_MEBIBYTES)
def test_memory_does_not_grow_with_the_square_of_the_batch(name: str, n: int) -> None:
    loss, takes_views = getattr(losses, name), name in ("info_nce", "clip_loss")

    def mebibytes(n: int) -> float:
        x = jax.ShapeDtypeStruct((n, 128), jnp.float32)
        other = x if takes_views else jax.ShapeDtypeStruct((n,), jnp.int32)
        function = jax.value_and_grad(lambda x, other: jnp.sum(loss(x, other)))
        return measure.temporaries(function, x, other) / 2**20

    with jax.enable_x64(False):
        temporaries = mebibytes(n)
        assert temporaries <= MAX_MEBIBYTES[name, n]
        if name in ("info_nce", "supcon_loss", "batch_all_triplet_loss"):
            assert mebibytes(2 * n) <= 2 * temporaries

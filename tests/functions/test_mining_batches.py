"""Batches of several examples per class, and memory banks."""

from collections import deque
from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from jaxml import losses, mining

RAGGED = np.array([5] * 9 + [-2] * 4 + [0] * 2 + [7] + [11] * 6)


def batches(labels: Any, count: int, k: int, m: int) -> np.ndarray:
    """The indices of many batches, [count k m]."""
    sample = partial(mining.m_per_class, classes_per_batch=k, per_class=m)
    keys = jax.random.split(jax.random.key(1), count)
    indices = jax.jit(jax.vmap(sample, (0, None)))(keys, jnp.asarray(labels))
    return np.asarray(indices).reshape(count, k, m)


@pytest.mark.parametrize("dtype", ["int64", "int8", "uint8", "uint32"])
def test_a_batch_has_m_examples_of_k_distinct_classes(dtype: str) -> None:
    labels = RAGGED.astype(dtype)
    for batch in batches(labels, 50, k=3, m=4):
        classes = labels[batch]
        assert (classes == classes[:, :1]).all()
        assert len({*classes[:, 0].tolist()}) == 3
        for indices, c in zip(batch, classes[:, 0]):
            counts = np.unique(indices, return_counts=True)[1]
            size = np.sum(labels == c)
            assert len(counts) == min(4, size), "an example repeats in a large class"
            assert counts.max() - counts.min() <= 1


def test_classes_and_examples_are_uniform() -> None:
    """However many examples a class has; within five standard deviations."""
    count, k, m = 6000, 2, 2
    drawn = batches(RAGGED, count, k, m)
    for c in np.unique(RAGGED):
        p = k / len(np.unique(RAGGED))
        frequency = np.mean(np.any(RAGGED[drawn[:, :, 0]] == c, 1))
        assert abs(frequency - p) < 5 * np.sqrt(p * (1 - p) / count)
        members = np.flatnonzero(c == RAGGED)
        for i in members:
            q = p * min(1, m / len(members))
            frequency = np.mean(np.any(drawn == i, (1, 2)))
            assert abs(frequency - q) < 5 * np.sqrt(q * (1 - q) / count)


def test_of_few_classes_each_is_drawn_in_turn() -> None:
    labels = np.array([1] * 6 + [2] * 3)
    for batch in batches(labels, 20, k=5, m=2):
        classes = labels[batch[:, 0]]
        assert sorted(np.unique(classes, return_counts=True)[1]) == [2, 3]
        assert (classes[:2] == classes[2:4]).all()
        of_first = batch[classes == 1].ravel()
        assert len({*of_first.tolist()}) == len(of_first), "1 has enough examples"


def test_a_batch_of_no_labels_is_refused() -> None:
    with pytest.raises(TypeError, match="m_per_class: labels must have at least one"):
        mining.m_per_class(
            jax.random.key(0), jnp.zeros(0, int), classes_per_batch=1, per_class=1
        )


# Memory banks


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.lists(st.integers(0, 6), max_size=6))
def test_a_bank_is_a_queue(size: int, pushes: list[int]) -> None:
    bank = mining.memory_bank(size, 2)
    state, queue, row = bank.init(), deque(maxlen=size), 0
    for n in pushes:
        index = np.arange(row, row + n)
        rows = np.stack([index, -index], 1).astype(np.float32).reshape(n, 2)
        state = bank.push(state, rows, index.astype(np.uint8))
        queue.extend(range(row, row + n))
        row += n
    assert state.is_filled.sum() == len(queue)
    assert state.is_filled[size - len(queue) :].all()
    np.testing.assert_array_equal(state.labels[state.is_filled], [*queue])
    np.testing.assert_array_equal(
        state.embeddings[state.is_filled, 1], -np.array(queue)
    )


LOSSES = losses.supcon_loss, losses.batch_hard_triplet_loss, losses.circle_loss


@pytest.mark.parametrize("loss", LOSSES)
def test_unfilled_rows_never_matter(loss: Any) -> None:
    """Not even NaN; the loss is the one with the filled rows alone."""
    rng = np.random.default_rng(0)
    old, x = rng.normal(size=(2, 5, 3))
    old_labels, labels = rng.integers(0, 3, (2, 5)).astype(np.uint8)
    bank = mining.memory_bank(8, 3, dtype=jnp.float64)
    state = bank.push(bank.init(), old, old_labels)
    unfilled = ~state.is_filled[:, None]
    state = state._replace(embeddings=jnp.where(unfilled, jnp.nan, state.embeddings))

    def total(x: jax.Array, state: Any) -> jax.Array:
        where = jnp.broadcast_to(state.is_filled, (len(x), len(state.is_filled)))
        return losses.mean(
            loss(
                x,
                jnp.asarray(labels),
                references=state.embeddings,
                reference_labels=state.labels,
                where=where,
            )
        )

    def total_of_filled(x: jax.Array) -> jax.Array:
        references = {"references": old, "reference_labels": old_labels}
        return losses.mean(loss(x, jnp.asarray(labels), **references))

    result = jax.value_and_grad(total)(jnp.asarray(x), state)
    expected = jax.value_and_grad(total_of_filled)(jnp.asarray(x))
    chex.assert_trees_all_close(result, expected, rtol=1e-12, atol=1e-14)


def test_a_bank_carries_no_gradient_and_has_its_own_dtype() -> None:
    bank = mining.memory_bank(3, 2, dtype=jnp.bfloat16)

    @jax.jit
    @chex.assert_max_traces(1)
    def push(state: Any, x: jax.Array) -> Any:
        return bank.push(state, x, jnp.zeros(2, jnp.int8))

    state = bank.init()
    for _ in range(3):
        state = push(state, jnp.ones((2, 2), jnp.float32))
    dtypes = [x.dtype for x in state]
    assert dtypes == [jnp.bfloat16, jnp.int64, jnp.bool]

    def total(x: jax.Array) -> jax.Array:
        return jnp.sum(bank.push(bank.init(), x, jnp.zeros(2, int)).embeddings ** 2)

    assert not jax.grad(total)(jnp.ones((2, 2))).any()


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: mining.memory_bank(0, 2), "memory_bank: size must be at least 1"),
        (lambda: mining.memory_bank(2, 2, dtype=int), "dtype must be a float dtype"),
        (
            lambda: push_to_bank(jnp.ones((4, 3)), jnp.zeros(4, int)),
            r"memory_bank: embeddings must have shape \[n, 2\], got float64\[4,3\]",
        ),
        (
            lambda: push_to_bank(jnp.ones((4, 2)), jnp.zeros(3, int)),
            r"memory_bank: labels must have shape \[4\], as embeddings, got int64\[3\]",
        ),
        (
            lambda: push_to_bank(jnp.ones((4, 2)), jnp.zeros(4)),
            "memory_bank: labels must be integers, got float64",
        ),
    ],
)
def test_an_invalid_argument_is_named(call: Any, sentence: str) -> None:
    with pytest.raises((TypeError, ValueError), match=sentence):
        call()


def push_to_bank(embeddings: Any, labels: Any) -> Any:
    bank = mining.memory_bank(3, 2)
    return bank.push(bank.init(), embeddings, labels)


def test_each_device_pushes_to_a_bank_of_its_own() -> None:
    rng = np.random.default_rng(0)
    bank = mining.memory_bank(3, 2, dtype=jnp.float64)
    old, x = jnp.asarray(rng.normal(size=(2, 16, 2)))
    old_labels, labels = jnp.asarray(rng.integers(0, 3, (2, 16)))
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))

    @jax.jit
    @partial(jax.shard_map, mesh=mesh, in_specs=P("data"), out_specs=P())
    def sharded(old: Any, old_labels: Any, x: Any, labels: Any) -> jax.Array:
        state = bank.push(bank.init(), old, old_labels)
        filled = jax.lax.all_gather(state.is_filled, "data", tiled=True)
        values = losses.supcon_loss(
            x,
            labels,
            references=state.embeddings,
            reference_labels=state.labels,
            where=jnp.broadcast_to(filled, (len(x), len(filled))),
            axis_name="data",
        )
        return losses.mean(values, axis_name="data")

    references = {"references": old, "reference_labels": old_labels}
    expected = losses.mean(losses.supcon_loss(x, labels, **references))
    np.testing.assert_allclose(sharded(old, old_labels, x, labels), expected, 1e-10)

"""One anchor against its candidates: the frame of every loss over the pairs of a batch.

A formula sees one anchor: its [m] similarities or distances, and which candidates are
its positives and which its negatives. It is lifted to the batch, a block of anchors at
a time. Candidates are the other rows of the batch, or the references of a memory bank.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxml._core.blocks import map_blocks
from jaxml._core.contract import raise_invalid
from jaxml._core.masking import apply_mask
from jaxml._core.matmul import (
    materialized_transpose,
    matmul,
    pairwise_euclidean,
    pairwise_squared_euclidean,
)
from jaxml._core.safe import safe_divide

Formula = Callable[[Array, Array, Array], Array]
Measure = Callable[[Array], Callable[[Array], Array]]


class Batch(NamedTuple):
    """The arguments that all these losses share, in the order of their signatures."""

    embeddings: Array
    labels: Array
    references: Array | None = None
    reference_labels: Array | None = None
    where: Array | None = None

    @property
    def candidates(self) -> Array:
        return self.embeddings if self.references is None else self.references

    @property
    def candidate_labels(self) -> Array:
        labels = self.reference_labels
        return self.labels if labels is None else labels


def per_anchor(
    batch: Batch,
    block: int | None,
    measure: Measure,
    formula: Formula,
    *,
    arrays: int = 4,
) -> Array:
    """formula(measured [m], positive [m], negative [m]) of every anchor.

    It makes about so many arrays of the length m, which decides a block's size.
    """
    lifted = jax.vmap(formula)
    return per_block(batch, block, measure, lifted, arrays=arrays)


def per_block(
    batch: Batch,
    block: int | None,
    measure: Measure,
    formula: Formula,
    *,
    arrays: int = 4,
) -> Array:
    """`per_anchor`, of a formula that takes a block of anchors: arrays of [b m]."""
    rows, labels, references, reference_labels, where = batch
    if (references is None) != (reference_labels is None):
        rule = "come with reference_labels, and these with it"
        raise_invalid(TypeError, "references", rule, references)
    candidates, candidate_labels = batch.candidates, batch.candidate_labels
    check_pairs(rows, candidates, where)
    if not len(candidates):
        return jnp.zeros(len(rows), rows.dtype)
    rows, candidates = counted(rows, where, 1), counted(candidates, where, 0)
    measured = measure(candidates)

    def tile(of_rows: tuple) -> Array:
        row, label, index, kept = of_rows
        same = label[:, None] == candidate_labels[None]
        kept = jnp.ones_like(same) if kept is None else kept
        if references is None:
            kept &= index[:, None] != jnp.arange(len(candidates))[None]
        values = apply_mask(measured(row), kept)
        return formula(values, same & kept, ~same & kept)

    of_rows = rows, labels, jnp.arange(len(rows)), where
    return map_blocks(tile, of_rows, arrays * len(candidates), block)


def check_pairs(rows: Array, columns: Array, where: Array | None) -> None:
    """Refuses a mask that is not of all pairs, and a block of no rows."""
    pairs = len(rows), len(columns)
    if where is not None and where.shape != pairs:
        rule = f"be of shape [{pairs[0]},{pairs[1]}], all pairs"
        raise_invalid(TypeError, "where", rule, where)


def counted(rows: Array, where: Array | None, axis: int) -> Array:
    """The rows, 0 for one that takes part in no pair: it may be NaN."""
    return rows if where is None else apply_mask(rows, jnp.any(where, axis)[:, None])


def mean_over(values: Array, kept: Array) -> Array:
    """The mean of what is kept, 0 if that is nothing."""
    count = jnp.sum(kept, dtype=values.dtype)
    return safe_divide(jnp.sum(apply_mask(values, kept)), count)


def dot(candidates: Array) -> Callable[[Array], Array]:
    """Similarities."""
    columns = materialized_transpose(candidates)
    return lambda rows: matmul(rows, columns)


def euclidean(candidates: Array) -> Callable[[Array], Array]:
    return lambda rows: pairwise_euclidean(rows, candidates)


def squared_euclidean(candidates: Array) -> Callable[[Array], Array]:
    return lambda rows: pairwise_squared_euclidean(rows, candidates)

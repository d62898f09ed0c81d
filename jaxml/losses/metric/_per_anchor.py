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

from jaxml._core.blocks import over_rows, transposed
from jaxml._core.checks import check_count, refuse
from jaxml._core.distances import euclidean as _euclidean
from jaxml._core.distances import squared_euclidean as _squared_euclidean
from jaxml._core.matmul import matmul
from jaxml._core.numerics import keep, safe_divide

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
    function: str,
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
    return per_block(function, batch, block, measure, lifted, arrays=arrays)


def per_block(
    function: str,
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
        refuse(TypeError, function, "references", rule, references)
    candidates, candidate_labels = batch.candidates, batch.candidate_labels
    check_pairs(function, rows, candidates, where, block)
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
        values = keep(measured(row), kept)
        return formula(values, same & kept, ~same & kept)

    of_rows = rows, labels, jnp.arange(len(rows)), where
    return over_rows(tile, of_rows, arrays * len(candidates), block)


def check_pairs(
    function: str, rows: Array, columns: Array, where: Array | None, block: int | None
) -> None:
    """Refuses a mask that is not of all pairs, and a block of no rows."""
    pairs = len(rows), len(columns)
    if where is not None and where.shape != pairs:
        rule = f"be of shape [{pairs[0]},{pairs[1]}], all pairs"
        refuse(TypeError, function, "where", rule, where)
    check_count(function, block=block)


def counted(rows: Array, where: Array | None, axis: int) -> Array:
    """The rows, 0 for one that takes part in no pair: it may be NaN."""
    return rows if where is None else keep(rows, jnp.any(where, axis)[:, None])


def mean_over(values: Array, kept: Array) -> Array:
    """The mean of what is kept, 0 if that is nothing."""
    count = jnp.sum(kept, dtype=values.dtype)
    return safe_divide(jnp.sum(keep(values, kept)), count)


def dot(candidates: Array) -> Callable[[Array], Array]:
    """Similarities."""
    columns = transposed(candidates)
    return lambda rows: matmul(rows, columns)


def euclidean(candidates: Array) -> Callable[[Array], Array]:
    return lambda rows: _euclidean(rows, candidates)


def squared_euclidean(candidates: Array) -> Callable[[Array], Array]:
    return lambda rows: _squared_euclidean(rows, candidates)

"""The engine of the in-batch losses: a formula of one anchor, applied to all of them.

A formula takes the similarities s or distances d of one anchor to its m candidates, and
the masks of its positives and its negatives. Three examples:

    batch-hard triplets   relu(max d[positive] - min d[negative] + margin)
    NT-Xent               mean of softmax_nll(s, lse(s[negative])) over the positives
    NCA                   softmax_nll(lse(-d²[positive]), lse(-d²[negative]))

It runs on a block of anchors at a time, so that no [n m] array is held.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jaxml._core.blocks import map_blocks
from jaxml._core.collectives import any_shard, first_index, gather_rows
from jaxml._core.contract import raise_invalid
from jaxml._core.masking import apply_mask
from jaxml._core.matmul import (
    factor_dtype,
    materialized_transpose,
    matmul,
    pairwise_euclidean,
    pairwise_squared_euclidean,
)
from jaxml._core.public import public
from jaxml._core.types import AxisName, Count, compute_dtype, result_dtype

Formula = Callable[[Array, Array, Array], Array]
"""(similarities or distances, positive, negative) -> loss; each argument is [m]."""

PairwiseFn = Callable[[Array], Callable[[Array], Array]]
"""Candidates [m d] -> a function of anchors [b d] -> [b m]."""


@public(upcast=False)
def in_batch(
    row_loss: Callable[[Array, Array], Array],
    queries: Float[Array, "n d"],
    keys: Float[Array, "m d"],
    *,
    where: Bool[Array, "n _"] | None = None,
    block: Count | None = None,
    axis_name: AxisName | None = None,
) -> Float[Array, "n"]:
    """Your own loss of one query's similarities, applied to a batch of queries.

        lossᵢ = row_loss(s, i)    with sⱼ = qᵢ·kⱼ

    The similarities exist one block of queries at a time, in the derivative too.

    Args:
        row_loss: A function of [m] similarities and the query's index. It is compiled
            once per function object, so define it once. It may close over arrays
            inside an outer `jax.jit`.
        queries: q.
        keys: k.
        where: The pairs that take part. The others have similarity -∞.
        block: The number of queries per tile.
        axis_name: The mesh axes over which queries and keys are sharded, in
            `jax.shard_map`. m and the index count the rows of all devices.

    Reference:
        Cheng et al., Breaking the memory barrier: near infinite batch size scaling for
        contrastive loss, CVPR 2025, https://arxiv.org/abs/2410.17243

    Example:
        >>> x = jnp.eye(3)
        >>> in_batch(lambda s, i: jax.nn.logsumexp(s) - s[i], x, 10 * x)
        Array([9.059906e-05, 9.059906e-05, 9.059906e-05], dtype=float32)
    """
    if not len(queries):  # `row_loss` may need a key
        return jnp.zeros(0, compute_dtype(queries.dtype, keys.dtype))
    keys = gather_rows(keys, axis_name)
    queries, keys = factors(*zero_unused(queries, keys, where, axis_name))
    similarities = dot_similarity(keys)

    def block_losses(rows: tuple) -> Array:
        q, index, mask = rows
        return jax.vmap(row_loss)(apply_mask(similarities(q), mask, -jnp.inf), index)

    rows = queries, row_index(queries, axis_name), where
    return map_blocks(block_losses, rows, len(keys), block)


class AnchorBatch(NamedTuple):
    """Anchors [n d], candidates [m d], and the pairs of them that take part."""

    anchors: Array
    labels: Array
    index: Array
    """The index of each anchor among the anchors of all devices."""
    candidates: Array
    candidate_labels: Array
    where: Array | None
    block: int | None
    excludes_self: bool
    """Whether anchor i is candidate i, which is then none of its pairs."""


def anchor_batch(
    embeddings: Array,
    labels: Array,
    references: Array | None = None,
    reference_labels: Array | None = None,
    where: Array | None = None,
    block: int | None = None,
    axis_name: AxisName | None = None,
) -> AnchorBatch:
    """The batch that the shared arguments of the in-batch losses describe."""
    if (references is None) != (reference_labels is None):
        requirement = "be given together with reference_labels"
        raise_invalid(TypeError, "references", requirement, references)
    excludes_self = references is None
    candidates = embeddings if references is None else references
    candidate_labels = labels if reference_labels is None else reference_labels
    label_dtype = result_dtype(labels.dtype, candidate_labels.dtype)
    labels, candidate_labels = (
        x.astype(label_dtype) for x in (labels, candidate_labels)
    )
    candidates, candidate_labels = (
        gather_rows(x, axis_name) for x in (candidates, candidate_labels)
    )
    anchors, candidates = factors(
        *zero_unused(embeddings, candidates, where, axis_name)
    )
    index = row_index(embeddings, axis_name)
    return AnchorBatch(
        anchors,
        labels,
        index,
        candidates,
        candidate_labels,
        where,
        block,
        excludes_self,
    )


def row_index(rows: Array, axis_name: AxisName | None) -> Array:
    """The index of each row among the rows of all devices."""
    return first_index(len(rows), axis_name) + jnp.arange(len(rows), dtype=jnp.int32)


def zero_unused(
    anchors: Array,
    candidates: Array,
    where: Array | None,
    axis_name: AxisName | None = None,
) -> tuple[Array, Array]:
    """Both, with 0 in each row that takes part in no pair, because it may be NaN."""
    if where is None:
        return anchors, candidates
    check_all_pairs(where, len(anchors), len(candidates))
    anchors = apply_mask(anchors, jnp.any(where, 1)[:, None])
    is_used = any_shard(jnp.any(where, 0), axis_name)
    return anchors, apply_mask(candidates, is_used[:, None])


def check_all_pairs(where: Array | None, n: int, m: int) -> None:
    """Raises a TypeError unless the mask is one of n anchors and m candidates."""
    if where is not None and where.shape != (n, m):
        raise_invalid(TypeError, "where", f"be of shape [{n},{m}], all pairs", where)


def factors(anchors: Array, candidates: Array) -> tuple[Array, Array]:
    """The anchors in the dtype of their products, the candidates in float32 or wider.

    `matmul` rounds the candidates too. Their gradient is a sum over blocks.
    """
    dtypes = anchors.dtype, candidates.dtype
    return anchors.astype(factor_dtype(*dtypes)), candidates.astype(
        compute_dtype(*dtypes)
    )


def map_anchors(
    batch: AnchorBatch,
    pairwise: PairwiseFn,
    formula: Formula,
    *,
    num_temporaries: int = 4,
    gpu_temporaries: int | None = None,
) -> Array:
    """The loss of each anchor: [n].

    Args:
        batch: The anchors and their candidates.
        pairwise: The similarity or distance.
        formula: The loss of one anchor.
        num_temporaries: About how many arrays [m] the formula creates. It decides the
            number of anchors per block, unless the batch gives it.
        gpu_temporaries: The same on a GPU, if the derivative holds more or fewer
            arrays there.
    """
    return map_anchor_blocks(
        batch,
        pairwise,
        jax.vmap(formula),
        num_temporaries=num_temporaries,
        gpu_temporaries=gpu_temporaries,
    )


def map_anchor_blocks(
    batch: AnchorBatch,
    pairwise: PairwiseFn,
    formula: Formula,
    *,
    num_temporaries: int = 4,
    gpu_temporaries: int | None = None,
) -> Array:
    """`map_anchors` for a formula of a block of anchors, of arrays [b m]."""
    m = len(batch.candidates)
    if not m:
        return jnp.zeros_like(batch.candidates, shape=len(batch.anchors))
    pairwise_to_candidates = pairwise(batch.candidates)

    def block_losses(rows: tuple) -> Array:
        anchors, labels, index, mask = rows
        same = labels[:, None] == batch.candidate_labels[None]
        mask = jnp.ones_like(same) if mask is None else mask
        if batch.excludes_self:
            mask &= index[:, None] != jnp.arange(m, dtype=index.dtype)[None]
        values = apply_mask(pairwise_to_candidates(anchors), mask)
        return formula(values, same & mask, ~same & mask)

    rows = batch.anchors, batch.labels, batch.index, batch.where
    on_gpu = gpu_temporaries or num_temporaries
    return map_blocks(block_losses, rows, num_temporaries * m, batch.block, on_gpu * m)


def dot_similarity(candidates: Array) -> Callable[[Array], Array]:
    """a·x for anchors a and candidates x."""
    candidates_t = materialized_transpose(candidates)
    return lambda anchors: matmul(anchors, candidates_t)


def euclidean_distance(candidates: Array) -> Callable[[Array], Array]:
    """‖a - x‖ for anchors a and candidates x, with derivative 0 at 0."""
    return lambda anchors: pairwise_euclidean(anchors, candidates)


def squared_euclidean_distance(candidates: Array) -> Callable[[Array], Array]:
    """‖a - x‖² for anchors a and candidates x."""
    return lambda anchors: pairwise_squared_euclidean(anchors, candidates)

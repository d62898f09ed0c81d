"""Contrastive losses of two sets of rows: row i of one matches row i of the other.

All other rows are negatives. The event is both sets, [n d] and [m d], and there is one
loss per row. Similarities are dot products of the rows as given, computed for one block
of rows at a time. -log softmax is log(1 + Σⱼ e^(sⱼ - sᵢ)) over the negatives j, which
keeps full precision near 0.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jaxml._core.blocks import map_blocks, map_blocks_fused_grad
from jaxml._core.collectives import (
    check_ring,
    fold_ring,
    gather_rows,
    local_rows,
    num_shards,
    replicate,
    vary_together,
)
from jaxml._core.contract import raise_invalid
from jaxml._core.masking import apply_mask
from jaxml._core.matmul import logsumexp_matmul, materialized_transpose, matmul
from jaxml._core.public import public
from jaxml._core.softmax import logsumexp_shards, softmax_nll
from jaxml._core.special.logistic import softplus
from jaxml._core.types import AxisName, Count, Positive, Scalar
from jaxml.losses.metric._off_diagonal import off_diagonal_lse, shard_pairs
from jaxml.losses.metric._per_anchor import (
    check_all_pairs,
    factors,
    row_index,
    zero_unused,
)


@public(upcast=False, shards_rows=True)
def info_nce(
    queries: Float[Array, "n d"],
    keys: Float[Array, "m d"],
    *,
    temperature: Positive = 0.1,
    where: Bool[Array, "n _"] | None = None,
    block: Count | None = None,
    axis_name: AxisName | None = None,
    ring: bool = False,
) -> Float[Array, "n"]:
    """The cross entropy of identifying the key of each query among all keys.

        lossᵢ = -log(e^sᵢᵢ / Σⱼ e^sᵢⱼ)    with s = q·k / τ

    Keys beyond the number of queries are negatives of every query. Value and gradient
    of a mean compute each similarity once; unequal weights compute it twice.

    Args:
        queries: q.
        keys: k. Row i is the positive of query i.
        temperature: τ > 0, in the units of the similarity.
        where: The pairs that take part. A query without its key has loss 0.
        block: The number of queries per tile.
        axis_name: The mesh axes over which queries and keys are sharded, in
            `jax.shard_map`: the keys of all devices are candidates, and `where` has a
            column for each of them.
        ring: Whether the keys travel from device to device, so that none holds all.

    Raises:
        TypeError: If there are fewer keys than queries.

    Reference:
        van den Oord, Li and Vinyals, Representation learning with contrastive
        predictive coding, 2018, https://arxiv.org/abs/1807.03748

    Example:
        >>> info_nce(jnp.eye(3), jnp.eye(3))
        Array([9.079578e-05, 9.079578e-05, 9.079578e-05], dtype=float32)
    """
    if len(keys) < len(queries):
        raise_invalid(TypeError, "keys", "be at least as many as queries", keys)
    check_ring(ring, axis_name)
    if ring:
        return _ring_nll(queries, keys, temperature, where, block, axis_name)
    return _matching_nll(queries, keys, temperature, where, block, axis_name)


@public(upcast=False, shards_rows=True)
def n_pair_loss(
    anchors: Float[Array, "n d"],
    positives: Float[Array, "n d"],
    *,
    where: Bool[Array, "n _"] | None = None,
    block: Count | None = None,
    axis_name: AxisName | None = None,
) -> Float[Array, "n"]:
    """The cross entropy of identifying each anchor's positive among all positives.

        lossᵢ = log(1 + Σⱼ exp(aᵢ·pⱼ - aᵢ·pᵢ))    over j ≠ i

    Each of the n pairs is of another class, so that the other positives are negatives.
    A single pair has loss 0.

    Args:
        anchors: a.
        positives: p, in the order of the anchors.
        where: The pairs (i, j) that take part. An anchor without its positive has loss
            0.
        block: The number of anchors per tile.
        axis_name: The mesh axes over which the pairs are sharded, in `jax.shard_map`:
            the positives of all devices are candidates, and `where` has a column for
            each of them.

    Reference:
        Sohn, Improved deep metric learning with multi-class N-pair loss objective,
        NeurIPS 2016, https://papers.nips.cc/paper/6200

    Example:
        >>> n_pair_loss(jnp.zeros((2, 3)), jnp.ones((2, 3)))
        Array([0.6931472, 0.6931472], dtype=float32)
    """
    return _matching_nll(
        anchors, positives, where=where, block=block, axis_name=axis_name
    )


def _matching_nll(
    queries: Array,
    keys: Array,
    temperature: Scalar = 1.0,
    where: Array | None = None,
    block: int | None = None,
    axis_name: AxisName | None = None,
) -> Array:
    """-log softmax(s)ᵢᵢ with s = q·k / τ, and 0 if the pair (i, i) is masked."""
    n, index = len(queries), row_index(keys, axis_name)[: len(queries)]
    keys = gather_rows(keys, axis_name)
    queries, keys = factors(*zero_unused(queries, keys, where, axis_name))
    positives = local_rows(keys, axis_name)[:n]
    scale = jnp.asarray(1 / temperature, keys.dtype)
    keys_t = materialized_transpose(keys)
    shared = vary_together((replicate(keys_t), scale))
    return map_blocks_fused_grad(
        _block_nll, (queries, positives, index, where), shared, 4 * len(keys), block
    )


def _block_nll(rows: tuple, shared: tuple) -> Array:
    queries, positives, index, mask = rows
    keys_t, scale = shared
    columns = jnp.arange(keys_t.shape[1], dtype=index.dtype)
    is_positive = index[:, None] == columns[None]
    is_negative = ~is_positive if mask is None else ~is_positive & mask
    has_positive = None if mask is None else jnp.any(is_positive & mask, 1)
    positive_logit = scale * jnp.sum(queries.astype(positives.dtype) * positives, 1)
    positive_logit = apply_mask(positive_logit, has_positive)
    negatives_lse = logsumexp_matmul(queries, keys_t, is_negative, scale)
    return apply_mask(softmax_nll(positive_logit, negatives_lse), has_positive)


def _ring_nll(
    queries: Array,
    keys: Array,
    temperature: Scalar,
    where: Array | None,
    block: int | None,
    axis_name: AxisName | None,
) -> Array:
    """`_matching_nll` with the keys of one or two devices at a time."""
    n = len(queries)
    check_all_pairs(where, n, len(keys) * num_shards(axis_name))
    index = row_index(keys, axis_name)[:n]
    queries, keys = factors(queries, keys)
    scale = jnp.asarray(1 / temperature, keys.dtype)
    inputs = vary_together((queries, keys, scale, index, where))
    negatives_lse, _ = off_diagonal_lse(block, axis_name, False, *inputs)
    similarity, has_positive = _matching_pairs(queries, keys[:n], index, where)
    return apply_mask(softmax_nll(scale * similarity, negatives_lse), has_positive)


def _matching_pairs(
    a: Array, b: Array, index: Array, where: Array | None
) -> tuple[Array, Array | None]:
    """aᵢ·bᵢ, and whether the pair takes part: if not, its rows may be NaN."""
    is_pair = None
    if where is not None:
        is_pair = jnp.take_along_axis(where, index[:, None], 1)
        a, b = apply_mask(a, is_pair), apply_mask(b, is_pair)
        is_pair = is_pair[:, 0]
    return jnp.sum(a.astype(b.dtype) * b, 1), is_pair


@public(upcast=False, shards_rows=True)
def clip_loss(
    a: Float[Array, "n d"],
    b: Float[Array, "n d"],
    *,
    temperature: Positive = 0.07,
    where: Bool[Array, "n _"] | None = None,
    block: Count | None = None,
    axis_name: AxisName | None = None,
    ring: bool = False,
) -> Float[Array, "n"]:
    """The cross entropy of identifying each pair, averaged over both directions.

        lossᵢ = -½ log(e^sᵢᵢ / Σⱼ e^sᵢⱼ) - ½ log(e^sᵢᵢ / Σⱼ e^sⱼᵢ)    with s = a·b / τ

    Args:
        a: Embeddings of one view or modality, usually of norm 1.
        b: Embeddings of the other, in the same order.
        temperature: τ > 0, in the units of the similarity.
        where: The pairs (i, j) that take part, in both directions. A masked pair (i, i)
            has loss 0.
        block: The number of rows per tile.
        axis_name: The mesh axes over which the pairs are sharded, in `jax.shard_map`:
            the rows of all devices are candidates, and columns of `where`.
        ring: Whether the rows of b travel from device to device, so that none has all.

    Reference:
        Radford et al., Learning transferable visual models from natural language
        supervision, ICML 2021, https://arxiv.org/abs/2103.00020

    Example:
        >>> clip_loss(jnp.eye(3), jnp.eye(3), temperature=0.1)
        Array([9.079578e-05, 9.079578e-05, 9.079578e-05], dtype=float32)
    """
    check_ring(ring, axis_name)
    check_all_pairs(where, len(a), len(b) * num_shards(axis_name))
    index = row_index(a, axis_name)
    a, b = factors(a, b if ring else gather_rows(b, axis_name))
    local_b = b if ring else local_rows(b, axis_name)
    scale = jnp.asarray(1 / temperature, b.dtype)
    similarity, is_pair = _matching_pairs(a, local_b, index, where)
    inputs = vary_together((a, b, scale, index, where))
    ring_axes = axis_name if ring else None
    row_lse, col_lse = off_diagonal_lse(block, ring_axes, True, *inputs)
    if not ring:
        col_lse = local_rows(logsumexp_shards(col_lse, axis_name), axis_name)
    logit = scale * similarity
    loss = (softmax_nll(logit, row_lse) + softmax_nll(logit, col_lse)) / 2
    return apply_mask(loss, is_pair)


@public(upcast=False, shards_rows=True)
def siglip_loss(
    a: Float[Array, "n d"],
    b: Float[Array, "n d"],
    *,
    scale: Positive,
    bias: Scalar,
    where: Bool[Array, "n _"] | None = None,
    block: Count | None = None,
    axis_name: AxisName | None = None,
    ring: bool = False,
) -> Float[Array, "n"]:
    """Binary cross entropy of every pair, without a softmax over the batch.

        lossᵢ = Σⱼ log(1 + e^(-zᵢⱼ (t aᵢ·bⱼ + β)))    with zᵢⱼ = 1 for i = j, else -1

    Args:
        a: Embeddings of one view or modality, usually of norm 1.
        b: Embeddings of the other, in the same order.
        scale: t > 0, learned. The paper starts at 10.
        bias: β, learned. The paper starts at -10, because most pairs do not match.
        where: The pairs (i, j) that take part.
        block: The number of rows per tile.
        axis_name: The mesh axes over which the pairs are sharded, in `jax.shard_map`:
            the rows of all devices are candidates, and columns of `where`.
        ring: Whether the rows of b travel from device to device, so that none has all.

    Reference:
        Zhai et al., Sigmoid loss for language image pre-training, ICCV 2023,
        https://arxiv.org/abs/2303.15343

    Example:
        >>> siglip_loss(jnp.eye(3), jnp.eye(3), scale=10.0, bias=-5.0)
        Array([0.02014605, 0.02014605, 0.02014605], dtype=float32)
    """
    check_ring(ring, axis_name)
    check_all_pairs(where, len(a), len(b) * num_shards(axis_name))
    index = row_index(a, axis_name)
    if ring:
        inputs = vary_together((*factors(a, b), scale, bias, index, where))
        return _ring_siglip(block, axis_name, *inputs)
    a, b = factors(*zero_unused(a, gather_rows(b, axis_name), where, axis_name))
    return _siglip(block, a, b, scale, bias, index, where)


def _siglip(
    block: int | None,
    a: Array,
    b: Array,
    scale: Scalar,
    bias: Scalar,
    index: Array,
    where: Array | None,
) -> Array:
    """The losses of these rows of a and b, of which row indexᵢ of b matches aᵢ."""
    columns = jnp.arange(len(b), dtype=index.dtype)

    def block_losses(rows: tuple) -> Array:
        a, index, mask = rows
        logits = scale * matmul(a, b.T) + bias
        is_match = index[:, None] == columns[None]
        losses = softplus(jnp.where(is_match, -logits, logits))
        return jnp.sum(apply_mask(losses, mask), 1)

    return map_blocks(block_losses, (a, index, where), 4 * len(b), block)


def _fold_siglip(
    block: int | None,
    axis_name: AxisName,
    a: Array,
    b: Array,
    scale: Array,
    bias: Array,
    index: Array,
    where: Array | None,
) -> Array:
    """`_siglip` with the rows of b of all devices, which travel around the ring."""

    def step(loss: Array, _: None, b: Array, first: Array | int) -> tuple[Array, None]:
        used_a, b, mask = shard_pairs(a, b.astype(loss.dtype), where, first)
        return loss + _siglip(block, used_a, b, scale, bias, index - first, mask), None

    init = jnp.zeros_like(b, shape=len(a))
    return fold_ring(step, init, None, b.astype(a.dtype), axis_name)[0]


def _ring_siglip_fwd(
    block: int | None, axis_name: AxisName, *inputs: Any
) -> tuple[Array, tuple]:
    return _fold_siglip(block, axis_name, *inputs), inputs


def _ring_siglip_bwd(
    block: int | None, axis_name: AxisName, inputs: tuple, ct: Array
) -> tuple:
    """Folds the ring again; the cotangent of a shard of b travels with it."""
    a, b, scale, bias, index, where = inputs

    def step(
        cts: tuple, b_ct: Array, shard: Array, first: Array | int
    ) -> tuple[tuple, Array]:
        def losses(a: Array, b: Array, scale: Array, bias: Array) -> Array:
            a, b, mask = shard_pairs(a, b, where, first)
            return _siglip(block, a, b, scale, bias, index - first, mask)

        _, vjp = jax.vjp(losses, a, shard.astype(b.dtype), scale, bias)
        a_ct, shard_ct, *scalar_cts = vjp(ct)
        new_cts = a_ct.astype(b.dtype), *scalar_cts
        return jax.tree.map(jnp.add, cts, new_cts), b_ct + shard_ct

    init = jax.tree.map(jnp.zeros_like, (a.astype(b.dtype), scale, bias))
    shard = b.astype(a.dtype)
    (a_ct, *scalar_cts), b_ct = fold_ring(
        step, init, jnp.zeros_like(b), shard, axis_name
    )
    return a_ct.astype(a.dtype), b_ct, *scalar_cts, None, None


_ring_siglip = jax.custom_vjp(_fold_siglip, nondiff_argnums=(0, 1))
_ring_siglip.defvjp(_ring_siglip_fwd, _ring_siglip_bwd)

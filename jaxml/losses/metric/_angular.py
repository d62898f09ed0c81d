"""The angular loss: sums over the negatives of all pairs of an anchor and a positive.

The exponential of a sum is a product, so that the sums of all pairs are one product of
matrices of exponentials,

    Σₙ e^(c (a + p)·n) = Σₙ e^(c p·n) e^(c a·n)

It is computed for a block of anchors, a block of positives and a tile of n at a time.
The rows of a tile are divided by their largest exponential. Where the two maxima of a
pair lie at different n and the product would underflow, a sum for each pair replaces
it.

The package `metric` explains `references`, `reference_labels`, `block` and `axis_name`.
"""

import functools
import math
from collections.abc import Callable
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float, Integer

from jaxml._core.blocks import map_blocks, scan_blocks
from jaxml._core.collectives import vary_together
from jaxml._core.masking import apply_mask
from jaxml._core.matmul import materialized_transpose, matmul
from jaxml._core.public import public
from jaxml._core.safe import safe_divide, zero_if_inf
from jaxml._core.softmax import LogSumExp, Normalizer, softmax_nll
from jaxml._core.types import AxisName, Count, PyTree, Range, Scalar, compute_dtype
from jaxml.losses.metric._pair_sums import pairwise_logsumexp, pairwise_softmax_sum
from jaxml.losses.metric._per_anchor import AnchorBatch, anchor_batch


class Tile(NamedTuple):
    """How many rows a tile has at most."""

    anchors: int
    positives: int
    negatives: int


CPU_TILE = Tile(512, 1024, 2048)
TPU_TILE = Tile(512, 512, 512)
"""A TPU's compiler takes twice as long for twice as many."""
GPU_TILE = Tile(1024, 2048, 2048)


@public(upcast=False, shards_rows=True)
def angular_loss(
    embeddings: Float[Array, "n d"],
    labels: Integer[Array, "n"],
    *,
    angle: Annotated[
        Scalar, Range("be in (0, π/2)", lambda x: 0 < x < math.pi / 2)
    ] = 0.7,
    references: Float[Array, "m d"] | None = None,
    reference_labels: Integer[Array, "m"] | None = None,
    where: Bool[Array, "n _"] | None = None,
    block: Count | None = None,
    axis_name: AxisName | None = None,
) -> Float[Array, "n"]:
    """A soft bound on the angle at the negative in each triplet of an anchor.

        loss = mean over p of log(1 + Σₙ e^f),    f = 4 t² (a + p)·n - 2 (1 + t²) a·p

    with t = tan α. The sums for all p are one product of exponentials. If it would
    underflow, as for rows of large norm, a much slower pairwise sum replaces it.
    `jax.vmap`, as in a sweep over α, always runs both.

    Args:
        embeddings: Anchors a, usually of norm 1.
        labels: Their classes, any integers.
        angle: α in (0, π/2), in radians.

    Reference:
        Wang et al., Deep metric learning with angular loss, ICCV 2017,
        https://arxiv.org/abs/1708.01682

    Example:
        >>> x = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> angular_loss(x, jnp.array([7, 7, 8]))
        Array([0.03222365, 0.03222365, 0.        ], dtype=float32)
    """
    batch = anchor_batch(
        embeddings, labels, references, reference_labels, where, block, axis_name
    )
    tan_sq = jnp.square(jnp.tan(jnp.asarray(angle)))
    if block:
        return _losses(Tile(block, block, block), batch, tan_sq)
    if max(len(batch.anchors), len(batch.candidates)) <= min(CPU_TILE):
        return _losses(CPU_TILE, batch, tan_sq)
    on_cpu, on_tpu, on_gpu = (
        functools.partial(_losses, tile, batch)
        for tile in (CPU_TILE, TPU_TILE, GPU_TILE)
    )
    return lax.platform_dependent(tan_sq, cpu=on_cpu, tpu=on_tpu, default=on_gpu)


class Rows(NamedTuple):
    """Anchors or positives: [b d], with their labels."""

    x: Array
    labels: Array


class Negatives(NamedTuple):
    """Candidates, which are negatives of the pairs of another label."""

    x: Array
    labels: Array
    where: Array | None
    """Those that take part with each anchor: [m b]."""


def _losses(tile: Tile, batch: AnchorBatch, tan_sq: Array) -> Array:
    """The loss of each anchor, a tile at a time."""
    index = jnp.arange(len(batch.candidates), dtype=batch.index.dtype)

    def block_losses(anchor_rows: tuple) -> Array:
        anchors, anchor_index, where = anchor_rows
        candidates = batch.candidates.astype(batch.anchors.dtype)
        where = None if where is None else where.T

        def add_positives(sums: tuple, positive_rows: tuple) -> tuple[tuple, None]:
            positives, positive_index, is_used = positive_rows
            is_positive = positives.labels[:, None] == anchors.labels[None]
            if batch.excludes_self:
                is_positive &= positive_index[:, None] != anchor_index[None]
            is_positive &= True if is_used is None else is_used
            # rounded here, because the loop over blocks adds up their gradients
            x = batch.candidates.astype(batch.anchors.dtype)
            negatives = Negatives(x, batch.candidate_labels, where)
            lse = _logsumexp(
                tile.negatives, is_positive, positives, anchors, 4 * tan_sq, negatives
            )
            logits = 2 * (1 + tan_sq) * matmul(positives.x, anchors.x.T)
            nll = apply_mask(softmax_nll(logits, lse), is_positive)
            terms = nll, is_positive.astype(nll.dtype)
            return tuple(x + jnp.sum(y, 0) for x, y in zip(sums, terms)), None

        rows = Rows(candidates, batch.candidate_labels), index, where
        zeros = jnp.sum(anchors.x[:, :0], 1, compute_dtype(anchors.x.dtype))
        total, count = _fold(tile.positives, add_positives, (zeros, zeros), rows)
        return safe_divide(total, count)

    rows = Rows(batch.anchors, batch.labels), batch.index, batch.where
    return map_blocks(block_losses, rows, 1, tile.anchors)


def _fold(tile: int, step: Callable, init: PyTree, rows: PyTree) -> PyTree:
    """The last carry of a scan over tiles, which derivatives compute again."""
    step = jax.checkpoint(step, prevent_cse=False)
    return scan_blocks(step, init, rows, 1, tile)[0]


def _logsumexp(
    tile: int,
    is_needed: Array,
    positives: Rows,
    anchors: Rows,
    scale: Array,
    negatives: Negatives,
) -> Array:
    """log Σₙ e^(c (p + a)·n) for each pair of p and a: [positives anchors].

    It is -∞ for pairs without a negative. Where `is_needed` is False, it may be any
    number.
    """
    arrays = vary_together((is_needed, positives, anchors, scale, negatives))
    normalizer, _ = _normalizer(tile, *arrays)
    return normalizer.max + normalizer.log_sum


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _normalizer(
    tile: int,
    is_needed: Array,
    positives: Rows,
    anchors: Rows,
    scale: Array,
    negatives: Negatives,
) -> tuple[Normalizer, Array]:
    """`_logsumexp` as two terms, and the smallest sum computed as a product.

    If that is below ε², the product or its derivative underflows.
    """

    def add_product(total: LogSumExp, negatives: Negatives) -> tuple[LogSumExp, None]:
        e_p, e_a, log_max = _factors(positives, anchors, scale, negatives)
        return total.add(LogSumExp(log_max, matmul(e_p, e_a.T))), None

    def add_sums(total: LogSumExp, negatives: Negatives) -> tuple[LogSumExp, None]:
        exponents = _exponents(positives.x, anchors.x, scale, negatives.x)
        mask = _masks(positives, anchors, negatives)[1]
        return total.add(pairwise_logsumexp(*exponents, mask)), None

    dtype = compute_dtype(positives.x.dtype)
    empty = LogSumExp.empty(jnp.zeros_like(is_needed, dtype))
    total = _fold(tile, add_product, empty, negatives)
    is_known = is_needed & (total.max > -jnp.inf)
    smallest = jnp.min(total.sum, initial=jnp.inf, where=is_known)
    total = lax.cond(
        _underflows(smallest),
        lambda: _fold(tile, add_sums, empty, negatives),
        lambda: total,
    )
    return Normalizer(total.max, total.log_sum()), smallest


def _underflows(smallest: Array) -> Array:
    return smallest < jnp.finfo(smallest.dtype).eps ** 2


@_normalizer.defjvp
def _normalizer_jvp(tile: int, primals: tuple, tangents: tuple) -> tuple:
    """c (ṗ + ȧ)·n + c (p + a)·ṅ + ċ (p + a)·n, averaged with the softmax over n."""
    is_needed, positives, anchors, scale, negatives = primals
    _, positives_dot, anchors_dot, scale_dot, negatives_dot = tangents
    normalizer, smallest = _normalizer(tile, *primals)
    has_softmax = is_needed & (normalizer.max > -jnp.inf)
    x_max = zero_if_inf(normalizer.max)
    log_sum = apply_mask(normalizer.log_sum, has_softmax, jnp.inf)

    def add_tangent(total: Array, tiles: tuple) -> tuple[Array, None]:
        negatives, x_dot = tiles
        exponents, exponents_dot = jax.jvp(
            _exponents,
            (positives.x, anchors.x, scale, negatives.x),
            (positives_dot.x, anchors_dot.x, scale_dot, x_dot),
        )
        e_p, e_a, log_max = _factors(positives, anchors, scale, negatives)

        (p, a), (p_dot, a_dot) = exponents, exponents_dot

        def from_sums() -> Array:
            mask = _masks(positives, anchors, negatives)[1]
            return pairwise_softmax_sum(p, a, mask, x_max, log_sum, p_dot, a_dot)

        def from_product() -> Array:
            products = matmul(e_p * p_dot, e_a.T) + matmul(e_p, (e_a * a_dot).T)
            return jnp.exp(log_max - x_max - log_sum) * products

        is_sum = _underflows(smallest)
        return total + lax.cond(is_sum, from_sums, from_product), None

    rows = negatives, negatives_dot.x
    log_sum_dot = _fold(tile, add_tangent, jnp.zeros_like(log_sum), rows)
    normalizer_dot = Normalizer(jnp.zeros_like(x_max), log_sum_dot)
    return (normalizer, smallest), (normalizer_dot, jnp.zeros_like(smallest))


def _exponents(
    positives: Array, anchors: Array, scale: Array, negatives: Array
) -> tuple[Array, Array]:
    """c p·n and c a·n"""
    negatives_t = materialized_transpose(negatives)
    return scale * matmul(positives, negatives_t), scale * matmul(anchors, negatives_t)


def _masks(positives: Rows, anchors: Rows, negatives: Negatives) -> tuple[Array, Array]:
    """Which n have another label than p, and which are negatives of a."""
    of_positives, of_anchors = (
        rows.labels[:, None] != negatives.labels[None] for rows in (positives, anchors)
    )
    is_used = True if negatives.where is None else negatives.where.T
    return of_positives, of_anchors & is_used


def _factors(
    positives: Rows, anchors: Rows, scale: Array, negatives: Negatives
) -> tuple[Array, Array, Array]:
    """e^(c p·n) and e^(c a·n), divided by their maxima over n, and log of those.

    The logarithm is -∞ for pairs with a row that has no negative.
    """
    exponents = _exponents(positives.x, anchors.x, scale, negatives.x)
    masks = _masks(positives, anchors, negatives)
    (e_p, max_p), (e_a, max_a) = map(_exp_minus_max, exponents, masks)
    return e_p, e_a, max_p[:, None] + max_a[None]


def _exp_minus_max(x: Array, mask: Array) -> tuple[Array, Array]:
    """e^(x - max x) over the unmasked entries of each row, 0 elsewhere; and max x."""
    x_max = lax.stop_gradient(jnp.max(x, 1, initial=-jnp.inf, where=mask))
    shift = apply_mask(x_max, jnp.any(mask, 1))
    shifted = apply_mask(x - shift[:, None], mask, -jnp.inf)
    # a compiler may fuse the product in x into the subtraction, and round it once where
    # max x was rounded twice: for large x the maximum then comes out above 0
    excess = lax.stop_gradient(jnp.maximum(shifted, 0))
    return jnp.exp(shifted - excess), x_max

"""In-batch triplet losses: one value per anchor.

d is the Euclidean distance of an anchor and a candidate, with derivative 0 at 0. An
anchor without a positive or without a negative has loss 0. The package `metric`
explains
`references`, `reference_labels`, `block` and `axis_name`.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float, Integer

from jaxml._core.masking import apply_mask, masked_mean
from jaxml._core.public import public
from jaxml._core.safe import safe_divide
from jaxml._core.sorting import sort_rows, sum_runs
from jaxml._core.types import AxisName, Count, NonNegative, Scalar
from jaxml.losses.metric._per_anchor import (
    anchor_batch,
    euclidean_distance,
    map_anchor_blocks,
    map_anchors,
)


@public(upcast=False, shards_rows=True)
def batch_hard_triplet_loss(
    embeddings: Float[Array, "n d"],
    labels: Integer[Array, "n"],
    *,
    margin: NonNegative = 0.2,
    references: Float[Array, "m d"] | None = None,
    reference_labels: Integer[Array, "m"] | None = None,
    where: Bool[Array, "n _"] | None = None,
    block: Count | None = None,
    axis_name: AxisName | None = None,
) -> Float[Array, "n"]:
    """The triplet loss of the farthest positive and the nearest negative.

        loss = max(0, maxₚ dₚ - minₙ dₙ + m)

    Args:
        embeddings: Anchors.
        labels: Their classes, any integers.
        margin: m >= 0, in the units of d.

    Reference:
        Hermans, Beyer and Leibe, In defense of the triplet loss for person
        re-identification, 2017, https://arxiv.org/abs/1703.07737

    Example:
        >>> x = jnp.array([[0.0], [0.5], [0.75]])
        >>> batch_hard_triplet_loss(x, jnp.array([7, 7, 8]), margin=0.5)
        Array([0.25, 0.75, 0.  ], dtype=float32)
    """

    def formula(d: Array, positive: Array, negative: Array) -> Array:
        has_both = jnp.any(positive) & jnp.any(negative)
        farthest_positive = jnp.max(apply_mask(d, positive, 0.0))
        nearest_negative = jnp.min(apply_mask(d, negative, jnp.inf))
        nearest_negative = apply_mask(nearest_negative, has_both)
        loss = jax.nn.relu(farthest_positive - nearest_negative + margin)
        return apply_mask(loss, has_both)

    batch = anchor_batch(
        embeddings, labels, references, reference_labels, where, block, axis_name
    )
    return map_anchors(batch, euclidean_distance, formula)


@public(upcast=False, shards_rows=True)
def batch_semihard_triplet_loss(
    embeddings: Float[Array, "n d"],
    labels: Integer[Array, "n"],
    *,
    margin: NonNegative = 0.2,
    references: Float[Array, "m d"] | None = None,
    reference_labels: Integer[Array, "m"] | None = None,
    where: Bool[Array, "n _"] | None = None,
    block: Count | None = None,
    axis_name: AxisName | None = None,
) -> Float[Array, "n"]:
    """The mean triplet loss of each positive with the nearest negative beyond it.

        loss = mean over p of max(0, dₚ - min{dₙ : dₙ > dₚ} + m)

    A positive with no negative beyond it uses the farthest negative.

    Args:
        embeddings: Anchors.
        labels: Their classes, any integers.
        margin: m >= 0, in the units of d.

    Reference:
        Schroff, Kalenichenko and Philbin, FaceNet, CVPR 2015,
        https://arxiv.org/abs/1503.03832

    Example:
        >>> x = jnp.array([[0.0], [0.5], [0.75]])
        >>> batch_semihard_triplet_loss(x, jnp.array([7, 7, 8]), margin=0.5)
        Array([0.25, 0.75, 0.  ], dtype=float32)
    """

    def formula(d: Array, positive: Array, negative: Array) -> Array:
        detached = lax.stop_gradient(d)
        # a positive follows the negatives that are as far away as it is
        candidates = apply_mask(detached, positive | negative, jnp.nan)
        ranked = sort_rows(candidates, ~negative)
        is_negative = ~ranked.flag
        nearest = lax.cummin(apply_mask(ranked.x, is_negative, jnp.inf), 1, True)
        farthest = jnp.max(apply_mask(detached, negative, 0.0), 1, keepdims=True)
        chosen = jnp.where(jnp.isinf(nearest), farthest, nearest)
        has_negative = jnp.any(negative, 1, keepdims=True)
        is_active = ranked.flag & (ranked.x - chosen + margin > 0) & has_negative
        is_active = is_active.astype(d.dtype)

        # equally distant negatives share the triplets that choose their distance
        num_choosing = sum_runs(is_active, chosen)
        num_equal = sum_runs(is_negative.astype(d.dtype), chosen)
        negative_counts = safe_divide(num_choosing, num_equal)
        counts = ranked.unsort(jnp.where(is_negative, negative_counts, is_active))
        num_triplets = jnp.sum(positive, 1, dtype=d.dtype)
        return _hinge_mean(d, margin, counts, positive, negative, num_triplets)

    batch = anchor_batch(
        embeddings, labels, references, reference_labels, where, block, axis_name
    )
    return map_anchor_blocks(batch, euclidean_distance, formula, num_temporaries=32)


@public(upcast=False, shards_rows=True)
def batch_all_triplet_loss(
    embeddings: Float[Array, "n d"],
    labels: Integer[Array, "n"],
    *,
    margin: NonNegative = 0.2,
    references: Float[Array, "m d"] | None = None,
    reference_labels: Integer[Array, "m"] | None = None,
    where: Bool[Array, "n _"] | None = None,
    block: Count | None = None,
    axis_name: AxisName | None = None,
) -> Float[Array, "n"]:
    """The mean triplet loss of all of the anchor's triplets.

        loss = mean over p, n of max(0, dₚ - dₙ + m)

    It is exact, but forms no triplet: after sorting, it counts the negatives nearer
    than dₚ + m, and the positives for which dₙ is nearer than that.

    Args:
        embeddings: Anchors.
        labels: Their classes, any integers.
        margin: m >= 0, in the units of d.

    Reference:
        Hermans, Beyer and Leibe, In defense of the triplet loss for person
        re-identification, 2017, https://arxiv.org/abs/1703.07737

    Example:
        >>> x = jnp.array([[0.0], [0.5], [0.75]])
        >>> batch_all_triplet_loss(x, jnp.array([7, 7, 8]), margin=0.5)
        Array([0.25, 0.75, 0.  ], dtype=float32)
    """

    def formula(d: Array, positive: Array, negative: Array) -> Array:
        detached = lax.stop_gradient(d)
        bounds = jnp.where(positive, detached + lax.stop_gradient(margin), detached)
        candidates = apply_mask(bounds, positive | negative, jnp.nan)
        # a negative follows the positives for which dₙ = dₚ + m
        ranked = sort_rows(candidates, negative)
        num_negatives = jnp.cumsum(ranked.flag, 1, dtype=jnp.int32)
        position = jnp.arange(1, d.shape[1] + 1, dtype=jnp.int32)[None]
        num_nearer = position - num_negatives
        num_positives = jnp.sum(positive, 1, dtype=jnp.int32)
        counts = jnp.where(
            ranked.flag, num_positives[:, None] - num_nearer, num_negatives
        )
        counts = ranked.unsort(counts).astype(d.dtype)
        num_triplets = num_positives.astype(d.dtype) * jnp.sum(
            negative, 1, dtype=d.dtype
        )
        return _hinge_mean(d, margin, counts, positive, negative, num_triplets)

    batch = anchor_batch(
        embeddings, labels, references, reference_labels, where, block, axis_name
    )
    return map_anchor_blocks(batch, euclidean_distance, formula, num_temporaries=32)


def _hinge_mean(
    d: Array,
    margin: Scalar,
    counts: Array,
    positive: Array,
    negative: Array,
    num_triplets: Array,
) -> Array:
    """[Σ cₚ (dₚ + m) - Σ cₙ dₙ] / num_triplets: the mean hinge, c the active triplets.

    Both sums have the same number of terms. Distances are measured from their mean, so
    that large ones do not cancel.
    """
    is_active = (counts > 0) & (positive | negative)
    centers = jax.vmap(masked_mean)(lax.stop_gradient(d), is_active)
    centered = d - centers[:, None]
    terms = jnp.where(positive, counts * (centered + margin), -counts * centered)
    return safe_divide(jnp.sum(apply_mask(terms, is_active), 1), num_triplets)

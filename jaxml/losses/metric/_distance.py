"""In-batch losses of distances: one value per anchor.

d is the Euclidean distance of an anchor and a candidate, with derivative 0 at 0. Sums
over p and n run over the anchor's positives and negatives. The package `metric`
explains
`references`, `reference_labels`, `block` and `axis_name`.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Integer

from jaxml._core.collectives import any_shard, gather_rows, local_rows
from jaxml._core.masking import apply_mask, masked_mean
from jaxml._core.public import public
from jaxml._core.safe import safe_sqrt
from jaxml._core.softmax import logsumexp, softmax_nll
from jaxml._core.types import AxisName, Count, NonNegative, Scalar
from jaxml.losses.metric._per_anchor import (
    anchor_batch,
    euclidean_distance,
    map_anchors,
    squared_euclidean_distance,
)


@public(upcast=False, shards_rows=True)
def batch_contrastive_loss(
    embeddings: Float[Array, "n d"],
    labels: Integer[Array, "n"],
    *,
    margin: NonNegative = 1.0,
    references: Float[Array, "m d"] | None = None,
    reference_labels: Integer[Array, "m"] | None = None,
    where: Bool[Array, "n _"] | None = None,
    block: Count | None = None,
    axis_name: AxisName | None = None,
) -> Float[Array, "n"]:
    """The mean contrastive loss of the anchor's pairs.

        loss = mean over x of d² for a positive x, max(0, m - d)² for a negative x

    Args:
        embeddings: Anchors.
        labels: Their classes, any integers.
        margin: m >= 0, in the units of d.

    Reference:
        Hadsell, Chopra and LeCun, Dimensionality reduction by learning an invariant
        mapping, CVPR 2006, https://doi.org/10.1109/CVPR.2006.100

    Example:
        >>> x = jnp.array([[0.0], [0.5], [1.0]])
        >>> batch_contrastive_loss(x, jnp.array([7, 7, 8]))
        Array([0.125, 0.25 , 0.125], dtype=float32)
    """

    def formula(d_sq: Array, positive: Array, negative: Array) -> Array:
        violation = jax.nn.relu(margin - safe_sqrt(d_sq))
        losses = jnp.where(positive, d_sq, jnp.square(violation))
        return masked_mean(losses, positive | negative)

    batch = anchor_batch(
        embeddings, labels, references, reference_labels, where, block, axis_name
    )
    return map_anchors(batch, squared_euclidean_distance, formula)


@public(upcast=False, shards_rows=True)
def margin_loss(
    embeddings: Float[Array, "n d"],
    labels: Integer[Array, "n"],
    *,
    margin: NonNegative = 0.2,
    beta: Scalar = 1.2,
    references: Float[Array, "m d"] | None = None,
    reference_labels: Integer[Array, "m"] | None = None,
    where: Bool[Array, "n _"] | None = None,
    block: Count | None = None,
    axis_name: AxisName | None = None,
) -> Float[Array, "n"]:
    """Hinge loss that separates positives from negatives at a distance β.

        loss = mean over x of max(0, m ± (d - β)),    + for positives, - for negatives

    β may be learned, like every hyperparameter.

    Args:
        embeddings: Anchors.
        labels: Their classes, any integers.
        margin: m >= 0, in the units of d.
        beta: β, the boundary between positives and negatives, in the units of d.

    Reference:
        Wu et al., Sampling matters in deep embedding learning, ICCV 2017,
        https://arxiv.org/abs/1706.07567

    Example:
        >>> x = jnp.array([[0.0], [1.5], [1.0]])
        >>> margin_loss(x, jnp.array([7, 7, 8]), margin=0.25, beta=1.25)
        Array([0.5 , 0.75, 0.75], dtype=float32)
    """

    def formula(d: Array, positive: Array, negative: Array) -> Array:
        signed_distance = jnp.where(positive, d - beta, beta - d)
        return masked_mean(jax.nn.relu(margin + signed_distance), positive | negative)

    batch = anchor_batch(
        embeddings, labels, references, reference_labels, where, block, axis_name
    )
    return map_anchors(batch, euclidean_distance, formula)


@public(upcast=False, shards_rows=True)
def lifted_structure_loss(
    embeddings: Float[Array, "n d"],
    labels: Integer[Array, "n"],
    *,
    margin: Scalar = 1.0,
    references: Float[Array, "m d"] | None = None,
    reference_labels: Integer[Array, "m"] | None = None,
    where: Bool[Array, "n _"] | None = None,
    block: Count | None = None,
    axis_name: AxisName | None = None,
) -> Float[Array, "n"]:
    """Each positive against a soft maximum over the negatives of both of its ends.

        loss = mean over p of ½ max(0, dₚ + log(Σ e^(m - d(a,n)) + Σ e^(m - d(p,n))))²

    The first sum is over the anchor's negatives, the second over the positive's. In a
    memory bank, the second includes the rows that `where` keeps for any anchor.

    Args:
        embeddings: Anchors a.
        labels: Their classes, any integers.
        margin: m, in the units of d.

    Reference:
        Song et al., Deep metric learning via lifted structured feature embedding,
        CVPR 2016, https://arxiv.org/abs/1511.06452

    Example:
        >>> x = jnp.array([[0.0], [0.5], [1.0]])
        >>> lifted_structure_loss(x, jnp.array([7, 7, 8]))
        Array([1.0864515, 1.0864515, 0.       ], dtype=float32)
    """
    batch = anchor_batch(
        embeddings, labels, references, reference_labels, where, block, axis_name
    )

    def negatives_lse(d: Array, positive: Array, negative: Array) -> Array:
        return logsumexp(margin - d, 0, negative)

    if references is None:
        lse = map_anchors(batch, euclidean_distance, negatives_lse)
    else:
        candidates, candidate_labels = batch.candidates, batch.candidate_labels
        bank = anchor_batch(
            local_rows(candidates, axis_name),
            local_rows(candidate_labels, axis_name),
            candidates,
            candidate_labels,
            block=block,
        )
        is_used = None if where is None else any_shard(jnp.any(where, 0), axis_name)

        def used_negatives_lse(d: Array, positive: Array, negative: Array) -> Array:
            return negatives_lse(d, positive, apply_mask(negative, is_used, False))

        lse = map_anchors(bank, euclidean_distance, used_negatives_lse)
    positives_lse = gather_rows(lse, axis_name)

    def formula(d: Array, positive: Array, negative: Array) -> Array:
        anchor_lse = jnp.full_like(d, negatives_lse(d, positive, negative))
        lse = logsumexp(jnp.stack([anchor_lse, positives_lse]), 0)
        return masked_mean(jnp.square(jax.nn.relu(d + lse)) / 2, positive)

    return map_anchors(
        batch,
        euclidean_distance,
        formula,
        num_temporaries=8,
        gpu_temporaries=16,
    )


@public(upcast=False, shards_rows=True)
def nca_loss(
    embeddings: Float[Array, "n d"],
    labels: Integer[Array, "n"],
    *,
    references: Float[Array, "m d"] | None = None,
    reference_labels: Integer[Array, "m"] | None = None,
    where: Bool[Array, "n _"] | None = None,
    block: Count | None = None,
    axis_name: AxisName | None = None,
) -> Float[Array, "n"]:
    """The negative log-probability that a random neighbor has the anchor's class.

        loss = -log(Σₚ e^-d²ₚ / Σₓ e^-d²ₓ)

    The neighbor x is drawn from all candidates with probability softmax(-d²).

    Args:
        embeddings: Anchors.
        labels: Their classes, any integers.

    Reference:
        Goldberger et al., Neighbourhood components analysis, NeurIPS 2004,
        https://papers.nips.cc/paper/2566-neighbourhood-components-analysis

    Example:
        >>> x = jnp.array([[0.0], [1.0], [2.0]])
        >>> nca_loss(x, jnp.array([7, 7, 8]))
        Array([0.04858735, 0.6931472 , 0.        ], dtype=float32)
    """

    def formula(d_sq: Array, positive: Array, negative: Array) -> Array:
        positives_lse = logsumexp(-d_sq, 0, positive)
        positives_lse = apply_mask(positives_lse, jnp.any(positive), jnp.inf)
        return softmax_nll(positives_lse, logsumexp(-d_sq, 0, negative))

    batch = anchor_batch(
        embeddings, labels, references, reference_labels, where, block, axis_name
    )
    return map_anchors(batch, squared_euclidean_distance, formula)

"""In-batch losses of similarities: one value per anchor.

The similarity s of an anchor and a candidate is their dot product as given, which
`activations.l2_normalize` makes a cosine. Sums over p and n run over the anchor's
positives and negatives. The package `metric` explains
`references`, `reference_labels`, `block` and `axis_name`.
"""

import math
from typing import Annotated

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float, Integer

from jaxml._core.blocks import map_blocks
from jaxml._core.masking import apply_mask, masked_mean
from jaxml._core.matmul import matmul
from jaxml._core.public import public
from jaxml._core.softmax import log_softmax, logsumexp, softmax_nll
from jaxml._core.special.logistic import softplus
from jaxml._core.types import AxisName, Count, Fraction, Positive, Range, Scalar
from jaxml.losses.metric._pair_sums import (
    pairwise_logsumexp,
    smooth_one_minus_precision,
)
from jaxml.losses.metric._per_anchor import (
    anchor_batch,
    dot_similarity,
    map_anchor_blocks,
    map_anchors,
)


@public(upcast=False, shards_rows=True)
def nt_xent(
    embeddings: Float[Array, "n d"],
    labels: Integer[Array, "n"],
    *,
    temperature: Positive = 0.07,
    references: Float[Array, "m d"] | None = None,
    reference_labels: Integer[Array, "m"] | None = None,
    where: Bool[Array, "n _"] | None = None,
    block: Count | None = None,
    axis_name: AxisName | None = None,
) -> Float[Array, "n"]:
    """The cross entropy of identifying each positive among all negatives.

        loss = mean over p of -log(e^sₚ / (e^sₚ + Σₙ e^sₙ))    with s = a·x / τ

    The denominator excludes the other positives; in `supcon_loss` it includes them.

    Args:
        embeddings: Anchors a, usually of norm 1.
        labels: Their classes, any integers.
        temperature: τ > 0, in the units of the similarity.

    Reference:
        Chen et al., A simple framework for contrastive learning of visual
        representations, ICML 2020, https://arxiv.org/abs/2002.05709

    Example:
        >>> x = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> nt_xent(x, jnp.array([7, 7, 8]), temperature=0.5)
        Array([0.126928, 0.126928, 0.      ], dtype=float32)
    """

    def formula(s: Array, positive: Array, negative: Array) -> Array:
        s = s / temperature
        return masked_mean(softmax_nll(s, logsumexp(s, 0, negative)), positive)

    batch = anchor_batch(
        embeddings, labels, references, reference_labels, where, block, axis_name
    )
    return map_anchors(batch, dot_similarity, formula)


@public(upcast=False, shards_rows=True)
def supcon_loss(
    embeddings: Float[Array, "n d"],
    labels: Integer[Array, "n"],
    *,
    temperature: Positive = 0.1,
    references: Float[Array, "m d"] | None = None,
    reference_labels: Integer[Array, "m"] | None = None,
    where: Bool[Array, "n _"] | None = None,
    block: Count | None = None,
    axis_name: AxisName | None = None,
) -> Float[Array, "n"]:
    """The cross entropy of identifying each positive among all candidates.

        loss = mean over p of -log(e^sₚ / Σₓ e^sₓ)    with s = a·x / τ

    x runs over all positives and negatives: the paper's L_out.

    Args:
        embeddings: Anchors a, usually of norm 1.
        labels: Their classes, any integers.
        temperature: τ > 0, in the units of the similarity.

    Reference:
        Khosla et al., Supervised contrastive learning, NeurIPS 2020,
        https://arxiv.org/abs/2004.11362

    Example:
        >>> x = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> supcon_loss(x, jnp.array([7, 7, 8]), temperature=0.5)
        Array([0.126928, 0.126928, 0.      ], dtype=float32)
    """

    def formula(s: Array, positive: Array, negative: Array) -> Array:
        s = apply_mask(s / temperature, positive | negative, -jnp.inf)
        log_p = log_softmax(s, 0)
        return masked_mean(-log_p, positive)

    batch = anchor_batch(
        embeddings, labels, references, reference_labels, where, block, axis_name
    )
    return map_anchors(batch, dot_similarity, formula, gpu_temporaries=3)


@public(upcast=False, shards_rows=True)
def multi_similarity_loss(
    embeddings: Float[Array, "n d"],
    labels: Integer[Array, "n"],
    *,
    alpha: Positive = 2.0,
    beta: Positive = 50.0,
    base: Scalar = 0.5,
    references: Float[Array, "m d"] | None = None,
    reference_labels: Integer[Array, "m"] | None = None,
    where: Bool[Array, "n _"] | None = None,
    block: Count | None = None,
    axis_name: AxisName | None = None,
) -> Float[Array, "n"]:
    """Soft penalties for positives below, and negatives above, a base similarity.

        loss = log(1 + Σₚ e^(-α (sₚ - λ)))/α + log(1 + Σₙ e^(β (sₙ - λ)))/β

    `mining.multi_similarity_pairs` gives the paper's `where`.

    Args:
        embeddings: Anchors, usually of norm 1.
        labels: Their classes, any integers.
        alpha: α > 0, the sharpness of the penalty on positives.
        beta: β > 0, the sharpness of the penalty on negatives.
        base: λ, the similarity that separates positives from negatives.

    Reference:
        Wang et al., Multi-similarity loss with general pair weighting for deep metric
        learning, CVPR 2019, https://arxiv.org/abs/1904.06627

    Example:
        >>> x = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> multi_similarity_loss(x, jnp.array([7, 7, 8]))
        Array([1.5663084e-01, 1.5663084e-01, 5.5551803e-13], dtype=float32)
    """

    def formula(s: Array, positive: Array, negative: Array) -> Array:
        positive_term = softplus(logsumexp(-alpha * (s - base), 0, positive)) / alpha
        negative_term = softplus(logsumexp(beta * (s - base), 0, negative)) / beta
        return positive_term + negative_term

    batch = anchor_batch(
        embeddings, labels, references, reference_labels, where, block, axis_name
    )
    return map_anchors(batch, dot_similarity, formula)


@public(upcast=False, shards_rows=True)
def circle_loss(
    embeddings: Float[Array, "n d"],
    labels: Integer[Array, "n"],
    *,
    margin: Fraction = 0.4,
    gamma: Positive = 80.0,
    references: Float[Array, "m d"] | None = None,
    reference_labels: Integer[Array, "m"] | None = None,
    where: Bool[Array, "n _"] | None = None,
    block: Count | None = None,
    axis_name: AxisName | None = None,
) -> Float[Array, "n"]:
    """Pair similarities weighted by their distance from the optimum.

        loss = log(1 + Σₙ e^(γ αₙ (sₙ - m)) · Σₚ e^(γ αₚ (1 - m - sₚ)))
        αₙ = max(0, sₙ + m),    αₚ = max(0, 1 + m - sₚ)

    The weights α carry no derivative, as in the paper.

    Args:
        embeddings: Anchors, of norm 1.
        labels: Their classes, any integers.
        margin: m in [0, 1], the relaxation.
        gamma: γ > 0, the scale.

    Reference:
        Sun et al., Circle loss: a unified perspective of pair similarity optimization,
        CVPR 2020, https://arxiv.org/abs/2002.10857

    Example:
        >>> x = jnp.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
        >>> circle_loss(x, jnp.array([7, 7, 8]))
        Array([2.7607655e-06, 3.8400002e+01, 0.0000000e+00], dtype=float32)
    """

    def formula(s: Array, positive: Array, negative: Array) -> Array:
        detached = lax.stop_gradient(s)
        alpha_n = jax.nn.relu(detached + margin)
        alpha_p = jax.nn.relu(1 + margin - detached)
        logits_n = gamma * apply_mask(alpha_n * (s - margin), alpha_n != 0)
        logits_p = gamma * apply_mask(alpha_p * (1 - margin - s), alpha_p != 0)
        positives_lse = logsumexp(logits_p, 0, positive)
        return softplus(logsumexp(logits_n, 0, negative) + positives_lse)

    batch = anchor_batch(
        embeddings, labels, references, reference_labels, where, block, axis_name
    )
    return map_anchors(batch, dot_similarity, formula, gpu_temporaries=3)


@public(upcast=False, shards_rows=True)
def smooth_ap_loss(
    embeddings: Float[Array, "n d"],
    labels: Integer[Array, "n"],
    *,
    temperature: Positive = 0.01,
    references: Float[Array, "m d"] | None = None,
    reference_labels: Integer[Array, "m"] | None = None,
    where: Bool[Array, "n _"] | None = None,
    block: Count | None = None,
    axis_name: AxisName | None = None,
) -> Float[Array, "n"]:
    """One minus a smoothed average precision of retrieving the positives.

        loss = mean over p of Nₚ / (1 + Pₚ + Nₚ)
        Nₚ = Σₙ σ((sₙ - sₚ)/τ),    Pₚ = Σᵢ σ((sᵢ - sₚ)/τ) over the other positives i

    Each positive is ranked among all m candidates: m² operations per anchor.

    Args:
        embeddings: Anchors, usually of norm 1.
        labels: Their classes, any integers.
        temperature: τ > 0, the width of the sigmoid in the units of the similarity.

    Reference:
        Brown et al., Smooth-AP: smoothing the path towards large-scale image retrieval,
        ECCV 2020, https://arxiv.org/abs/2007.12163

    Example:
        >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
        >>> smooth_ap_loss(x, jnp.array([7, 7, 8]))
        Array([0.5, 0.5, 0. ], dtype=float32)
    """

    def formula(s: Array, positive: Array, negative: Array) -> Array:
        s = s / temperature
        losses = smooth_one_minus_precision(s, positive, negative)
        return masked_mean(losses, positive)

    batch = anchor_batch(
        embeddings, labels, references, reference_labels, where, block, axis_name
    )
    return map_anchors(batch, dot_similarity, formula, gpu_temporaries=16)


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
    similarities = dot_similarity(batch.candidates)
    tan_sq = jnp.square(jnp.tan(jnp.asarray(angle)))

    def formula(s: Array, positive: Array, negative: Array) -> Array:
        def positive_nll(rows: tuple) -> Array:
            p, label, s_p, needed = rows
            is_negative = label[:, None] != batch.candidate_labels[None]
            exponents = 4 * tan_sq * similarities(p), 4 * tan_sq * s
            lse = _product_logsumexp(*exponents, is_negative, negative, needed)
            return softmax_nll(2 * (1 + tan_sq) * s_p, lse)

        candidates = batch.candidates.astype(batch.anchors.dtype)
        rows = candidates, batch.candidate_labels, s.T, positive.T
        m = len(batch.candidates)
        nll = map_blocks(positive_nll, rows, 4 * m, block, 16 * m)
        return jax.vmap(masked_mean)(nll.T, positive)

    return map_anchor_blocks(batch, dot_similarity, formula, gpu_temporaries=32)


def _product_logsumexp(
    x: Array, y: Array, x_mask: Array, y_mask: Array, needed: Array
) -> Array:
    """log Σₙ e^(xᵢₙ + yⱼₙ) for each row i of x and j of y, over n in both masks.

    A product of the exponentials of x and y. If one of the `needed` sums underflows,
    all of them are computed pair by pair, over n in y's mask.
    """
    exp_x, x_max = _exp_minus_max(x, x_mask)
    exp_y, y_max = _exp_minus_max(y, y_mask)
    total = matmul(exp_x, exp_y.T)
    has_terms = jnp.any(y_mask, 1)[None]
    underflowed = total < jnp.finfo(total.dtype).eps ** 2

    def from_product() -> Array:
        log_total = jnp.log(jnp.where(underflowed, 1.0, total))
        return log_total + x_max[:, None] + y_max[None]

    lse = lax.cond(
        jnp.any(underflowed & needed & has_terms),
        lambda: pairwise_logsumexp(x, y, y_mask),
        from_product,
    )
    return apply_mask(lse, has_terms, -jnp.inf)


def _exp_minus_max(x: Array, mask: Array) -> tuple[Array, Array]:
    """e^(x - max x) over the unmasked entries of each row, 0 elsewhere; and max x."""
    x_max = lax.stop_gradient(jnp.max(apply_mask(x, mask, -jnp.inf), 1))
    x_max = apply_mask(x_max, jnp.any(mask, 1))
    shifted = apply_mask(x - x_max[:, None], mask, -jnp.inf)
    # a compiler may fuse the product in x into the subtraction, and round it once where
    # max x was rounded twice: for large x the maximum then comes out above 0
    excess = lax.stop_gradient(jnp.maximum(shifted, 0))
    return jnp.exp(shifted - excess), x_max

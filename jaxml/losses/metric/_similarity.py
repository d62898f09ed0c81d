"""In-batch losses of similarities: one value per anchor.

The similarity s of an anchor and a candidate is their dot product as given, which
`activations.l2_normalize` makes a cosine. Sums over p and n run over the anchor's
positives and negatives. The package `metric` explains
`references`, `reference_labels`, `block` and `axis_name`.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float, Integer

from jaxml._core.masking import apply_mask, masked_mean
from jaxml._core.public import public
from jaxml._core.softmax import log_softmax, logsumexp, softmax_nll
from jaxml._core.special.logistic import softplus
from jaxml._core.types import AxisName, Count, Fraction, Positive, Scalar
from jaxml.losses.metric._pair_sums import smooth_one_minus_precision
from jaxml.losses.metric._per_anchor import (
    anchor_batch,
    dot_similarity,
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

"""Miners: the pairs `[n m]` or triplets `[n m m]` to train on, from distances.

dᵢⱼ is any distance between anchor i and reference j. A similarity s is passed as -s, or
as 1 - s where a miner compares it with a threshold. p runs over the positives of the
anchor, n over its negatives. Equal distances are treated equally.
"""

from typing import Annotated

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float, Integer, Key

from jaxml._core.contract import raise_invalid
from jaxml._core.public import public
from jaxml._core.special.log1p import wide_log1p
from jaxml._core.types import Count, NonNegative, Range, Scalar
from jaxml.mining._masks import negatives, positives


@public
def hard_pairs(
    distances: Float[Array, "n m"],
    labels: Integer[Array, "n"],
    reference_labels: Integer[Array, "m"] | None = None,
) -> Bool[Array, "n m"]:
    """The farthest positive and the nearest negative of each anchor.

        maskᵢₚ = (dᵢₚ = maxₚ dᵢₚ),    maskᵢₙ = (dᵢₙ = minₙ dᵢₙ)

    An anchor without a positive or without a negative has no pair.

    Args:
        distances: d.
        labels: The classes of the anchors.
        reference_labels: The classes of the references; the anchors by default.

    Reference:
        Hermans, Beyer and Leibe, In defense of the triplet loss for person
        re-identification, 2017, https://arxiv.org/abs/1703.07737

    Example:
        >>> d = jnp.array([[0.0, 3.0, 1.0, 2.0]])
        >>> hard_pairs(d, jnp.array([0]), jnp.array([0, 0, 1, 1]))
        Array([[False,  True,  True, False]], dtype=bool)
    """
    is_positive, is_negative = _masks(distances, labels, reference_labels)
    farthest = is_positive & (distances >= _max_distance(distances, is_positive))
    nearest = is_negative & (distances <= _min_distance(distances, is_negative))
    return (farthest | nearest) & _has_both(is_positive, is_negative)


@public
def pair_margin(
    distances: Float[Array, "n m"],
    labels: Integer[Array, "n"],
    reference_labels: Integer[Array, "m"] | None = None,
    *,
    positive: Scalar = 0.2,
    negative: Scalar = 0.8,
) -> Bool[Array, "n m"]:
    """The positives that are too far, and the negatives that are too near.

        maskᵢₚ = (dᵢₚ > positive),    maskᵢₙ = (dᵢₙ < negative)

    Args:
        distances: d.
        labels: The classes of the anchors.
        reference_labels: The classes of the references; the anchors by default.
        positive: The largest distance at which a positive is near enough.
        negative: The smallest distance at which a negative is far enough.

    Reference:
        Musgrave, Belongie and Lim, PyTorch metric learning, 2020,
        https://arxiv.org/abs/2008.09164

    Example:
        >>> d = jnp.array([[0.1, 0.3, 0.7, 0.9]])
        >>> pair_margin(d, jnp.array([0]), jnp.array([0, 0, 1, 1]))
        Array([[False,  True,  True, False]], dtype=bool)
    """
    is_positive, is_negative = _masks(distances, labels, reference_labels)
    too_far = is_positive & (distances > positive)
    too_near = is_negative & (distances < negative)
    return too_far | too_near


@public
def multi_similarity_pairs(
    distances: Float[Array, "n m"],
    labels: Integer[Array, "n"],
    reference_labels: Integer[Array, "m"] | None = None,
    *,
    epsilon: NonNegative = 0.1,
) -> Bool[Array, "n m"]:
    """The positives farther than a negative and the negatives nearer than a positive.

        maskᵢₚ = (dᵢₚ + ε > minₙ dᵢₙ),    maskᵢₙ = (dᵢₙ - ε < maxₚ dᵢₚ)

    An anchor without a positive or without a negative has no pair.

    Args:
        distances: d. The paper uses -cos; 1 - cos gives the same pairs.
        labels: The classes of the anchors.
        reference_labels: The classes of the references; the anchors by default.
        epsilon: ε >= 0, the slack of both comparisons, in the units of d.

    Reference:
        Wang et al., Multi-similarity loss with general pair weighting for deep metric
        learning, CVPR 2019, https://arxiv.org/abs/1904.06627

    Example:
        >>> d = jnp.array([[0.1, 0.5, 0.4, 0.9]])
        >>> multi_similarity_pairs(d, jnp.array([0]), jnp.array([0, 0, 1, 1]))
        Array([[False,  True,  True, False]], dtype=bool)
    """
    is_positive, is_negative = _masks(distances, labels, reference_labels)
    min_negative = _min_distance(distances, is_negative)
    max_positive = _max_distance(distances, is_positive)
    hard_positives = is_positive & (distances + epsilon > min_negative)
    hard_negatives = is_negative & (distances - epsilon < max_positive)
    return (hard_positives | hard_negatives) & _has_both(is_positive, is_negative)


@public
def distance_weighted(
    key: Key[Array, ""],
    distances: Float[Array, "n m"],
    labels: Integer[Array, "n"],
    reference_labels: Integer[Array, "m"] | None = None,
    *,
    dimension: Scalar,
    count: Count = 1,
    cutoff: Scalar = 0.5,
    farthest: Annotated[Scalar, Range("be at most 2", lambda x: x <= 2)] = 1.4,
) -> Bool[Array, "n m"]:
    """All positives, and negatives sampled so that all distances are equally likely.

        P(n) ∝ 1/q(max(dᵢₙ, cutoff)) for dᵢₙ < farthest
        q(d) = d^(D-2) (1 - d²/4)^((D-3)/2)

    q is the density of the distance between random unit vectors in D dimensions.
    Negatives are sampled without replacement, all of them if there are at most `count`.
    An anchor with no sampled negative has no pair.

    Args:
        key: A random key.
        distances: d, the Euclidean distances of unit vectors.
        labels: The classes of the anchors.
        reference_labels: The classes of the references; the anchors by default.
        dimension: D, the number of features of an embedding.
        count: The number of negatives per anchor.
        cutoff: The distance below which the probability no longer increases.
        farthest: The distance from which negatives are ignored; at most 2.

    Reference:
        Wu et al., Sampling matters in deep embedding learning, ICCV 2017,
        https://arxiv.org/abs/1706.07567

    Example:
        >>> d, classes = jnp.array([[0.1, 1.0, 1.5]]), jnp.array([0, 1, 1])
        >>> distance_weighted(
        ...     jax.random.key(0), d, jnp.array([0]), classes, dimension=8
        ... )
        Array([[ True,  True, False]], dtype=bool)
    """
    is_positive, is_negative = _masks(distances, labels, reference_labels)
    is_candidate = is_negative & (distances < farthest)
    d = jnp.where(is_candidate, jnp.maximum(distances, cutoff), 1.0)
    # log 1/q(d)
    log_weight = (2 - dimension) * jnp.log(d)
    log_weight += (3 - dimension) / 2 * wide_log1p(-d * d / 4)
    # the top-k of log weights plus Gumbel noise is a sample without replacement
    gumbel_noise = jax.random.gumbel(key, distances.shape, distances.dtype)
    scores = jnp.where(is_candidate, log_weight + gumbel_noise, -jnp.inf)
    threshold = lax.top_k(scores, min(count, scores.shape[1]))[0][:, -1:]
    is_sampled = is_candidate & (scores >= threshold)
    return (is_positive | is_sampled) & jnp.any(is_sampled, 1, keepdims=True)


@public
def easy_triplets(
    distances: Float[Array, "n m"],
    labels: Integer[Array, "n"],
    reference_labels: Integer[Array, "m"] | None = None,
    *,
    margin: NonNegative = 0.2,
) -> Bool[Array, "n m m"]:
    """The triplets whose negative is farther than the positive by more than the margin.

        maskᵢₚₙ = (dᵢₙ > dᵢₚ + m)

    Their triplet loss is 0. Each valid triplet is either easy, semi-hard or hard.

    Args:
        distances: d.
        labels: The classes of the anchors.
        reference_labels: The classes of the references; the anchors by default.
        margin: m >= 0, in the units of d.

    Reference:
        Schroff, Kalenichenko and Philbin, FaceNet: a unified embedding for face
        recognition and clustering, CVPR 2015, https://arxiv.org/abs/1503.03832

    Example:
        >>> d, classes = jnp.array([[0.5, 0.6, 0.9]]), jnp.array([0, 1, 1])
        >>> easy_triplets(d, jnp.array([0]), classes)[0, 0]
        Array([False, False,  True], dtype=bool)
    """
    d_positive, d_negative, is_valid = _triplets(distances, labels, reference_labels)
    return is_valid & (d_negative > d_positive + margin)


@public
def semihard_triplets(
    distances: Float[Array, "n m"],
    labels: Integer[Array, "n"],
    reference_labels: Integer[Array, "m"] | None = None,
    *,
    margin: NonNegative = 0.2,
) -> Bool[Array, "n m m"]:
    """The triplets whose negative is farther than the positive, but within the margin.

        maskᵢₚₙ = (dᵢₚ < dᵢₙ <= dᵢₚ + m)

    Args:
        distances: d.
        labels: The classes of the anchors.
        reference_labels: The classes of the references; the anchors by default.
        margin: m >= 0, in the units of d.

    Reference:
        Schroff, Kalenichenko and Philbin, FaceNet: a unified embedding for face
        recognition and clustering, CVPR 2015, https://arxiv.org/abs/1503.03832

    Example:
        >>> d, classes = jnp.array([[0.5, 0.6, 0.9]]), jnp.array([0, 1, 1])
        >>> semihard_triplets(d, jnp.array([0]), classes)[0, 0]
        Array([False,  True, False], dtype=bool)
    """
    d_positive, d_negative, is_valid = _triplets(distances, labels, reference_labels)
    is_farther = d_positive < d_negative
    return is_valid & is_farther & (d_negative <= d_positive + margin)


@public
def hard_triplets(
    distances: Float[Array, "n m"],
    labels: Integer[Array, "n"],
    reference_labels: Integer[Array, "m"] | None = None,
) -> Bool[Array, "n m m"]:
    """The triplets whose negative is at most as far as the positive.

        maskᵢₚₙ = (dᵢₙ <= dᵢₚ)

    Args:
        distances: d.
        labels: The classes of the anchors.
        reference_labels: The classes of the references; the anchors by default.

    Reference:
        Schroff, Kalenichenko and Philbin, FaceNet: a unified embedding for face
        recognition and clustering, CVPR 2015, https://arxiv.org/abs/1503.03832

    Example:
        >>> d, classes = jnp.array([[0.5, 0.4, 0.9]]), jnp.array([0, 1, 1])
        >>> hard_triplets(d, jnp.array([0]), classes)[0, 0]
        Array([False,  True, False], dtype=bool)
    """
    d_positive, d_negative, is_valid = _triplets(distances, labels, reference_labels)
    return is_valid & (d_negative <= d_positive)


def _masks(
    distances: Array, labels: Array, reference_labels: Array | None
) -> tuple[Array, Array]:
    """The masks of the positives and of the negatives."""
    if reference_labels is None and distances.shape[1] != len(labels):
        requirement = "be square where there are no reference_labels"
        raise_invalid(TypeError, "distances", requirement, distances)
    return positives(labels, reference_labels), negatives(labels, reference_labels)


def _triplets(
    distances: Array, labels: Array, reference_labels: Array | None
) -> tuple[Array, Array, Array]:
    """dᵢₚ and dᵢₙ of the triplets (i, p, n), and the mask of the valid triplets."""
    is_positive, is_negative = _masks(distances, labels, reference_labels)
    is_valid = is_positive[:, :, None] & is_negative[:, None]
    return distances[:, :, None], distances[:, None], is_valid


def _max_distance(distances: Array, mask: Array) -> Array:
    return jnp.max(distances, 1, keepdims=True, where=mask, initial=-jnp.inf)


def _min_distance(distances: Array, mask: Array) -> Array:
    return jnp.min(distances, 1, keepdims=True, where=mask, initial=jnp.inf)


def _has_both(is_positive: Array, is_negative: Array) -> Array:
    """The anchors that have a positive and a negative, [n 1]."""
    has_positive = jnp.any(is_positive, 1, keepdims=True)
    has_negative = jnp.any(is_negative, 1, keepdims=True)
    return has_positive & has_negative

"""Miners: which pairs `[n m]` or triplets `[n m m]` count, from distances and labels.

dᵢⱼ is a distance of any kind between anchor i and reference j; a similarity s enters as
-s, or as 1 - s where it is compared with numbers. p stands for positives of the anchor,
n for its negatives. Equal distances are treated equally.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float, Integer, Key

from jaxml._core.contract import raise_invalid
from jaxml._core.public import public
from jaxml._core.types import Count, Scalar
from jaxml.mining._masks import negatives, positives


@public
def hard_pairs(
    distances: Float[Array, "n m"],
    labels: Integer[Array, "n"],
    reference_labels: Integer[Array, "m"] | None = None,
) -> Bool[Array, "n m"]:
    """The farthest positive and the nearest negative of each anchor.

        keepᵢₚ = (dᵢₚ = maxₚ dᵢₚ),    keepᵢₙ = (dᵢₙ = minₙ dᵢₙ)

    An anchor without a positive or without a negative keeps nothing.

    Args:
        distances: d.
        labels: The classes of the anchors.
        reference_labels: Those of the references; the anchors themselves by default.

    Reference:
        Hermans, Beyer and Leibe, In defense of the triplet loss for person
        re-identification, 2017, https://arxiv.org/abs/1703.07737

    Example:
        >>> d = jnp.array([[0.0, 3.0, 1.0, 2.0]])
        >>> hard_pairs(d, jnp.array([0]), jnp.array([0, 0, 1, 1]))
        Array([[False,  True,  True, False]], dtype=bool)
    """
    positive, negative = _masks("hard_pairs", distances, labels, reference_labels)
    far = positive & (distances >= _farthest(distances, positive))
    near = negative & (distances <= _nearest(distances, negative))
    return (far | near) & _comparable(positive, negative)


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

        keepᵢₚ = (dᵢₚ > positive),    keepᵢₙ = (dᵢₙ < negative)

    Args:
        distances: d.
        labels: The classes of the anchors.
        reference_labels: Those of the references; the anchors themselves by default.
        positive: The distance up to which a positive is near enough.
        negative: The distance from which on a negative is far enough.

    Reference:
        Musgrave, Belongie and Lim, PyTorch metric learning, 2020,
        https://arxiv.org/abs/2008.09164

    Example:
        >>> d = jnp.array([[0.1, 0.3, 0.7, 0.9]])
        >>> pair_margin(d, jnp.array([0]), jnp.array([0, 0, 1, 1]))
        Array([[False,  True,  True, False]], dtype=bool)
    """
    is_positive, is_negative = _masks(
        "pair_margin", distances, labels, reference_labels
    )
    too_far, too_near = distances > positive, distances < negative
    return (is_positive & too_far) | (is_negative & too_near)


@public
def multi_similarity_pairs(
    distances: Float[Array, "n m"],
    labels: Integer[Array, "n"],
    reference_labels: Integer[Array, "m"] | None = None,
    *,
    epsilon: Scalar = 0.1,
) -> Bool[Array, "n m"]:
    """The positives farther than a negative, or nearly, and the negatives nearer so.

        keepᵢₚ = (dᵢₚ + ε > minₙ dᵢₙ),    keepᵢₙ = (dᵢₙ - ε < maxₚ dᵢₚ)

    An anchor without a positive or without a negative keeps nothing.

    Args:
        distances: d; in the paper 1 - cos, or -cos, which keeps the same pairs.
        labels: The classes of the anchors.
        reference_labels: Those of the references; the anchors themselves by default.
        epsilon: ε >= 0, how far beyond each other pairs still count.

    Reference:
        Wang et al., Multi-similarity loss with general pair weighting for deep metric
        learning, CVPR 2019, https://arxiv.org/abs/1904.06627

    Example:
        >>> d = jnp.array([[0.1, 0.5, 0.4, 0.9]])
        >>> multi_similarity_pairs(d, jnp.array([0]), jnp.array([0, 0, 1, 1]))
        Array([[False,  True,  True, False]], dtype=bool)
    """
    positive, negative = _masks(
        "multi_similarity_pairs", distances, labels, reference_labels
    )
    far = positive & (distances + epsilon > _nearest(distances, negative))
    near = negative & (distances - epsilon < _farthest(distances, positive))
    return (far | near) & _comparable(positive, negative)


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
    farthest: Scalar = 1.4,
) -> Bool[Array, "n m"]:
    """All positives, and negatives drawn so that each distance is equally likely.

        P(n) ∝ 1/q(max(dᵢₙ, cutoff)) for dᵢₙ < farthest
        q(d) = d^(D-2) (1 - d²/4)^((D-3)/2)

    q is the density of distances between rows of length 1 in D dimensions. Negatives
    are drawn without replacement, fewer where there are fewer; an anchor for which none
    is drawn keeps nothing.

    Args:
        key: A random key.
        distances: d, Euclidean, between rows of length 1.
        labels: The classes of the anchors.
        reference_labels: Those of the references; the anchors themselves by default.
        dimension: D, the length of an embedding.
        count: How many negatives are drawn for each anchor.
        cutoff: The distance below which negatives are not more likely still.
        farthest: The distance from which on negatives teach nothing; at most 2.

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
    positive, negative = _masks(
        "distance_weighted", distances, labels, reference_labels
    )
    candidate = negative & (distances < farthest)
    d = jnp.where(candidate, jnp.maximum(distances, cutoff), 1.0)
    rarity = (2 - dimension) * jnp.log(d) + (3 - dimension) / 2 * jnp.log1p(-d * d / 4)
    luck = jax.random.gumbel(key, distances.shape, distances.dtype)
    rank = jnp.where(candidate, rarity + luck, -jnp.inf)
    least = lax.top_k(rank, min(count, rank.shape[1]))[0][:, -1:]
    drawn = candidate & (rank >= least)
    return (positive | drawn) & jnp.any(drawn, 1, keepdims=True)


@public
def easy_triplets(
    distances: Float[Array, "n m"],
    labels: Integer[Array, "n"],
    reference_labels: Integer[Array, "m"] | None = None,
    *,
    margin: Scalar = 0.2,
) -> Bool[Array, "n m m"]:
    """Triplets whose negative is beyond the positive by more than the margin.

        keepᵢₚₙ = (dᵢₙ > dᵢₚ + m)

    They have a triplet loss of 0. Each valid triplet is easy, semi-hard or hard.

    Args:
        distances: d.
        labels: The classes of the anchors.
        reference_labels: Those of the references; the anchors themselves by default.
        margin: m >= 0, in the units of d.

    Reference:
        Schroff, Kalenichenko and Philbin, FaceNet: a unified embedding for face
        recognition and clustering, CVPR 2015, https://arxiv.org/abs/1503.03832

    Example:
        >>> d, classes = jnp.array([[0.5, 0.6, 0.9]]), jnp.array([0, 1, 1])
        >>> easy_triplets(d, jnp.array([0]), classes)[0, 0]
        Array([False, False,  True], dtype=bool)
    """
    to_positive, to_negative, valid = _triplets(
        "easy_triplets", distances, labels, reference_labels
    )
    return valid & (to_negative > to_positive + margin)


@public
def semihard_triplets(
    distances: Float[Array, "n m"],
    labels: Integer[Array, "n"],
    reference_labels: Integer[Array, "m"] | None = None,
    *,
    margin: Scalar = 0.2,
) -> Bool[Array, "n m m"]:
    """Triplets whose negative is beyond the positive, by no more than the margin.

        keepᵢₚₙ = (dᵢₚ < dᵢₙ <= dᵢₚ + m)

    Args:
        distances: d.
        labels: The classes of the anchors.
        reference_labels: Those of the references; the anchors themselves by default.
        margin: m >= 0, in the units of d.

    Reference:
        Schroff, Kalenichenko and Philbin, FaceNet: a unified embedding for face
        recognition and clustering, CVPR 2015, https://arxiv.org/abs/1503.03832

    Example:
        >>> d, classes = jnp.array([[0.5, 0.6, 0.9]]), jnp.array([0, 1, 1])
        >>> semihard_triplets(d, jnp.array([0]), classes)[0, 0]
        Array([False,  True, False], dtype=bool)
    """
    to_positive, to_negative, valid = _triplets(
        "semihard_triplets", distances, labels, reference_labels
    )
    beyond = to_positive < to_negative
    return valid & beyond & (to_negative <= to_positive + margin)


@public
def hard_triplets(
    distances: Float[Array, "n m"],
    labels: Integer[Array, "n"],
    reference_labels: Integer[Array, "m"] | None = None,
) -> Bool[Array, "n m m"]:
    """Triplets whose negative is no farther than the positive.

        keepᵢₚₙ = (dᵢₙ <= dᵢₚ)

    Args:
        distances: d.
        labels: The classes of the anchors.
        reference_labels: Those of the references; the anchors themselves by default.

    Reference:
        Schroff, Kalenichenko and Philbin, FaceNet: a unified embedding for face
        recognition and clustering, CVPR 2015, https://arxiv.org/abs/1503.03832

    Example:
        >>> d, classes = jnp.array([[0.5, 0.4, 0.9]]), jnp.array([0, 1, 1])
        >>> hard_triplets(d, jnp.array([0]), classes)[0, 0]
        Array([False,  True, False], dtype=bool)
    """
    to_positive, to_negative, valid = _triplets(
        "hard_triplets", distances, labels, reference_labels
    )
    return valid & (to_negative <= to_positive)


def _masks(
    function: str, distances: Array, labels: Array, reference_labels: Array | None
) -> tuple[Array, Array]:
    if reference_labels is None and distances.shape[1] != len(labels):
        rule = "be square where there are no reference_labels"
        raise_invalid(TypeError, "distances", rule, distances)
    return positives(labels, reference_labels), negatives(labels, reference_labels)


def _triplets(
    function: str, distances: Array, labels: Array, reference_labels: Array | None
) -> tuple[Array, Array, Array]:
    """The distances to positive and to negative, and which triplets are valid."""
    positive, negative = _masks(function, distances, labels, reference_labels)
    valid = positive[:, :, None] & negative[:, None]
    return distances[:, :, None], distances[:, None], valid


def _farthest(distances: Array, mask: Array) -> Array:
    return jnp.max(distances, 1, keepdims=True, where=mask, initial=-jnp.inf)


def _nearest(distances: Array, mask: Array) -> Array:
    return jnp.min(distances, 1, keepdims=True, where=mask, initial=jnp.inf)


def _comparable(positive: Array, negative: Array) -> Array:
    """The anchors that have a positive and a negative."""
    return jnp.any(positive, 1, keepdims=True) & jnp.any(negative, 1, keepdims=True)

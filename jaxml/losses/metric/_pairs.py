"""Losses of explicit pairs, triplets and tuplets of embeddings.

The event is the last axis, an embedding; in `tuplet_loss` also the negatives of an
anchor. d is the Euclidean distance, with derivative 0 at 0, and x·y the dot product of
the rows as given. At a kink the derivative is 0.
"""

from typing import Annotated

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jaxml._core.public import public
from jaxml._core.safe import norm
from jaxml._core.softmax import logsumexp, softmax_nll
from jaxml._core.special.logistic import softplus
from jaxml._core.types import NonNegative, Range, Scalar
from jaxml.losses._regression import cosine_distance


@public(masked=True)
def contrastive_loss(
    x: Float[Array, "*batch d"],
    y: Float[Array, "*batch d"],
    match: Bool[Array, "*batch"],
    *,
    margin: NonNegative = 1.0,
    where: Bool[Array, "*batch"] | None = None,
) -> Float[Array, "*batch"]:
    """Squared distance of a matching pair; squared margin violation of any other.

        loss = d(x, y)² for a match, max(0, m - d(x, y))² otherwise

    Args:
        x: One embedding of each pair.
        y: The other.
        match: True for a pair of one class: `labels_x == labels_y`.
        margin: m >= 0, in the units of d.
        where: The examples that count; the others have loss 0.

    Reference:
        Hadsell, Chopra and LeCun, Dimensionality reduction by learning an invariant
        mapping, CVPR 2006, https://doi.org/10.1109/CVPR.2006.100

    Example:
        >>> x, y = jnp.zeros((2, 2)), jnp.array([[0.0, 0.5], [0.0, 0.5]])
        >>> contrastive_loss(x, y, jnp.array([True, False]), margin=2.0)
        Array([0.25, 2.25], dtype=float32)
    """
    violation = jax.nn.relu(margin - norm(x - y))
    return jnp.where(match, _squared_norm(x - y), violation**2)


@public(masked=True)
def cosine_embedding_loss(
    x: Float[Array, "*batch d"],
    y: Float[Array, "*batch d"],
    match: Bool[Array, "*batch"],
    *,
    margin: Annotated[Scalar, Range("be in [-1, 1]", lambda m: -1 <= m <= 1)] = 0.0,
    where: Bool[Array, "*batch"] | None = None,
) -> Float[Array, "*batch"]:
    """Cosine distance of a matching pair; excess cosine similarity of any other.

        loss = 1 - cos(x, y) for a match, max(0, cos(x, y) - m) otherwise

    A zero row has cosine 0 with every row, with gradient 0.

    Args:
        x: One embedding of each pair.
        y: The other.
        match: True for a pair of one class (1 in PyTorch), False otherwise (-1).
        margin: m in [-1, 1], the cosine above which other pairs are penalized.
        where: The examples that count; the others have loss 0.

    Reference:
        PyTorch, CosineEmbeddingLoss,
        https://pytorch.org/docs/stable/generated/torch.nn.CosineEmbeddingLoss.html

    Example:
        >>> x, y = jnp.array([[1.0, 0.0]]), jnp.array([[2.0, 0.0]])
        >>> cosine_embedding_loss(x, y, jnp.array([False]), margin=0.5)
        Array([0.5], dtype=float32)
    """
    distance = cosine_distance(x, y)
    return jnp.where(match, distance, jax.nn.relu(1 - distance - margin))


@public(masked=True)
def margin_ranking_loss(
    x: Float[Array, "*shape"],
    y: Float[Array, "*shape"],
    targets: Float[Array, "*shape"],
    *,
    margin: NonNegative = 0.0,
    where: Bool[Array, "*shape"] | None = None,
) -> Float[Array, "*shape"]:
    """Hinge loss on the difference of two scores, per pair of scores.

        loss = max(0, m - t (x - y))

    Args:
        x: Scores.
        y: The scores to compare them with.
        targets: t, 1 where x should be larger, -1 where y should be.
        margin: m >= 0, in the units of the scores.
        where: The elements that count; the others have loss 0.

    Reference:
        Herbrich, Graepel and Obermayer, Large margin rank boundaries for ordinal
        regression, Advances in large margin classifiers, 2000,
        https://doi.org/10.7551/mitpress/1113.003.0010

    Example:
        >>> margin_ranking_loss(jnp.zeros(2), jnp.ones(2), jnp.array([1.0, -1.0]))
        Array([1., 0.], dtype=float32)
    """
    return jax.nn.relu(margin - targets * (x - y))


@public(masked=True)
def triplet_loss(
    anchors: Float[Array, "*batch d"],
    positives: Float[Array, "*batch d"],
    negatives: Float[Array, "*batch d"],
    *,
    margin: NonNegative = 1.0,
    where: Bool[Array, "*batch"] | None = None,
) -> Float[Array, "*batch"]:
    """Hinge loss that places the negative farther than the positive by a margin.

        loss = max(0, d(a, p) - d(a, n) + m)

    Args:
        anchors: a.
        positives: p, of the anchor's class.
        negatives: n, of other classes.
        margin: m >= 0, in the units of d. If it is too large, training may not
            converge; if it is too small, classes may not separate.
        where: The examples that count; the others have loss 0.

    Reference:
        Weinberger and Saul, Distance metric learning for large margin nearest neighbor
        classification, JMLR 10, 2009, https://jmlr.org/papers/v10/weinberger09a.html

    Example:
        >>> triplet_loss(jnp.zeros((1, 2)), jnp.zeros((1, 2)), jnp.array([[0.3, 0.4]]))
        Array([0.5], dtype=float32)
    """
    return jax.nn.relu(norm(anchors - positives) - norm(anchors - negatives) + margin)


@public(masked=True)
def squared_triplet_loss(
    anchors: Float[Array, "*batch d"],
    positives: Float[Array, "*batch d"],
    negatives: Float[Array, "*batch d"],
    *,
    margin: NonNegative = 1.0,
    where: Bool[Array, "*batch"] | None = None,
) -> Float[Array, "*batch"]:
    """Triplet loss of squared distances, whose gradient vanishes as rows meet.

        loss = max(0, d(a, p)² - d(a, n)² + m)

    Args:
        anchors: a.
        positives: p, of the anchor's class.
        negatives: n, of other classes.
        margin: m >= 0, in the units of d².
        where: The examples that count; the others have loss 0.

    Reference:
        Schroff, Kalenichenko and Philbin, FaceNet: a unified embedding for face
        recognition and clustering, CVPR 2015, https://arxiv.org/abs/1503.03832

    Example:
        >>> a, p, n = jnp.zeros((1, 2)), jnp.zeros((1, 2)), jnp.array([[0.3, 0.4]])
        >>> squared_triplet_loss(a, p, n)
        Array([0.75], dtype=float32)
    """
    positive_distance = _squared_norm(anchors - positives)
    negative_distance = _squared_norm(anchors - negatives)
    return jax.nn.relu(positive_distance - negative_distance + margin)


@public(masked=True)
def soft_triplet_loss(
    anchors: Float[Array, "*batch d"],
    positives: Float[Array, "*batch d"],
    negatives: Float[Array, "*batch d"],
    *,
    where: Bool[Array, "*batch"] | None = None,
) -> Float[Array, "*batch"]:
    """Triplet loss with softplus in place of the hinge, and so without a margin.

        loss = log(1 + exp(d(a, p) - d(a, n)))

    Args:
        anchors: a.
        positives: p, of the anchor's class.
        negatives: n, of other classes.
        where: The examples that count; the others have loss 0.

    Reference:
        Hermans, Beyer and Leibe, In defense of the triplet loss for person
        re-identification, 2017, https://arxiv.org/abs/1703.07737

    Example:
        >>> soft_triplet_loss(jnp.zeros((1, 2)), jnp.ones((1, 2)), jnp.ones((1, 2)))
        Array([0.6931472], dtype=float32)
    """
    return softplus(norm(anchors - positives) - norm(anchors - negatives))


@public(masked=True)
def tuplet_loss(
    anchors: Float[Array, "*batch d"],
    positives: Float[Array, "*batch d"],
    negatives: Float[Array, "*batch k d"],
    *,
    where: Bool[Array, "*batch"] | None = None,
) -> Float[Array, "*batch"]:
    """The (N+1)-tuplet loss: cross entropy of the positive against k negatives.

        loss = log(1 + Σₖ exp(a·nₖ - a·p))

    Args:
        anchors: a.
        positives: p, of the anchor's class.
        negatives: nₖ, of other classes, k for each anchor. In the paper k = N - 1.
        where: The examples that count; the others have loss 0.

    Reference:
        Sohn, Improved deep metric learning with multi-class N-pair loss objective,
        NeurIPS 2016, https://papers.nips.cc/paper/6200

    Example:
        >>> tuplet_loss(jnp.ones((1, 2)), jnp.ones((1, 2)), jnp.ones((1, 3, 2)))
        Array([1.3862944], dtype=float32)
    """
    negative_logits = jnp.sum(anchors[..., None, :] * negatives, -1)
    positive_logit = jnp.sum(anchors * positives, -1)
    return softmax_nll(positive_logit, logsumexp(negative_logits))


@public(masked=True)
def embedding_penalty(
    embeddings: Float[Array, "*batch d"],
    *,
    where: Bool[Array, "*batch"] | None = None,
) -> Float[Array, "*batch"]:
    """The squared norm of each embedding, the regularizer of the N-pair loss.

        penalty = ‖x‖²

    Args:
        embeddings: x.
        where: The examples that count; the others have loss 0.

    Reference:
        Sohn, Improved deep metric learning with multi-class N-pair loss objective,
        NeurIPS 2016, https://papers.nips.cc/paper/6200

    Example:
        >>> embedding_penalty(jnp.array([[3.0, 4.0]]))
        Array([25.], dtype=float32)
    """
    return _squared_norm(embeddings)


def _squared_norm(x: Array) -> Array:
    return jnp.sum(x**2, -1)

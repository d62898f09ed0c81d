"""Explicit pairs and triplets: rows that should be near each other, or far apart.

The event is the last axis, a row, and of `tuplet_loss` and `n_pair_loss` the negatives
too; d is the Euclidean distance, whose derivative at equal rows is 0, and x·y the dot
product of rows as given. Derivatives at a kink are 0.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jaxml._core.public import public
from jaxml._core.safe import norm
from jaxml._core.softmax import logsumexp
from jaxml._core.special.logistic import softplus
from jaxml._core.types import Count, Scalar
from jaxml.losses._regression import cosine_distance
from jaxml.losses.metric._contrastive import surprise


@public
def contrastive_loss(
    x: Float[Array, "*batch d"],
    y: Float[Array, "*batch d"],
    match: Bool[Array, "*batch"],
    *,
    margin: Scalar = 1.0,
) -> Float[Array, "*batch"]:
    """How far two rows are apart that match, or short of the margin if they do not.

        loss = d(x, y)² for a match, max(0, m - d(x, y))² otherwise

    Args:
        x: One row of each pair.
        y: The other one.
        match: True for a pair of one class; `labels_x == labels_y`.
        margin: m >= 0, in the units of d.

    Reference:
        Hadsell, Chopra and LeCun, Dimensionality reduction by learning an invariant
        mapping, CVPR 2006, https://doi.org/10.1109/CVPR.2006.100

    Example:
        >>> x, y = jnp.zeros((2, 2)), jnp.array([[0.0, 0.5], [0.0, 0.5]])
        >>> contrastive_loss(x, y, jnp.array([True, False]), margin=2.0)
        Array([0.25, 2.25], dtype=float32)
    """
    short = jax.nn.relu(margin - norm(x - y))
    return jnp.where(match, _squared_norm(x - y), short**2)


@public
def cosine_embedding_loss(
    x: Float[Array, "*batch d"],
    y: Float[Array, "*batch d"],
    match: Bool[Array, "*batch"],
    *,
    margin: Scalar = 0.0,
) -> Float[Array, "*batch"]:
    """How far two rows are from one direction, or too near it if they do not match.

        loss = 1 - cos(x, y) for a match, max(0, cos(x, y) - m) otherwise

    A row of zeros has cosine 0 with all others, with gradient 0.

    Args:
        x: One row of each pair.
        y: The other one.
        match: True for a pair of one class, where PyTorch has 1, and False where it
            has -1.
        margin: m in [-1, 1], the cosine beyond which rows that do not match are pushed.

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


@public
def margin_ranking_loss(
    x: Float[Array, "*shape"],
    y: Float[Array, "*shape"],
    targets: Float[Array, "*shape"],
    *,
    margin: Scalar = 0.0,
) -> Float[Array, "*shape"]:
    """How far a score is from beating another one by the margin, per pair of scores.

        loss = max(0, m - t (x - y))

    Args:
        x: Scores.
        y: The scores they are compared with.
        targets: t, 1 where x should be the larger one, -1 where y should be.
        margin: m >= 0, in the units of the scores.

    Reference:
        Herbrich, Graepel and Obermayer, Large margin rank boundaries for ordinal
        regression, Advances in large margin classifiers, 2000,
        https://doi.org/10.7551/mitpress/1113.003.0010

    Example:
        >>> margin_ranking_loss(jnp.zeros(2), jnp.ones(2), jnp.array([1.0, -1.0]))
        Array([1., 0.], dtype=float32)
    """
    return jax.nn.relu(margin - targets * (x - y))


@public
def triplet_loss(
    anchors: Float[Array, "*batch d"],
    positives: Float[Array, "*batch d"],
    negatives: Float[Array, "*batch d"],
    *,
    margin: Scalar = 1.0,
) -> Float[Array, "*batch"]:
    """How far the negative is from being farther than the positive by the margin.

        loss = max(0, d(a, p) - d(a, n) + m)

    Args:
        anchors: a.
        positives: p, rows of the anchor's class.
        negatives: n, rows of other classes.
        margin: m >= 0, in the units of d. Too large and training does not converge, too
            small and the classes do not separate.

    Reference:
        Weinberger and Saul, Distance metric learning for large margin nearest neighbor
        classification, JMLR 10, 2009, https://jmlr.org/papers/v10/weinberger09a.html

    Example:
        >>> triplet_loss(jnp.zeros((1, 2)), jnp.zeros((1, 2)), jnp.array([[0.3, 0.4]]))
        Array([0.5], dtype=float32)
    """
    return jax.nn.relu(norm(anchors - positives) - norm(anchors - negatives) + margin)


@public
def squared_triplet_loss(
    anchors: Float[Array, "*batch d"],
    positives: Float[Array, "*batch d"],
    negatives: Float[Array, "*batch d"],
    *,
    margin: Scalar = 1.0,
) -> Float[Array, "*batch"]:
    """The triplet loss on squared distances, whose gradient fades as rows meet.

        loss = max(0, d(a, p)² - d(a, n)² + m)

    Args:
        anchors: a.
        positives: p, rows of the anchor's class.
        negatives: n, rows of other classes.
        margin: m >= 0, in the units of d².

    Reference:
        Schroff, Kalenichenko and Philbin, FaceNet: a unified embedding for face
        recognition and clustering, CVPR 2015, https://arxiv.org/abs/1503.03832

    Example:
        >>> a, p, n = jnp.zeros((1, 2)), jnp.zeros((1, 2)), jnp.array([[0.3, 0.4]])
        >>> squared_triplet_loss(a, p, n)
        Array([0.75], dtype=float32)
    """
    near = _squared_norm(anchors - positives)
    return jax.nn.relu(near - _squared_norm(anchors - negatives) + margin)


@public
def soft_triplet_loss(
    anchors: Float[Array, "*batch d"],
    positives: Float[Array, "*batch d"],
    negatives: Float[Array, "*batch d"],
) -> Float[Array, "*batch"]:
    """The triplet loss rounded off: no margin to choose, and always a pull.

        loss = log(1 + exp(d(a, p) - d(a, n)))

    Args:
        anchors: a.
        positives: p, rows of the anchor's class.
        negatives: n, rows of other classes.

    Reference:
        Hermans, Beyer and Leibe, In defense of the triplet loss for person
        re-identification, 2017, https://arxiv.org/abs/1703.07737

    Example:
        >>> soft_triplet_loss(jnp.zeros((1, 2)), jnp.ones((1, 2)), jnp.ones((1, 2)))
        Array([0.6931472], dtype=float32)
    """
    return softplus(norm(anchors - positives) - norm(anchors - negatives))


@public
def tuplet_loss(
    anchors: Float[Array, "*batch d"],
    positives: Float[Array, "*batch d"],
    negatives: Float[Array, "*batch k d"],
) -> Float[Array, "*batch"]:
    """The nats it costs to find the positive among it and k negatives.

        loss = log(1 + Σₖ exp(a·nₖ - a·p))

    the (N+1)-tuplet loss, of N - 1 = k negatives for each anchor.

    Args:
        anchors: a.
        positives: p, rows of the anchor's class.
        negatives: nₖ, rows of other classes, each anchor its own.

    Reference:
        Sohn, Improved deep metric learning with multi-class N-pair loss objective,
        NeurIPS 2016, https://papers.nips.cc/paper/6200

    Example:
        >>> tuplet_loss(jnp.ones((1, 2)), jnp.ones((1, 2)), jnp.ones((1, 3, 2)))
        Array([1.3862944], dtype=float32)
    """
    of_negatives = jnp.sum(anchors[..., None, :] * negatives, -1)
    return softplus(logsumexp(of_negatives) - jnp.sum(anchors * positives, -1))


@public
def n_pair_loss(
    anchors: Float[Array, "n d"],
    positives: Float[Array, "n d"],
    *,
    block: Count | None = None,
) -> Float[Array, "n"]:
    """The nats it costs to find an anchor's positive among the positives of all.

        lossᵢ = log(1 + Σⱼ exp(aᵢ·pⱼ - aᵢ·pᵢ))    over j ≠ i

    of n pairs, each of another class: they serve each other as negatives. A single pair
    costs 0. No more than a block of rows of the n x n products is held.

    Args:
        anchors: a.
        positives: p, in the order of the anchors.
        block: The rows of products made at a time; chosen by their length by default.

    Raises:
        ValueError: block is less than 1.

    Reference:
        Sohn, Improved deep metric learning with multi-class N-pair loss objective,
        NeurIPS 2016, https://papers.nips.cc/paper/6200

    Example:
        >>> n_pair_loss(jnp.zeros((2, 3)), jnp.ones((2, 3)))
        Array([0.6931472, 0.6931472], dtype=float32)
    """
    return surprise(anchors, positives, block=block)


@public
def embedding_penalty(embeddings: Float[Array, "*batch d"]) -> Float[Array, "*batch"]:
    """The squared length of a row: what keeps the N-pair loss from growing rows.

        penalty = ‖x‖²

    Args:
        embeddings: x.

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

"""Margins: scores that should lie on the right side, and by how much, not how probably.

Losses of one score take targets of -1 and 1, per element. Losses of many scores have
the last axis, the classes, as their event; an integer label that is no class gives NaN
for its example alone. Derivatives at a kink are 0.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float, Integer

from jaxml._core.public import elementwise, public
from jaxml._core.safe import multiply_no_nan, zero_if_inf
from jaxml._core.special.logistic import sigmoid, softplus
from jaxml._core.types import Scalar
from jaxml.losses._binary import binary_cross_entropy_with_logits
from jaxml.losses._labels import label_index, label_mask, nan_if_invalid, take_label


def _short(x: Array, t: Array, margin: float) -> Array:
    """1 where t x is below the margin, 0 elsewhere."""
    return jnp.where(t * x < margin, 1.0, 0.0)


@elementwise(
    lambda x, t: -t * _short(x, t, 1.0),
    lambda x, t: multiply_no_nan(_short(x, t, 1.0), -x),
)
def hinge_loss(
    scores: Float[Array, "*shape"], targets: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """How far a score is from being on its side by a margin of 1, per element.

        loss = max(0, 1 - t x)

    Args:
        scores: x.
        targets: t, -1 or 1.

    Reference:
        Cortes and Vapnik, Support-vector networks, Machine Learning 20, 1995,
        https://doi.org/10.1007/BF00994018

    Example:
        >>> hinge_loss(jnp.array([0.5, 2.0]), jnp.array([1.0, -1.0]))
        Array([0.5, 3. ], dtype=float32)
    """
    return jax.nn.relu(1 - targets * scores)


@elementwise(
    lambda x, t: -2 * t * jax.nn.relu(1 - t * x),
    lambda x, t: multiply_no_nan(jax.nn.relu(1 - t * x), -2 * x),
)
def squared_hinge_loss(
    scores: Float[Array, "*shape"], targets: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """The hinge loss squared, whose derivative has no jump, per element.

        loss = max(0, 1 - t x)²

    Args:
        scores: x.
        targets: t, -1 or 1.

    Reference:
        Tang, Deep learning using linear support vector machines, 2013,
        https://arxiv.org/abs/1306.0239

    Example:
        >>> squared_hinge_loss(jnp.array([0.5, 2.0]), jnp.array([1.0, -1.0]))
        Array([0.25, 9.  ], dtype=float32)
    """
    return jax.nn.relu(1 - targets * scores) ** 2


@elementwise(
    lambda x, t: -t * sigmoid(-t * x),
    lambda x, t: multiply_no_nan(sigmoid(-t * x), -x),
)
def logistic_loss(
    scores: Float[Array, "*shape"], targets: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """The hinge rounded off: the binary cross entropy for targets of -1 and 1.

        loss = log(1 + exp(-t x))

    Also called the soft margin loss.

    Args:
        scores: x, in log-odds.
        targets: t, -1 or 1.

    Reference:
        Hastie, Tibshirani and Friedman, The elements of statistical learning, section
        10.6, Springer 2009, https://hastie.su.domains/ElemStatLearn

    Example:
        >>> logistic_loss(jnp.array([0.0]), jnp.array([1.0]))
        Array([0.6931472], dtype=float32)
    """
    return softplus(-targets * scores)


@elementwise(
    lambda x, t: -t * _short(x, t, 0.0),
    lambda x, t: multiply_no_nan(_short(x, t, 0.0), -x),
)
def perceptron_loss(
    scores: Float[Array, "*shape"], targets: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """How far a score is from its side, without a margin, per element.

        loss = max(0, -t x)

    Args:
        scores: x.
        targets: t, -1 or 1.

    Reference:
        Rosenblatt, The perceptron, Psychological Review 65(6), 1958,
        https://doi.org/10.1037/h0042519

    Example:
        >>> perceptron_loss(jnp.array([0.5, 2.0]), jnp.array([1.0, -1.0]))
        Array([0., 2.], dtype=float32)
    """
    return jax.nn.relu(-targets * scores)


@public
def multiclass_hinge_loss(
    scores: Float[Array, "*batch classes"],
    labels: Integer[Array, "*batch"],
    *,
    margin: Scalar = 1.0,
) -> Float[Array, "*batch"]:
    """How far the label's score is from beating the best other one by a margin.

        loss = max(0, m + max x[j ≠ label] - x[label])

    Args:
        scores: x.
        labels: The true classes.
        margin: m >= 0, in the units of the scores.

    Reference:
        Crammer and Singer, On the algorithmic implementation of multiclass kernel-based
        vector machines, JMLR 2, 2001, https://jmlr.org/papers/v2/crammer01a.html

    Example:
        >>> multiclass_hinge_loss(jnp.array([[1.0, 0.5, 0.0]]), jnp.array([0]))
        Array([0.5], dtype=float32)
    """
    index = label_index(labels, scores.shape[-1])
    rivals = jnp.where(label_mask(index, scores), -jnp.inf, scores)
    loss = jax.nn.relu(margin + jnp.max(rivals, -1) - take_label(index, scores))
    return nan_if_invalid(loss, index)


@public
def multi_margin_loss(
    scores: Float[Array, "*batch classes"],
    labels: Integer[Array, "*batch"],
    *,
    margin: Scalar = 1.0,
    p: Scalar = 1,
) -> Float[Array, "*batch"]:
    """How far the label's score is from beating each other one by a margin, summed.

        loss = Σ max(0, m - x[label] + xⱼ)ᵖ / C    over j ≠ label

    Args:
        scores: x, of C classes.
        labels: The true classes.
        margin: m >= 0, in the units of the scores.
        p: 1, or 2 for a loss whose derivative has no jump.

    Reference:
        Weston and Watkins, Support vector machines for multi-class pattern recognition,
        ESANN 1999, https://www.esann.org/sites/default/files/proceedings/legacy/es1999-461.pdf

    Example:
        >>> multi_margin_loss(jnp.array([[1.0, 0.5]]), jnp.array([0]))
        Array([0.25], dtype=float32)
    """
    index = label_index(labels, scores.shape[-1])
    own = take_label(index, scores)[..., None]
    short = jax.nn.relu(margin - own + scores)
    positive = short > 0
    terms = jnp.where(positive, jnp.where(positive, short, 1.0) ** p, 0.0)
    others = jnp.where(label_mask(index, scores), 0.0, terms)
    return nan_if_invalid(jnp.mean(others, -1), index)


@public
def multilabel_margin_loss(
    scores: Float[Array, "*batch classes"], targets: Float[Array, "*batch classes"]
) -> Float[Array, "*batch"]:
    """How far each label's score is from beating each other one by 1, summed.

        loss = Σⱼ Σᵢ max(0, 1 - (xⱼ - xᵢ)) / C    over labels j and others i

    The others are sorted once, so that no C x C array is held.

    Args:
        scores: x, of C classes.
        targets: 1 for each label, 0 for each other class.

    Reference:
        Zhang and Zhou, Multilabel neural networks, IEEE TKDE 18(10), 2006,
        https://doi.org/10.1109/TKDE.2006.162

    Example:
        >>> multilabel_margin_loss(jnp.array([[0.5, 0.2]]), jnp.array([[1.0, 0.0]]))
        Array([0.35], dtype=float32)
    """
    positive, classes = targets > 0, scores.shape[-1]

    def of_row(x: Array, positive: Array) -> Array:
        rivals = jnp.sort(jnp.where(positive, -jnp.inf, x), descending=True)
        top = lax.stop_gradient(zero_if_inf(rivals[0]))  # beside which no digits cancel
        rivals, x = rivals - top, x - top
        sums = jnp.cumsum(jnp.where(jnp.isinf(rivals), 0.0, rivals))
        ahead = jnp.searchsorted(-rivals, 1 - x, side="left")  # rivals beyond x - 1
        sum_ahead = jnp.where(ahead > 0, sums[jnp.maximum(ahead - 1, 0)], 0.0)
        short = sum_ahead + ahead.astype(x.dtype) * (1 - x)
        return jnp.sum(jnp.where(positive, short, 0.0))

    rows = jax.vmap(of_row)(scores.reshape(-1, classes), positive.reshape(-1, classes))
    return rows.reshape(scores.shape[:-1]) / classes


@public
def multilabel_soft_margin_loss(
    logits: Float[Array, "*batch classes"], targets: Float[Array, "*batch classes"]
) -> Float[Array, "*batch"]:
    """The binary cross entropy of each label, averaged over the labels.

        loss = -Σ [t log σ(x) + (1 - t) log σ(-x)] / C

    Args:
        logits: x, a score in log-odds for each of C labels.
        targets: t in [0, 1].

    Reference:
        Zhang and Zhou, A review on multi-label learning algorithms, IEEE TKDE 26(8),
        2014, https://doi.org/10.1109/TKDE.2013.39

    Example:
        >>> multilabel_soft_margin_loss(jnp.zeros((1, 2)), jnp.array([[1.0, 0.0]]))
        Array([0.6931472], dtype=float32)
    """
    return jnp.mean(binary_cross_entropy_with_logits(logits, targets), -1)

"""Margin losses: the hinge loss and its relatives.

Binary losses are elementwise with targets -1 and 1. Multiclass and multilabel losses
have the last axis, the classes, as their event; an integer label out of range gives NaN
for its own example. Derivatives at a kink are 0.
"""

import functools
from typing import Annotated

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Integer

from jaxml._core.masking import apply_mask
from jaxml._core.public import elementwise, public
from jaxml._core.safe import multiply_no_nan, safe_power, zero_if_inf
from jaxml._core.sorting import permute, sort_ids
from jaxml._core.special.logistic import sigmoid, softplus
from jaxml._core.types import NonNegative, Range, Scalar
from jaxml.losses._binary import binary_cross_entropy_with_logits
from jaxml.losses._labels import (
    class_index,
    count_classes,
    finalize,
    label_index,
    label_mask,
    take_label,
)


def _is_violating(x: Array, t: Array, margin: float) -> Array:
    """1.0 where t x is below the margin, 0.0 elsewhere."""
    return jnp.where(t * x < margin, 1.0, 0.0)


@elementwise(
    lambda x, t: -t * _is_violating(x, t, 1.0),
    lambda x, t: multiply_no_nan(_is_violating(x, t, 1.0), -x),
)
def hinge_loss(
    scores: Float[Array, "*shape"],
    targets: Float[Array, "*shape"],
    *,
    where: Bool[Array, "*shape"] | None = None,
) -> Float[Array, "*shape"]:
    """The amount by which a score misses a margin of 1 on the target's side of 0.

        loss = max(0, 1 - t x)

    Args:
        scores: x.
        targets: t, -1 or 1.
        where: The elements that count; the others have loss 0.

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
    scores: Float[Array, "*shape"],
    targets: Float[Array, "*shape"],
    *,
    where: Bool[Array, "*shape"] | None = None,
) -> Float[Array, "*shape"]:
    """The square of the hinge loss, whose derivative is continuous.

        loss = max(0, 1 - t x)²

    Args:
        scores: x.
        targets: t, -1 or 1.
        where: The elements that count; the others have loss 0.

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
    scores: Float[Array, "*shape"],
    targets: Float[Array, "*shape"],
    *,
    where: Bool[Array, "*shape"] | None = None,
) -> Float[Array, "*shape"]:
    """The binary cross entropy for targets of -1 and 1: a smooth hinge loss.

        loss = log(1 + exp(-t x))

    It is also called the soft margin loss.

    Args:
        scores: x, log-odds of the target 1.
        targets: t, -1 or 1.
        where: The elements that count; the others have loss 0.

    Reference:
        Hastie, Tibshirani and Friedman, The elements of statistical learning, section
        10.6, Springer 2009, https://hastie.su.domains/ElemStatLearn

    Example:
        >>> logistic_loss(jnp.array([0.0]), jnp.array([1.0]))
        Array([0.6931472], dtype=float32)
    """
    return softplus(-targets * scores)


@elementwise(
    lambda x, t: -t * _is_violating(x, t, 0.0),
    lambda x, t: multiply_no_nan(_is_violating(x, t, 0.0), -x),
)
def perceptron_loss(
    scores: Float[Array, "*shape"],
    targets: Float[Array, "*shape"],
    *,
    where: Bool[Array, "*shape"] | None = None,
) -> Float[Array, "*shape"]:
    """The distance of a score from the target's side of 0: the hinge without a margin.

        loss = max(0, -t x)

    Args:
        scores: x.
        targets: t, -1 or 1.
        where: The elements that count; the others have loss 0.

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
    margin: NonNegative = 1.0,
    where: Bool[Array, "*batch classes"] | None = None,
) -> Float[Array, "*batch"]:
    """The violation of a margin between the label's score and the best other score.

        loss = max(0, m + max x[j ≠ label] - x[label])

    Args:
        scores: x.
        labels: The true classes.
        margin: m >= 0, in the units of the scores.
        where: The classes that exist.

    Reference:
        Crammer and Singer, On the algorithmic implementation of multiclass kernel-based
        vector machines, JMLR 2, 2001, https://jmlr.org/papers/v2/crammer01a.html

    Example:
        >>> multiclass_hinge_loss(jnp.array([[1.0, 0.5, 0.0]]), jnp.array([0]))
        Array([0.5], dtype=float32)
    """
    index = label_index(labels, scores.shape[-1])
    scores = apply_mask(scores, where, -jnp.inf)
    loss = jax.nn.relu(margin + _best_other_minus_label(scores, index))
    return finalize(loss, index, where)


@jax.custom_jvp
def _best_other_minus_label(x: Array, index: Array) -> Array:
    return _best_other(x, index) - take_label(index, x)


@_best_other_minus_label.defjvp
def _best_other_minus_label_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    """Equal maxima divide the derivative, which is computed in one pass."""
    (x, index), (x_dot, _) = primals, tangents

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def gradient_dot(x: Array, x_dot: Array) -> Array:
        is_label, best = label_mask(index, x), _best_other(x, index)[..., None]
        is_best = apply_mask((x == best).astype(x.dtype), ~is_label)
        weight = 1 / jnp.sum(is_best, -1, keepdims=True)
        gradient = jnp.where(is_label, -1.0, jnp.where(x == best, weight, 0.0))
        return jnp.sum(gradient * x_dot, -1)

    return _best_other_minus_label(x, index), gradient_dot(x, x_dot)


def _best_other(x: Array, index: Array) -> Array:
    """The largest score of another class than the label, -∞ if there is none."""
    others = jnp.where(label_mask(index, x), -jnp.inf, x)
    return jnp.max(others, -1, initial=-jnp.inf)


@public
def multi_margin_loss(
    scores: Float[Array, "*batch classes"],
    labels: Integer[Array, "*batch"],
    *,
    margin: NonNegative = 1.0,
    p: Annotated[Scalar, Range("be at least 1", lambda x: x >= 1)] = 1,
    where: Bool[Array, "*batch classes"] | None = None,
) -> Float[Array, "*batch"]:
    """The mean violation of a margin between the label's score and each other score.

        loss = Σ max(0, m - x[label] + xⱼ)ᵖ / C    over j ≠ label

    Args:
        scores: x, of C classes.
        labels: The true classes.
        margin: m >= 0, in the units of the scores.
        p: The exponent, at least 1. Above 1 the derivative is continuous.
        where: The classes that exist.

    Reference:
        Weston and Watkins, Support vector machines for multi-class pattern recognition,
        ESANN 1999, https://www.esann.org/sites/default/files/proceedings/legacy/es1999-461.pdf

    Example:
        >>> multi_margin_loss(jnp.array([[1.0, 0.5]]), jnp.array([0]))
        Array([0.25], dtype=float32)
    """
    index = label_index(labels, scores.shape[-1])
    label_score = take_label(index, apply_mask(scores, where, -jnp.inf))
    scores = apply_mask(scores, where)
    violation = jax.nn.relu(margin - label_score[..., None] + scores)
    terms = safe_power(violation, jnp.asarray(p))
    other_terms = jnp.where(label_mask(index, scores), 0.0, apply_mask(terms, where))
    loss = _per_class(jnp.sum(other_terms, -1), scores, where)
    return finalize(loss, index, where)


@public
def multilabel_margin_loss(
    scores: Float[Array, "*batch classes"],
    targets: Float[Array, "*batch classes"],
    *,
    where: Bool[Array, "*batch classes"] | None = None,
) -> Float[Array, "*batch"]:
    """The margin violations over all pairs of a label and another class, summed.

        loss = Σⱼ Σᵢ max(0, 1 - (xⱼ - xᵢ)) / C    over labels j and other classes i

    One sort of the scores replaces the C × C array of pairs.

    Args:
        scores: x, of C classes.
        targets: 1 for each label, 0 for each other class.
        where: The classes that exist.

    Reference:
        Zhang and Zhou, Multilabel neural networks, IEEE TKDE 18(10), 2006,
        https://doi.org/10.1109/TKDE.2006.162

    Example:
        >>> multilabel_margin_loss(jnp.array([[0.5, 0.2]]), jnp.array([[1.0, 0.0]]))
        Array([0.35], dtype=float32)
    """
    is_label = targets > 0 if where is None else (targets > 0) & where
    total = _sum_of_violations(apply_mask(scores, where, -jnp.inf), is_label)
    return _per_class(total, scores, where)


def _per_class(total: Array, scores: Array, where: Array | None) -> Array:
    """The total divided by the number of unmasked classes."""
    num_classes = count_classes(None, scores, where)
    return total / (num_classes if where is None else num_classes[..., 0])


@jax.custom_jvp
def _sum_of_violations(x: Array, is_label: Array) -> Array:
    """Σⱼ Σᵢ max(0, xᵢ - (xⱼ - 1)) over all labels j and other classes i."""
    keys = _keys(x, is_label)
    return jnp.sum(multiply_no_nan(_num_violations(keys, is_label), keys), -1)


@_sum_of_violations.defjvp
def _sum_of_violations_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (x, is_label), (x_dot, _) = primals, tangents
    gradient = _num_violations(_keys(x, is_label), is_label)
    return _sum_of_violations(x, is_label), jnp.sum(gradient * x_dot, -1)


def _keys(x: Array, is_label: Array) -> Array:
    """xⱼ - 1 at labels and xᵢ at other classes: the pairs with keyᵢ > keyⱼ violate."""
    max_other = jnp.max(
        apply_mask(x, ~is_label, -jnp.inf), -1, keepdims=True, initial=-jnp.inf
    )
    x = x - zero_if_inf(max_other)  # so that the sum of violations does not cancel
    return jnp.where(is_label, x - 1, x)


def _num_violations(keys: Array, is_label: Array) -> Array:
    """The number of violating pairs of each class, negative for a label."""
    classes = class_index(keys)
    # in descending order; of equal keys, the labels come first, with negative ids
    ids = sort_ids(-keys, jnp.where(is_label, ~classes, classes))
    is_label = ids < 0
    num_others = jnp.cumsum(~is_label, -1, dtype=jnp.int32)
    num_labels = jnp.sum(is_label, -1, keepdims=True, dtype=jnp.int32)
    num_later_labels = num_labels - (classes + 1 - num_others)
    counts = jnp.where(is_label, -num_others, num_later_labels)
    return permute(counts, jnp.where(is_label, ~ids, ids)).astype(keys.dtype)


@public
def multilabel_soft_margin_loss(
    logits: Float[Array, "*batch classes"],
    targets: Float[Array, "*batch classes"],
    *,
    where: Bool[Array, "*batch classes"] | None = None,
) -> Float[Array, "*batch"]:
    """The binary cross entropy of each label, averaged over the labels.

        loss = -Σ [t log σ(x) + (1 - t) log σ(-x)] / C

    Args:
        logits: x, log-odds of each of C labels.
        targets: t in [0, 1].
        where: The classes that exist.

    Reference:
        Zhang and Zhou, A review on multi-label learning algorithms, IEEE TKDE 26(8),
        2014, https://doi.org/10.1109/TKDE.2013.39

    Example:
        >>> multilabel_soft_margin_loss(jnp.zeros((1, 2)), jnp.array([[1.0, 0.0]]))
        Array([0.6931472], dtype=float32)
    """
    terms = binary_cross_entropy_with_logits(logits, targets, where=where)
    return _per_class(jnp.sum(terms, -1), logits, where)

"""Classification: scores of classes against labels or target distributions.

The event is the last axis, the classes; binary losses are elementwise. `where` keeps
classes: one that is left out has probability 0. An integer label outside [0, classes)
gives NaN for that example alone. A row of which nothing is kept costs 0.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from jaxml._core.compiled import compiled, elementwise
from jaxml._core.numerics import (
    keep,
    log_softmax,
    logsumexp,
    safe_divide,
    sigmoid,
    softplus,
    times,
)
from jaxml._core.types import Scalar


@compiled()
def cross_entropy(
    logits: Float[Array, "*batch classes"],
    labels: Int[Array, "*batch"],
    *,
    smoothing: Scalar = 0.0,
    where: Bool[Array, "*batch classes"] | None = None,
) -> Float[Array, "*batch"]:
    """The nats that the label costs under the predicted distribution.

        loss = (1 - ε) s[label] + ε/C Σⱼ sⱼ    with s = -log softmax(logits)

    over the C kept classes. A loss of 1e-30 is 1e-30, not 0.

    Args:
        logits: Unnormalised scores.
        labels: The true classes.
        smoothing: ε in [0, 1], the share of the target spread over all classes.
        where: The classes that exist.

    Reference:
        Szegedy et al., Rethinking the Inception architecture for computer vision, CVPR
        2016, https://arxiv.org/abs/1512.00567 (label smoothing)

    Example:
        >>> cross_entropy(jnp.zeros((2, 4)), jnp.array([1, -100]))
        Array([1.3862944,       nan], dtype=float32)
    """
    surprise = -log_softmax(logits, where=where)
    kept = jnp.ones_like(logits) if where is None else where.astype(logits.dtype)
    spread = safe_divide(kept, jnp.sum(kept, -1, keepdims=True))
    evenly = jnp.sum(times(smoothing * spread, surprise), -1)
    loss = times(1 - smoothing, _at(labels, surprise)) + evenly
    return _of_classes(loss, labels, logits, where)


@compiled()
def soft_cross_entropy(
    logits: Float[Array, "*batch classes"],
    targets: Float[Array, "*batch classes"],
    *,
    where: Bool[Array, "*batch classes"] | None = None,
) -> Float[Array, "*batch"]:
    """The cross entropy of a predicted distribution q relative to a target p, in nats.

        loss = -Σⱼ pⱼ log qⱼ    with q = softmax(logits)
             = H(p) + KL(p‖q)

    so it falls to the entropy of p, not to 0. A class that has target 0 contributes 0,
    even when its logit is -∞.

    Args:
        logits: Unnormalised scores.
        targets: p, a distribution over the classes.
        where: The classes that exist.

    Reference:
        Cover and Thomas, Elements of information theory, chapter 2, Wiley 2006,
        https://doi.org/10.1002/047174882X

    Example:
        >>> soft_cross_entropy(
        ...     jnp.array([0.0, 0.0, -jnp.inf]), jnp.array([0.5, 0.5, 0.0])
        ... )
        Array(0.6931472, dtype=float32)
    """
    surprise = -log_softmax(logits, where=where)
    return jnp.sum(times(keep(targets, where), surprise), -1)


@elementwise(
    lambda x, t, w: times(1 - t, sigmoid(x)) - times(w * t, sigmoid(-x)),
    lambda x, t, w: (w - 1) * softplus(-x) - x,
    lambda x, t, w: times(t, softplus(-x)),
)
def binary_cross_entropy_with_logits(
    logits: Float[Array, "*shape"],
    targets: Float[Array, "*shape"],
    *,
    pos_weight: Scalar = 1.0,
) -> Float[Array, "*shape"]:
    """The nats that a yes or no costs under the predicted probability, per element.

        loss = -[w t log p + (1 - t) log(1 - p)]    with p = σ(logits)

    For one class against another, or for many labels that do not exclude each other. An
    infinite logit that agrees with its target costs 0.

    Args:
        logits: Scores in log-odds.
        targets: t in [0, 1], the probability of yes.
        pos_weight: w > 0, how much more a missed yes costs than a missed no.

    Reference:
        Good, Rational decisions, J. Royal Statistical Society B 14(1), 1952,
        https://doi.org/10.1111/j.2517-6161.1952.tb00104.x

    Example:
        >>> binary_cross_entropy_with_logits(jnp.array([0.0, jnp.inf]), jnp.ones(2))
        Array([0.6931472, 0.       ], dtype=float32)
    """
    yes, no = softplus(-logits), softplus(logits)
    return times(pos_weight * targets, yes) + times(1 - targets, no)


@compiled()
def focal_loss(
    logits: Float[Array, "*batch classes"],
    labels: Int[Array, "*batch"],
    *,
    gamma: Scalar = 2.0,
    where: Bool[Array, "*batch classes"] | None = None,
) -> Float[Array, "*batch"]:
    """Cross entropy that counts a well classified example for less.

        loss = -(1 - p)^γ log p    with p = softmax(logits)[label]

    At γ = 0 it is the cross entropy. First and second derivatives are finite for every
    γ, however sure the prediction.

    Args:
        logits: Unnormalised scores.
        labels: The true classes.
        gamma: γ >= 0, how fast easy examples lose their weight.
        where: The classes that exist.

    Reference:
        Lin et al., Focal loss for dense object detection, ICCV 2017,
        https://arxiv.org/abs/1708.02002

    Example:
        >>> focal_loss(jnp.zeros((1, 2)), jnp.array([0]), gamma=2.0)
        Array([0.1732868], dtype=float32)
    """
    odds = _log_odds_against(labels, logits, where)
    doubt = jnp.exp(-times(gamma, softplus(-odds)))  # (1 - p)^γ
    return _of_classes(times(doubt, softplus(odds)), labels, logits, where)


def _at(labels: Array, scores: Array) -> Array:
    """The score of the label, 0 where the label is not a class."""
    own = jax.nn.one_hot(labels, scores.shape[-1], dtype=bool)
    return jnp.sum(jnp.where(own, scores, 0.0), -1)


def _of_classes(
    loss: Array, labels: Array, logits: Array, where: Array | None
) -> Array:
    """The loss, NaN where the label is not a class, 0 where no class is kept."""
    loss = keep(loss, (labels >= 0) & (labels < logits.shape[-1]), jnp.nan)
    return keep(loss, None if where is None else jnp.any(where, -1))


def _log_odds_against(labels: Array, logits: Array, where: Array | None) -> Array:
    """u = log((1 - p) / p) of the label's probability p: -log p is softplus(u)."""
    others = ~jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
    others = others if where is None else others & where
    own = _at(labels, keep(logits, where, -jnp.inf))
    return logsumexp(logits, where=others) - own

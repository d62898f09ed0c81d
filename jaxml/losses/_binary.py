"""Yes or no: a score or a probability against a target in [0, 1], per element.

For one class against another, or for many labels that do not exclude each other.
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jaxml._core.public import elementwise, public
from jaxml._core.safe import multiply_no_nan
from jaxml._core.special.exp import exp, log1p
from jaxml._core.special.logistic import sigmoid, softplus
from jaxml._core.special.partials import with_partials
from jaxml._core.types import Scalar


def _share(a: Array, b: Array) -> Array:
    """a / b, and 0 where a = 0, whatever b is."""
    nothing = a == 0
    return jnp.where(nothing, 0.0, a / jnp.where(nothing, 1.0, b))


@elementwise(
    lambda p, t, w: _share(1 - t, 1 - p) - _share(w * t, p),
    lambda p, t, w: jnp.log1p(-p) - w * jnp.log(p),
    lambda p, t, w: multiply_no_nan(-t, jnp.log(p)),
)
def binary_cross_entropy(
    probabilities: Float[Array, "*shape"],
    targets: Float[Array, "*shape"],
    *,
    pos_weight: Scalar = 1.0,
) -> Float[Array, "*shape"]:
    """The nats that a yes or no costs under a probability, per element.

        loss = -[w t log p + (1 - t) log(1 - p)]

    Exact at p = 0 and 1: 0 where the target agrees, ∞ where it does not.

    Args:
        probabilities: p in [0, 1].
        targets: t in [0, 1], the probability of yes.
        pos_weight: w > 0, how much more a missed yes costs than a missed no.

    Reference:
        Good, Rational decisions, J. Royal Statistical Society B 14(1), 1952,
        https://doi.org/10.1111/j.2517-6161.1952.tb00104.x

    Example:
        >>> binary_cross_entropy(jnp.array([0.5, 0.0]), jnp.array([1.0, 0.0]))
        Array([0.6931472, 0.       ], dtype=float32)
    """
    yes, no = -jnp.log(probabilities), -jnp.log1p(-probabilities)
    return multiply_no_nan(pos_weight * targets, yes) + multiply_no_nan(1 - targets, no)


def _slope(x: Array, t: Array, w: Array) -> Array:
    """(1 - t) σ(x) - w t σ(-x)"""
    yes, no, decay = w * t, 1 - t, exp(-jnp.abs(x))
    return jnp.where(x > 0, no - yes * decay, no * decay - yes) / (1 + decay)


@elementwise(
    _slope,
    lambda x, t, w: _yes_less_no(x, w),
    lambda x, t, w: multiply_no_nan(t, softplus(-x)),
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
    yes, no = pos_weight * targets, 1 - targets
    missed = multiply_no_nan(jnp.where(logits > 0, no, yes), jnp.abs(logits))
    return missed + (yes + no) * log1p(exp(-jnp.abs(logits)))


def _yes_less_no(x: Array, w: Array) -> Array:
    """w log(1 + e⁻ˣ) - log(1 + eˣ), without the difference and at ±∞ too."""
    below = x < 0
    return (w - 1) * softplus(jnp.where(below, x, -x)) - jnp.where(below, w, 1.0) * x


@public
def binary_focal_loss(
    logits: Float[Array, "*shape"],
    targets: Float[Array, "*shape"],
    *,
    gamma: Scalar = 2.0,
    alpha: Scalar | None = None,
) -> Float[Array, "*shape"]:
    """Binary cross entropy that counts a well classified example for less.

        loss = -αₜ (1 - pₜ)^γ log pₜ

    with pₜ = p = σ(logits) and αₜ = α for a target of 1, and 1 - p and 1 - α for 0. A
    target between mixes both losses by its probability.

    Args:
        logits: Scores in log-odds.
        targets: In [0, 1], the probability of yes.
        gamma: γ >= 0, how fast easy examples lose their weight.
        alpha: α in [0, 1], the share of yes in the loss; equal weights of 1 by default.

    Reference:
        Lin et al., Focal loss for dense object detection, ICCV 2017,
        https://arxiv.org/abs/1708.02002

    Example:
        >>> binary_focal_loss(jnp.zeros(2), jnp.array([1.0, 0.0]), alpha=0.25)
        Array([0.0433217, 0.1299651], dtype=float32)
    """
    yes, no = (focal_from_logit(odds, jnp.asarray(gamma)) for odds in (-logits, logits))
    if alpha is not None:
        yes, no = multiply_no_nan(alpha, yes), multiply_no_nan(1 - alpha, no)
    return multiply_no_nan(targets, yes) + multiply_no_nan(1 - targets, no)


def _focal_slope(odds: Array, gamma: Array) -> Array:
    near = gamma * multiply_no_nan(sigmoid(-odds), softplus(odds)) + sigmoid(odds)
    return _doubt(odds, gamma) * near


def _focal_slope_of_gamma(odds: Array, gamma: Array) -> Array:
    return -multiply_no_nan(softplus(-odds), focal_from_logit(odds, gamma))


@with_partials(_focal_slope, _focal_slope_of_gamma)
def focal_from_logit(odds: Array, gamma: Array) -> Array:
    """-(1 - p)^γ log p, of the log-odds against p."""
    return multiply_no_nan(_doubt(odds, gamma), softplus(odds))


def _doubt(odds: Array, gamma: Array) -> Array:
    """(1 - p)^γ, which is 1 at γ = 0 even for p = 1."""
    return jnp.exp(-multiply_no_nan(gamma, softplus(-odds)))

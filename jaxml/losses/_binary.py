"""Binary classification: a logit or a probability against a target in [0, 1].

All losses are elementwise. They serve one class against another, and several labels
that do not exclude each other.
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jaxml._core.contract import broadcast
from jaxml._core.public import elementwise, public
from jaxml._core.safe import divide_no_nan, multiply_no_nan
from jaxml._core.special.exp import exp, log1p
from jaxml._core.special.log1p import wide_log1p
from jaxml._core.special.logistic import sigmoid, softplus
from jaxml._core.special.partials import with_partials
from jaxml._core.types import Fraction, Fractions, NonNegative, Weights


@elementwise(
    lambda p, t, w: divide_no_nan(1 - t, 1 - p) - divide_no_nan(w * t, p),
    lambda p, t, w: wide_log1p(-p) - w * jnp.log(p),
    lambda p, t, w: multiply_no_nan(-t, jnp.log(p)),
)
def binary_cross_entropy(
    probabilities: Float[Array, "*shape"],
    targets: Float[Array, "*shape"],
    *,
    pos_weight: Weights = 1.0,
    where: Bool[Array, "*shape"] | None = None,
) -> Float[Array, "*shape"]:
    """The negative log-likelihood of a binary target under a probability, in nats.

        loss = -[w t log p + (1 - t) log(1 - p)]

    At p = 0 and p = 1 it is 0 if the target agrees and ∞ if it does not.

    Args:
        probabilities: p in [0, 1].
        targets: t in [0, 1], the probability of the positive class.
        pos_weight: w >= 0, the weight of the positive class against the negative: a
            number, or one of each label.
        where: The elements that count; the others have loss 0.

    Reference:
        Good, Rational decisions, J. Royal Statistical Society B 14(1), 1952,
        https://doi.org/10.1111/j.2517-6161.1952.tb00104.x

    Example:
        >>> binary_cross_entropy(jnp.array([0.5, 0.0]), jnp.array([1.0, 0.0]))
        Array([0.6931472, 0.       ], dtype=float32)
    """
    pos_nll, neg_nll = -jnp.log(probabilities), -wide_log1p(-probabilities)
    pos, neg = pos_weight * targets, 1 - targets
    return multiply_no_nan(pos, pos_nll) + multiply_no_nan(neg, neg_nll)


def _bce_with_logits_dx(x: Array, t: Array, w: Array) -> Array:
    """(1 - t) σ(x) - w t σ(-x)"""
    pos, neg, e = w * t, 1 - t, exp(-jnp.abs(x))
    return jnp.where(x > 0, neg - pos * e, neg * e - pos) / (1 + e)


def _bce_with_logits_dt(x: Array, t: Array, w: Array) -> Array:
    """w log(1 + e⁻ˣ) - log(1 + eˣ), without cancellation and with its limit at ±∞."""
    is_negative = x < 0
    linear_part = jnp.where(is_negative, w, 1.0) * x
    return (w - 1) * softplus(jnp.where(is_negative, x, -x)) - linear_part


@elementwise(
    _bce_with_logits_dx,
    _bce_with_logits_dt,
    lambda x, t, w: multiply_no_nan(t, softplus(-x)),
)
def binary_cross_entropy_with_logits(
    logits: Float[Array, "*shape"],
    targets: Float[Array, "*shape"],
    *,
    pos_weight: Weights = 1.0,
    where: Bool[Array, "*shape"] | None = None,
) -> Float[Array, "*shape"]:
    """The negative log-likelihood of a binary target under σ(logits), in nats.

        loss = -[w t log p + (1 - t) log(1 - p)]    with p = σ(logits)

    An infinite logit that agrees with its target has loss 0.

    Args:
        logits: Log-odds of the positive class.
        targets: t in [0, 1], the probability of the positive class.
        pos_weight: w >= 0, the weight of the positive class against the negative: a
            number, or one of each label.
        where: The elements that count; the others have loss 0.

    Reference:
        Good, Rational decisions, J. Royal Statistical Society B 14(1), 1952,
        https://doi.org/10.1111/j.2517-6161.1952.tb00104.x

    Example:
        >>> binary_cross_entropy_with_logits(jnp.array([0.0, jnp.inf]), jnp.ones(2))
        Array([0.6931472, 0.       ], dtype=float32)
    """
    pos, neg, abs_logits = pos_weight * targets, 1 - targets, jnp.abs(logits)
    linear_part = multiply_no_nan(jnp.where(logits > 0, neg, pos), abs_logits)
    return linear_part + (pos + neg) * log1p(exp(-abs_logits))


@public(masked=True)
def binary_focal_loss(
    logits: Float[Array, "*shape"],
    targets: Float[Array, "*shape"],
    *,
    gamma: NonNegative = 2.0,
    alpha: Fractions | None = None,
    where: Bool[Array, "*shape"] | None = None,
) -> Float[Array, "*shape"]:
    """Binary cross entropy with less weight on well-classified examples.

        loss = -α t (1 - p)^γ log p - (1 - α) (1 - t) p^γ log(1 - p)

    with p = σ(logits). Without α, both classes have weight 1.

    Args:
        logits: Log-odds of the positive class.
        targets: t in [0, 1], the probability of the positive class.
        gamma: γ >= 0, the focusing parameter. Large values ignore easy examples.
        alpha: α in [0, 1], the weight of the positive class: a number, or one of each
            label.
        where: The elements that count; the others have loss 0.

    Reference:
        Lin et al., Focal loss for dense object detection, ICCV 2017,
        https://arxiv.org/abs/1708.02002

    Example:
        >>> binary_focal_loss(jnp.zeros(2), jnp.array([1.0, 0.0]), alpha=0.25)
        Array([0.0433217, 0.1299651], dtype=float32)
    """
    gamma = jnp.asarray(gamma)
    pos_loss, neg_loss = (focal_from_logit(u, gamma) for u in (-logits, logits))
    if alpha is not None:
        alpha = broadcast("alpha", alpha, logits)
        pos_loss = multiply_no_nan(alpha, pos_loss)
        neg_loss = multiply_no_nan(1 - alpha, neg_loss)
    return multiply_no_nan(targets, pos_loss) + multiply_no_nan(1 - targets, neg_loss)


def _focal_du(u: Array, gamma: Array) -> Array:
    nll_term = gamma * multiply_no_nan(sigmoid(-u), softplus(u))
    return _modulating_factor(u, gamma) * (nll_term + sigmoid(u))


def _focal_dgamma(u: Array, gamma: Array) -> Array:
    return -multiply_no_nan(softplus(-u), focal_from_logit(u, gamma))


@with_partials(_focal_du, _focal_dgamma)
def focal_from_logit(u: Array, gamma: Array) -> Array:
    """-(1 - p)^γ log p, from u = log((1 - p) / p)."""
    return multiply_no_nan(_modulating_factor(u, gamma), softplus(u))


def _modulating_factor(u: Array, gamma: Array) -> Array:
    """(1 - p)^γ, which is 1 at γ = 0 even if p = 1."""
    return jnp.exp(-multiply_no_nan(gamma, softplus(-u)))


@public(masked=True)
def asymmetric_loss(
    logits: Float[Array, "*shape"],
    targets: Float[Array, "*shape"],
    *,
    gamma_positive: NonNegative = 0.0,
    gamma_negative: NonNegative = 4.0,
    shift: Fraction = 0.05,
    where: Bool[Array, "*shape"] | None = None,
) -> Float[Array, "*shape"]:
    """Focal loss of many labels, few of them positive: easy negatives cost nothing.

        loss = -t (1 - p)^γ₊ log p - (1 - t) q^γ₋ log(1 - q)    with q = max(0, p - m)

    and p = σ(logits). First and second derivatives are finite for every γ, however
    confident the prediction.

    Args:
        logits: Log-odds of the positive class.
        targets: t in [0, 1], the probability of the positive class.
        gamma_positive: γ₊ >= 0, the focusing parameter of positives.
        gamma_negative: γ₋ >= 0, that of negatives.
        shift: m in [0, 1]. Negatives with a probability of at most m have loss 0.
        where: The elements that count; the others have loss 0.

    Reference:
        Ridnik et al., Asymmetric loss for multi-label classification, ICCV 2021,
        https://arxiv.org/abs/2009.14119

    Example:
        >>> asymmetric_loss(jnp.zeros(2), jnp.array([1.0, 0.0]))
        Array([0.6931472 , 0.02451505], dtype=float32)
    """
    pos_loss = focal_from_logit(-logits, jnp.asarray(gamma_positive))
    neg_loss = _shifted_focal(logits, jnp.asarray(gamma_negative), jnp.asarray(shift))
    return multiply_no_nan(targets, pos_loss) + multiply_no_nan(1 - targets, neg_loss)


def _shifted_focal_dx(x: Array, gamma: Array, m: Array) -> Array:
    is_hard, q, _, factor, nll = _shifted_terms(x, gamma, m)
    rest = jnp.where(m == 0, 1.0, m + sigmoid(-x))
    wrong = jnp.where(m == 0, 1.0, sigmoid(-x) / rest)
    scaled_dx = gamma * multiply_no_nan(sigmoid(-x), nll) / q + wrong
    return jnp.where(is_hard, factor * sigmoid(x) * scaled_dx, 0.0)


def _shifted_focal_dgamma(x: Array, gamma: Array, m: Array) -> Array:
    is_hard, _, log_q, factor, nll = _shifted_terms(x, gamma, m)
    return jnp.where(is_hard, multiply_no_nan(factor * log_q, nll), 0.0)


def _shifted_focal_dm(x: Array, gamma: Array, m: Array) -> Array:
    is_hard, q, _, factor, nll = _shifted_terms(x, gamma, m)
    scaled_dm = gamma * nll / q + 1 / (m + sigmoid(-x))
    return jnp.where(is_hard, -factor * scaled_dm, 0.0)


@with_partials(_shifted_focal_dx, _shifted_focal_dgamma, _shifted_focal_dm)
def _shifted_focal(x: Array, gamma: Array, m: Array) -> Array:
    """-q^γ log(1 - q) with q = max(0, σ(x) - m)."""
    is_hard, _, _, factor, nll = _shifted_terms(x, gamma, m)
    return jnp.where(is_hard, multiply_no_nan(factor, nll), 0.0)


def _shifted_terms(x: Array, gamma: Array, m: Array) -> tuple[Array, ...]:
    """Whether q = σ(x) - m > 0; then q, log q, q^γ, and -log(1 - q)."""
    is_hard = sigmoid(x) > m
    q = jnp.where(is_hard, sigmoid(x) - m, 0.5)
    rest = jnp.where(is_hard, m + sigmoid(-x), 0.5)  # 1 - q, without cancellation
    is_small = q < 0.5
    log_q = jnp.where(is_small, jnp.log(q), wide_log1p(-jnp.where(is_small, 0.5, rest)))
    large_nll = jnp.where(m == 0, softplus(x), -jnp.log(jnp.where(m == 0, 1.0, rest)))
    nll = jnp.where(is_small, -wide_log1p(-jnp.where(is_small, q, 0.5)), large_nll)
    return is_hard, q, log_q, jnp.exp(-multiply_no_nan(gamma, -log_q)), nll

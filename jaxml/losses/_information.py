"""Entropy and divergences of discrete distributions, in nats.

The event is the last axis, the outcomes. Distributions are given by their logarithms,
log_p and log_q. A logarithm of -∞ means probability 0 and contributes 0. An outcome
masked by `where` has probability 0.
"""

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float, Integer

from jaxml._core.fusion import in_one_loop
from jaxml._core.masking import apply_mask
from jaxml._core.public import public
from jaxml._core.safe import multiply_no_nan, safe_subtract
from jaxml._core.special.divergence import bregman_term, q_minus_p
from jaxml._core.special.exp import exp, log1p
from jaxml._core.special.logistic import sigmoid, tanh
from jaxml._core.special.partials import with_partials
from jaxml.losses._labels import label_index, nan_if_invalid, take_label


@public
def entropy(
    log_p: Float[Array, "*batch outcomes"],
    *,
    where: Bool[Array, "*batch outcomes"] | None = None,
) -> Float[Array, "*batch"]:
    """The entropy of a distribution: the mean information of one outcome.

        H(p) = -Σ p log p

    Args:
        log_p: The logarithms of the distribution.
        where: The outcomes that exist.

    Returns:
        Nats, from 0 for a certain outcome to log n for n equally likely ones.

    Reference:
        Shannon, A mathematical theory of communication, Bell System Technical Journal
        27(3), 1948, https://doi.org/10.1002/j.1538-7305.1948.tb01338.x

    Example:
        >>> entropy(jnp.log(jnp.array([0.5, 0.5, 0.0])))
        Array(0.6931472, dtype=float32)
    """
    log_p = apply_mask(log_p, where, -jnp.inf)
    return jnp.sum(multiply_no_nan(jnp.exp(log_p), -log_p), -1)


@public
def kl_divergence(
    log_q: Float[Array, "*batch outcomes"],
    log_p: Float[Array, "*batch outcomes"],
    *,
    where: Bool[Array, "*batch outcomes"] | None = None,
) -> Float[Array, "*batch"]:
    """The Kullback-Leibler divergence KL(p‖q) of a true p from a predicted q, in nats.

        KL(p‖q) = Σ p (log p - log q) = Σ [p (log p - log q) - p + q]

    The second sum is the one computed. It has no negative terms, so the result is never
    negative and keeps full precision if p ≈ q. Both distributions must be normalized.
    Swap the arguments for KL(q‖p).

    Args:
        log_q: The logarithms of the prediction.
        log_p: The logarithms of the truth.
        where: The outcomes that exist.

    Reference:
        Kullback and Leibler, On information and sufficiency, Annals of Mathematical
        Statistics 22(1), 1951, https://doi.org/10.1214/aoms/1177729694

    Example:
        >>> kl_divergence(
        ...     jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([1.0, 0.0]))
        ... )
        Array(0.6931472, dtype=float32)
    """
    log_q = apply_mask(log_q, where, -jnp.inf)
    log_p = apply_mask(log_p, where, -jnp.inf)
    return jnp.sum(_kl_term(log_q, log_p), -1)


@public
def js_divergence(
    log_q: Float[Array, "*batch outcomes"],
    log_p: Float[Array, "*batch outcomes"],
    *,
    where: Bool[Array, "*batch outcomes"] | None = None,
) -> Float[Array, "*batch"]:
    """The Jensen-Shannon divergence, a symmetric and bounded form of the KL divergence.

        JS(p, q) = ½ KL(p‖m) + ½ KL(q‖m)    with m = ½ (p + q)

    Args:
        log_q: The logarithms of one distribution.
        log_p: The logarithms of the other.
        where: The outcomes that exist.

    Returns:
        Nats, from 0 for p = q to log 2 for distributions that share no outcome.

    Reference:
        Lin, Divergence measures based on the Shannon entropy, IEEE Transactions on
        Information Theory 37(1), 1991, https://doi.org/10.1109/18.61115

    Example:
        >>> js_divergence(
        ...     jnp.log(jnp.array([0.0, 1.0])), jnp.log(jnp.array([1.0, 0.0]))
        ... )
        Array(0.6931472, dtype=float32)
    """
    log_q = apply_mask(log_q, where, -jnp.inf)
    log_p = apply_mask(log_p, where, -jnp.inf)
    return jnp.sum(_js_term(log_q, log_p), -1)


@public(masked=True)
def nll_loss(
    log_p: Float[Array, "*batch classes"],
    labels: Integer[Array, "*batch"],
    *,
    where: Bool[Array, "*batch"] | None = None,
) -> Float[Array, "*batch"]:
    """The negative log-likelihood of the label, in nats.

        loss = -log p[label]

    Args:
        log_p: The logarithms of the predicted probabilities.
        labels: The true classes. An out-of-range label gives NaN for its own example.
        where: The examples that count; the others have loss 0.

    Reference:
        Fisher, On the mathematical foundations of theoretical statistics, 1922,
        https://doi.org/10.1098/rsta.1922.0009

    Example:
        >>> nll_loss(jnp.log(jnp.array([[0.25, 0.75]])), jnp.array([0]))
        Array([1.3862944], dtype=float32)
    """
    index = label_index(labels, log_p.shape[-1])
    return nan_if_invalid(-take_label(index, log_p), index)


def _exp(log_p: Array) -> Array:
    """p, computed for the value and again for the derivative.

    XLA:CPU would hold its own exponential for both, and XLA:GPU the polynomial.
    """
    return lax.platform_dependent(log_p, cpu=exp, default=jnp.exp)


def _kl_term_dq(log_q: Array, log_p: Array) -> Array:
    """q - p"""
    return q_minus_p(_exp(log_p), _exp(log_q), safe_subtract(log_q, log_p))


def _kl_term_dp(log_q: Array, log_p: Array) -> Array:
    """p log(p/q)"""
    return multiply_no_nan(_exp(log_p), safe_subtract(log_p, log_q))


@with_partials(_kl_term_dq, _kl_term_dp)
def _kl_term(log_q: Array, log_p: Array) -> Array:
    """p log(p/q) - p + q >= 0"""
    p, q, u = _exp(log_p), _exp(log_q), safe_subtract(log_q, log_p)
    return in_one_loop(bregman_term(p, q, u))


def _js_term_dq(log_q: Array, log_p: Array) -> Array:
    """½ q log(q/m)"""
    log_m_over_q = _log_mean_ratio(safe_subtract(log_p, log_q))
    return multiply_no_nan(_exp(log_q), -log_m_over_q / 2)


def _js_term_dp(log_q: Array, log_p: Array) -> Array:
    """½ p log(p/m)"""
    return _js_term_dq(log_p, log_q)


@with_partials(_js_term_dq, _js_term_dp)
def _js_term(log_q: Array, log_p: Array) -> Array:
    """½ [p log(p/m) + q log(q/m)], where both summands are Bregman terms."""
    p, q, u = _exp(log_p), _exp(log_q), safe_subtract(log_q, log_p)
    m = (p + q) / 2
    p_term = bregman_term(p, m, _log_mean_ratio(u))
    q_term = bregman_term(q, m, _log_mean_ratio(-u))
    return in_one_loop((p_term + q_term) / 2)


@with_partials(sigmoid)
def _log_mean_ratio(u: Array) -> Array:
    """log(½ (1 + eᵘ)), without cancellation near 0: ½ (1 + e⁻|ᵘ|) = 1 / (1 + tanh)."""
    return jnp.maximum(u, 0) - log1p(tanh(jnp.abs(u) / 2))

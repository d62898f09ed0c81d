"""Information: how much a distribution says, and how far one is from another, in nats.

Distributions come as logarithms, log_p and log_q, and are the last axis, the event; one
value for each distribution. A logarithm of -∞ is a probability of 0 and contributes 0.
`where` keeps outcomes.
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Integer

from jaxml._core.masking import apply_mask
from jaxml._core.public import public
from jaxml._core.safe import multiply_no_nan, safe_subtract
from jaxml._core.special.exp import expm1_minus_x
from jaxml._core.special.logistic import softplus
from jaxml._core.special.partials import with_partials
from jaxml.losses._labels import label_index, nan_if_invalid, take_label


@public
def entropy(
    log_p: Float[Array, "*batch outcomes"],
    *,
    where: Bool[Array, "*batch outcomes"] | None = None,
) -> Float[Array, "*batch"]:
    """The mean information of a distribution: near 0 when nothing new can be learned.

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
    """The relative entropy: what is lost when q is taken for the true p.

        KL(p‖q) = Σ p (log p - log q) = Σ [p d - p + q]    with d = log p - log q

    The second sum has no negative term and is what is computed: it is never negative,
    0 only for q = p, and keeps its digits near there. Both distributions have to be
    normalised. KL(q‖p) is the swapped call.

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
    log_q, log_p = (
        apply_mask(log_q, where, -jnp.inf),
        apply_mask(log_p, where, -jnp.inf),
    )
    return jnp.sum(_relative(log_q, log_p), -1)


@public
def js_divergence(
    log_q: Float[Array, "*batch outcomes"],
    log_p: Float[Array, "*batch outcomes"],
    *,
    where: Bool[Array, "*batch outcomes"] | None = None,
) -> Float[Array, "*batch"]:
    """The divergence of two distributions from their mean: symmetric, and bounded.

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
    log_q, log_p = (
        apply_mask(log_q, where, -jnp.inf),
        apply_mask(log_p, where, -jnp.inf),
    )
    return jnp.sum(_from_mean(log_q, log_p), -1)


@public
def nll_loss(
    log_p: Float[Array, "*batch classes"], labels: Integer[Array, "*batch"]
) -> Float[Array, "*batch"]:
    """The negative log-likelihood of the label.

        loss = -log p[label]

    Its mean is smallest where the likelihood of the data is largest, and where the KL
    divergence from their distribution is smallest.

    Args:
        log_p: The logarithms of the predicted probabilities.
        labels: The true classes; one that is no class gives NaN for its example.

    Reference:
        Fisher, On the mathematical foundations of theoretical statistics, 1922,
        https://doi.org/10.1098/rsta.1922.0009

    Example:
        >>> nll_loss(jnp.log(jnp.array([[0.25, 0.75]])), jnp.array([0]))
        Array([1.3862944], dtype=float32)
    """
    index = label_index(labels, log_p.shape[-1])
    return nan_if_invalid(-take_label(index, log_p), index)


@with_partials(
    lambda log_q, log_p: _gap_of_powers(log_q, log_p),
    lambda log_q, log_p: multiply_no_nan(jnp.exp(log_p), safe_subtract(log_p, log_q)),
)
def _relative(log_q: Array, log_p: Array) -> Array:
    """p log(p/q) - p + q >= 0"""
    return _loss_of(jnp.exp(log_p), jnp.exp(log_q), safe_subtract(log_q, log_p))


def _gap_of_powers(log_q: Array, log_p: Array) -> Array:
    """q - p, by what is between the logarithms where that is small."""
    p, u = jnp.exp(log_p), safe_subtract(log_q, log_p)
    near = jnp.abs(u) < 1
    return jnp.where(near, p * jnp.expm1(jnp.where(near, u, 0.0)), jnp.exp(log_q) - p)


@with_partials(
    lambda log_q, log_p: _share_of_mean(log_q, log_p),
    lambda log_q, log_p: _share_of_mean(log_p, log_q),
)
def _from_mean(log_q: Array, log_p: Array) -> Array:
    """½ [p log(p/m) + q log(q/m)], of which each has its own difference from m."""
    p, q, gap = jnp.exp(log_p), jnp.exp(log_q), safe_subtract(log_q, log_p)
    mean = (p + q) / 2
    from_p = _loss_of(p, mean, _log_mean_ratio(gap))
    from_q = _loss_of(q, mean, _log_mean_ratio(-gap))
    return (from_p + from_q) / 2


def _share_of_mean(log_q: Array, log_p: Array) -> Array:
    """½ q log(q/m)"""
    ratio = _log_mean_ratio(safe_subtract(log_p, log_q))
    return multiply_no_nan(jnp.exp(log_q), -ratio / 2)


def _loss_of(p: Array, q: Array, u: Array) -> Array:
    """p log(p/q) - p + q >= 0, with u = log(q/p): p (eᵘ - 1 - u), or q's side of it."""
    near = multiply_no_nan(p, expm1_minus_x(jnp.where(u > 1, 1.0, u)))
    return jnp.where(u > 1, q - p - multiply_no_nan(p, u), near)


def _log_mean_ratio(u: Array) -> Array:
    """log(½ (1 + eᵘ)): by log1p near 0, where the logarithm of 1 has no digits."""
    near = jnp.log1p(jnp.expm1(jnp.where(jnp.abs(u) < 1, u, 0.0)) / 2)
    return jnp.where(jnp.abs(u) < 1, near, softplus(u) - jnp.log(2.0).astype(u.dtype))

"""Regression by maximum likelihood: counts, and means with a variance.

All losses are elementwise.
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jaxml._core.contract import broadcast, raise_invalid
from jaxml._core.masking import apply_mask
from jaxml._core.public import elementwise, public
from jaxml._core.safe import divide_no_nan, multiply_no_nan
from jaxml._core.special.partials import with_partials
from jaxml._core.types import PerElement


@elementwise(lambda r, k: jnp.exp(r) - k, lambda r, k: -r)
def poisson_nll_loss(
    log_rate: Float[Array, "*shape"],
    counts: Float[Array, "*shape"],
    *,
    where: Bool[Array, "*shape"] | None = None,
) -> Float[Array, "*shape"]:
    """The negative log-likelihood of a Poisson distribution, without its log k! term.

        loss = eʳ - k r

    Args:
        log_rate: r, the logarithm of the expected count.
        counts: k >= 0.
        where: The elements that count; the others have loss 0.

    Reference:
        Nelder and Wedderburn, Generalized linear models, J. Royal Statistical Society A
        135(3), 1972, https://doi.org/10.2307/2344614

    Example:
        >>> poisson_nll_loss(jnp.zeros(1), jnp.array([3.0]))
        Array([1.], dtype=float32)
    """
    return jnp.exp(log_rate) - multiply_no_nan(counts, log_rate)


@elementwise(lambda r, k: 1 - divide_no_nan(k, r), lambda r, k: -jnp.log(r))
def poisson_loss(
    rate: Float[Array, "*shape"],
    counts: Float[Array, "*shape"],
    *,
    where: Bool[Array, "*shape"] | None = None,
) -> Float[Array, "*shape"]:
    """The Poisson negative log-likelihood of a rate, without its log k! term.

        loss = λ - k log λ

    At λ = 0 it is 0 for k = 0, with derivative 1, and ∞ otherwise.

    Args:
        rate: λ >= 0, predicted.
        counts: k, the observed counts.
        where: The elements that count; the others have loss 0.

    Reference:
        Nelder and Wedderburn, Generalized linear models, J. Royal Statistical Society A
        135(3), 1972, https://doi.org/10.2307/2344614

    Example:
        >>> poisson_loss(jnp.array([1.0, 0.0]), jnp.array([3.0, 0.0]))
        Array([1., 0.], dtype=float32)
    """
    return rate - multiply_no_nan(counts, jnp.log(rate))


@public(masked=True)
def gaussian_nll_loss(
    mean: Float[Array, "*shape"],
    targets: Float[Array, "*shape"],
    *,
    variance: PerElement | None = None,
    log_variance: PerElement | None = None,
    where: Bool[Array, "*shape"] | None = None,
) -> Float[Array, "*shape"]:
    """The negative log-likelihood of a normal distribution, without ½ log 2π.

        loss = ½ (log σ² + (y - μ)²/σ²)

    Args:
        mean: μ, predicted.
        targets: y, in the units of μ.
        variance: σ² > 0, in the square of these units; its shape broadcasts to μ's.
        log_variance: log σ², which a network may predict instead of σ².
        where: The elements that count; the others have loss 0.

    Raises:
        TypeError: Unless one of variance and log_variance is given, and broadcasts.

    Reference:
        Nix and Weigend, Estimating the mean and variance of the target probability
        distribution, ICNN 1994, https://doi.org/10.1109/ICNN.1994.374138

    Example:
        >>> gaussian_nll_loss(jnp.zeros(1), jnp.array([2.0]), variance=1.0)
        Array([2.], dtype=float32)
    """
    residual = targets - mean
    if (variance is None) == (log_variance is None):
        raise_invalid(TypeError, "variance", "be given, or else log_variance", variance)
    if variance is not None:
        variance = broadcast("variance", variance, residual)
        return _nll_of_variance(residual, apply_mask(variance, where, 1.0))
    log_variance = apply_mask(broadcast("log_variance", log_variance, residual), where)
    return _nll_of_log_variance(residual, log_variance)


@with_partials(
    lambda r, v: r / jnp.sqrt(v) / jnp.sqrt(v),
    lambda r, v: (1 - jnp.square(r / jnp.sqrt(v))) / 2 / v,
)
def _nll_of_variance(r: Array, v: Array) -> Array:
    """½ (log v + r²/v), where r² may overflow."""
    return (jnp.log(v) + jnp.square(r / jnp.sqrt(v))) / 2


@with_partials(
    lambda r, s: r * jnp.exp(-s / 2) * jnp.exp(-s / 2),
    lambda r, s: (1 - jnp.square(r * jnp.exp(-s / 2))) / 2,
)
def _nll_of_log_variance(r: Array, s: Array) -> Array:
    """½ (s + r² e⁻ˢ)"""
    return (s + jnp.square(r * jnp.exp(-s / 2))) / 2

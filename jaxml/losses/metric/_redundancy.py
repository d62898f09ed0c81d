"""Losses that decorrelate the features of two views of the same examples.

Row i of one view and row i of the other are a pair. The event is the whole batch, both
[n d], and the loss is a scalar. Pairs of features are compared for one block of
features at a time.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jaxml._core.blocks import map_blocks
from jaxml._core.contract import raise_invalid
from jaxml._core.matmul import matmul
from jaxml._core.public import public
from jaxml._core.safe import multiply_no_nan, safe_divide, safe_sqrt
from jaxml._core.types import NonNegative


@public
def vicreg_loss(
    a: Float[Array, "n d"],
    b: Float[Array, "n d"],
    *,
    invariance_weight: NonNegative = 25.0,
    variance_weight: NonNegative = 25.0,
    covariance_weight: NonNegative = 1.0,
) -> Float[Array, ""]:
    """Distance between the views, plus penalties for constant and correlated features.

        loss = λ mean (a - b)² + μ [v(a) + v(b)] + ν [c(a) + c(b)]
        v(x) = 1/d Σⱼ max(0, 1 - √(var xⱼ + 10⁻⁴)),    c(x) = 1/d Σᵢ≠ⱼ cov(xᵢ, xⱼ)²

    Variances and covariances are unbiased: they divide by n - 1.

    Args:
        a: Embeddings of one view, at least two.
        b: Embeddings of the other, in the same order.
        invariance_weight: λ >= 0, for the mean squared difference.
        variance_weight: μ >= 0, for the hinge on each standard deviation.
        covariance_weight: ν >= 0, for the squared covariances.

    Raises:
        TypeError: If there is only one row.

    Reference:
        Bardes, Ponce and LeCun, VICReg, ICLR 2022, Algorithm 1,
        https://arxiv.org/abs/2105.04906

    Example:
        >>> x = jnp.array([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
        >>> vicreg_loss(x, x + 0.5)
        Array(6.25, dtype=float32)
    """
    _check_num_rows(a)
    variance_term = _variance_term(a) + _variance_term(b)
    covariance_term = _covariance_term(a) + _covariance_term(b)
    invariance_term = jnp.mean(jnp.square(a - b))
    return (
        multiply_no_nan(invariance_weight, invariance_term)
        + multiply_no_nan(variance_weight, variance_term)
        + multiply_no_nan(covariance_weight, covariance_term)
    )


def _variance_term(x: Array) -> Array:
    return jnp.mean(jax.nn.relu(1 - jnp.sqrt(jnp.var(x, 0, ddof=1) + 1e-4)))


def _covariance_term(x: Array) -> Array:
    centered = x - jnp.mean(x, 0)[None]

    def off_diagonal_square(cov: Array, is_diagonal: Array) -> Array:
        return jnp.where(is_diagonal, 0, jnp.square(cov))

    sums = _sum_over_features(centered / (len(x) - 1), centered, off_diagonal_square)
    return jnp.mean(sums)


@public
def barlow_twins_loss(
    a: Float[Array, "n d"],
    b: Float[Array, "n d"],
    *,
    off_diagonal_weight: NonNegative = 5e-3,
) -> Float[Array, ""]:
    """Distance of the cross-correlation matrix of two views from the identity.

        loss = Σᵢ (1 - Cᵢᵢ)² + λ Σᵢ≠ⱼ Cᵢⱼ²

    with Cᵢⱼ the correlation of feature i of a and feature j of b. A constant feature
    has correlation 0 with every feature.

    Args:
        a: Embeddings of one view, at least two.
        b: Embeddings of the other, in the same order.
        off_diagonal_weight: λ >= 0, for the correlations of different features.

    Raises:
        TypeError: If there is only one row.

    Reference:
        Zbontar et al., Barlow Twins, ICML 2021, https://arxiv.org/abs/2103.03230

    Example:
        >>> x = jnp.array([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
        >>> barlow_twins_loss(x, -x)
        Array(8., dtype=float32)
    """
    _check_num_rows(a)

    def cost(c: Array, is_diagonal: Array) -> Array:
        off_diagonal = off_diagonal_weight * jnp.square(c)
        return jnp.where(is_diagonal, jnp.square(1 - c), off_diagonal)

    return jnp.sum(_sum_over_features(_standardize(a) / len(a), _standardize(b), cost))


def _standardize(x: Array) -> Array:
    """Each feature with mean 0 and standard deviation 1; a constant one is 0."""
    centered = x - jnp.mean(x, 0)[None]
    return safe_divide(centered, safe_sqrt(jnp.mean(jnp.square(centered), 0))[None])


def _sum_over_features(
    a: Array, b: Array, cost: Callable[[Array, Array], Array]
) -> Array:
    """Σⱼ cost(aᵢ·bⱼ, i = j) for each feature i, with aᵢ and bⱼ the columns."""
    features = jnp.arange(a.shape[1])

    def block_sums(rows: tuple) -> Array:
        a_t, index = rows
        return jnp.sum(cost(matmul(a_t, b), index[:, None] == features[None]), 1)

    return map_blocks(block_sums, (a.T, features), 2 * a.shape[1])


def _check_num_rows(a: Array) -> None:
    if len(a) < 2:
        raise_invalid(TypeError, "a", "have at least two rows", a)

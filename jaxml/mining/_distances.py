"""Distances and similarities of each row of x and each row of y, `[n m]`.

Rows are taken as given. Nothing larger than the result is held: what is no matrix
product is summed feature by feature.
"""

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from jaxml._core.matmul import (
    accumulate_features,
    matmul,
    pairwise_euclidean,
    pairwise_squared_euclidean,
)
from jaxml._core.public import public
from jaxml._core.safe import l2_normalize, safe_divide
from jaxml._core.types import Scalar


@public
def squared_euclidean(
    x: Float[Array, "n d"], y: Float[Array, "m d"]
) -> Float[Array, "n m"]:
    """The squared distances of rows, with all their digits where rows are close.

        dᵢⱼ = ‖xᵢ - yⱼ‖²

    Args:
        x: Rows.
        y: The rows they are compared with.

    Reference:
        Hastie, Tibshirani and Friedman, The elements of statistical learning, section
        13.3, Springer 2009, https://hastie.su.domains/ElemStatLearn

    Example:
        >>> squared_euclidean(jnp.zeros((1, 2)), jnp.array([[3.0, 4.0], [0.0, 1.0]]))
        Array([[25.,  1.]], dtype=float32)
    """
    return pairwise_squared_euclidean(x, y)


@public
def euclidean(x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
    """The distances of rows, with all their digits where rows are close.

        dᵢⱼ = ‖xᵢ - yⱼ‖

    Args:
        x: Rows.
        y: The rows they are compared with.

    Reference:
        Hastie, Tibshirani and Friedman, The elements of statistical learning, section
        13.3, Springer 2009, https://hastie.su.domains/ElemStatLearn

    Example:
        >>> euclidean(jnp.zeros((1, 2)), jnp.array([[3.0, 4.0], [0.0, 1.0]]))
        Array([[5., 1.]], dtype=float32)
    """
    return pairwise_euclidean(x, y)


@public
def lp(
    x: Float[Array, "n d"], y: Float[Array, "m d"], *, p: Scalar
) -> Float[Array, "n m"]:
    """The distances of rows in the p-norm: at p = 1 the sum of absolute differences.

        dᵢⱼ = (Σₖ |xᵢₖ - yⱼₖ|ᵖ)^(1/p)

    It does not overflow on the way. A feature in which two rows are equal gives them
    the derivatives 0, the first and the second.

    Args:
        x: Rows.
        y: The rows they are compared with.
        p: In [1, ∞); the larger, the more the largest difference decides.

    Reference:
        Aggarwal, Hinneburg and Keim, On the surprising behavior of distance metrics in
        high dimensional space, ICDT 2001, https://doi.org/10.1007/3-540-44503-X_27

    Example:
        >>> lp(jnp.zeros((1, 2)), jnp.array([[3.0, 4.0], [0.0, 1.0]]), p=1.0)
        Array([[7., 1.]], dtype=float32)
    """
    largest = lax.stop_gradient(accumulate_features(jnp.maximum, jnp.abs, x, y))

    def power(difference: Array) -> Array:
        share = safe_divide(jnp.abs(difference), largest)
        differs = share > 0
        return jnp.where(differs, jnp.where(differs, share, 1.0) ** p, 0.0)

    total = accumulate_features(jnp.add, power, x, y)
    return largest * jnp.where(largest > 0, total, 1.0) ** (1 / p)


@public
def cosine_similarity(
    x: Float[Array, "n d"], y: Float[Array, "m d"]
) -> Float[Array, "n m"]:
    """The cosines of the angles between rows, from -1 to 1.

        cᵢⱼ = xᵢ·yⱼ / (‖xᵢ‖ ‖yⱼ‖)

    A row shorter than 10⁻⁶ is divided by 10⁻⁶, which bounds the derivative: 0 has the
    cosine 0 with all others. As a distance it is 1 - c.

    Args:
        x: Rows of any length.
        y: The rows they are compared with.

    Reference:
        Salton and McGill, Introduction to modern information retrieval, 1983,
        https://archive.org/details/introductiontomo00salt

    Example:
        >>> cosine_similarity(jnp.array([[2.0, 0.0]]), jnp.array([[9.0, 0.0], [0, 5]]))
        Array([[1., 0.]], dtype=float32)
    """
    return matmul(l2_normalize(x), l2_normalize(y).T)


@public
def dot_product(x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
    """The dot products of rows: the cosine times both lengths.

        sᵢⱼ = xᵢ·yⱼ

    Args:
        x: Rows.
        y: The rows they are compared with.

    Reference:
        Salton and McGill, Introduction to modern information retrieval, 1983,
        https://archive.org/details/introductiontomo00salt

    Example:
        >>> dot_product(jnp.array([[2.0, 0.0]]), jnp.array([[1.0, 0.0], [0.0, 5.0]]))
        Array([[2., 0.]], dtype=float32)
    """
    return matmul(x, y.T)

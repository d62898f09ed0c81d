"""Distances and similarities of all pairs of embeddings, `[n m]`.

Embeddings are not normalized, except by the cosine. No intermediate array is larger
than the result: what is not a matrix product accumulates feature by feature, or is one
fused reduction.
"""

import math
from typing import Annotated

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from jaxml._core.blocks import GPU_BLOCK_ELEMENTS, map_blocks
from jaxml._core.masking import apply_mask
from jaxml._core.matmul import (
    matmul,
    pairwise_euclidean,
    pairwise_squared_euclidean,
    reduce_features,
    scan_features,
)
from jaxml._core.public import public
from jaxml._core.safe import clip_rounding_error, directions, safe_divide, safe_power
from jaxml._core.types import Range, Scalar


@public(upcast=False, keep_dtype=True)
def squared_euclidean(
    x: Float[Array, "n d"], y: Float[Array, "m d"]
) -> Float[Array, "n m"]:
    """The squared Euclidean distances, in full precision for close embeddings too.

        dᵢⱼ = ‖xᵢ - yⱼ‖²

    Args:
        x: The anchors.
        y: The references.

    Reference:
        Hastie, Tibshirani and Friedman, The elements of statistical learning, section
        13.3, Springer 2009, https://hastie.su.domains/ElemStatLearn

    Example:
        >>> squared_euclidean(jnp.zeros((1, 2)), jnp.array([[3.0, 4.0], [0.0, 1.0]]))
        Array([[25.,  1.]], dtype=float32)
    """
    return pairwise_squared_euclidean(x, y)


@public(upcast=False, keep_dtype=True)
def euclidean(x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
    """The Euclidean distances, in full precision for close embeddings too.

        dᵢⱼ = ‖xᵢ - yⱼ‖

    The squares are float32: distances above 10¹⁹ are ∞, and below 10⁻¹⁹ they are 0.
    `lp(x, y, p=2.0)` has no such limits and reads the embeddings twice.

    Args:
        x: The anchors.
        y: The references.

    Reference:
        Hastie, Tibshirani and Friedman, The elements of statistical learning, section
        13.3, Springer 2009, https://hastie.su.domains/ElemStatLearn

    Example:
        >>> euclidean(jnp.zeros((1, 2)), jnp.array([[3.0, 4.0], [0.0, 1.0]]))
        Array([[5., 1.]], dtype=float32)
    """
    return pairwise_euclidean(x, y)


@public(keep_dtype=True)
def lp(
    x: Float[Array, "n d"],
    y: Float[Array, "m d"],
    *,
    p: Annotated[Scalar, Range("be in [1, ∞)", lambda p: 1 <= p < math.inf)],
) -> Float[Array, "n m"]:
    """The distances in the p-norm. At p = 1 it is the sum of absolute differences.

        dᵢⱼ = (Σₖ |xᵢₖ - yⱼₖ|ᵖ)^(1/p)

    No power overflows. A feature in which two embeddings are equal has first and second
    derivative 0.

    Args:
        x: The anchors.
        y: The references.
        p: In [1, ∞). Large values give more weight to the largest difference.

    Reference:
        Aggarwal, Hinneburg and Keim, On the surprising behavior of distance metrics in
        high dimensional space, ICDT 2001, https://doi.org/10.1007/3-540-44503-X_27

    Example:
        >>> lp(jnp.zeros((1, 2)), jnp.array([[3.0, 4.0], [0.0, 1.0]]), p=1.0)
        Array([[7., 1.]], dtype=float32)
    """
    p = jnp.asarray(p)
    # the largest difference of a pair, so that no power overflows
    scale = reduce_features(jnp.maximum, jnp.abs, *lax.stop_gradient((x, y)))
    power_sum = lax.platform_dependent(
        x, y, scale, p, cpu=_scan_power_sum, default=_reduce_power_sum
    )
    return scale * safe_power(power_sum, 1 / p)


def _scan_power_sum(x: Array, y: Array, scale: Array, p: Array) -> Array:
    """Σₖ |(xᵢₖ - yⱼₖ) / scaleᵢⱼ|ᵖ, a few features at a time; the scale is constant."""

    def term(difference: Array) -> Array:
        ratio = safe_divide(jnp.abs(difference), scale)
        return apply_mask(safe_power(ratio, p), ratio > 0)  # |x| has derivative 1 at 0

    return scan_features(jnp.add, term, x, y)


def _reduce_power_sum(x: Array, y: Array, scale: Array, p: Array) -> Array:
    """`_scan_power_sum` as fused reductions, for a block of x at a time.

    Second derivatives hold the terms of a block.
    """

    def block_sums(rows: tuple[Array, Array]) -> Array:
        x, scale = rows
        return _power_sum(x, y, scale, p)

    rows = x, jnp.where(scale == 0, 1.0, scale)
    block = max(1, GPU_BLOCK_ELEMENTS // max(1, y.size))
    return map_blocks(block_sums, rows, y.size, block)


@jax.custom_jvp
def _power_sum(x: Array, y: Array, scale: Array, p: Array) -> Array:
    """Σₖ |(xᵢₖ - yⱼₖ) / scaleᵢⱼ|ᵖ over the features that differ."""
    ratio, differs = _ratio(x, y, scale)
    return jnp.sum(apply_mask(ratio**p, differs), -1)


@_power_sum.defjvp
def _power_sum_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    """One reduction for each tangent.

    A GPU would keep terms that two of them share: the barriers make them different.
    """
    (_, _, scale, p), (x_dot, y_dot, _, p_dot) = primals, tangents
    for_x = lax.optimization_barrier(primals)
    for_y = lax.optimization_barrier(for_x)
    for_p = lax.optimization_barrier(for_y)

    def difference_derivative(x: Array, y: Array, scale: Array, p: Array) -> Array:
        ratio, _ = _ratio(x, y, scale)
        return jnp.sign(x[:, None] - y[None]) * ratio ** (p - 1)

    @jax.checkpoint
    def x_term(x_dot: Array, *primals: Array) -> Array:
        return jnp.sum(difference_derivative(*primals) * x_dot[:, None], -1)

    @jax.checkpoint
    def y_term(y_dot: Array, *primals: Array) -> Array:
        return jnp.sum(difference_derivative(*primals) * y_dot[None], -1)

    @jax.checkpoint
    def p_derivative(x: Array, y: Array, scale: Array, p: Array) -> Array:
        ratio, _ = _ratio(x, y, scale)
        return jnp.sum(ratio**p * jnp.log(ratio), -1)

    difference_term = p / scale * (x_term(x_dot, *for_x) - y_term(y_dot, *for_y))
    return _power_sum(*primals), difference_term + p_dot * p_derivative(*for_p)


def _ratio(x: Array, y: Array, scale: Array) -> tuple[Array, Array]:
    """|xᵢₖ - yⱼₖ| / scaleᵢⱼ, with 1 instead of 0, and whether the features differ."""
    ratio = jnp.abs(x[:, None] - y[None]) / scale[..., None]
    return apply_mask(ratio, ratio > 0, 1.0), ratio > 0


@public(upcast=False, keep_dtype=True)
def cosine_similarity(
    x: Float[Array, "n d"], y: Float[Array, "m d"]
) -> Float[Array, "n m"]:
    """The cosines of the angles between embeddings, in [-1, 1].

        cᵢⱼ = xᵢ·yⱼ / (‖xᵢ‖ ‖yⱼ‖)

    A vector shorter than 10⁻⁶ is divided by 10⁻⁶, which bounds the derivative: the zero
    vector has cosine 0 with all others. 1 - c is the cosine distance.

    Args:
        x: The anchors, of any length.
        y: The references, of any length.

    Reference:
        Salton and McGill, Introduction to modern information retrieval, 1983,
        https://archive.org/details/introductiontomo00salt

    Example:
        >>> cosine_similarity(jnp.array([[2.0, 0.0]]), jnp.array([[9.0, 0.0], [0, 5]]))
        Array([[1., 0.]], dtype=float32)
    """
    x, x_scale = directions(x)
    y, y_scale = directions(y)
    cosine = x_scale[:, None] * y_scale[None] * matmul(x, y.T)
    return clip_rounding_error(cosine, -1.0, 1.0)


@public(upcast=False, keep_dtype=True)
def dot_product(x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
    """The dot products of embeddings: the cosine times both lengths.

        sᵢⱼ = xᵢ·yⱼ

    Args:
        x: The anchors.
        y: The references.

    Reference:
        Salton and McGill, Introduction to modern information retrieval, 1983,
        https://archive.org/details/introductiontomo00salt

    Example:
        >>> dot_product(jnp.array([[2.0, 0.0]]), jnp.array([[1.0, 0.0], [0.0, 5.0]]))
        Array([[2., 0.]], dtype=float32)
    """
    return matmul(x, y.T)

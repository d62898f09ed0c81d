"""Losses that decorrelate the features of two views of the same examples.

Row i of one view and row i of the other are a pair. The event is the whole batch, both
[n d], and the loss is a scalar. Pairs of features are compared for one block of
features at a time.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from jaxml._core.blocks import map_blocks, scan_blocks
from jaxml._core.collectives import num_shards, sum_shards
from jaxml._core.contract import raise_invalid
from jaxml._core.masking import apply_mask
from jaxml._core.matmul import matmul
from jaxml._core.public import public
from jaxml._core.safe import multiply_no_nan, safe_divide, safe_sqrt
from jaxml._core.types import AxisName, NonNegative


@public
def vicreg_loss(
    a: Float[Array, "n d"],
    b: Float[Array, "n d"],
    *,
    invariance_weight: NonNegative = 25.0,
    variance_weight: NonNegative = 25.0,
    covariance_weight: NonNegative = 1.0,
    axis_name: AxisName | None = None,
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
        axis_name: The mesh axes over which the pairs are sharded, in `jax.shard_map`.
            The statistics are those of all pairs; each device holds d x d covariances.

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
    _check_num_rows(a, axis_name)
    views = _center(a, axis_name), _center(b, axis_name)
    variance_term = sum(_variance_term(x, axis_name) for x in views)
    covariance_term = sum(_covariance_term(x, axis_name) for x in views)
    invariance_term = jnp.mean(_batch_mean(jnp.square(a - b), axis_name))
    return (
        multiply_no_nan(invariance_weight, invariance_term)
        + multiply_no_nan(variance_weight, variance_term)
        + multiply_no_nan(covariance_weight, covariance_term)
    )


def _batch_mean(x: Array, axis_name: AxisName | None) -> Array:
    """The mean of each feature over the rows of all devices."""
    return sum_shards(jnp.sum(x, 0), axis_name) / _num_rows(x, axis_name)


def _num_rows(x: Array, axis_name: AxisName | None) -> int:
    return len(x) * num_shards(axis_name)


def _center(x: Array, axis_name: AxisName | None) -> Array:
    return x - _batch_mean(x, axis_name)[None]


def _variance_term(centered: Array, axis_name: AxisName | None) -> Array:
    variance = sum_shards(jnp.sum(jnp.square(centered), 0), axis_name)
    variance /= _num_rows(centered, axis_name) - 1
    return jnp.mean(jax.nn.relu(1 - jnp.sqrt(variance + 1e-4)))


def _covariance_term(centered: Array, axis_name: AxisName | None) -> Array:
    if axis_name is not None:
        scaled = centered / (_num_rows(centered, axis_name) - 1)
        covariances = _all_pairs(scaled, centered, axis_name)
        squares = jnp.square(apply_mask(covariances, ~_diagonal(centered)))
        return jnp.mean(jnp.sum(squares, 1))
    # an accelerator would keep a copy of the features for each way it reads them
    features = lax.platform_dependent(
        centered.T, cpu=lambda x: x, default=lax.optimization_barrier
    )
    return _sum_of_squared_covariances(features) / len(features)


@jax.custom_jvp
def _sum_of_squared_covariances(x: Array) -> Array:
    """Σᵢ≠ⱼ cov(xᵢ, xⱼ)² of features xᵢ with mean 0, the rows: [d n]."""

    def block_sums(features: tuple) -> Array:
        return jnp.sum(jnp.square(_off_diagonal_covariances(features, x)), 1)

    return jnp.sum(map_blocks(block_sums, (x, jnp.arange(len(x))), 2 * len(x)))


@_sum_of_squared_covariances.defjvp
def _sum_of_squared_covariances_jvp(primals: tuple, tangents: tuple) -> tuple:
    """∂/∂xᵢ = 4 / (n - 1) Σⱼ cov(xᵢ, xⱼ) xⱼ, because cov(xᵢ, xⱼ) occurs twice."""
    (x,), (x_dot,) = primals, tangents

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def step(carry: None, features: tuple) -> tuple[None, tuple[Array, Array]]:
        covariances = _off_diagonal_covariances(features, x)
        gradient = 4 / (x.shape[1] - 1) * matmul(covariances, x)
        return carry, (jnp.sum(jnp.square(covariances), 1), gradient)

    features = x, jnp.arange(len(x))
    _, (sums, gradient) = scan_blocks(step, None, features, 2 * len(x))
    return jnp.sum(sums), jnp.sum(gradient * x_dot)


def _off_diagonal_covariances(features: tuple, x: Array) -> Array:
    """The covariances of a block of features and all features; 0 for a variance."""
    block, index = features
    covariances = matmul(block / (x.shape[1] - 1), x.T)
    return jnp.where(index[:, None] == jnp.arange(len(x))[None], 0, covariances)


@public
def barlow_twins_loss(
    a: Float[Array, "n d"],
    b: Float[Array, "n d"],
    *,
    off_diagonal_weight: NonNegative = 5e-3,
    axis_name: AxisName | None = None,
) -> Float[Array, ""]:
    """Distance of the cross-correlation matrix of two views from the identity.

        loss = Σᵢ (1 - Cᵢᵢ)² + λ Σᵢ≠ⱼ Cᵢⱼ²

    with Cᵢⱼ the correlation of feature i of a and feature j of b. A constant feature
    has correlation 0 with every feature.

    Args:
        a: Embeddings of one view, at least two.
        b: Embeddings of the other, in the same order.
        off_diagonal_weight: λ >= 0, for the correlations of different features.
        axis_name: The mesh axes over which the pairs are sharded, in `jax.shard_map`.
            The statistics are those of all pairs; each device holds d x d correlations.

    Raises:
        TypeError: If there is only one row.

    Reference:
        Zbontar et al., Barlow Twins, ICML 2021, https://arxiv.org/abs/2103.03230

    Example:
        >>> x = jnp.array([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
        >>> barlow_twins_loss(x, -x)
        Array(8., dtype=float32)
    """
    _check_num_rows(a, axis_name)

    def cost(c: Array, is_diagonal: Array) -> Array:
        off_diagonal = off_diagonal_weight * jnp.square(c)
        return jnp.where(is_diagonal, jnp.square(1 - c), off_diagonal)

    a, b = _standardize(a, axis_name), _standardize(b, axis_name)
    scaled = a / _num_rows(a, axis_name)
    if axis_name is not None:
        return jnp.sum(cost(_all_pairs(scaled, b, axis_name), _diagonal(a)))
    return jnp.sum(_sum_over_features(scaled, b, cost))


def _standardize(x: Array, axis_name: AxisName | None) -> Array:
    """Each feature with mean 0 and standard deviation 1; a constant one is 0."""
    centered = _center(x, axis_name)
    variance = _batch_mean(jnp.square(centered), axis_name)
    return safe_divide(centered, safe_sqrt(variance)[None])


def _all_pairs(a: Array, b: Array, axis_name: AxisName) -> Array:
    """aᵢ·bⱼ of all pairs of features, the columns: [d d]."""
    # XLA:GPU 0.10 drops the algorithm that `matmul` asks for here, but no precision
    precision = getattr(jax.config, "jax_default_matmul_precision", None) or "highest"
    with jax.default_matmul_precision(precision):
        return sum_shards(matmul(a.T, b), axis_name)


def _diagonal(x: Array) -> Array:
    """Whether two features are the same: [d d]."""
    return jnp.eye(x.shape[1], dtype=bool)


def _sum_over_features(
    a: Array, b: Array, cost: Callable[[Array, Array], Array]
) -> Array:
    """Σⱼ cost(aᵢ·bⱼ, i = j) for each feature i, with aᵢ and bⱼ the columns."""
    features = jnp.arange(a.shape[1])

    def block_sums(rows: tuple) -> Array:
        a_t, index = rows
        return jnp.sum(cost(matmul(a_t, b), index[:, None] == features[None]), 1)

    return map_blocks(block_sums, (a.T, features), 2 * a.shape[1])


def _check_num_rows(a: Array, axis_name: AxisName | None) -> None:
    if _num_rows(a, axis_name) < 2:
        raise_invalid(TypeError, "a", "have at least two rows", a)

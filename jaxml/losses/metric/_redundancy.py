"""Losses that decorrelate the features of two views of the same examples.

Row i of one view and row i of the other are a pair. The event is the whole batch, both
[n d], and the loss is a scalar. Pairs of features are compared for one block of
features at a time.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float

from jaxml._core.blocks import map_blocks, scan_blocks
from jaxml._core.collectives import num_shards, stack_shards, sum_shards, vary_together
from jaxml._core.contract import raise_invalid
from jaxml._core.masking import apply_mask
from jaxml._core.matmul import matmul
from jaxml._core.public import public
from jaxml._core.safe import multiply_no_nan, safe_divide, safe_sqrt
from jaxml._core.types import AxisName, NonNegative, PyTree


@public
def vicreg_loss(
    a: Float[Array, "n d"],
    b: Float[Array, "n d"],
    *,
    invariance_weight: NonNegative = 25.0,
    variance_weight: NonNegative = 25.0,
    covariance_weight: NonNegative = 1.0,
    where: Bool[Array, "n"] | None = None,
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
        where: The pairs that count. Of fewer than two, variances are 0.
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
    rows = _Rows.of(a, where, axis_name)
    a, b = rows.mask(a), rows.mask(b)
    invariance_term = _mean(rows.mean(jnp.square(a - b)))
    if axis_name is None:
        views = rows.center(a), rows.center(b)
        variance_terms = [_variance_term(rows.variances(x)) for x in views]
        covariance_terms = [_covariance_term(rows, x) for x in views]
    else:
        products = _sum_over_rows(_scatter_matrices, axis_name, where, a, b)
        covariances = [safe_divide(p, rows.num_free) for p in products]
        variance_terms = [_variance_term(jnp.diag(c)) for c in covariances]
        covariance_terms = [_mean_of_squares_off_diagonal(c) for c in covariances]
    return (
        multiply_no_nan(invariance_weight, invariance_term)
        + multiply_no_nan(variance_weight, sum(variance_terms))
        + multiply_no_nan(covariance_weight, sum(covariance_terms))
    )


class _Rows(NamedTuple):
    """The unmasked rows of all devices."""

    where: Array | None
    axis_name: AxisName | None
    count: Array

    @classmethod
    def of(cls, x: Array, where: Array | None, axis_name: AxisName | None) -> Self:
        if where is None:
            count = jnp.asarray(len(x) * num_shards(axis_name), x.dtype)
        else:
            count = sum_shards(jnp.sum(where, dtype=x.dtype), axis_name)
        return cls(where, axis_name, count)

    @property
    def num_free(self) -> Array:
        """n - 1, by which an unbiased variance divides."""
        return jnp.maximum(self.count - 1, 0)

    def mask(self, x: Array) -> Array:
        return apply_mask(x, None if self.where is None else self.where[:, None])

    def mean(self, x: Array) -> Array:
        """The mean of each feature of masked rows."""
        return safe_divide(sum_shards(jnp.sum(x, 0), self.axis_name), self.count)

    def variances(self, centered: Array) -> Array:
        return safe_divide(jnp.sum(jnp.square(centered), 0), self.num_free)

    def center(self, x: Array) -> Array:
        """x - mean x on one device, exactly 0 for a constant feature."""
        x = self.mask(x - self.origin(x))
        return self.mask(x - self.mean(x)[None])

    def exact_mean(self, x: Array) -> Array:
        """The mean of each feature of one device, exact for a constant feature."""
        origin = self.origin(x)
        return origin[0] + self.mean(self.mask(x - origin))

    def origin(self, x: Array) -> Array:
        """The first unmasked row, constant under differentiation."""
        first = 0 if self.where is None else jnp.argmax(self.where)
        return lax.stop_gradient(x[first][None])


def _mean(x: Array) -> Array:
    """The mean over features, 0 if there are none."""
    return jnp.sum(x) / max(len(x), 1)


def _variance_term(variances: Array) -> Array:
    return _mean(jax.nn.relu(1 - jnp.sqrt(variances + 1e-4)))


def _mean_of_squares_off_diagonal(covariances: Array) -> Array:
    is_variance = jnp.eye(len(covariances), dtype=bool)
    squares = jnp.square(apply_mask(covariances, ~is_variance))
    return _mean(jnp.sum(squares, 1))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _sum_over_rows(
    products: Callable[[Array, Array], PyTree],
    axis_name: AxisName,
    where: Array | None,
    a: Array,
    b: Array,
) -> PyTree:
    """Sums of products of centered features, over the rows of all devices.

    In one round of communication, the devices add up the products around their own
    means, and exchange these means (Chan, Golub and LeVeque, Algorithms for computing
    the sample variance, The American Statistician 37(3), 1983).
    """
    rows = _Rows.of(a, where, None)
    within = sum_shards(products(rows.center(a), rows.center(b)), axis_name)
    between = products(*_Devices.of(rows, (a, b), axis_name).weighted_deviations())
    return jax.tree.map(jnp.add, within, between)


@_sum_over_rows.defjvp
def _sum_over_rows_jvp(
    products: Callable[[Array, Array], PyTree],
    axis_name: AxisName,
    primals: tuple,
    tangents: tuple,
) -> tuple[PyTree, PyTree]:
    """Centered features sum to 0, so that the derivatives of their means cancel."""
    where, *views = primals
    rows = _Rows.of(views[0], where, None)
    means = _Devices.of(rows, views, axis_name).overall_means()
    centered = tuple(rows.mask(x - mean) for x, mean in zip(views, means))
    _, products_dot = jax.jvp(products, centered, tangents[1:])
    value = _sum_over_rows(products, axis_name, *primals)
    return value, sum_shards(products_dot, axis_name)


class _Devices(NamedTuple):
    """How many rows each device has, and the means of their features."""

    counts: Array
    """[devices]"""
    means: list[Array]
    """[devices d] of each view."""

    @classmethod
    def of(cls, rows: _Rows, views: Sequence[Array], axis_name: AxisName) -> Self:
        means = [rows.exact_mean(x) for x in views]
        return cls(*stack_shards((rows.count, means), axis_name))

    def overall_means(self) -> list[Array]:
        """The means over all devices, exact for constant features: [1 d]."""
        weights = safe_divide(self.counts, jnp.sum(self.counts))[:, None]

        def overall(means: Array) -> Array:
            origin = means[jnp.argmax(self.counts)][None]  # of a device with rows
            return origin + jnp.sum(weights * (means - origin), 0, keepdims=True)

        return list(map(overall, self.means))

    def weighted_deviations(self) -> list[Array]:
        """For each device, √n (mean - overall mean)."""
        pairs = zip(self.means, self.overall_means())
        return [jnp.sqrt(self.counts)[:, None] * (m - overall) for m, overall in pairs]


def _scatter_matrices(a: Array, b: Array) -> tuple[Array, Array]:
    return _scatter_matrix(a), _scatter_matrix(b)


@jax.custom_jvp
def _scatter_matrix(x: Array) -> Array:
    return _all_pairs(x, x)


@_scatter_matrix.defjvp
def _scatter_matrix_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    """One product, because the derivatives for both factors are transposes."""
    (x,), (x_dot,) = primals, tangents
    products = _all_pairs(x, x_dot)
    return _scatter_matrix(x), products + products.T


def _covariance_term(rows: _Rows, centered: Array) -> Array:
    scaled = safe_divide(centered, safe_sqrt(rows.num_free))
    # an accelerator would keep a copy of the features for each way it reads them
    features = lax.platform_dependent(
        scaled.T, cpu=lambda x: x, default=lax.optimization_barrier
    )
    return _sum_of_squared_products(features) / max(len(features), 1)


@jax.custom_jvp
def _sum_of_squared_products(x: Array) -> Array:
    """Σᵢ≠ⱼ (xᵢ·xⱼ)² of features xᵢ, the rows: [d n]."""

    def block_sums(features: tuple) -> Array:
        return jnp.sum(jnp.square(_off_diagonal_products(features, x)), 1)

    return jnp.sum(map_blocks(block_sums, (x, jnp.arange(len(x))), 2 * len(x)))


@_sum_of_squared_products.defjvp
def _sum_of_squared_products_jvp(primals: tuple, tangents: tuple) -> tuple:
    """∂/∂xᵢ = 4 Σⱼ (xᵢ·xⱼ) xⱼ, because xᵢ·xⱼ occurs twice."""
    (x,), (x_dot,) = primals, tangents

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def step(carry: None, features: tuple) -> tuple[None, tuple[Array, Array]]:
        products = _off_diagonal_products(features, x)
        gradient = 4 * matmul(products, x)
        return carry, (jnp.sum(jnp.square(products), 1), gradient)

    features = x, jnp.arange(len(x))
    _, (sums, gradient) = scan_blocks(step, None, features, 2 * len(x))
    return jnp.sum(sums), jnp.sum(gradient * x_dot)


def _off_diagonal_products(features: tuple, x: Array) -> Array:
    """The products of a block of features and all features; 0 with itself."""
    block, index = features
    products = matmul(block, x.T)
    return jnp.where(index[:, None] == jnp.arange(len(x))[None], 0, products)


@public
def barlow_twins_loss(
    a: Float[Array, "n d"],
    b: Float[Array, "n d"],
    *,
    off_diagonal_weight: NonNegative = 5e-3,
    where: Bool[Array, "n"] | None = None,
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
        where: The pairs that count.
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

    rows = _Rows.of(a, where, axis_name)
    a, b = rows.mask(a), rows.mask(b)
    if axis_name is None:
        a, b = _standardize(rows, a), _standardize(rows, b)
        a = safe_divide(a, rows.count)
        diagonal = jnp.sum(a * b, 0)
        off_diagonal = _sum_of_squared_cross_products(a.T, b.T)
    else:
        *squares, products = _sum_over_rows(_cross_products, axis_name, where, a, b)
        a_norm, b_norm = map(safe_sqrt, squares)
        correlations = safe_divide(products, a_norm[:, None] * b_norm[None])
        is_diagonal = jnp.eye(len(products), dtype=bool)
        diagonal = jnp.diag(correlations)
        off_diagonal = jnp.sum(jnp.square(apply_mask(correlations, ~is_diagonal)))
    return jnp.sum(jnp.square(1 - diagonal)) + multiply_no_nan(
        off_diagonal_weight, off_diagonal
    )


def _standardize(rows: _Rows, x: Array) -> Array:
    """Each feature with mean 0 and standard deviation 1; a constant one is 0."""
    centered = rows.center(x)
    deviation = safe_sqrt(rows.mean(jnp.square(centered)))
    return safe_divide(centered, deviation[None])


def _cross_products(a: Array, b: Array) -> tuple[Array, Array, Array]:
    return jnp.sum(jnp.square(a), 0), jnp.sum(jnp.square(b), 0), _all_pairs(a, b)


def _all_pairs(a: Array, b: Array) -> Array:
    """aᵢ·bⱼ of all pairs of features, the columns: [d d]."""
    # XLA:GPU 0.10 drops the algorithm that `matmul` asks for here, but no precision
    precision = getattr(jax.config, "jax_default_matmul_precision", None) or "highest"
    with jax.default_matmul_precision(precision):
        return matmul(a.T, b)


@jax.custom_jvp
def _sum_of_squared_cross_products(a: Array, b: Array) -> Array:
    """Σᵢ≠ⱼ (aᵢ·bⱼ)² of features aᵢ and bⱼ, the rows: [d n]."""

    def block_sums(features: tuple) -> Array:
        return jnp.sum(jnp.square(_off_diagonal_products(features, b)), 1)

    return jnp.sum(map_blocks(block_sums, (a, jnp.arange(len(a))), 2 * len(b)))


@_sum_of_squared_cross_products.defjvp
def _sum_of_squared_cross_products_jvp(primals: tuple, tangents: tuple) -> tuple:
    """∂/∂aᵢ = 2 Σⱼ (aᵢ·bⱼ) bⱼ and ∂/∂bⱼ = 2 Σᵢ (aᵢ·bⱼ) aᵢ, from the same products."""
    (a, b), (a_dot, b_dot) = primals, tangents

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def step(b_t_gradient: Array, features: tuple) -> tuple[Array, tuple[Array, Array]]:
        products = _off_diagonal_products(features, b)
        b_t_gradient += 2 * matmul(features[0].T, products)
        sums = jnp.sum(jnp.square(products), 1)
        return b_t_gradient, (sums, 2 * matmul(products, b))

    features = a, jnp.arange(len(a))
    init, _ = vary_together((jnp.zeros_like(b.T), a))
    b_t_gradient, (sums, a_gradient) = scan_blocks(step, init, features, 2 * len(b))
    return jnp.sum(sums), jnp.sum(a_gradient * a_dot) + jnp.sum(b_t_gradient * b_dot.T)


def _check_num_rows(a: Array, axis_name: AxisName | None) -> None:
    if len(a) * num_shards(axis_name) < 2:
        raise_invalid(TypeError, "a", "have at least two rows", a)

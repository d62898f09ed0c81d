"""Matrix products, and distances of all pairs of rows, in full precision.

By default a GPU rounds float32 factors to 10 bits (TensorFloat-32). Similarities that
are then divided by a small temperature cannot afford that.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxml._core.masking import apply_mask
from jaxml._core.safe import safe_divide, safe_sqrt
from jaxml._core.softmax import exp_terms, logsumexp
from jaxml._core.types import compute_dtype


def matmul(x: Array, y: Array) -> Array:
    """x y in full precision. Its derivatives inherit the precision."""
    return jnp.matmul(x, y, precision="highest")


def matmul_precision(dtype: Any) -> str | None:
    """The precision that factors of this dtype need; 16-bit products are exact."""
    return "highest" if compute_dtype(dtype) == dtype else None


def materialized_transpose(x: Array) -> Array:
    """xᵀ, computed before the product that uses it.

    XLA:CPU would otherwise fuse the transpose into the product, and the derivative
    would read its tile in the wrong order, at half the speed.
    """
    return lax.optimization_barrier(x.T)


@jax.custom_jvp
def logsumexp_matmul(rows: Array, columns: Array, mask: Array) -> Array:
    """log Σⱼ e^(rowᵢ · columnⱼ) of each row i, over the unmasked pairs.

    Its derivative multiplies with the unnormalized exponentials, so that the tile is
    read once and never scaled.
    """
    return logsumexp(matmul(rows, columns), 1, mask)


@logsumexp_matmul.defjvp
def logsumexp_matmul_jvp(primals: tuple, tangents: tuple) -> tuple:
    """Σⱼ e^sᵢⱼ ṡᵢⱼ / Σⱼ e^sᵢⱼ, where the products for ṡ take the sum over j."""
    (rows, columns, mask), (rows_dot, columns_dot, _) = primals, tangents
    s = apply_mask(matmul(rows, columns), mask, -jnp.inf)
    lse, exps = exp_terms(s, 1)
    from_rows = jnp.sum(rows_dot * matmul(exps, columns.T), 1)
    from_columns = jnp.sum(
        materialized_transpose(rows) * matmul(columns_dot, exps.T), 0
    )
    lse_dot = safe_divide(from_rows + from_columns, jnp.squeeze(lse.sum, 1))
    return jnp.squeeze(lse.log(), 1), lse_dot


def accumulate_features(
    combine: Callable[[Array, Array], Array],
    term: Callable[[Array], Array],
    x: Array,
    y: Array,
) -> Array:
    """Folds term(xᵢₖ - yⱼₖ) over the features k with `combine`, from 0, [n m].

    Two features per step halve the traffic of the [n m] accumulator; an odd number of
    features is padded by one whose difference is 0.
    """

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def feature_term(x_k: Array, y_k: Array) -> Array:
        return term(x_k[:, None] - y_k[None])

    def add_pair(total: Array, features: tuple) -> tuple[Array, None]:
        for x_k, y_k in zip(*features):
            total = combine(total, feature_term(x_k, y_k))
        return total, None

    def feature_pairs(rows: Array) -> tuple[Array, Array]:
        columns = jnp.pad(rows, ((0, 0), (0, rows.shape[1] % 2))).T
        return columns[::2], columns[1::2]

    init = jnp.zeros((len(x), len(y)), x.dtype)
    return lax.scan(add_pair, init, (feature_pairs(x), feature_pairs(y)))[0]


@jax.custom_jvp
def pairwise_squared_euclidean(x: Array, y: Array) -> Array:
    """‖xᵢ - yⱼ‖² of all pairs of rows, [n d], [m d] -> [n m].

    The sum of squared differences, because ‖x‖² + ‖y‖² - 2 x·y has no correct digit
    for rows whose distance is 1/1000 of their norm.
    """
    return accumulate_features(jnp.add, jnp.square, x, y)


@pairwise_squared_euclidean.defjvp
def pairwise_squared_euclidean_jvp(primals: tuple, tangents: tuple) -> tuple:
    """2 (x - y)·(ẋ - ẏ), as matrix products.

    They cancel for close rows: at 1/1000 of the norm, three digits of seven are lost.
    The factor -2 multiplies the rows, so that the derivative reads its tile in order.
    """
    (x, y), (x_dot, y_dot) = primals, tangents
    square_terms = 2 * jnp.sum(x * x_dot, 1)[:, None] + 2 * jnp.sum(y * y_dot, 1)[None]
    cross_terms = matmul(x_dot, -2 * y.T) + matmul(
        -2 * x, materialized_transpose(y_dot)
    )
    return pairwise_squared_euclidean(x, y), square_terms + cross_terms


def pairwise_euclidean(x: Array, y: Array) -> Array:
    """‖xᵢ - yⱼ‖ of all pairs of rows, with derivative 0 at distance 0."""
    return safe_sqrt(pairwise_squared_euclidean(x, y))


@jax.custom_vjp
def matmul_columns(weights: Array, h: Array) -> Array:
    """W h for small matrices, where h holds one example per column.

    XLA:CPU runs a batch of small products at a fraction of its speed when it fuses the
    transpose of an operand into the product. This rule and `columns_to_rows` transpose
    only small arrays, behind a barrier that keeps the transpose apart.
    """
    return weights @ h


def matmul_columns_fwd(weights: Array, h: Array) -> tuple[Array, tuple[Array, Array]]:
    return weights @ h, (weights, h)


def matmul_columns_bwd(
    residuals: tuple[Array, Array], ct: Array
) -> tuple[Array, Array]:
    weights, h = residuals
    return ct @ h.T, materialized_transpose(weights) @ ct


matmul_columns.defvjp(matmul_columns_fwd, matmul_columns_bwd)


def columns_to_rows(columns: Array) -> Array:
    """Turns one example per column into one example per row."""
    return lax.optimization_barrier(columns).T

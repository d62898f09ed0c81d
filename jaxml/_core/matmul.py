"""Products of matrices, with all the digits that their factors have.

By default a GPU rounds factors of float32 to 10 bits (TensorFloat-32). A distance or a
similarity that is divided by a temperature afterwards has no digits to give away.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxml._core.blocks import transposed
from jaxml._core.dtypes import widened
from jaxml._core.numerics import exponentials, keep, log_of_sum, logsumexp, safe_divide


def matmul(x: Array, y: Array) -> Array:
    """x y, and its derivatives alike: a product hands its precision down."""
    return jnp.matmul(x, y, precision="highest")


def precision_of(dtype: Any) -> str | None:
    """What a product of factors of this dtype needs: 16 bits go in as they are."""
    return "highest" if widened(dtype) == dtype else None


@jax.custom_jvp
def logsumexp_of_products(rows: Array, columns: Array, where: Array) -> Array:
    """log Σⱼ e^(rowᵢ·columnⱼ) of each row, over what is kept.

    Its derivative is made of products with the exponentials as they are: a tile of them
    is read, and never scaled.
    """
    return logsumexp(matmul(rows, columns), 1, where)


@logsumexp_of_products.defjvp
def _(primals: tuple, tangents: tuple) -> tuple:
    """Σⱼ e^sᵢⱼ dsᵢⱼ / Σⱼ e^sᵢⱼ, with the sum over j taken in the products of ds."""
    (rows, columns, where), (d_rows, d_columns, _) = primals, tangents
    s = keep(matmul(rows, columns), where, -jnp.inf)
    top, total, each = exponentials(s, 1)
    of_rows = jnp.sum(d_rows * matmul(each, columns.T), 1)
    of_columns = jnp.sum(transposed(rows) * matmul(d_columns, each.T), 0)
    change = safe_divide(of_rows + of_columns, jnp.squeeze(total, 1))
    return jnp.squeeze(log_of_sum(top, total), 1), change

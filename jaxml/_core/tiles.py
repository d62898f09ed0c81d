"""The engine that tiles what is quadratic: a block of rows against all columns at a time.

A tile is made, used and forgotten, and made once more for the derivative: of n rows
against m columns no more than a few tiles exist at any time, in either direction.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

TILE = 2**20  # numbers in a tile: four megabytes of float32


def over_rows(
    formula: Callable[[Any], Array], rows: Any, columns: int, block: int | None = None
) -> Array:
    """One value for each row, from a formula of a block of rows.

    `rows` is an array, or a tree of arrays, of which the first axis is cut. Any number
    of rows is welcome: the last block is as long as it is.
    """
    count = len(jax.tree.leaves(rows)[0])
    size = min(block or max(1, TILE // columns), count)
    whole = count - count % size
    formula = jax.checkpoint(formula, prevent_cse=False)

    def cut(x: Array) -> Array:
        return x[:whole].reshape(-1, size, *x.shape[1:])

    values = lax.map(formula, jax.tree.map(cut, rows)).reshape(whole)
    if whole == count:
        return values
    rest = formula(jax.tree.map(lambda x: x[whole:], rows))
    return jnp.concatenate([values, rest])

"""The engine of what is quadratic: a block of rows against all columns at a time.

A tile is made, used and forgotten, and made once more for the derivative: of n rows
against m columns no more than a few tiles exist at any time, in either direction.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

TILE = 2**21  # numbers that a block of rows takes: eight megabytes of float32


def over_rows(
    formula: Callable[[Any], Array], rows: Any, width: int, block: int | None = None
) -> Array:
    """One value for each row, from a formula of a block of rows.

    `rows` is an array, or a tree of arrays, of which the first axis is cut. `width` is
    how many numbers the formula makes of a row, about; it decides how many rows a block
    has, unless `block` says so.
    """
    formula = jax.checkpoint(formula, prevent_cse=False)

    def step(nothing: None, of_block: Any) -> tuple[None, Array]:
        return nothing, formula(of_block)

    return scan_rows(step, None, rows, width, block)[1]


def scan_rows(
    step: Callable[[Any, Any], tuple[Any, Any]],
    start: Any,
    rows: Any,
    width: int,
    block: int | None = None,
) -> tuple[Any, Any]:
    """`lax.scan` over blocks of rows: what is carried, and the values of each row.

    Any number of rows is welcome: the last block is as long as it is.
    """
    count = len(jax.tree.leaves(rows)[0])
    size = block or max(1, TILE // width)
    if size >= count:
        return step(start, rows)
    whole = count - count % size

    def cut(x: Array) -> Array:
        return x[:whole].reshape(-1, size, *x.shape[1:])

    carry, blocks = lax.scan(step, start, jax.tree.map(cut, rows))
    values = jax.tree.map(lambda x: x.reshape(whole, *x.shape[2:]), blocks)
    if whole == count:
        return carry, values
    carry, last = step(carry, jax.tree.map(lambda x: x[whole:], rows))
    return carry, jax.tree.map(lambda *parts: jnp.concatenate(parts), values, last)


def transposed(rows: Array) -> Array:
    """The rows as columns, for a product with a tile.

    As a step of its own: XLA would write it into the product, of which the derivative
    then reads the tile against its order, at half the speed.
    """
    return lax.optimization_barrier(rows.T)

"""The engine of what is quadratic: a block of rows against all columns at a time.

A tile is made, used and forgotten, and made once more for the derivative: of n rows
against m columns no more than a few tiles exist at any time, in either direction.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.dtypes import float0

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
    size = block or max(1, TILE // max(1, width))
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


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 3, 4))
def over_rows_once(
    formula: Callable[[Any, Any], Array],
    rows: Any,
    shared: Any,
    width: int,
    block: int | None = None,
) -> Array:
    """`over_rows`, of which a value and its derivative make each tile but once.

    The gradient of the values' sum is made with them. It serves all cotangents that are
    equal, as those of a mean; for others the tiles are made again. Forward mode works
    through the gradient alone. The formula closes over no array: what it takes besides
    a block of rows are floats, `shared`.
    """

    def step(nothing: None, of_block: Any) -> tuple[None, Array]:
        return nothing, formula(of_block, shared)

    return scan_rows(step, None, rows, width, block)[1]


def _gradient(
    formula: Callable,
    width: int,
    block: int | None,
    rows: Any,
    shared: Any,
    weights: Array | None = None,
) -> tuple[Array, Any, Any]:
    """The values, and the gradient of their weighted sum for `rows` and for `shared`.

    Without weights each is 1. An array of no floats has None for its gradient.
    """

    def step(total: Any, of_block: Any) -> tuple[Any, Any]:
        rows, weights = of_block
        values, pull = jax.vjp(formula, rows, shared)
        of_rows, more = pull(jnp.ones_like(values) if weights is None else weights)
        of_rows = jax.tree.map(lambda d: None if d.dtype == float0 else d, of_rows)
        return jax.tree.map(jnp.add, total, more), (values, of_rows)

    step = jax.checkpoint(step, prevent_cse=False)  # may be differentiated again
    nothing = jax.tree.map(jnp.zeros_like, shared)
    of_shared, (values, of_rows) = scan_rows(
        step, nothing, (rows, weights), width, block
    )
    return values, of_rows, of_shared


def _forward(
    formula: Callable, rows: Any, shared: Any, width: int, block: int | None
) -> tuple[Array, Any]:
    values, *of_sum = _gradient(formula, width, block, rows, shared)
    return values, (rows, shared, *of_sum)


def _backward(
    formula: Callable, width: int, block: int | None, kept: Any, cotangents: Array
) -> tuple[Any, Any]:
    rows, shared, of_rows, of_sum = kept
    gradient = functools.partial(_gradient, formula, width, block)
    each = jax.vmap(lambda weight, d: jax.tree.map(lambda d: weight * d, d))
    return (
        each(cotangents, of_rows),
        _of_shared(gradient, rows, shared, cotangents, of_sum),
    )


over_rows_once.defvjp(_forward, _backward)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _of_shared(
    gradient: Callable, rows: Any, shared: Any, weights: Array, of_sum: Any
) -> Any:
    """The weighted sum's gradient for `shared`: `of_sum`, times a weight of all."""
    return lax.cond(
        jnp.all(weights == weights[0]),
        lambda: jax.tree.map(lambda d: weights[0] * d, of_sum),
        lambda: gradient(rows, shared, weights)[-1],
    )


@_of_shared.defjvp
def _(gradient: Callable, primals: tuple, tangents: tuple) -> tuple[Any, Any]:
    """By the tiles: weights that are equal need not change alike."""
    *given, _ = primals
    *along, _ = tangents
    return jax.jvp(lambda *given: gradient(*given)[-1], tuple(given), tuple(along))


def transposed(rows: Array) -> Array:
    """The rows as columns, for a product with a tile.

    As a step of its own: XLA would write it into the product, of which the derivative
    then reads the tile against its order, at half the speed.
    """
    return lax.optimization_barrier(rows.T)

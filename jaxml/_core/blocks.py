"""The tiling engine: one block of rows at a time against all columns.

A tile is computed, used and dropped, and computed again in the backward pass, so that
only a few tiles of an [n m] array exist at any time, in either direction.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.dtypes import float0

from jaxml._core.collectives import num_row_shards
from jaxml._core.types import PyTree

CPU_BLOCK_ELEMENTS = 2**21
"""Numbers in a block of rows: 8 MiB of float32, which the caches of a CPU hold."""

TPU_BLOCK_ELEMENTS = 2**26
"""256 MiB, so that one of the four arrays of a block fits the 128 MiB of VMEM."""

GPU_BLOCK_ELEMENTS = 2**27
"""512 MiB: few launches, and products at full speed."""


def map_blocks(
    formula: Callable[[PyTree], PyTree],
    rows: PyTree,
    row_size: int,
    block: int | None = None,
    gpu_row_size: int | None = None,
) -> Any:
    """One value per row, or several, from a formula of a block of rows.

    Args:
        formula: A block of `rows` -> [b], the values of its rows, or a tree of them.
        rows: An array, or a tree of arrays, split along the first axis.
        row_size: About how many numbers the formula makes per row. It decides the
            number of rows per block, unless `block` gives it.
        block: Rows per block.
        gpu_row_size: `row_size` on a GPU, if it differs: what counts there is the
            memory, and on a CPU the cache.
    """
    formula = jax.checkpoint(formula, prevent_cse=False)

    def step(carry: None, block_rows: PyTree) -> tuple[None, PyTree]:
        return carry, formula(block_rows)

    return scan_blocks(step, None, rows, row_size, block, gpu_row_size)[1]


def scan_blocks(
    step: Callable[[PyTree, PyTree], tuple[PyTree, PyTree]],
    init: PyTree,
    rows: PyTree,
    row_size: int,
    block: int | None = None,
    gpu_row_size: int | None = None,
) -> tuple[PyTree, PyTree]:
    """`lax.scan` over blocks of rows: the last carry, and the values of all rows.

    The platform for which the program is compiled decides the size of a block, unless
    `block` gives it. On a mesh it is the size of each device's part of the block.
    """
    count = len(jax.tree.leaves(rows)[0])
    if count == 0:
        no_values = jax.eval_shape(step, init, rows)[1]
        return init, jax.tree.map(jnp.zeros_like, no_values)

    def scan(
        max_elements: int, row_size: int
    ) -> Callable[[PyTree, PyTree], tuple[PyTree, PyTree]]:
        at_most = max(1, num_row_shards() * max_elements // max(1, row_size))
        num_blocks = max(1, math.ceil(count / at_most))
        size = block or math.ceil(count / num_blocks)
        return functools.partial(_scan_blocks, step, min(size, count))

    scan_on_cpu = scan(CPU_BLOCK_ELEMENTS, row_size)
    if block or row_size * count <= CPU_BLOCK_ELEMENTS:
        return scan_on_cpu(init, rows)
    return lax.platform_dependent(
        init,
        rows,
        cpu=scan_on_cpu,
        tpu=scan(TPU_BLOCK_ELEMENTS, row_size),
        default=scan(GPU_BLOCK_ELEMENTS, gpu_row_size or row_size),
    )


def _scan_blocks(
    step: Callable[[PyTree, PyTree], tuple[PyTree, PyTree]],
    size: int,
    init: PyTree,
    rows: PyTree,
) -> tuple[PyTree, PyTree]:
    """`lax.scan` over blocks of `size` rows; the last block may be shorter.

    On a mesh, a block has every k-th row, so that each device has a part of it.
    """
    count = len(jax.tree.leaves(rows)[0])
    if size == count:
        return step(init, rows)
    whole = count - count % size
    strided = num_row_shards() > 1

    def split(x: Array) -> Array:
        x = x[:whole]
        if strided:
            return x.reshape(size, whole // size, *x.shape[1:]).swapaxes(0, 1)
        return x.reshape(whole // size, size, *x.shape[1:])

    def merge(blocks: Array) -> Array:
        blocks = blocks.swapaxes(0, 1) if strided else blocks
        return blocks.reshape(whole, *blocks.shape[2:])

    carry, blocks = lax.scan(step, init, jax.tree.map(split, rows))
    values = jax.tree.map(merge, blocks)
    if whole == count:
        return carry, values
    carry, last = step(carry, jax.tree.map(lambda x: x[whole:], rows))
    return carry, jax.tree.map(lambda *parts: jnp.concatenate(parts), values, last)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 3, 4))
def map_blocks_fused_grad(
    formula: Callable[[PyTree, PyTree], Array],
    rows: PyTree,
    shared: PyTree,
    row_size: int,
    block: int | None = None,
) -> Array:
    """Like `map_blocks`, but value and gradient share one pass over the tiles.

    The forward pass also computes G = ∂ Σᵢ valueᵢ. A mean hands every row the same
    cotangent c, and its gradient is c G without another pass. Unequal cotangents
    recompute the tiles. There is no forward-mode rule for the value; the gradient can
    be differentiated in either mode.

    Args:
        formula: (block of `rows`, `shared`) -> [b]. It closes over no array.
        rows: As in `map_blocks`.
        shared: A tree of float arrays that every block uses.
        row_size: As in `map_blocks`.
        block: As in `map_blocks`.
    """

    def step(carry: None, block_rows: PyTree) -> tuple[None, Array]:
        return carry, formula(block_rows, shared)

    return scan_blocks(step, None, rows, row_size, block)[1]


def _values_and_gradient(
    formula: Callable,
    row_size: int,
    block: int | None,
    rows: PyTree,
    shared: PyTree,
    weights: Array | None = None,
) -> tuple[Array, PyTree, PyTree]:
    """The values, and the gradient of Σᵢ weightᵢ valueᵢ for `rows` and for `shared`.

    All weights are 1 by default. An array that is not float has None as its gradient.
    """

    def step(shared_grad: PyTree, block_inputs: tuple) -> tuple[PyTree, tuple]:
        block_rows, block_weights = block_inputs
        values, vjp = jax.vjp(formula, block_rows, shared)
        cotangent = jnp.ones_like(values) if block_weights is None else block_weights
        rows_grad, block_shared_grad = vjp(cotangent)
        rows_grad = jax.tree.map(lambda g: None if g.dtype == float0 else g, rows_grad)
        shared_grad = jax.tree.map(jnp.add, shared_grad, block_shared_grad)
        return shared_grad, (values, rows_grad)

    step = jax.checkpoint(step, prevent_cse=False)  # for second derivatives
    init = jax.tree.map(jnp.zeros_like, shared)
    shared_grad, (values, rows_grad) = scan_blocks(
        step, init, (rows, weights), row_size, block
    )
    return values, rows_grad, shared_grad


def map_blocks_fused_grad_fwd(
    formula: Callable, rows: PyTree, shared: PyTree, row_size: int, block: int | None
) -> tuple[Array, tuple]:
    values, rows_grad, shared_grad = _values_and_gradient(
        formula, row_size, block, rows, shared
    )
    return values, (rows, shared, rows_grad, shared_grad)


def map_blocks_fused_grad_bwd(
    formula: Callable, row_size: int, block: int | None, residuals: tuple, ct: Array
) -> tuple[PyTree, PyTree]:
    rows, shared, rows_grad, shared_grad = residuals
    gradient = functools.partial(_values_and_gradient, formula, row_size, block)

    def scale_rows(g: Array) -> Array:
        return jax.vmap(lambda c, row: (c * row.astype(c.dtype)).astype(row.dtype))(
            ct, g
        )

    return (
        jax.tree.map(scale_rows, rows_grad),
        _shared_grad(gradient, rows, shared, ct, shared_grad),
    )


map_blocks_fused_grad.defvjp(map_blocks_fused_grad_fwd, map_blocks_fused_grad_bwd)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _shared_grad(
    gradient: Callable, rows: PyTree, shared: PyTree, ct: Array, sum_grad: PyTree
) -> PyTree:
    """The gradient for `shared`: c · `sum_grad` if all cotangents are c."""
    first = jnp.sum(ct[:1])  # 0 without rows
    return lax.cond(
        jnp.all(ct == first),
        lambda: jax.tree.map(lambda g: first * g, sum_grad),
        lambda: gradient(rows, shared, ct)[-1],
    )


@_shared_grad.defjvp
def _shared_grad_jvp(gradient: Callable, primals: tuple, tangents: tuple) -> tuple:
    """Differentiates the tiled form: equal cotangents need not have equal tangents."""
    *inputs, _ = primals
    *input_tangents, _ = tangents
    return jax.jvp(
        lambda *inputs: gradient(*inputs)[-1], tuple(inputs), tuple(input_tangents)
    )


class Tile(NamedTuple):
    """The i-th tile of an axis. The last tile may overlap the one before it."""

    start: Array
    index: Array
    is_new: Array
    """False where the tile before has the same entry."""

    def slice(self, x: Array, axis: int = 0) -> Array:
        return lax.dynamic_slice_in_dim(x, self.start, len(self.index), axis)

    def update(self, x: Array, values: Array, axis: int = 0) -> Array:
        """x with this tile replaced by `values`."""
        return lax.dynamic_update_slice_in_dim(x, values, self.start, axis)


def tiles(length: int, size: int) -> tuple[int, Callable[[Array], Tile]]:
    """The number of tiles of an axis, and a function that gives the i-th."""
    size = min(size, length)
    count = -(-length // max(size, 1))

    def tile(i: Array) -> Tile:
        i = jnp.asarray(i, jnp.int32)
        start = jnp.minimum(i * size, length - size)
        index = start + jnp.arange(size, dtype=jnp.int32)
        # if no tiles overlap it is a constant, and XLA removes the masking
        is_new = index >= i * size if count * size > length else jnp.ones(size, bool)
        return Tile(start, index, is_new)

    return count, tile

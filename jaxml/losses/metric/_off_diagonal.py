"""Log-sum-exps of the similarities of all pairs but the matching ones.

The rows a are those of one device. The rows b are given, or travel around the ring of
devices, one shard after the other. No array of all pairs is held, in the derivative
either: it computes the similarities again, on a second way around.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxml._core.blocks import scan_blocks
from jaxml._core.collectives import fold_ring
from jaxml._core.matmul import cotangent_dtype, matmul
from jaxml._core.safe import zero_if_inf
from jaxml._core.softmax import LogSumExp
from jaxml._core.types import AxisName
from jaxml.losses.metric._per_anchor import zero_unused


def _fold_off_diagonal_lse(
    block: int | None,
    axis_name: AxisName | None,
    has_columns: bool,
    a: Array,
    b: Array,
    scale: Array,
    index: Array,
    where: Array | None,
) -> tuple[Array, Array | None]:
    """log Σⱼ e^sᵢⱼ of each row i and log Σᵢ e^sᵢⱼ of each column j, over indexᵢ ≠ j.

    Args:
        block: The rows of a per tile.
        axis_name: The mesh axes that form the ring, None for b as given.
        has_columns: Whether there is a result for each column.
        a: [n d], in the dtype of the products.
        b: [m d], in float32 or wider, whose product with a is rounded to that of a.
        scale: s = scale · a·b.
        index: The index of each row of a among the rows of b of all devices.
        where: The pairs that take part, with a column for each row of all devices.
    """

    def step(
        row_sums: LogSumExp, col_sums: LogSumExp | None, b: Array, first: Array | int
    ) -> tuple[LogSumExp, LogSumExp | None]:
        used_a, b, mask = shard_pairs(a, b, where, first)
        add_block = functools.partial(_add_block, b, scale)
        rows = used_a, index - first, mask, row_sums
        col_sums, row_sums = scan_blocks(add_block, col_sums, rows, 4 * len(b), block)
        return row_sums, col_sums

    col_sums = _empty_sums(b, b.dtype) if has_columns else None
    row_sums, col_sums = fold_ring(
        step, _empty_sums(a, b.dtype), col_sums, b.astype(a.dtype), axis_name
    )
    return row_sums.log(), None if col_sums is None else col_sums.log()


def _add_block(
    b: Array, scale: Array, col_sums: LogSumExp | None, block_rows: tuple
) -> tuple[LogSumExp | None, LogSumExp]:
    a, index, mask, row_sums = block_rows
    s = _off_diagonal_logits(a, b, scale, index, mask)
    col_sums = None if col_sums is None else col_sums.update(s, 0)
    return col_sums, row_sums.update(s, 1)


def _empty_sums(rows: Array, dtype: Any) -> LogSumExp:
    """One sum per row."""
    first = rows[:, 0] if rows.shape[1] else jnp.zeros_like(rows, shape=len(rows))
    return LogSumExp.empty(first.astype(dtype))


def shard_pairs(
    a: Array, b: Array, where: Array | None, first: Array | int
) -> tuple[Array, Array, Array | None]:
    """The mask of the pairs with a shard, and the rows, 0 where they are in no pair."""
    if where is None:
        return a, b, None
    mask = lax.dynamic_slice_in_dim(where, first, len(b), 1)
    return *zero_unused(a, b, mask), mask


def _off_diagonal_logits(
    a: Array, b: Array, scale: Array, index: Array, mask: Array | None
) -> Array:
    """s of a block of rows, -∞ on the diagonal and where the mask is False."""
    is_pair = index[:, None] != jnp.arange(len(b), dtype=index.dtype)[None]
    is_pair = is_pair if mask is None else is_pair & mask
    return jnp.where(is_pair, scale * matmul(a, b.T), -jnp.inf)


def _off_diagonal_lse_fwd(
    block: int | None, axis_name: AxisName | None, has_columns: bool, *inputs: Any
) -> tuple[tuple, tuple]:
    # the fold can be differentiated again; a function with a VJP rule has no JVP
    lse = _fold_off_diagonal_lse(block, axis_name, has_columns, *inputs)
    return lse, (inputs, lse)


def _off_diagonal_lse_bwd(
    block: int | None,
    axis_name: AxisName | None,
    _: bool,
    residuals: tuple,
    cts: tuple,
) -> tuple:
    (a, b, scale, index, where), (row_lse, col_lse) = residuals
    row_ct, col_ct = cts

    def step(
        row_cts: tuple | None, b_t_ct: Array, shard: tuple, first: Array | int
    ) -> tuple[tuple, Array]:
        b, *columns = shard
        used_a, b, mask = shard_pairs(a, b, where, first)
        block_cts = functools.partial(_block_cts, b, scale, *columns)
        rows = used_a, index - first, mask, row_lse, row_ct
        b_t_ct, new_cts = scan_blocks(block_cts, b_t_ct, rows, 4 * len(b), block)
        if row_cts is None:
            return new_cts, b_t_ct
        return jax.tree.map(jnp.add, row_cts, new_cts), b_t_ct

    zeros = jnp.zeros_like(a, b.dtype), jnp.zeros_like(row_lse)
    (a_ct, row_scale_ct), b_t_ct = fold_ring(
        step,
        zeros if axis_name else None,  # a sum would need another [n d] array
        jnp.zeros_like(b.T),
        (b.astype(a.dtype), col_lse, col_ct),
        axis_name,
    )
    return a_ct.astype(a.dtype), scale * b_t_ct.T, jnp.sum(row_scale_ct), None, None


def _block_cts(
    b: Array,
    scale: Array,
    col_lse: Array | None,
    col_ct: Array | None,
    b_t_ct: Array,
    block_rows: tuple,
) -> tuple[Array, tuple[Array, Array]]:
    """Recomputes s of a block of rows, whose cotangents are, for i ≠ j,

    row_ctᵢ e^(sᵢⱼ - row_lseᵢ) + col_ctⱼ e^(sᵢⱼ - col_lseⱼ)
    """
    a, index, mask, row_lse, row_ct = block_rows
    s = _off_diagonal_logits(a, b, scale, index, mask)
    s_ct = row_ct[:, None] * jnp.exp(s - zero_if_inf(row_lse)[:, None])
    if col_lse is not None and col_ct is not None:
        s_ct += col_ct[None] * jnp.exp(s - zero_if_inf(col_lse)[None])
    s_ct = s_ct.astype(cotangent_dtype(a.dtype))
    a_ct = matmul(s_ct, b.astype(s_ct.dtype))
    b_t_ct += matmul(a.astype(s_ct.dtype).T, s_ct)
    return b_t_ct, (scale * a_ct, jnp.sum(a.astype(a_ct.dtype) * a_ct, 1))


off_diagonal_lse = jax.custom_vjp(_fold_off_diagonal_lse, nondiff_argnums=(0, 1, 2))
off_diagonal_lse.defvjp(_off_diagonal_lse_fwd, _off_diagonal_lse_bwd)

"""The head and its loss in one: cross entropy of a linear layer, without its logits.

The logits are made a tile at a time, folded into three numbers a row, and made again in
the backward pass; no more than a tile of them exists at any time. The rows, the weights
and two numbers a row are all that is kept in between.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float, Integer

from jaxml._core.matmul import matmul_precision
from jaxml._core.public import public
from jaxml._core.safe import multiply_no_nan
from jaxml._core.softmax import LogSumExp
from jaxml._core.special.logistic import sech_squared, softplus, tanh
from jaxml._core.types import Count, Scalar, compute_dtype, result_dtype
from jaxml.losses._labels import label_index, nan_if_invalid

TILE = 512  # rows and classes of a tile: one of float32 is a megabyte


@public(upcast=False)
def linear_cross_entropy(
    x: Float[Array, "*batch d"],
    w: Float[Array, "d classes"],
    labels: Integer[Array, "*batch"],
    *,
    bias: Float[Array, "classes"] | None = None,
    label_smoothing: Scalar = 0.0,
    z_loss: Scalar = 0.0,
    softcap: Scalar | None = None,
    block: Count | None = None,
) -> Float[Array, "*batch"]:
    """The cross entropy of x W + b, of which the logits are never held.

        loss = (1 - ε) s[label] + ε/C Σⱼ sⱼ + ζ lse²    with s = lse - z
        z = c tanh((x W + b) / c),    lse = log Σⱼ exp zⱼ

    Tiles are made in float32, or in float64 where x or W is.

    Args:
        x: The rows that enter the last layer.
        w: Its weights.
        labels: The true classes; one that is no class gives NaN for its row.
        bias: b; none by default.
        label_smoothing: ε in [0, 1], the share of the target spread over all classes.
        z_loss: ζ >= 0, which draws the logits' scale lse towards 0.
        softcap: c > 0, beyond which no logit goes; none by default.
        block: The rows, and the classes, of a tile; 512 by default.

    Reference:
        Wijmans et al., Cut your losses in large-vocabulary language models, ICLR 2025,
        https://arxiv.org/abs/2411.09009

    Example:
        >>> linear_cross_entropy(jnp.ones((2, 3)), jnp.zeros((3, 4)), jnp.array([1, 9]))
        Array([1.3862944,       nan], dtype=float32)
    """
    rows = x.reshape(-1, x.shape[-1])
    own = label_index(labels.reshape(-1), w.shape[1])
    wide = compute_dtype(x.dtype, w.dtype)
    bias = jnp.zeros(w.shape[1], wide) if bias is None else bias.astype(wide)
    cap = None if softcap is None else jnp.asarray(softcap, wide)
    surprise, lse, mean = _surprise(block or TILE, rows, w, bias, own, cap)
    label_smoothing, z_loss = (
        jnp.asarray(label_smoothing, wide),
        jnp.asarray(z_loss, wide),
    )
    evenly = multiply_no_nan(label_smoothing, lse - mean)
    loss = (
        multiply_no_nan(1 - label_smoothing, surprise)
        + evenly
        + multiply_no_nan(z_loss, lse**2)
    )
    loss = nan_if_invalid(loss, own)
    return loss.reshape(labels.shape).astype(result_dtype(x.dtype, w.dtype))


class _Span(NamedTuple):
    """The i-th tile of an axis; the last one reaches back, over what is not new."""

    start: Array
    index: Array
    new: Array

    def of(self, array: Array, axis: int = 0) -> Array:
        return lax.dynamic_slice_in_dim(array, self.start, len(self.index), axis)


def _spans(count: int, block: int) -> tuple[int, Callable[[Array], _Span]]:
    """How many tiles an axis has, and the i-th of them."""
    size = min(block, count)

    def span(i: Array) -> _Span:
        i = jnp.asarray(i, jnp.int32)
        start = jnp.minimum(i * size, count - size)
        index = start + jnp.arange(size, dtype=jnp.int32)
        return _Span(start, index, index >= i * size)

    return -(-count // size), span


def _logits(
    x: Array, w: Array, bias: Array, softcap: Array | None
) -> tuple[Array, Array, Array]:
    """z, with its derivatives for what enters the cap and for the cap."""
    shared = result_dtype(x.dtype, w.dtype)
    x, w = x.astype(shared), w.astype(shared)
    precision = matmul_precision(shared)
    z = jnp.matmul(x, w, precision=precision, preferred_element_type=bias.dtype)
    z = z + bias[None]
    if softcap is None:
        return z, jnp.ones_like(z), jnp.zeros_like(z)
    within = z / softcap
    slope = sech_squared(within)
    return softcap * tanh(within), slope, tanh(within) - within * slope


def _fold(
    block: int, x: Array, w: Array, bias: Array, labels: Array, softcap: Array | None
) -> tuple[Array, Array, Array]:
    """Of each row: lse - z[label], lse, and the mean of z."""
    (count, _), classes = x.shape, w.shape[1]
    (row_tiles, row_span), (tiles, span) = _spans(count, block), _spans(classes, block)

    def fold_rows(i: Array, found: Array) -> Array:
        rows = row_span(i)
        x_tile, y = rows.of(x), rows.of(labels)[:, None]

        def fold(j: Array, carry: tuple) -> tuple:
            others, own, total = carry
            columns = span(j)
            z, *_ = _logits(x_tile, columns.of(w, 1), columns.of(bias), softcap)
            mine, new = columns.index[None] == y, columns.new[None]
            rest = jnp.where(new & ~mine, z, -jnp.inf)
            others = others.update(rest, 1)
            own = own + jnp.sum(jnp.where(new & mine, z, 0.0), 1)
            return others, own, total + jnp.sum(jnp.where(new, z, 0.0), 1)

        zeros = jnp.zeros(len(x_tile), bias.dtype)
        start = LogSumExp.empty(zeros), zeros, zeros
        others, own, total = lax.fori_loop(0, tiles, fold, start)
        rivals = others.log()
        of_rows = softplus(rivals - own), jnp.logaddexp(rivals, own), total / classes
        return lax.dynamic_update_slice_in_dim(found, jnp.stack(of_rows), rows.start, 1)

    found = jnp.zeros((3, count), bias.dtype)
    surprise, lse, mean = lax.fori_loop(0, row_tiles, fold_rows, found)
    return surprise, lse, mean


def _forward(block: int, *arguments: Any) -> tuple:
    surprise, lse, mean = _fold(block, *arguments)  # may be differentiated again
    return (surprise, lse, mean), (*arguments, surprise, lse)


def _backward(block: int, kept: tuple, cotangents: tuple) -> tuple:
    """The tiles once more: what the logits hand down to x, w, bias and softcap."""
    x, w, bias, labels, softcap, surprise, lse = kept
    for_surprise, for_lse, for_mean = cotangents
    (count, _), classes = x.shape, w.shape[1]
    (row_tiles, row_span), (tiles, span) = _spans(count, block), _spans(classes, block)
    # what a row hands to its label's logit: p - 1, with its digits where p is near 1
    for_own = for_surprise * jnp.expm1(-surprise) + for_lse * jnp.exp(-surprise)
    of_rows = jnp.stack([lse, for_surprise + for_lse, for_own, for_mean / classes], 1)
    precision = matmul_precision(result_dtype(x.dtype, w.dtype))
    matmul = functools.partial(jnp.matmul, precision=precision)

    def fold_classes(j: Array, carry: tuple) -> tuple:
        dx, dw, db, dc = carry
        columns = span(j)
        w_tile, bias_tile = columns.of(w, 1), columns.of(bias)

        def fold(i: Array, carry: tuple) -> tuple:
            dx, dw_tile, db_tile, dc = carry
            rows = row_span(i)
            x_tile, mine = rows.of(x), rows.of(labels)[:, None] == columns.index[None]
            lse, for_all, for_own, for_each = jnp.split(rows.of(of_rows), 4, 1)
            z, slope, for_cap = _logits(x_tile, w_tile, bias_tile, softcap)
            dz = jnp.where(mine, for_own, for_all * jnp.exp(z - lse)) + for_each
            dz = jnp.where(rows.new[:, None] & columns.new[None], dz, 0.0)
            dc, dz = dc + jnp.sum(dz * for_cap), dz * slope
            dx_tile = rows.of(dx) + matmul(dz, w_tile.T.astype(dz.dtype))
            dx = lax.dynamic_update_slice_in_dim(dx, dx_tile, rows.start, 0)
            return (
                dx,
                dw_tile + matmul(x_tile.T.astype(dz.dtype), dz),
                db_tile + jnp.sum(dz, 0),
                dc,
            )

        zeros = jnp.zeros(w_tile.shape, bias.dtype), jnp.zeros_like(bias_tile)
        dx, dw_tile, db_tile, dc = lax.fori_loop(0, row_tiles, fold, (dx, *zeros, dc))
        dw_tile = columns.of(dw, 1) + dw_tile.astype(dw.dtype)
        dw = lax.dynamic_update_slice_in_dim(dw, dw_tile, columns.start, 1)
        db_tile = columns.of(db) + db_tile
        return (
            dx,
            dw,
            lax.dynamic_update_slice_in_dim(db, db_tile, columns.start, 0),
            dc,
        )

    start = jnp.zeros(x.shape, bias.dtype), jnp.zeros_like(w), jnp.zeros_like(bias)
    dc = jnp.zeros((), bias.dtype)
    dx, dw, db, dc = lax.fori_loop(0, tiles, fold_classes, (*start, dc))
    return dx.astype(x.dtype), dw, db, None, None if softcap is None else dc


_surprise = jax.custom_vjp(_fold, nondiff_argnums=(0,))
_surprise.defvjp(_forward, _backward)

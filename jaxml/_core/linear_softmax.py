"""The softmax of a linear layer, without materializing its logits.

Three numbers per row are all that a softmax loss needs of the logits: the one of the
label, the log-sum-exp of the others, and their mean. They are folded from tiles of
logits, which are computed again in the backward pass. Only one tile exists at any time.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxml._core.blocks import Tile, tiles
from jaxml._core.collectives import (
    may_shard_classes,
    num_shards,
    sum_shards,
    vary_together,
)
from jaxml._core.matmul import cotangent_dtype, factor_dtype, matmul
from jaxml._core.safe import safe_divide
from jaxml._core.softmax import LogSumExp, logsumexp_shards
from jaxml._core.special.logistic import tanh
from jaxml._core.types import AxisName, PyTree, compute_dtype

CPU_TILE = 512
"""Rows and classes of a tile on a CPU: 1 MiB of float32."""

ACCELERATOR_TILE_ELEMENTS = 42 * 2**20
"""Logits of a tile on a GPU or TPU: 168 MiB of float32."""

MIN_TILE_CLASSES = 1024
VECTOR_CLASSES = 128
"""The classes of a tile are a multiple of this, for the matrix units."""

SEGMENTS = 64
"""A tile has classes of each of (up to) so many equal segments of all classes. If the
classes are sharded, each device then has a part of every tile."""


class Rows(NamedTuple):
    """The inputs of the layer; its arrays have the rows first."""

    x: Array
    """[n d]. Products of 16-bit inputs run in 16 bits."""
    scale: Array | None = None
    """r, [n]; float32 or wider, like everything but x and w."""


class Classes(NamedTuple):
    """The weights of the layer; its arrays have the classes last."""

    w: Array
    """[d classes]"""
    scale: Array | None = None
    """k, [classes]"""
    bias: Array | None = None
    """b, [classes]"""


class LogitSums(NamedTuple):
    """What a row's loss needs of its logits z, each [n]."""

    label_logit: Array
    """0 for a label of no class."""
    other_lse: Array
    """log Σ eᶻ over all classes but the label; -∞ if there is none."""
    mean: Array


def logit_sums(
    rows: Rows,
    classes: Classes,
    index: Array,
    softcap: Array | None = None,
    block: int | None = None,
    axis_name: AxisName | None = None,
) -> LogitSums:
    """The sums of zᵢⱼ = c tanh(aᵢⱼ / c), with aᵢⱼ = rᵢ kⱼ xᵢ·wⱼ + bⱼ.

    There is no forward-mode rule for them; their gradient has both modes.

    Args:
        rows: x and r.
        classes: w, k and b.
        index: The label of each row, int32; -1 for none, or if another device has it.
        softcap: c; z = a by default.
        block: The rows, and the classes, of a tile. By default the platform decides.
        axis_name: The mesh axes over which the classes are sharded.
    """
    if not index.size:
        empty = jnp.zeros_like(index, compute_dtype(rows.x.dtype, classes.w.dtype))
        return LogitSums(empty, empty, empty)
    sums = _logit_sums(block, *vary_together((rows, classes, index, softcap)))
    label_logit, mean = sum_shards((sums.label_logit, sums.mean), axis_name)
    other_lse = logsumexp_shards(sums.other_lse, axis_name)
    return LogitSums(label_logit, other_lse, mean / num_shards(axis_name))


def _logits(
    rows: Rows, classes: Classes, softcap: Array | None, products: Array
) -> Array:
    a = products
    if rows.scale is not None:
        a = rows.scale[:, None] * a
    if classes.scale is not None:
        a = classes.scale[None] * a
    if classes.bias is not None:
        a = a + classes.bias[None]
    return a if softcap is None else softcap * tanh(a / softcap)


def _for_platform(
    function: Callable, block: int | None, rows: Rows, classes: Classes, *args: Any
) -> Any:
    """function(tiling, rows, classes, *args), with the tiling of the platform.

    On an accelerator a tile has all rows, so that a mesh divides the work whichever
    axis is sharded.
    """
    args = rows, classes, *args
    if block:
        return function(Tiling(block, block), *args)
    num_rows, num_classes = len(rows.x), classes.w.shape[1]
    at_most = max(MIN_TILE_CLASSES, ACCELERATOR_TILE_ELEMENTS // max(1, num_rows))
    num_tiles = max(1, math.ceil(num_classes / at_most))
    num_vectors = math.ceil(num_classes / num_tiles / VECTOR_CLASSES)
    tile_classes = max(1, num_vectors) * VECTOR_CLASSES
    segments = math.gcd(num_classes, SEGMENTS)
    segmented = Tiling(num_rows, tile_classes, segments)
    # a TPU copies w to divide it into segments, so it does if classes may be sharded
    on_tpu = segmented if may_shard_classes() else Tiling(num_rows, tile_classes)
    return lax.platform_dependent(
        *args,
        cpu=functools.partial(function, Tiling(CPU_TILE, CPU_TILE)),
        tpu=functools.partial(function, on_tpu),
        default=functools.partial(function, segmented),
    )


class Tiling(NamedTuple):
    """The rows and the classes of a tile."""

    rows: int
    classes: int
    segments: int = 1
    """The classes are so many segments, and a tile has as many of each."""

    def row_tiles(self, rows: Rows) -> tuple[int, Callable[[Array], Tile]]:
        return tiles(len(rows.x), self.rows)

    def class_tiles(
        self, classes: Classes
    ) -> tuple[int, Callable[[Array], "ClassTile"]]:
        """The number of tiles of segmented classes, and the i-th."""
        length = classes.w.shape[-1]
        count, tile = tiles(length, max(1, self.classes // self.segments))
        first = length * jnp.arange(self.segments, dtype=jnp.int32)[:, None]

        def class_tile(i: Array) -> ClassTile:
            part = tile(i)
            index = (first + part.index[None]).reshape(-1)
            is_new = jnp.tile(part.is_new, self.segments)
            return ClassTile(part, self.segments, index, is_new)

        return count, class_tile

    def split(self, classes: Classes) -> Classes:
        """Arrays [... classes] as [... segments length], if there are segments."""
        if self.segments == 1:
            return classes
        return jax.tree.map(
            lambda a: a.reshape(*a.shape[:-1], self.segments, -1), classes
        )


class ClassTile(NamedTuple):
    """A tile of segmented classes, which are one axis within the tile."""

    part: Tile
    """The tile of each segment."""
    segments: int
    index: Array
    is_new: Array

    def slice(self, x: Array) -> Array:
        tile = self.part.slice(x, -1)
        return tile if self.segments == 1 else tile.reshape(*tile.shape[:-2], -1)

    def add(self, x: Array, values: Array) -> Array:
        """x with `values` added to this tile."""
        tile = self.part.slice(x, -1)
        values = values.reshape(tile.shape).astype(x.dtype)
        return self.part.update(x, tile + values, -1)


def _slice(tile: Tile | ClassTile, arrays: PyTree) -> PyTree:
    return jax.tree.map(tile.slice, arrays)


def _fold_logits(
    block: int | None,
    rows: Rows,
    classes: Classes,
    index: Array,
    softcap: Array | None,
) -> LogitSums:
    return _for_platform(_fold_tiles, block, rows, classes, index, softcap)


def _fold_tiles(
    tiling: Tiling,
    rows: Rows,
    classes: Classes,
    index: Array,
    softcap: Array | None,
) -> LogitSums:
    num_classes = classes.w.shape[1]
    classes = tiling.split(classes)
    num_row_tiles, row_tile = tiling.row_tiles(rows)
    num_class_tiles, class_tile = tiling.class_tiles(classes)
    dtype = compute_dtype(rows.x.dtype, classes.w.dtype)

    def fold_rows(i: Array, sums: LogitSums) -> LogitSums:
        tile = row_tile(i)
        part, label = _slice(tile, rows), tile.slice(index)[:, None]

        def fold_classes(j: Array, carry: tuple) -> tuple:
            others, label_logit, total = carry
            tile = class_tile(j)
            weights = _slice(tile, classes)
            z = _logits(part, weights, softcap, matmul(part.x, weights.w))
            is_label, is_new = tile.index[None] == label, tile.is_new[None]
            others = others.update(jnp.where(is_new & ~is_label, z, -jnp.inf), 1)
            label_logit += jnp.sum(jnp.where(is_new & is_label, z, 0.0), 1)
            return others, label_logit, total + jnp.sum(jnp.where(is_new, z, 0.0), 1)

        zeros = jnp.zeros_like(label[:, 0], dtype)
        init = LogSumExp.empty(zeros), zeros, zeros
        others, label_logit, total = lax.fori_loop(
            0, num_class_tiles, fold_classes, init
        )
        values = LogitSums(label_logit, others.log(), total / num_classes)
        return jax.tree.map(tile.update, sums, values)

    zeros = jnp.zeros_like(index, dtype)
    return lax.fori_loop(0, num_row_tiles, fold_rows, LogitSums(zeros, zeros, zeros))


def _logit_sums_fwd(
    block: int | None,
    rows: Rows,
    classes: Classes,
    index: Array,
    softcap: Array | None,
) -> tuple:
    # a function with a VJP rule has no JVP, but the tiles can be differentiated again
    sums = _fold_logits(block, rows, classes, index, softcap)
    return sums, (rows, classes, index, softcap, sums.other_lse)


def _logit_sums_bwd(block: int | None, residuals: tuple, cts: LogitSums) -> tuple:
    rows_ct, classes_ct, softcap_ct = _for_platform(
        _fold_gradients, block, *residuals, cts
    )
    return rows_ct, classes_ct, None, softcap_ct


def _fold_gradients(
    tiling: Tiling,
    rows: Rows,
    classes: Classes,
    index: Array,
    softcap: Array | None,
    other_lse: Array,
    cts: LogitSums,
) -> tuple[Rows, Classes, Array | None]:
    """Computes the tiles again, for the cotangents of rows, classes and softcap."""
    num_classes = classes.w.shape[1]
    class_arrays, classes = classes, tiling.split(classes)
    num_row_tiles, row_tile = tiling.row_tiles(rows)
    num_class_tiles, class_tile = tiling.class_tiles(classes)
    ct_dtype = cotangent_dtype(factor_dtype(rows.x.dtype, classes.w.dtype))
    row_values = index, other_lse, *cts._replace(mean=cts.mean / num_classes)

    def fold_classes(j: Array, carry: tuple) -> tuple:
        x_cts, classes_cts, softcap_ct = carry
        tile = classes_tile = class_tile(j)
        weights = _slice(tile, classes)

        def fold_rows(i: Array, carry: tuple) -> tuple:
            x_cts, cts = carry
            tile = row_tile(i)
            part = _slice(tile, rows)
            label, lse, label_ct, other_ct, mean_ct = (
                a[:, None] for a in _slice(tile, row_values)
            )
            z, vjp = jax.vjp(
                lambda products, bias, softcap: _logits(
                    part, weights._replace(bias=bias), softcap, products
                ),
                matmul(part.x, weights.w),
                weights.bias,
                softcap,
            )
            is_label = classes_tile.index[None] == label
            p_ct = other_ct * jnp.exp(jnp.where(is_label, -jnp.inf, z - lse))
            z_ct = jnp.where(is_label, label_ct, p_ct) + mean_ct
            is_new = tile.is_new[:, None] & classes_tile.is_new[None]
            products_ct, bias_ct, cap_ct = vjp(jnp.where(is_new, z_ct, 0.0))
            products_ct = products_ct.astype(ct_dtype)
            x_ct = matmul(products_ct, weights.w.T.astype(ct_dtype))
            w_ct = matmul(part.x.T.astype(ct_dtype), products_ct)
            new_cts = w_ct, bias_ct, cap_ct
            return (
                tile.update(x_cts, tile.slice(x_cts) + x_ct),
                jax.tree.map(jnp.add, cts, new_cts),
            )

        init = x_cts, (*_zeros_like((weights.w, weights.bias)), softcap_ct)
        x_cts, (w_ct, bias_ct, softcap_ct) = lax.fori_loop(
            0, num_row_tiles, fold_rows, init
        )
        weights_ct = Classes(
            w_ct, _scale_ct(weights.w, w_ct, weights.scale, 0), bias_ct
        )
        classes_cts = jax.tree.map(classes_tile.add, classes_cts, weights_ct)
        return x_cts, classes_cts, softcap_ct

    init = (
        _zeros_like(rows.x),
        jax.tree.map(jnp.zeros_like, classes),
        _zeros_like(softcap),
    )
    x_ct, classes_ct, softcap_ct = lax.fori_loop(0, num_class_tiles, fold_classes, init)
    rows_ct = Rows(x_ct.astype(rows.x.dtype), _scale_ct(rows.x, x_ct, rows.scale, 1))
    classes_ct = jax.tree.map(
        lambda ct, a: ct.reshape(a.shape), classes_ct, class_arrays
    )
    return rows_ct, classes_ct, softcap_ct


def _scale_ct(x: Array, x_ct: Array, scale: Array | None, axis: int) -> Array | None:
    """The cotangent of a scale of x, from the one of x: Σ x ẋ / scale."""
    if scale is None:
        return None
    return safe_divide(jnp.sum(x.astype(x_ct.dtype) * x_ct, axis), scale)


def _zeros_like(arrays: PyTree) -> PyTree:
    """Zeros for sums, float32 or wider."""
    return jax.tree.map(lambda a: jnp.zeros_like(a, compute_dtype(a.dtype)), arrays)


_logit_sums = jax.custom_vjp(_fold_logits, nondiff_argnums=(0,))
_logit_sums.defvjp(_logit_sums_fwd, _logit_sums_bwd)

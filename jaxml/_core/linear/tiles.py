"""Tiles of the logits of a linear layer: folded forward, pulled back in reverse.

A loss of logits folds them, tile by tile, into a few numbers per row. Its backward pass
computes the tiles again. Only one tile of each layer exists at any time.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxml._core.blocks import Tile, map_blocks, tiles
from jaxml._core.collectives import may_shard_classes
from jaxml._core.matmul import cotangent_dtype, factor_dtype, matmul
from jaxml._core.safe import is_known_zero, safe_divide
from jaxml._core.special.logistic import tanh
from jaxml._core.types import PyTree, Scalar, compute_dtype

CPU_TILE = 512, 1024
"""Rows and classes of a tile on a CPU: 2 MiB of float32."""

ACCELERATOR_TILE_BYTES = 336 * 2**20
"""The size of a tile on a GPU or TPU: all logits, and the cotangents of one head."""

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


class Head(NamedTuple):
    """A layer and its inputs: aᵢⱼ = rᵢ kⱼ xᵢ·wⱼ + bⱼ."""

    rows: Rows
    classes: Classes

    @classmethod
    def of(cls, x: Array, w: Array, bias: Array | None, *dtypes: Any) -> "Head":
        """x w + bias for inputs [... d], computed in one of these dtypes or wider."""
        if bias is not None:
            bias = bias.astype(compute_dtype(x.dtype, w.dtype, *dtypes))
        return cls(Rows(lax.collapse(x, 0, x.ndim - 1)), Classes(w, bias=bias))

    @property
    def dtype(self) -> Any:
        return compute_dtype(self.rows.x.dtype, self.classes.w.dtype)


def logits_dtype(heads: Sequence[Head]) -> Any:
    """The dtype of the logits of all heads: float32 or wider."""
    return compute_dtype(*(head.dtype for head in heads))


class Transform(NamedTuple):
    """z = c tanh(a / c) / T, elementwise."""

    softcap: Array | None = None
    """c; z = a / T without one."""
    temperature: Array | None = None
    """T; 1 by default."""

    @classmethod
    def of(
        cls, softcap: Scalar | None, temperature: Scalar, *dtypes: Any
    ) -> "Transform":
        """With numbers of one of these dtypes or wider. T = 1 is not computed."""
        dtype, is_one = compute_dtype(*dtypes), is_known_zero(temperature - 1)
        return cls(
            None if softcap is None else jnp.asarray(softcap, dtype),
            None if is_one else jnp.asarray(temperature, dtype),
        )

    def __call__(self, a: Array) -> Array:
        z = a if self.softcap is None else self.softcap * tanh(a / self.softcap)
        return z if self.temperature is None else z / self.temperature


def _logits(
    rows: Rows, classes: Classes, transform: Transform, products: Array
) -> Array:
    a = products
    if rows.scale is not None:
        a = rows.scale[:, None] * a
    if classes.scale is not None:
        a = classes.scale[None] * a
    if classes.bias is not None:
        a = a + classes.bias[None]
    return transform(a)


def _tile_logits(
    rows: Sequence[Rows], classes: Sequence[Classes], transform: Transform
) -> list[Array]:
    dtype = logits_dtype([*map(Head, rows, classes)])
    return [
        _logits(r, c, transform, matmul(r.x, c.w).astype(dtype))
        for r, c in zip(rows, classes)
    ]


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


def for_platform(
    function: Callable[..., Any], block: int | None, heads: Sequence[Head], *args: Any
) -> Any:
    """function(tiling, heads, *args), with the tiling of the platform.

    On an accelerator a tile has all rows, so that a mesh divides the work whichever
    axis is sharded.
    """
    args = heads, *args
    if block:
        return function(Tiling(block, block), *args)
    num_rows, num_classes = len(heads[0].rows.x), heads[0].classes.w.shape[1]
    tile_classes = _tile_classes(heads)
    segments = math.gcd(num_classes, SEGMENTS)
    segmented = Tiling(num_rows, tile_classes, segments)
    # a TPU copies w to divide it into segments, so it does if classes may be sharded
    on_tpu = segmented if may_shard_classes() else Tiling(num_rows, tile_classes)
    return lax.platform_dependent(
        *args,
        cpu=functools.partial(function, Tiling(*CPU_TILE)),
        tpu=functools.partial(function, on_tpu),
        default=functools.partial(function, segmented),
    )


def _tile_classes(heads: Sequence[Head]) -> int:
    """How many classes a tile of all rows has on an accelerator.

    A multiple of `VECTOR_CLASSES`, chosen so that the last tile is almost full.
    """
    (x, _), (w, *_) = heads[0]
    logits_bytes = len(heads) * logits_dtype(heads).itemsize
    cotangent_bytes = cotangent_dtype(factor_dtype(x.dtype, w.dtype)).itemsize
    row_bytes = max(1, len(x)) * (logits_bytes + cotangent_bytes)
    at_most = max(MIN_TILE_CLASSES, ACCELERATOR_TILE_BYTES // row_bytes)
    num_tiles = max(1, math.ceil(w.shape[1] / at_most))

    def computed(tile_classes: int) -> int:
        return tile_classes * math.ceil(w.shape[1] / tile_classes)

    sizes = (
        VECTOR_CLASSES * max(1, math.ceil(w.shape[1] / (VECTOR_CLASSES * count)))
        for count in range(num_tiles, num_tiles + 4)
    )
    return min(sizes, key=computed)


def fold(
    tiling: Tiling,
    heads: Sequence[Head],
    transform: Transform,
    row_values: PyTree,
    init: Callable[[Array], PyTree],
    update: Callable[[PyTree, list[Array], PyTree, ClassTile], PyTree],
) -> PyTree:
    """Folds the logits of heads with the same classes into numbers per row.

    Args:
        tiling: The size of a tile.
        heads: The layers.
        transform: Of the logits of all heads.
        row_values: Arrays with one number per row.
        init: Zeros for the rows of a tile -> what is folded, which has their shape.
        update: (what is folded, the logits of each head, row values, classes) -> what
            is folded, with the tile.
    """
    row_inputs = [head.rows for head in heads]
    classes = [tiling.split(head.classes) for head in heads]
    num_row_tiles, row_tile = tiling.row_tiles(row_inputs[0])
    num_class_tiles, class_tile = tiling.class_tiles(classes[0])
    zeros = jnp.sum(jnp.zeros_like(row_inputs[0].x, logits_dtype(heads)), 1)

    def fold_rows(i: Array, result: PyTree) -> PyTree:
        tile = row_tile(i)
        parts, values = _slice(tile, row_inputs), _slice(tile, row_values)

        def fold_classes(j: Array, total: PyTree) -> PyTree:
            tile = class_tile(j)
            logits = _tile_logits(parts, _slice(tile, classes), transform)
            return update(total, logits, values, tile)

        start = init(tile.slice(zeros))
        total = lax.fori_loop(0, num_class_tiles, fold_classes, start)
        return jax.tree.map(tile.update, result, total)

    return lax.fori_loop(0, num_row_tiles, fold_rows, init(zeros))


def map_whole_rows(
    formula: Callable[[list[Array]], PyTree],
    heads: Sequence[Head],
    transform: Transform,
) -> PyTree:
    """Numbers per row, from the logits that each head has for all classes of a row.

    For accelerators: one block of rows at a time exists. It has hundreds of rows, so
    that products run at full speed although each block reads all weights.

    Args:
        formula: The logits of a block of rows, for each head -> numbers per row.
        heads: The layers.
        transform: Of the logits of all heads.
    """
    classes = [head.classes for head in heads]

    def of_block(rows: list[Rows]) -> PyTree:
        return formula(_tile_logits(rows, classes, transform))

    num_logits = len(heads) * classes[0].w.shape[1]
    rows = [head.rows for head in heads]
    return map_blocks(of_block, rows, num_logits, gpu_row_size=2 * num_logits)


def pull_back(
    tiling: Tiling,
    heads: Sequence[Head],
    transform: Transform,
    row_values: PyTree,
    logits_cts: Callable[[list[Array], PyTree, ClassTile], list[Array]],
) -> tuple[Head, Transform]:
    """The cotangents of the first head and of the transform, from those of the logits.

    Args:
        tiling: The size of a tile.
        heads: The layers. Only the first one is differentiated.
        transform: Of the logits of all heads.
        row_values: Arrays with one number per row.
        logits_cts: (the logits of each head, row values, classes) -> their cotangents.
    """
    head, row_inputs = heads[0], [head.rows for head in heads]
    classes = [tiling.split(head.classes) for head in heads]
    num_row_tiles, row_tile = tiling.row_tiles(head.rows)
    num_class_tiles, class_tile = tiling.class_tiles(classes[0])

    def fold_classes(j: Array, carry: tuple) -> tuple:
        x_cts, classes_cts, transform_ct = carry
        columns = class_tile(j)
        weights = _slice(columns, classes)

        def fold_rows(i: Array, carry: tuple) -> tuple:
            x_cts, cts = carry
            tile = row_tile(i)
            values = _slice(tile, row_values)
            x_ct, new_cts = _tile_cts(
                _slice(tile, row_inputs),
                weights,
                transform,
                tile.is_new[:, None] & columns.is_new[None],
                lambda logits: logits_cts(logits, values, columns),
            )
            x_cts = tile.update(x_cts, tile.slice(x_cts) + x_ct)
            return x_cts, jax.tree.map(jnp.add, cts, new_cts)

        w, scale, bias = weights[0]
        init = x_cts, (*_zeros_like((w, bias)), transform_ct)
        x_cts, cts = lax.fori_loop(0, num_row_tiles, fold_rows, init)
        w_ct, bias_ct, transform_ct = cts
        weights_ct = Classes(w_ct, _scale_ct(w, w_ct, scale, 0), bias_ct)
        classes_cts = jax.tree.map(columns.add, classes_cts, weights_ct)
        return x_cts, classes_cts, transform_ct

    zeros = jax.tree.map(jnp.zeros_like, classes[0])
    init = _zeros_like(head.rows.x), zeros, _zeros_like(transform)
    x_ct, classes_ct, transform_ct = lax.fori_loop(
        0, num_class_tiles, fold_classes, init
    )
    x, scale = head.rows
    rows_ct = Rows(x_ct.astype(x.dtype), _scale_ct(x, x_ct, scale, 1))
    classes_ct = jax.tree.map(
        lambda ct, a: ct.reshape(a.shape), classes_ct, head.classes
    )
    return Head(rows_ct, classes_ct), transform_ct


def _tile_cts(
    rows: Sequence[Rows],
    classes: Sequence[Classes],
    transform: Transform,
    is_new: Array,
    logits_cts: Callable[[list[Array]], list[Array]],
) -> tuple[Array, tuple[Array, Array | None, Transform]]:
    """The cotangents of x, and of w, the bias and the transform, from one tile."""
    x, w = rows[0].x, classes[0].w
    dtype = logits_dtype([*map(Head, rows, classes)])
    products = [matmul(r.x, c.w).astype(dtype) for r, c in zip(rows, classes)]

    def logits(product: Array, bias: Array | None, transform: Transform) -> list[Array]:
        first = classes[0]._replace(bias=bias)
        heads = zip(rows, [first, *classes[1:]], [product, *products[1:]])
        return [_logits(r, c, transform, p) for r, c, p in heads]

    zs, vjp = jax.vjp(logits, products[0], classes[0].bias, transform)
    product_ct, bias_ct, transform_ct = vjp(
        [jnp.where(is_new, ct, 0.0) for ct in logits_cts(zs)]
    )
    ct_dtype = cotangent_dtype(factor_dtype(x.dtype, w.dtype))
    product_ct = product_ct.astype(ct_dtype)
    x_ct = matmul(product_ct, w.T.astype(ct_dtype))
    w_ct = matmul(x.T.astype(ct_dtype), product_ct)
    return x_ct, (w_ct, bias_ct, transform_ct)


def _scale_ct(x: Array, x_ct: Array, scale: Array | None, axis: int) -> Array | None:
    """The cotangent of a scale of x, from the one of x: Σ x ẋ / scale."""
    if scale is None:
        return None
    return safe_divide(jnp.sum(x.astype(x_ct.dtype) * x_ct, axis), scale)


def _zeros_like(arrays: PyTree) -> PyTree:
    """Zeros for sums, float32 or wider."""
    return jax.tree.map(lambda a: jnp.zeros_like(a, compute_dtype(a.dtype)), arrays)

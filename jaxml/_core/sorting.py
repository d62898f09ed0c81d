"""Sorting and counting, with float32 sorted as integers.

XLA:CPU sorts integers five times as fast as floats.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax


def sort(x: Array) -> Array:
    """x ascending."""
    if x.dtype != jnp.float32:
        return jnp.sort(x, stable=False)
    return float_from_sort_key(jnp.sort(sort_key(x), stable=False))


def sort_key(x: Array) -> Array:
    """The int32 that orders as the float32 does."""
    bits = lax.bitcast_convert_type(x, jnp.int32)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def float_from_sort_key(key: Array) -> Array:
    """The float32 whose `sort_key` this is."""
    return lax.bitcast_convert_type(key ^ ((key >> 31) & 0x7FFFFFFF), jnp.float32)


def count_equal(ascending: Array, x: Array) -> Array:
    """How many entries of a sorted array equal each x."""
    end = jnp.searchsorted(ascending, x, side="right")
    return end - jnp.searchsorted(ascending, x, side="left")


def count_less(ascending: Array, x: Array) -> Array:
    """How many entries of a sorted row are less than each x: [*batch n], [*batch m]."""
    n = ascending.shape[-1]

    def take_more(i: Array, count: Array) -> Array:
        more = count + (2 ** (n.bit_length() - 1) >> i)
        last = jnp.take_along_axis(
            ascending, jnp.minimum(more, n) - 1, -1, mode="promise_in_bounds"
        )
        return jnp.where((more <= n) & (last < x), more, count)

    return lax.fori_loop(0, n.bit_length(), take_more, jnp.zeros_like(x, jnp.int32))


def sort_ids(x: Array, ids: Array) -> Array:
    """int32 ids in the order of ascending x, and of ascending ids where x is equal."""
    return lax.platform_dependent(
        x, ids, cpu=_sort_packed_ids, default=_sort_by_x_and_id
    )


def _sort_packed_ids(x: Array, ids: Array) -> Array:
    """XLA:CPU sorts one array many times as fast as two."""
    if x.dtype != jnp.float32:
        return _sort_by_x_and_id(x, ids)
    with jax.enable_x64(True):
        high = sort_key(x).astype(jnp.int64) << jnp.int64(32)
        low = ids.astype(jnp.int64) - jnp.int64(-(2**31))  # in [0, 2³²)
        low = lax.sort(high | low) & jnp.int64(2**32 - 1)
        return (low + jnp.int64(-(2**31))).astype(jnp.int32)


def _sort_by_x_and_id(x: Array, ids: Array) -> Array:
    return lax.sort((x, ids), num_keys=2, is_stable=False)[1]


def permute(values: Array, index: Array) -> Array:
    """Each row of values moved to the places of a permutation."""
    return lax.platform_dependent(
        values, index, cpu=_permute_by_scatter, default=_permute_by_sort
    )


def _permute_by_scatter(values: Array, index: Array) -> Array:
    return jnp.put_along_axis(
        jnp.zeros_like(values), index, values, -1, inplace=False, mode="clip"
    )


def _permute_by_sort(values: Array, index: Array) -> Array:
    """A scatter is slow on a TPU."""
    return lax.sort((index, values), is_stable=False)[1]


class SortedRows(NamedTuple):
    """The rows of an array in ascending order, as `sort_rows` returns them."""

    key: Array
    """The bits of each number, followed by its flag: unsigned, ascending."""
    column: Array
    """The column of each number in the array."""

    @property
    def x(self) -> Array:
        """The numbers."""
        dtype = jnp.float32 if self.key.dtype == jnp.uint32 else jnp.float64
        return lax.bitcast_convert_type(self.key >> 1, dtype)

    @property
    def flag(self) -> Array:
        """Their flags."""
        return self.key & 1 == 1

    def unsort(self, values: Array) -> Array:
        """Values of the sorted numbers, in the order of the array."""
        return sort_pairs(self.column, values)[1]


def sort_rows(x: Array, flag: Array) -> SortedRows:
    """Each row of x >= 0 ascending: among equal numbers flags come last, then NaN."""
    dtype = jnp.uint32 if x.dtype == jnp.float32 else jnp.uint64
    bits = lax.bitcast_convert_type(x, dtype)  # ordered as x, with 0 as the sign
    column = lax.broadcasted_iota(jnp.uint32, x.shape, x.ndim - 1)
    return SortedRows(*sort_pairs(bits << 1 | flag.astype(dtype), column))


def sort_pairs(keys: Array, values: Array) -> tuple[Array, Array]:
    """Each row of unsigned keys ascending, and the values in the same order."""
    if keys.dtype.itemsize != 4 or values.dtype.itemsize != 4:
        return _sort_by_key(keys, values)
    bits = lax.bitcast_convert_type(values, jnp.uint32)
    keys, bits = lax.platform_dependent(
        keys, bits, cpu=_sort_packed, default=_sort_by_key
    )
    return keys, lax.bitcast_convert_type(bits, values.dtype)


def _sort_packed(keys: Array, values: Array) -> tuple[Array, Array]:
    """Packs both into one integer, which XLA:CPU sorts five times as fast as pairs."""
    with jax.enable_x64(True):
        packed = keys.astype(jnp.uint64) << jnp.uint64(32) | values.astype(jnp.uint64)
        packed = lax.sort(packed)
        return (packed >> jnp.uint64(32)).astype(jnp.uint32), packed.astype(jnp.uint32)


def _sort_by_key(keys: Array, values: Array) -> tuple[Array, Array]:
    """Sorts pairs by their keys, for which accelerators have kernels.

    A TPU takes twice as long, and its compiler too, to keep the order of equal keys.
    """
    keys, values = lax.sort((keys, values), num_keys=1, is_stable=False)
    return keys, values


def sum_runs(x: Array, key: Array) -> Array:
    """Σ x over the run of equal keys around each entry of a row; x >= 0 counts."""
    changes = key[:, 1:] != key[:, :-1]
    is_first = jnp.pad(changes, ((0, 0), (1, 0)), constant_values=True)
    is_last = jnp.pad(changes, ((0, 0), (0, 1)), constant_values=True)
    total = lax.cumsum(x, 1)
    before_run = lax.cummax(jnp.where(is_first, total - x, 0), 1)
    through_run = lax.cummin(jnp.where(is_last, total, jnp.inf), 1, reverse=True)
    return through_run - before_run

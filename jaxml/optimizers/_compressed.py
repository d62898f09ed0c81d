"""Compressed accumulators: the state of any optimizer in 8 or 16 bits a number.

Rounding is stochastic: to one of the two nearest numbers that can be stored, with
probabilities that make the mean exact. An average whose steps are smaller than the
distance of these numbers would otherwise never change. The random bits are a hash of
the step, the leaf and the position, so they are the same on any number of devices.
"""

import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import PartitionSpec

from jaxml._core.contract import raise_invalid
from jaxml._core.public import factory
from jaxml._core.sharding import spec, with_automatic_axes
from jaxml._core.types import PyTree
from jaxml.optimizers._per_leaf import (
    Transformation,
    check_floats,
    increment,
    with_extra_args_support,
)

BLOCK = 256
"""Neighbors along the last axis that share a scale."""
MIN_SIZE, MIN_LENGTH = 4096, 16
"""A leaf with fewer elements, or a shorter last axis, is not compressed."""
ROUNDED = 20
"""The last bits of a float32 that a code does not have: it has 3 of the mantissa."""
UNSIGNED_OFFSET, SIGNED_OFFSET = 2.0**-30, 2.0**-14
"""2⁻ᴱ, so that the codes of numbers up to 2 are below 256, and 128 with a sign."""
SIGN_BIT = 128
EXPONENT = 0x7F800000
"""The bits of the exponent of a float32."""


class Compressed(NamedTuple):
    """An array in 8 bits with scales, or in bfloat16 without."""

    codes: Array
    scales: Any  # None for bfloat16


class CompressedState(NamedTuple):
    count: Array
    inner_state: Any


@factory
def compressed(optimizer: Any, *, bits: Literal[8, 16] = 8) -> Transformation:
    """Wraps an optimizer and stores its accumulators in 8 or 16 bits a number.

        x ≈ ± s (2ᵉ (1 + f/8) - 2⁻ᴱ)        stored: f < 8 and e >= -E; s, a power of 2

    s belongs to 256 neighbors along the last axis. If none is negative, as in second
    moments, E is 30, otherwise 14. Errors are at most 1/8 of |x| + 2⁻ᴱ s, and 0 on
    average, because rounding is stochastic; only a second moment is never rounded to 0.
    16 bits are bfloat16, with errors of 1/128 of |x|.

    Compressed are float arrays of the shape of their parameter with 4096 elements or
    more, and 16 along the last axis. Averages of parameters need more digits: write
    `shadow_weights(compressed(adam(...)))`.

    Args:
        optimizer: Any gradient transformation.
        bits: 8, or 16 for bfloat16.

    Reference:
        Dettmers et al., 8-bit optimizers via block-wise quantization, ICLR 2022,
        https://arxiv.org/abs/2110.02861

    Example:
        >>> optimizer, x = compressed(adam(0.5)), jnp.zeros((64, 64))
        >>> optimizer.init(x).inner_state.mu.codes.dtype
        dtype('uint8')
    """
    if bits not in (8, 16):
        raise_invalid(ValueError, "bits", "be 8 or 16", bits)
    inner = with_extra_args_support(optimizer)

    def compress(count: Array, tree: PyTree, is_accumulator: PyTree) -> PyTree:
        leaves, structure = jax.tree.flatten(tree)
        flags = structure.flatten_up_to(is_accumulator)
        pack = pack_8_bits if bits == 8 else pack_16_bits
        return structure.unflatten(
            pack(leaf, random_bits(leaf, count, number)) if flag else leaf
            for number, (leaf, flag) in enumerate(zip(leaves, flags))
        )

    def init(params: PyTree) -> CompressedState:
        check_floats("params", params)
        count, state = jnp.zeros((), jnp.int32), inner.init(params)
        return CompressedState(
            count, compress(count, state, find_accumulators(inner.init, params))
        )

    def update(
        updates: PyTree, state: Any, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, CompressedState]:
        unpacked = jax.tree.map(_unpack, state.inner_state, is_leaf=_is_compressed)
        is_accumulator = jax.tree.map(
            _is_compressed, state.inner_state, is_leaf=_is_compressed
        )
        updates, inner_state = inner.update(updates, unpacked, params, **extra_args)
        count = increment(state.count)
        return updates, CompressedState(
            count, compress(count, inner_state, is_accumulator)
        )

    return Transformation(init, update)


def find_accumulators(init: Any, params: PyTree) -> PyTree:
    """Which leaves of a state change their shape with that of the parameter alone.

    Parameters are lengthened along their last axis. An accumulator gets the new shape,
    unlike a square matrix of products that has the shape of its parameter by chance.
    """
    avals = jax.eval_shape(lambda params: params, params)
    longer = jax.tree.map(_lengthen, avals)
    states = jax.eval_shape(init, avals), jax.eval_shape(init, longer)
    shapes = {leaf.shape for leaf in jax.tree.leaves(avals)}
    longer_shapes = {leaf.shape for leaf in jax.tree.leaves(longer)}

    def is_accumulator(leaf: Any, longer_leaf: Any) -> bool:
        return (
            jnp.issubdtype(leaf.dtype, jnp.floating)
            and leaf.shape in shapes
            and longer_leaf.shape in longer_shapes
            and longer_leaf.shape == _lengthen(leaf).shape
            and leaf.size >= MIN_SIZE
            and leaf.shape[-1] >= MIN_LENGTH
        )

    return jax.tree.map(is_accumulator, *states)


def _lengthen(leaf: Any) -> jax.ShapeDtypeStruct:
    shape = (*leaf.shape[:-1], leaf.shape[-1] + 1) if leaf.shape else ()
    return jax.ShapeDtypeStruct(shape, leaf.dtype)


def _is_compressed(node: Any) -> bool:
    return isinstance(node, Compressed)


def _unpack(node: Any) -> Any:
    if not _is_compressed(node):
        return node
    if node.scales is None:
        return node.codes.astype(jnp.float32)
    return with_automatic_axes(unpack_8_bits, node, out_specs=spec(node.codes))


# Codes


def pack_16_bits(x: Array, random: Array) -> Compressed:
    """x in bfloat16, the first 16 bits of a float32."""
    bits = _bits(x.astype(jnp.float32)) + (random >> 16)
    rounded = _float(bits & jnp.uint32(0xFFFF0000)).astype(jnp.bfloat16)
    return Compressed(jnp.where(jnp.isfinite(x), rounded, x.astype(jnp.bfloat16)), None)


def pack_8_bits(x: Array, random: Array) -> Compressed:
    specs = Compressed._make([spec(x), PartitionSpec(*spec(x)[: x.ndim - 1])])
    return with_automatic_axes(_pack_8_bits, x, random, out_specs=specs)


def _pack_8_bits(x: Array, random: Array) -> Compressed:
    """The first bits of |x| / s + 2⁻ᴱ less those of 2⁻ᴱ, and s; -s if x has signs."""
    x = x.astype(jnp.float32)
    blocks = _blocks(x)
    is_finite = jnp.all(jnp.isfinite(blocks), -1)  # a maximum may ignore a NaN
    largest = jnp.where(is_finite, jnp.max(jnp.abs(blocks), -1), jnp.inf)
    smallest_normal = jnp.finfo(jnp.float32).tiny
    power_of_2 = _float(
        _bits(jnp.maximum(largest, smallest_normal)) & jnp.uint32(EXPONENT)
    )
    scales = jnp.where(jnp.any(blocks < 0, -1), -power_of_2, power_of_2)

    s = _per_element(scales, x)
    offset = jnp.where(s < 0, SIGNED_OFFSET, UNSIGNED_OFFSET).astype(jnp.float32)
    bits = _bits(jnp.abs(x / s) + offset) + (random >> (32 - ROUNDED))
    codes = (bits >> ROUNDED) - (_bits(offset) >> ROUNDED)
    # A second moment of 0 would make the update infinite: round it up.
    codes = jnp.where((s > 0) & (x > 0), jnp.maximum(codes, 1), codes)
    codes = jnp.where(x < 0, codes | SIGN_BIT, codes)
    return Compressed(codes.astype(jnp.uint8), scales.astype(jnp.bfloat16))


def unpack_8_bits(packed: Compressed) -> Array:
    codes = packed.codes.astype(jnp.uint32)
    s = _per_element(packed.scales.astype(jnp.float32), codes)
    offset = jnp.where(s < 0, SIGNED_OFFSET, UNSIGNED_OFFSET).astype(jnp.float32)
    is_negative = (s < 0) & (codes >= SIGN_BIT)
    codes = jnp.where(is_negative, codes - SIGN_BIT, codes)
    x = (_float((codes << ROUNDED) + _bits(offset)) - offset) * jnp.abs(s)
    return jnp.where(is_negative, -x, x)


def _blocks(x: Array) -> Array:
    """Neighbors along the last axis, which is padded with zeros."""
    length = min(BLOCK, x.shape[-1])
    padding = [(0, 0)] * (x.ndim - 1) + [(0, -x.shape[-1] % length)]
    return jnp.pad(x, padding).reshape(*x.shape[:-1], -1, length)


def _per_element(scales: Array, like: Array) -> Array:
    """The scale of each element, from that of each block."""
    length = min(BLOCK, like.shape[-1])
    repeated = jnp.broadcast_to(scales[..., None], (*scales.shape, length))
    return repeated.reshape(*like.shape[:-1], -1)[..., : like.shape[-1]]


def _bits(x: Array) -> Array:
    return lax.bitcast_convert_type(x, jnp.uint32)


def _float(bits: Array) -> Array:
    return lax.bitcast_convert_type(bits, jnp.float32)


# Random bits


def random_bits(like: Array, count: Array, number: int) -> Array:
    """A hash of the step, the number of the leaf, and the position in the array."""
    position = jnp.zeros(like.shape, jnp.uint32)
    for axis in range(like.ndim):
        stride = math.prod(like.shape[axis + 1 :]) % 2**32
        index = lax.broadcasted_iota(jnp.uint32, like.shape, axis)
        position += index * jnp.uint32(stride)
    seed = _hash(count.astype(jnp.uint32) ^ _hash(jnp.uint32(number)))
    return _hash(position + seed)


def _hash(x: Array) -> Array:
    """A bijection of 32 bits in which each bit of x affects all bits.

    Wellons, Prospecting for hash functions, 2018, https://nullprogram.com/blog/2018/07/31
    """
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)

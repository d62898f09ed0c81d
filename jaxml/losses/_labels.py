"""Integer labels. An out-of-range label makes its own loss NaN and affects no other."""

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxml._core.collectives import any_shard, first_index, num_shards, sum_shards
from jaxml._core.masking import apply_mask
from jaxml._core.softmax import subtract_max
from jaxml._core.types import AxisName


def label_index(labels: Array, num_classes: int) -> Array:
    """The labels as int32, with -1 for every label outside [0, num_classes)."""
    is_valid = labels >= 0
    if num_classes <= jnp.iinfo(labels.dtype).max:  # else no label reaches it
        is_valid &= labels < num_classes
    return apply_mask(labels.astype(jnp.int32), is_valid, -1)


def shard_index(index: Array, num_classes: int, axis_name: AxisName | None) -> Array:
    """The index among this device's classes, -1 if another device has the label."""
    local = index - first_index(num_classes, axis_name)
    return apply_mask(local, (index >= 0) & (local >= 0) & (local < num_classes), -1)


def class_index(scores: Array) -> Array:
    """[*batch classes]: the index of each class."""
    return lax.broadcasted_iota(jnp.int32, scores.shape, scores.ndim - 1)


def label_mask(index: Array, scores: Array) -> Array:
    """[*batch classes]: True at the label, nowhere if it is out of range."""
    labels = lax.broadcast_in_dim(index, scores.shape, range(index.ndim))
    return lax.eq(labels, class_index(scores))


def take_label(index: Array, scores: Array) -> Array:
    """The score at the label, 0 if it is out of range.

    On an accelerator it is a sum, which fuses with other passes over the scores. A
    gather would keep a float32 copy of 16-bit scores, but it is faster on a CPU.
    """
    if not scores.shape[-1]:
        return _sum_label(index, scores)
    return lax.platform_dependent(index, scores, cpu=_gather_label, default=_sum_label)


def _sum_label(index: Array, scores: Array) -> Array:
    label_scores = apply_mask(scores, label_mask(index, scores))
    return lax.reduce_sum(label_scores, (scores.ndim - 1,))


def _gather_label(index: Array, scores: Array) -> Array:
    # `jnp.take_along_axis` would wrap -1, and takes four times as long to trace
    last, batch = scores.ndim - 1, tuple(range(scores.ndim - 1))
    dimensions = lax.GatherDimensionNumbers(
        offset_dims=(),
        collapsed_slice_dims=(last,),
        start_index_map=(last,),
        operand_batching_dims=batch,
        start_indices_batching_dims=batch,
    )
    return lax.gather(
        scores,
        jnp.expand_dims(index, -1),
        dimensions,
        slice_sizes=(1,) * scores.ndim,
        mode="fill",
        fill_value=0.0,
    )


@functools.partial(jax.jit, static_argnums=0, inline=True)  # for value and gradient
def shifted_label_and_exps(
    axis_name: AxisName | None, z: Array, index: Array, where: Array | None
) -> tuple[Array, Array, Array]:
    """z - max z at the label; e^(z - max z) with 0 at the label, its sum first."""
    z = apply_mask(z, where, -jnp.inf)
    z_max, shifted = subtract_max(z, -1, axis_name)
    exps = apply_mask(lax.exp(shifted), ~label_mask(index, z))
    # taken from z: XLA:CPU would materialize `shifted` for a gather
    label, others = sum_shards((take_label(index, z), jnp.sum(exps, -1)), axis_name)
    z_max = jnp.squeeze(z_max, -1)
    return apply_mask(label - z_max, label != z_max), others, exps


def nan_if_invalid(loss: Array, index: Array) -> Array:
    """The loss, NaN where the label is out of range."""
    return apply_mask(loss, index >= 0, jnp.nan)


def finalize(
    loss: Array,
    index: Array,
    where: Array | None,
    axis_name: AxisName | None = None,
) -> Array:
    """The loss, NaN where the label is out of range, 0 where all classes are masked."""
    loss = nan_if_invalid(loss, index)
    if where is None:
        return loss
    return apply_mask(loss, any_shard(jnp.any(where, -1), axis_name))


def count_classes(
    axis_name: AxisName | None, scores: Array, where: Array | None
) -> Array:
    """The number of unmasked classes, at least 1: [*batch 1], or [] without a mask."""
    if where is None:
        num_classes = scores.shape[-1] * num_shards(axis_name)
        return jnp.asarray(max(num_classes, 1), scores.dtype)
    num_unmasked = jnp.sum(where, -1, keepdims=True, dtype=scores.dtype)
    return jnp.maximum(sum_shards(num_unmasked, axis_name), 1)

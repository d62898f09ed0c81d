"""Integer labels. An out-of-range label makes its own loss NaN and affects no other."""

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxml._core.masking import apply_mask


def label_index(labels: Array, num_classes: int) -> Array:
    """The labels as int32, with -1 for every label outside [0, num_classes)."""
    is_valid = labels >= 0
    if num_classes <= jnp.iinfo(labels.dtype).max:  # else no label reaches it
        is_valid &= labels < num_classes
    return apply_mask(labels.astype(jnp.int32), is_valid, -1)


def label_mask(index: Array, scores: Array) -> Array:
    """[*batch classes]: True at the label, nowhere if it is out of range."""
    return jnp.expand_dims(index, -1) == class_index(scores)


def class_index(scores: Array) -> Array:
    """[*batch classes]: the index of each class, sharded like the scores."""
    sharding = jax.typeof(scores).sharding
    return lax.broadcasted_iota(
        jnp.int32, scores.shape, scores.ndim - 1, out_sharding=sharding
    )


def take_label(index: Array, scores: Array) -> Array:
    """The score at the label, 0 if it is out of range.

    A sum, because accelerators fuse it with other passes over the scores. A gather
    would keep a float32 copy of 16-bit scores.
    """
    label_scores = apply_mask(scores, label_mask(index, scores))
    return lax.reduce_sum(label_scores, (scores.ndim - 1,))


def nan_if_invalid(loss: Array, index: Array) -> Array:
    """The loss, NaN where the label is out of range."""
    return apply_mask(loss, index >= 0, jnp.nan)

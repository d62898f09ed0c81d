"""Integer labels. An out-of-range label makes its own loss NaN and affects no other."""

import jax.numpy as jnp
from jax import Array, lax

from jaxml._core.masking import apply_mask


def valid_labels(labels: Array, num_classes: int) -> Array:
    """The labels as int32, with -1 for every label outside [0, num_classes)."""
    is_valid = labels >= 0
    if num_classes <= jnp.iinfo(labels.dtype).max:  # else no label reaches it
        is_valid &= labels < num_classes
    return jnp.where(is_valid, labels.astype(jnp.int32), -1)


def label_mask(labels: Array, scores: Array) -> Array:
    """[*batch classes]: True at the label, nowhere if the label is out of range."""
    index = valid_labels(labels, scores.shape[-1])[..., None]
    return index == lax.broadcasted_iota(jnp.int32, scores.shape, scores.ndim - 1)


def take_label(labels: Array, scores: Array) -> Array:
    """The score at the label, 0 if the label is out of range."""
    index = fill_index(valid_labels(labels, scores.shape[-1]), scores.shape[-1])
    score = jnp.take_along_axis(
        scores, index[..., None], -1, mode="fill", fill_value=0.0
    )
    return jnp.squeeze(score, -1)


def fill_index(index: Array, num_classes: int) -> Array:
    """The index with -1, which would wrap, moved past the end for `mode="fill"`."""
    return jnp.where(index < 0, num_classes, index)


def nan_if_invalid(loss: Array, labels: Array, num_classes: int) -> Array:
    """The loss, NaN where the label is out of range."""
    return apply_mask(loss, valid_labels(labels, num_classes) >= 0, jnp.nan)

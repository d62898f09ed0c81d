"""Integer labels, which never wrap: one that is no class is loud, and alone."""

import jax.numpy as jnp
from jax import Array, lax

from jaxml._core.dtypes import promoted
from jaxml._core.numerics import keep


def known(labels: Array, classes: int) -> Array:
    """The labels as int32, -1 for what is not a class."""
    wide = _wide(labels)
    inside = (wide >= 0) & (wide < classes)
    return jnp.where(inside, wide, -1).astype(jnp.int32)


def is_label(labels: Array, scores: Array) -> Array:
    """[*batch classes]: True at the label; nowhere if it is not a class."""
    wide = _wide(labels)[..., None]
    return wide == lax.broadcasted_iota(wide.dtype, scores.shape, scores.ndim - 1)


def _wide(labels: Array) -> Array:
    return labels.astype(promoted(labels.dtype, jnp.int32))


def at(labels: Array, scores: Array) -> Array:
    """The score of the label, 0 where it is not a class."""
    classes = scores.shape[-1]
    index = known(labels, classes)
    index = jnp.where(index < 0, classes, index)[..., None]  # beyond the last, not -1
    own = jnp.take_along_axis(scores, index, -1, mode="fill", fill_value=0.0)
    return jnp.squeeze(own, -1)


def loud(loss: Array, labels: Array, classes: int) -> Array:
    """The loss, NaN where the label is not a class."""
    return keep(loss, known(labels, classes) >= 0, jnp.nan)

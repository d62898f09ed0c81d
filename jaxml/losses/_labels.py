"""Integer labels, which never wrap: one that is no class is loud, and alone."""

import jax
import jax.numpy as jnp
from jax import Array

from jaxml._core.numerics import keep


def is_label(labels: Array, scores: Array) -> Array:
    """[*batch classes]: True at the label; nowhere if it is not a class."""
    return jax.nn.one_hot(labels, scores.shape[-1], dtype=bool)


def at(labels: Array, scores: Array) -> Array:
    """The score of the label, 0 where it is not a class."""
    return jnp.sum(jnp.where(is_label(labels, scores), scores, 0.0), -1)


def loud(loss: Array, labels: Array, classes: int) -> Array:
    """The loss, NaN where the label is not a class."""
    return keep(loss, (labels >= 0) & (labels < classes), jnp.nan)

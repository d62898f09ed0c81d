"""Adapters that give a loss the signature that a task calls: (logits, labels).

A classification task takes one value per example, and the segmentation task a scalar.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from jaxml import losses

ALL_PIXELS = (0, 1, 2)  # one region per class of the batch: an image lacks most classes


def one_hot(labels: Array, logits: Array) -> Array:
    return jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)


def one_vs_rest_binary_cross_entropy(logits: Array, labels: Array) -> Array:
    """Sum over classes of the binary cross entropy of each class against the others."""
    targets = one_hot(labels, logits)
    return jnp.sum(losses.binary_cross_entropy_with_logits(logits, targets), -1)


def one_hot_squared_error(logits: Array, labels: Array) -> Array:
    """Sum over classes of the squared error of the logits to the one-hot labels."""
    return jnp.sum(losses.squared_error(logits, one_hot(labels, logits)), -1)


def mean_cross_entropy(logits: Array, labels: Array) -> Array:
    """Mean over pixels."""
    return losses.mean(losses.cross_entropy(logits, labels))


def mean_region_loss(
    region_loss: Callable[..., Array], **hyperparams: float
) -> Callable[[Array, Array], Array]:
    """Mean over classes of a loss of (probabilities, one-hot targets)."""

    def loss(logits: Array, labels: Array) -> Array:
        p, t = jax.nn.softmax(logits), one_hot(labels, logits)
        return losses.mean(region_loss(p, t, axis=ALL_PIXELS, **hyperparams))

    return loss


def mean_lovasz_softmax(logits: Array, labels: Array) -> Array:
    """Mean over the classes that occur in the batch."""
    per_class = losses.lovasz_softmax_loss(
        jax.nn.softmax(logits), labels, axis=ALL_PIXELS
    )
    present = losses.present(labels, logits.shape[-1], axis=ALL_PIXELS)
    return losses.mean(per_class, where=present)

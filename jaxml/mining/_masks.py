"""Masks by labels, which may be any integers."""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Integer

from jaxml._core.public import public
from jaxml._core.types import result_dtype


@public(upcast=False)
def positives(
    labels: Integer[Array, "n"], reference_labels: Integer[Array, "m"] | None = None
) -> Bool[Array, "n m"]:
    """Which pairs are of one class, a row and itself left out.

        positivesᵢⱼ = (labelᵢ = labelⱼ) and i ≠ j

    Without i ≠ j where there are references.

    Args:
        labels: The classes of the anchors.
        reference_labels: Those of the references; the anchors themselves by default.

    Example:
        >>> positives(jnp.array([7, 7, -1]))
        Array([[False,  True, False],
               [ True, False, False],
               [False, False, False]], dtype=bool)
    """
    own, others = _both(labels, reference_labels)
    same = own[:, None] == others[None]
    return (
        same & ~jnp.eye(len(labels), dtype=bool) if reference_labels is None else same
    )


@public(upcast=False)
def negatives(
    labels: Integer[Array, "n"], reference_labels: Integer[Array, "m"] | None = None
) -> Bool[Array, "n m"]:
    """Which pairs are of different classes.

        negativesᵢⱼ = labelᵢ ≠ labelⱼ

    Args:
        labels: The classes of the anchors.
        reference_labels: Those of the references; the anchors themselves by default.

    Example:
        >>> negatives(jnp.array([7, -1]), jnp.array([7, 7, 8]))
        Array([[False, False,  True],
               [ True,  True,  True]], dtype=bool)
    """
    own, others = _both(labels, reference_labels)
    return own[:, None] != others[None]


@public(upcast=False)
def has_positive(
    labels: Integer[Array, "n"], reference_labels: Integer[Array, "m"] | None = None
) -> Bool[Array, "n"]:
    """Which anchors have a positive: over these a metric loss is usually averaged.

        has_positiveᵢ = any over j of positivesᵢⱼ

    By sorting, so that no n x m array is held.

    Args:
        labels: The classes of the anchors.
        reference_labels: Those of the references; the anchors themselves by default.

    Example:
        >>> has_positive(jnp.array([7, 7, -1]))
        Array([ True,  True, False], dtype=bool)
    """
    own, others = _both(labels, reference_labels)
    return _count(own, others) > (1 if reference_labels is None else 0)


@public(upcast=False)
def has_negative(
    labels: Integer[Array, "n"], reference_labels: Integer[Array, "m"] | None = None
) -> Bool[Array, "n"]:
    """Which anchors have a negative: all of them, or none if all are of one class.

        has_negativeᵢ = any over j of negativesᵢⱼ

    By sorting, so that no n x m array is held.

    Args:
        labels: The classes of the anchors.
        reference_labels: Those of the references; the anchors themselves by default.

    Example:
        >>> has_negative(jnp.array([7, 3]), jnp.array([7, 7]))
        Array([False,  True], dtype=bool)
    """
    own, others = _both(labels, reference_labels)
    return _count(own, others) < len(others)


def _both(labels: Array, reference_labels: Array | None) -> tuple[Array, Array]:
    """The labels of anchors and references in one dtype."""
    others = labels if reference_labels is None else reference_labels
    shared = result_dtype(labels.dtype, others.dtype)
    return labels.astype(shared), others.astype(shared)


def _count(labels: Array, among: Array) -> Array:
    """How often each label occurs."""
    ordered = jnp.sort(among)
    after = jnp.searchsorted(ordered, labels, side="right")
    return after - jnp.searchsorted(ordered, labels, side="left")

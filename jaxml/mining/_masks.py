"""Masks of positives and negatives, from integer labels of any value."""

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Integer

from jaxml._core.public import public
from jaxml._core.sorting import count_equal, sort
from jaxml._core.types import result_dtype


@public(upcast=False)
def positives(
    labels: Integer[Array, "n"], reference_labels: Integer[Array, "m"] | None = None
) -> Bool[Array, "n m"]:
    """The pairs of one class, without the pair of an example and itself.

        positivesᵢⱼ = (labelᵢ = labelⱼ) and i ≠ j

    With references, i ≠ j is not required.

    Args:
        labels: The classes of the anchors.
        reference_labels: The classes of the references; the anchors by default.

    Example:
        >>> positives(jnp.array([7, 7, -1]))
        Array([[False,  True, False],
               [ True, False, False],
               [False, False, False]], dtype=bool)
    """
    anchors, references = _in_one_dtype(labels, reference_labels)
    is_same_class = anchors[:, None] == references[None]
    if reference_labels is not None:
        return is_same_class
    return is_same_class & ~jnp.eye(len(labels), dtype=bool)


@public(upcast=False)
def negatives(
    labels: Integer[Array, "n"], reference_labels: Integer[Array, "m"] | None = None
) -> Bool[Array, "n m"]:
    """The pairs of different classes.

        negativesᵢⱼ = labelᵢ ≠ labelⱼ

    Args:
        labels: The classes of the anchors.
        reference_labels: The classes of the references; the anchors by default.

    Example:
        >>> negatives(jnp.array([7, -1]), jnp.array([7, 7, 8]))
        Array([[False, False,  True],
               [ True,  True,  True]], dtype=bool)
    """
    anchors, references = _in_one_dtype(labels, reference_labels)
    return anchors[:, None] != references[None]


@public(upcast=False)
def has_positive(
    labels: Integer[Array, "n"], reference_labels: Integer[Array, "m"] | None = None
) -> Bool[Array, "n"]:
    """The anchors with a positive, over which a metric loss is usually averaged.

        has_positiveᵢ = any over j of positivesᵢⱼ

    It makes no n x m array.

    Args:
        labels: The classes of the anchors.
        reference_labels: The classes of the references; the anchors by default.

    Example:
        >>> has_positive(jnp.array([7, 7, -1]))
        Array([ True,  True, False], dtype=bool)
    """
    anchors, references = _in_one_dtype(labels, reference_labels)
    num_itself = 1 if reference_labels is None else 0
    num_equal = lax.platform_dependent(
        anchors, references, cpu=_count_by_search, default=_count_by_comparison
    )
    return num_equal > num_itself


def _count_by_search(labels: Array, references: Array) -> Array:
    return count_equal(sort(references), labels)


def _count_by_comparison(labels: Array, references: Array) -> Array:
    """One kernel, where a sort and a search launch a hundred."""
    return jnp.sum(labels[:, None] == references[None], 1, dtype=jnp.int32)


@public(upcast=False)
def has_negative(
    labels: Integer[Array, "n"], reference_labels: Integer[Array, "m"] | None = None
) -> Bool[Array, "n"]:
    """The anchors with a negative: in a batch all of them, or none if it has one class.

        has_negativeᵢ = any over j of negativesᵢⱼ

    Args:
        labels: The classes of the anchors.
        reference_labels: The classes of the references; the anchors by default.

    Example:
        >>> has_negative(jnp.array([7, 3]), jnp.array([7, 7]))
        Array([False,  True], dtype=bool)
    """
    anchors, references = _in_one_dtype(labels, reference_labels)
    # `jnp.min` refuses an empty array
    smallest, largest = (
        lax.reduce_min(references, (0,)),
        lax.reduce_max(references, (0,)),
    )
    return (smallest < anchors) | (largest > anchors)


def _in_one_dtype(labels: Array, reference_labels: Array | None) -> tuple[Array, Array]:
    """The labels of the anchors and of the references, promoted to one dtype."""
    references = labels if reference_labels is None else reference_labels
    dtype = result_dtype(labels.dtype, references.dtype)
    return labels.astype(dtype), references.astype(dtype)

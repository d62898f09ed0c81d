"""The triplets of a batch: one value for each anchor.

d is the Euclidean distance, with derivative 0 where it is 0, as at a kink. Row i is an
anchor; its positives are the other rows with its label, its negatives those with
another. With `references` and `reference_labels` the candidates are a memory bank's
rows instead. `where` says which pairs may take part, `block` how many anchors are
worked on at a time. An anchor with nothing to compare gives 0.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float, Integer

from jaxml._core.masking import apply_mask
from jaxml._core.public import public
from jaxml._core.safe import safe_divide
from jaxml._core.types import Count, Scalar
from jaxml.losses.metric._per_anchor import (
    Batch,
    euclidean,
    mean_over,
    per_anchor,
)


@public
def batch_hard_triplet_loss(
    embeddings: Float[Array, "n d"],
    labels: Integer[Array, "n"],
    *,
    margin: Scalar = 0.2,
    references: Float[Array, "m d"] | None = None,
    reference_labels: Integer[Array, "m"] | None = None,
    where: Bool[Array, "n _"] | None = None,
    block: Count | None = None,
) -> Float[Array, "n"]:
    """The triplet of the farthest positive and the nearest negative.

        loss = max(0, maxₚ dₚ - minₙ dₙ + m)

    0 for an anchor without a positive or without a negative.

    Args:
        embeddings: Anchors.
        labels: Their classes, any integers.
        margin: m >= 0, in the units of d.

    Reference:
        Hermans, Beyer and Leibe, In defense of the triplet loss for person
        re-identification, 2017, https://arxiv.org/abs/1703.07737

    Example:
        >>> x = jnp.array([[0.0], [0.5], [0.75]])
        >>> batch_hard_triplet_loss(x, jnp.array([7, 7, 8]), margin=0.5)
        Array([0.25, 0.75, 0.  ], dtype=float32)
    """

    def formula(d: Array, positive: Array, negative: Array) -> Array:
        farthest = jnp.max(apply_mask(d, positive, 0.0))
        nearest = jnp.min(apply_mask(d, negative, jnp.inf))
        both = jnp.any(positive) & jnp.any(negative)
        return apply_mask(
            jax.nn.relu(farthest - apply_mask(nearest, both) + margin), both
        )

    batch = Batch(embeddings, labels, references, reference_labels, where)
    return per_anchor(batch, block, euclidean, formula)


@public
def batch_semihard_triplet_loss(
    embeddings: Float[Array, "n d"],
    labels: Integer[Array, "n"],
    *,
    margin: Scalar = 0.2,
    references: Float[Array, "m d"] | None = None,
    reference_labels: Integer[Array, "m"] | None = None,
    where: Bool[Array, "n _"] | None = None,
    block: Count | None = None,
) -> Float[Array, "n"]:
    """Every positive with its nearest farther negative: hard, but not yet wrong.

        loss = mean over p of max(0, dₚ - min{dₙ : dₙ > dₚ} + m)

    Where no negative is farther than the positive, the farthest negative takes the
    place. 0 for an anchor without a positive or without a negative.

    Args:
        embeddings: Anchors.
        labels: Their classes, any integers.
        margin: m >= 0, in the units of d.

    Reference:
        Schroff, Kalenichenko and Philbin, FaceNet, CVPR 2015,
        https://arxiv.org/abs/1503.03832

    Example:
        >>> x = jnp.array([[0.0], [0.5], [0.75]])
        >>> batch_semihard_triplet_loss(x, jnp.array([7, 7, 8]), margin=0.5)
        Array([0.25, 0.75, 0.  ], dtype=float32)
    """

    def formula(d: Array, positive: Array, negative: Array) -> Array:
        fixed = lax.stop_gradient(d)
        far = _sorted(apply_mask(fixed, negative, jnp.inf))
        next_one = _count(far, fixed, "right")
        farther = jnp.take(far, next_one, mode="fill", fill_value=jnp.inf)
        farthest = jnp.max(apply_mask(fixed, negative, 0.0))
        chosen = jnp.where(jnp.isinf(farther), farthest, farther)
        active = positive & (fixed - chosen + margin > 0) & jnp.any(negative)
        choices = _sorted(apply_mask(chosen, active, jnp.inf))
        often, equal = (_times(values, fixed) for values in (choices, far))
        of_negative = apply_mask(safe_divide(often, equal), negative)
        of_positive = active.astype(d.dtype)
        return _linear(d, margin, of_positive, of_negative, jnp.sum(positive))

    batch = Batch(embeddings, labels, references, reference_labels, where)
    return per_anchor(batch, block, euclidean, formula, arrays=32)


@public
def batch_all_triplet_loss(
    embeddings: Float[Array, "n d"],
    labels: Integer[Array, "n"],
    *,
    margin: Scalar = 0.2,
    references: Float[Array, "m d"] | None = None,
    reference_labels: Integer[Array, "m"] | None = None,
    where: Bool[Array, "n _"] | None = None,
    block: Count | None = None,
) -> Float[Array, "n"]:
    """The mean over all of the anchor's triplets: each positive with each negative.

        loss = mean over p, n of max(0, dₚ - dₙ + m)

    Exact, and no triplet is ever formed: sorted, the negatives nearer than dₚ + m are
    counted, and so are the positives for which a negative is near. 0 for an anchor
    without a positive or without a negative.

    Args:
        embeddings: Anchors.
        labels: Their classes, any integers.
        margin: m >= 0, in the units of d.

    Reference:
        Hermans, Beyer and Leibe, In defense of the triplet loss for person
        re-identification, 2017, https://arxiv.org/abs/1703.07737

    Example:
        >>> x = jnp.array([[0.0], [0.5], [0.75]])
        >>> batch_all_triplet_loss(x, jnp.array([7, 7, 8]), margin=0.5)
        Array([0.25, 0.75, 0.  ], dtype=float32)
    """

    def formula(d: Array, positive: Array, negative: Array) -> Array:
        fixed = lax.stop_gradient(d)
        reach = fixed + lax.stop_gradient(margin)
        nearer = _count(_sorted(apply_mask(fixed, negative, jnp.inf)), reach, "left")
        beyond = _count(_sorted(apply_mask(reach, positive, jnp.inf)), fixed, "right")
        positives, negatives = (jnp.sum(m, dtype=d.dtype) for m in (positive, negative))
        of_positive = apply_mask(nearer.astype(d.dtype), positive)
        of_negative = apply_mask(positives - beyond.astype(d.dtype), negative)
        return _linear(d, margin, of_positive, of_negative, positives * negatives)

    batch = Batch(embeddings, labels, references, reference_labels, where)
    return per_anchor(batch, block, euclidean, formula, arrays=32)


def _linear(
    d: Array, margin: Scalar, of_positive: Array, of_negative: Array, count: Array
) -> Array:
    """Σ (dₚ + m) - Σ dₙ over count, each as often as it takes part: both equally often.

    Distances are taken from their mean, so that the two sums are not large beside the
    difference.
    """
    taking_part = (of_positive > 0) | (of_negative > 0)
    above = d - lax.stop_gradient(mean_over(d, taking_part))
    terms = of_positive * (above + margin) - of_negative * above
    return safe_divide(jnp.sum(terms), jnp.asarray(count, d.dtype))


def _count(ascending: Array, x: Array, side: str) -> Array:
    """How many are less than x, or with side "right" at most x."""
    return jnp.searchsorted(ascending, x, side=side)


def _times(ascending: Array, x: Array) -> Array:
    """How often each x is there."""
    found = _count(ascending, x, "right") - _count(ascending, x, "left")
    return found.astype(x.dtype)


def _sorted(x: Array) -> Array:
    """x ascending. XLA on CPU sorts integers five times as fast as floats."""
    if x.dtype != jnp.float32:
        return jnp.sort(x)
    bits = jnp.sort(_ordered(lax.bitcast_convert_type(x, jnp.int32)))
    return lax.bitcast_convert_type(_ordered(bits), jnp.float32)


def _ordered(bits: Array) -> Array:
    """A float's bits as an integer that is ordered as the float is, and back."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)

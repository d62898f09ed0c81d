"""Segmentation by the confusion matrix: true and false positives and negatives.

`ConfusionCounts` are the soft counts of pixels that the region losses share; the losses
in this file count the true negatives too. `axis` names the pixel axes, which are the
event; the classes are the last axis. One value per image and class.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Integer

from jaxml._core.collectives import any_shard, sum_shards
from jaxml._core.contract import describe, raise_invalid
from jaxml._core.masking import apply_mask
from jaxml._core.public import public
from jaxml._core.safe import safe_divide, safe_sqrt
from jaxml._core.types import Axes, AxisName, Fraction
from jaxml.losses._labels import label_index


class ConfusionCounts(NamedTuple):
    """Soft counts of pixels. They are sums of non-negative terms: nothing cancels."""

    tp: Array  # Σ pt
    fp: Array  # Σ p(1 - t)
    fn: Array  # Σ t(1 - p)


def confusion_counts(
    p: Array,
    t: Array,
    axis: Axes,
    where: Array | None,
    axis_name: AxisName | None = None,
) -> ConfusionCounts:
    """The soft counts of a predicted region p and a true region t, both in [0, 1]."""
    axes = pixel_axes(axis, p)
    p, t = mask_pixels(p, where), mask_pixels(t, where)
    counts = (jnp.sum(x, axes) for x in (p * t, p * (1 - t), t * (1 - p)))
    return sum_shards(ConfusionCounts(*counts), axis_name)


def true_negatives(
    p: Array,
    t: Array,
    axis: Axes,
    where: Array | None,
    axis_name: AxisName | None = None,
) -> Array:
    """Σ (1 - p)(1 - t): the unmasked pixels that are in neither region."""
    p, t = mask_pixels(p, where, fill=1.0), mask_pixels(t, where, fill=1.0)
    return sum_shards(jnp.sum((1 - p) * (1 - t), pixel_axes(axis, p)), axis_name)


def mask_pixels(x: Array, where: Array | None, fill: float = 0.0) -> Array:
    """x with `fill` in all classes of the masked pixels."""
    return apply_mask(x, None if where is None else where[..., None], fill)


def pixel_axes(axis: Axes, x: Array, *, allow_last: bool = False) -> tuple[int, ...]:
    """The pixel axes of x, counted from 0.

    The last axis holds the classes, unless `allow_last` says that x has none.

    Raises:
        ValueError: If `axis` does not name different axes of x.
    """
    axes = (axis,) if isinstance(axis, int) else axis
    allowed = range(-x.ndim, x.ndim)
    distinct = {a % x.ndim for a in axes if a in allowed}
    if not allow_last:
        distinct -= {x.ndim - 1}
    if not axes or len(distinct) < len(axes):
        requirement = f"name different axes of {describe(x)}"
        requirement += "" if allow_last else ", not the last"
        raise_invalid(ValueError, "axis", requirement, axis)
    return tuple(a % x.ndim for a in axes)


@public
def sensitivity_specificity_loss(
    probabilities: Float[Array, "*pixels classes"],
    targets: Float[Array, "*pixels classes"],
    *,
    sensitivity: Fraction = 0.5,
    axis: Axes = (-3, -2),
    where: Bool[Array, "*pixels"] | None = None,
    axis_name: AxisName | None = None,
) -> Float[Array, "*batch classes"]:
    """The weighted mean of the squared errors inside and outside the true region.

        loss = λ Σ(t - p)²t / Σt + (1 - λ) Σ(t - p)²(1 - t) / Σ(1 - t)

    If one side has no pixels, its term is 0 and the other term keeps its weight.

    Args:
        probabilities: p in [0, 1].
        targets: t in [0, 1].
        sensitivity: λ in [0, 1], the weight of the error inside the region.
        axis: The pixel axes.
        where: The pixels that count.
        axis_name: The mesh axes over which the pixels, or the images of one batch, are
            sharded in `jax.shard_map`: the counts are those of all devices.

    Reference:
        Brosch et al., Deep convolutional encoder networks for multiple sclerosis lesion
        segmentation, MICCAI 2015, https://doi.org/10.1007/978-3-319-24574-4_1

    Example:
        >>> p, t = jnp.full((1, 4, 1), 0.5), jnp.zeros((1, 4, 1)).at[0, 0].set(1.0)
        >>> sensitivity_specificity_loss(p, t, sensitivity=0.05)
        Array([0.25], dtype=float32)
    """
    axes = pixel_axes(axis, probabilities)
    p, t = mask_pixels(probabilities, where), mask_pixels(targets, where)
    outside = mask_pixels(1 - t, where)
    squared_error = (t - p) ** 2

    def mean_over(region: Array) -> Array:
        sums = jnp.sum(squared_error * region, axes), jnp.sum(region, axes)
        return safe_divide(*sum_shards(sums, axis_name))

    return sensitivity * mean_over(t) + (1 - sensitivity) * mean_over(outside)


@public
def matthews_loss(
    probabilities: Float[Array, "*pixels classes"],
    targets: Float[Array, "*pixels classes"],
    *,
    axis: Axes = (-3, -2),
    where: Bool[Array, "*pixels"] | None = None,
    axis_name: AxisName | None = None,
) -> Float[Array, "*batch classes"]:
    """One minus the Matthews correlation coefficient of the two regions.

        loss = 1 - (TP·TN - FP·FN) / √((TP + FP)(TP + FN)(TN + FP)(TN + FN))

    with the counts TP = Σpt, FP = Σp(1 - t), FN = Σt(1 - p), TN = Σ(1 - p)(1 - t). It
    lies in [0, 2]; an uncorrelated prediction has loss 1 however large the background.
    If a region covers nothing or everything, the loss is 0 if the other region is equal
    to it, and 1 otherwise.

    Args:
        probabilities: p in [0, 1].
        targets: t in [0, 1].
        axis: The pixel axes.
        where: The pixels that count.
        axis_name: The mesh axes over which the pixels, or the images of one batch, are
            sharded in `jax.shard_map`: the counts are those of all devices.

    Reference:
        Abhishek and Hamarneh, Matthews correlation coefficient loss for deep
        convolutional networks, ISBI 2021, https://arxiv.org/abs/2010.13454

    Example:
        >>> t = jnp.array([[[1.0], [0.0], [0.0], [0.0]]])
        >>> matthews_loss(jnp.full_like(t, 0.5), t), matthews_loss(t, t)
        (Array([1.], dtype=float32), Array([0.], dtype=float32))
    """
    tp, fp, fn = confusion_counts(probabilities, targets, axis, where, axis_name)
    tn = true_negatives(probabilities, targets, axis, where, axis_name)
    # predicted positives, positives, negatives, predicted negatives
    marginals = tp + fp, tp + fn, tn + fp, tn + fn
    root_pp, root_p, root_n, root_pn = map(safe_sqrt, marginals)
    # 1 - √q = (1 - q)/(1 + √q), where q is the product of one minus each error rate
    error_rates = map(safe_divide, (fp, fn, fp, fn), marginals)
    one_minus_q = functools.reduce(
        lambda one_minus_product, rate: rate + (1 - rate) * one_minus_product,
        error_rates,
    )
    root_q = safe_divide(tp, root_pp * root_p) * safe_divide(tn, root_n * root_pn)
    fp_fn_term = safe_divide(fp, root_pp * root_n) * safe_divide(fn, root_p * root_pn)
    return one_minus_q / (1 + root_q) + fp_fn_term


@public(upcast=False)
def present(
    labels: Integer[Array, "*pixels"],
    num_classes: int,
    *,
    axis: Axes = (-2, -1),
    where: Bool[Array, "*pixels"] | None = None,
    axis_name: AxisName | None = None,
) -> Bool[Array, "*batch classes"]:
    """Whether a class occurs in the image: the mask for a mean over present classes.

    Args:
        labels: The true class of each pixel.
        num_classes: The number of classes.
        axis: The pixel axes.
        where: The pixels that count.
        axis_name: As in `dice_loss`.

    Example:
        >>> present(jnp.array([[0, 2], [2, 2]]), 4)
        Array([ True, False,  True, False], dtype=bool)
    """
    axes = pixel_axes(axis, labels, allow_last=True)
    index = apply_mask(label_index(labels, num_classes), where, -1)
    is_present = jnp.any(jax.nn.one_hot(index, num_classes, dtype=bool), axes)
    return any_shard(is_present, axis_name)

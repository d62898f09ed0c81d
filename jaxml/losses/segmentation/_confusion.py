"""Segmentation by all four counts of pixels, the background's too.

Event, axes and masks are those of the losses by regions; one value per image and class.
"""

import functools

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Integer

from jaxml._core.masking import apply_mask
from jaxml._core.public import public
from jaxml._core.safe import safe_divide, safe_sqrt
from jaxml._core.types import Scalar
from jaxml.losses._labels import label_index
from jaxml.losses.segmentation._pixels import check_pixel_axes, counts, unmarked


@public
def sensitivity_specificity_loss(
    probabilities: Float[Array, "*pixels classes"],
    targets: Float[Array, "*pixels classes"],
    *,
    sensitivity: Scalar = 0.5,
    axis: int | tuple[int, ...] = (-3, -2),
    where: Bool[Array, "*pixels"] | None = None,
) -> Float[Array, "*batch classes"]:
    """The mean squared error inside the true region, mixed with that outside of it.

        loss = λ Σ(t - p)²t / Σt + (1 - λ) Σ(t - p)²(1 - t) / Σ(1 - t)

    A side without pixels contributes 0; the other keeps its weight, λ or 1 - λ.

    Args:
        probabilities: p in [0, 1].
        targets: t in [0, 1].
        sensitivity: λ in [0, 1], the weight of what is inside.
        axis: The pixel axes.
        where: The pixels that count.

    Reference:
        Brosch et al., Deep convolutional encoder networks for multiple sclerosis lesion
        segmentation, MICCAI 2015, https://doi.org/10.1007/978-3-319-24574-4_1

    Example:
        >>> p, t = jnp.full((1, 4, 1), 0.5), jnp.zeros((1, 4, 1)).at[0, 0].set(1.0)
        >>> sensitivity_specificity_loss(p, t, sensitivity=0.05)
        Array([0.25], dtype=float32)
    """
    check_pixel_axes(axis, probabilities)
    kept = None if where is None else where[..., None]
    p, t = apply_mask(probabilities, kept), apply_mask(targets, kept)
    outside, error = apply_mask(1 - t, kept), (t - p) ** 2

    def mean(region: Array) -> Array:
        return safe_divide(jnp.sum(error * region, axis), jnp.sum(region, axis))

    return sensitivity * mean(t) + (1 - sensitivity) * mean(outside)


@public
def matthews_loss(
    probabilities: Float[Array, "*pixels classes"],
    targets: Float[Array, "*pixels classes"],
    *,
    axis: int | tuple[int, ...] = (-3, -2),
    where: Bool[Array, "*pixels"] | None = None,
) -> Float[Array, "*batch classes"]:
    """One minus the correlation of the two regions, which the background cannot raise.

        loss = 1 - (TP·TN - FP·FN) / √((TP + FP)(TP + FN)(TN + FP)(TN + FN))

    of the counts TP = Σpt, FP = Σp(1 - t), FN = Σt(1 - p), TN = Σ(1 - p)(1 - t). In
    [0, 2]; 1 where a region covers nothing or everything, but 0 if the other agrees.

    Args:
        probabilities: p in [0, 1].
        targets: t in [0, 1].
        axis: The pixel axes.
        where: The pixels that count.

    Reference:
        Abhishek and Hamarneh, Matthews correlation coefficient loss for deep
        convolutional networks, ISBI 2021, https://arxiv.org/abs/2010.13454

    Example:
        >>> t = jnp.array([[[1.0], [0.0], [0.0], [0.0]]])
        >>> matthews_loss(jnp.full_like(t, 0.5), t), matthews_loss(t, t)
        (Array([1.], dtype=float32), Array([0.], dtype=float32))
    """
    tp, fp, fn = counts(probabilities, targets, axis, where)
    tn = unmarked(probabilities, targets, axis, where)
    margins = tp + fp, tp + fn, tn + fp, tn + fn
    predicted, true, outside, cleared = map(safe_sqrt, margins)
    # 1 - √q = (1 - q)/(1 + √q), where q is the product of four rates of being right
    wrong = map(safe_divide, (fp, fn, fp, fn), margins)
    one_minus_q = functools.reduce(lambda below, w: w + (1 - w) * below, wrong)
    root = safe_divide(tp, predicted * true) * safe_divide(tn, outside * cleared)
    against = safe_divide(fp, predicted * outside) * safe_divide(fn, true * cleared)
    return one_minus_q / (1 + root) + against


@public(upcast=False)
def present(
    labels: Integer[Array, "*pixels"],
    num_classes: int,
    *,
    axis: int | tuple[int, ...] = (-2, -1),
    where: Bool[Array, "*pixels"] | None = None,
) -> Bool[Array, "*batch classes"]:
    """Whether a class has a pixel in the image: the mask for means over such classes.

    Args:
        labels: The true class of each pixel.
        num_classes: How many there are.
        axis: The pixel axes.
        where: The pixels that count.

    Example:
        >>> present(jnp.array([[0, 2], [2, 2]]), 4)
        Array([ True, False,  True, False], dtype=bool)
    """
    check_pixel_axes(axis, labels, last=True)
    axes = (axis,) if isinstance(axis, int) else axis
    axes = tuple(a % labels.ndim for a in axes)
    own = apply_mask(label_index(labels, num_classes), where, -1)[..., None]
    index = jnp.arange(num_classes, dtype=own.dtype)
    return jnp.any(own == index.reshape((1,) * labels.ndim + (-1,)), axes)

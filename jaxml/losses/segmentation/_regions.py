"""Segmentation by regions: the overlap of a predicted region with the true one.

`axis` names the pixel axes, which are the event; the classes are the last axis. One
value per image and class, `[*batch classes]`, over the pixels that `where` leaves
unmasked. Two empty regions have loss 0.

The default axes suit 2-D images. Volumes pass (-4, -3, -2). With the batch axis among
the pixel axes, the whole batch counts as one image (batch Dice).
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jaxml._core.masking import apply_mask
from jaxml._core.public import public
from jaxml._core.safe import safe_divide, safe_power
from jaxml._core.types import Axes, AxisName, NonNegative, Positive, Scalar
from jaxml.losses.segmentation._confusion import ConfusionCounts, confusion_counts


@public
def dice_loss(
    probabilities: Float[Array, "*pixels classes"],
    targets: Float[Array, "*pixels classes"],
    *,
    smooth: NonNegative = 0.0,
    axis: Axes = (-3, -2),
    where: Bool[Array, "*pixels"] | None = None,
    axis_name: AxisName | None = None,
) -> Float[Array, "*batch classes"]:
    """One minus the Dice coefficient (the F1 score) of the two regions.

        loss = 1 - (2 Σpt + s) / (Σp + Σt + s)

    The sums run over the pixels. The numerator is computed as Σ[p(1 - t) + t(1 - p)],
    which keeps full precision when the regions agree.

    Args:
        probabilities: p in [0, 1].
        targets: t in [0, 1].
        smooth: s >= 0, in pixels. It lowers the loss, most of all of small regions.
        axis: The pixel axes.
        where: The pixels that count.
        axis_name: The mesh axes over which the pixels, or the images of one batch, are
            sharded in `jax.shard_map`: the counts are those of all devices.

    Reference:
        Milletari, Navab and Ahmadi, V-Net, 3DV 2016, https://arxiv.org/abs/1606.04797

    Example:
        >>> dice_loss(jnp.full((4, 4, 1), 1.0), jnp.full((4, 4, 1), 0.5))
        Array([0.33333334], dtype=float32)
    """
    tp, fp, fn = confusion_counts(probabilities, targets, axis, where, axis_name)
    num_errors = fp + fn
    return safe_divide(num_errors, 2 * tp + num_errors + smooth)


@public
def generalized_dice_loss(
    probabilities: Float[Array, "*pixels classes"],
    targets: Float[Array, "*pixels classes"],
    *,
    smooth: NonNegative = 0.0,
    axis: Axes = (-3, -2),
    where: Bool[Array, "*pixels"] | None = None,
    axis_name: AxisName | None = None,
) -> Float[Array, "*batch"]:
    """The Dice loss of all classes together, with more weight on small classes.

        loss = 1 - (2 Σ꜀ w꜀ Σpt + s) / (Σ꜀ w꜀ Σ(p + t) + s)    with w꜀ = 1/(Σt)²

    One value per image. An absent class takes the weight of the smallest class present.
    If all classes are absent, every weight is 1.

    Args:
        probabilities: p in [0, 1].
        targets: t in [0, 1].
        smooth: s >= 0, added to both weighted sums.
        axis: The pixel axes.
        where: The pixels that count.
        axis_name: The mesh axes over which the pixels, or the images of one batch, are
            sharded in `jax.shard_map`: the counts are those of all devices.

    Reference:
        Sudre et al., Generalised Dice overlap as a deep learning loss function for
        highly unbalanced segmentations, DLMIA 2017, https://arxiv.org/abs/1707.03237

    Example:
        >>> t = jax.nn.one_hot(jnp.array([[0, 0, 0, 1]]), 2)
        >>> generalized_dice_loss(jnp.full_like(t, 0.5), t)
        Array(0.625, dtype=float32)
    """
    tp, fp, fn = confusion_counts(probabilities, targets, axis, where, axis_name)
    num_errors = fp + fn
    size = tp + fn  # Σt
    is_present = size > 0
    sizes = apply_mask(size, is_present, jnp.inf)
    min_size = jnp.min(sizes, -1, keepdims=True, initial=jnp.inf)
    min_size = jnp.where(jnp.isinf(min_size), 1.0, min_size)
    # relative to the largest weight, so that no weight overflows
    weight = (
        jnp.where(is_present, min_size / jnp.where(is_present, size, 1.0), 1.0) ** 2
    )
    smooth = smooth * jnp.squeeze(min_size, -1) ** 2
    denominator = jnp.sum(weight * (2 * tp + num_errors), -1) + smooth
    return safe_divide(jnp.sum(weight * num_errors, -1), denominator)


@public
def tversky_loss(
    probabilities: Float[Array, "*pixels classes"],
    targets: Float[Array, "*pixels classes"],
    *,
    alpha: NonNegative = 0.5,
    beta: NonNegative = 0.5,
    smooth: NonNegative = 0.0,
    axis: Axes = (-3, -2),
    where: Bool[Array, "*pixels"] | None = None,
    axis_name: AxisName | None = None,
) -> Float[Array, "*batch classes"]:
    """Dice loss with separate weights for false positives and false negatives.

        loss = 1 - TI,   TI = (Σpt + s) / (Σpt + α Σp(1 - t) + β Σt(1 - p) + s)

    At α = β = ½ it is the Dice loss with smooth 2s, at α = β = 1 the Jaccard loss.

    Args:
        probabilities: p in [0, 1].
        targets: t in [0, 1].
        alpha: α >= 0, the weight of false positives.
        beta: β >= 0, the weight of false negatives.
        smooth: s >= 0, in pixels.
        axis: The pixel axes.
        where: The pixels that count.
        axis_name: The mesh axes over which the pixels, or the images of one batch, are
            sharded in `jax.shard_map`: the counts are those of all devices.

    Reference:
        Salehi, Erdogmus and Gholipour, Tversky loss function for image segmentation,
        MLMI 2017, https://arxiv.org/abs/1706.05721

    Example:
        >>> p, t = jnp.full((2, 2, 1), 1.0), jnp.zeros((2, 2, 1)).at[0].set(1.0)
        >>> tversky_loss(p, t, alpha=0.5, beta=1.0)
        Array([0.33333334], dtype=float32)
    """
    counts = confusion_counts(probabilities, targets, axis, where, axis_name)
    return _one_minus_tversky_index(counts, alpha, beta, smooth)


@public
def focal_tversky_loss(
    probabilities: Float[Array, "*pixels classes"],
    targets: Float[Array, "*pixels classes"],
    *,
    gamma: Positive = 0.75,
    alpha: NonNegative = 0.5,
    beta: NonNegative = 0.5,
    smooth: NonNegative = 0.0,
    axis: Axes = (-3, -2),
    where: Bool[Array, "*pixels"] | None = None,
    axis_name: AxisName | None = None,
) -> Float[Array, "*batch classes"]:
    """A power of the Tversky loss, to give more or less weight to easy regions.

        loss = (1 - TI)^γ    with TI as in `tversky_loss`

    For γ < 1 the gradient grows without bound as TI approaches 1. At TI = 1, the
    minimum, all derivatives are 0.

    Args:
        probabilities: p in [0, 1].
        targets: t in [0, 1].
        gamma: γ > 0. The paper writes 1/γ for it and finds 3/4 best.
        alpha: α >= 0, the weight of false positives.
        beta: β >= 0, the weight of false negatives.
        smooth: s >= 0, in pixels.
        axis: The pixel axes.
        where: The pixels that count.
        axis_name: The mesh axes over which the pixels, or the images of one batch, are
            sharded in `jax.shard_map`: the counts are those of all devices.

    Reference:
        Abraham and Khan, A novel focal Tversky loss function, ISBI 2019,
        https://arxiv.org/abs/1810.07842

    Example:
        >>> focal_tversky_loss(jnp.ones((2, 2, 1)), jnp.full((2, 2, 1), 0.5), gamma=0.5)
        Array([0.57735026], dtype=float32)
    """
    counts = confusion_counts(probabilities, targets, axis, where, axis_name)
    one_minus_ti = _one_minus_tversky_index(counts, alpha, beta, smooth)
    return safe_power(one_minus_ti, jnp.asarray(gamma))


def _one_minus_tversky_index(
    counts: ConfusionCounts, alpha: Scalar, beta: Scalar, smooth: Scalar
) -> Array:
    """(α FP + β FN) / (TP + α FP + β FN + s)"""
    weighted_errors = alpha * counts.fp + beta * counts.fn
    return safe_divide(weighted_errors, counts.tp + weighted_errors + smooth)


@public
def jaccard_loss(
    probabilities: Float[Array, "*pixels classes"],
    targets: Float[Array, "*pixels classes"],
    *,
    smooth: NonNegative = 0.0,
    axis: Axes = (-3, -2),
    where: Bool[Array, "*pixels"] | None = None,
    axis_name: AxisName | None = None,
) -> Float[Array, "*batch classes"]:
    """One minus the intersection over union (IoU) of the two regions.

        loss = 1 - (Σpt + s) / (Σp + Σt - Σpt + s)

    Args:
        probabilities: p in [0, 1].
        targets: t in [0, 1].
        smooth: s >= 0, in pixels.
        axis: The pixel axes.
        where: The pixels that count.
        axis_name: The mesh axes over which the pixels, or the images of one batch, are
            sharded in `jax.shard_map`: the counts are those of all devices.

    Reference:
        Rahman and Wang, Optimizing intersection-over-union in deep neural networks for
        image segmentation, ISVC 2016, https://doi.org/10.1007/978-3-319-50835-1_22

    Example:
        >>> jaccard_loss(jnp.ones((2, 2, 1)), jnp.full((2, 2, 1), 0.5))
        Array([0.5], dtype=float32)
    """
    tp, fp, fn = confusion_counts(probabilities, targets, axis, where, axis_name)
    num_errors = fp + fn
    return safe_divide(num_errors, tp + num_errors + smooth)

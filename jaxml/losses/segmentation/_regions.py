"""Segmentation by regions: how far a predicted region is from covering the true one.

Classes stand last, the pixel axes are named by `axis` and are the event; one value per
image and class, `[*batch classes]`. `where` keeps pixels. Empty against empty costs 0.
The default axes are those of images; volumes pass (-4, -3, -2); with the batch axis
among them, the batch is one large image.
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jaxml._core.public import public
from jaxml._core.safe import safe_divide
from jaxml._core.special.partials import with_partials
from jaxml._core.types import Scalar
from jaxml.losses.segmentation._pixels import counts


@public
def dice_loss(
    probabilities: Float[Array, "*pixels classes"],
    targets: Float[Array, "*pixels classes"],
    *,
    smooth: Scalar = 0.0,
    axis: int | tuple[int, ...] = (-3, -2),
    where: Bool[Array, "*pixels"] | None = None,
) -> Float[Array, "*batch classes"]:
    """One minus the share that the two regions have in common.

        loss = 1 - (2 Σpt + s) / (Σp + Σt + s)

    The sums run over the pixels. Formed as Σ[p(1 - t) + t(1 - p)] over the same
    denominator, it keeps its digits when the regions agree.

    Args:
        probabilities: p in [0, 1].
        targets: t in [0, 1].
        smooth: s >= 0, in pixels: draws small regions towards a loss of 0.
        axis: The pixel axes.
        where: The pixels that count.

    Reference:
        Milletari, Navab and Ahmadi, V-Net, 3DV 2016, https://arxiv.org/abs/1606.04797

    Example:
        >>> dice_loss(jnp.full((4, 4, 1), 1.0), jnp.full((4, 4, 1), 0.5))
        Array([0.33333334], dtype=float32)
    """
    both, false, missed = counts(probabilities, targets, axis, where)
    apart = false + missed
    return safe_divide(apart, 2 * both + apart + smooth)


@public
def generalized_dice_loss(
    probabilities: Float[Array, "*pixels classes"],
    targets: Float[Array, "*pixels classes"],
    *,
    smooth: Scalar = 0.0,
    axis: int | tuple[int, ...] = (-3, -2),
    where: Bool[Array, "*pixels"] | None = None,
) -> Float[Array, "*batch"]:
    """The Dice loss of all classes in one, small classes weighing as much as large.

        loss = 1 - (2 Σ꜀ w꜀ Σpt + s) / (Σ꜀ w꜀ Σ(p + t) + s)    with w꜀ = 1/(Σt)²

    One value per image. A class that is absent from it weighs as much as the smallest
    that is present; when all are absent their weights are 1.

    Args:
        probabilities: p in [0, 1].
        targets: t in [0, 1].
        smooth: s >= 0, beside the weighted sums.
        axis: The pixel axes.
        where: The pixels that count.

    Reference:
        Sudre et al., Generalised Dice overlap as a deep learning loss function for
        highly unbalanced segmentations, DLMIA 2017, https://arxiv.org/abs/1707.03237

    Example:
        >>> t = jax.nn.one_hot(jnp.array([[0, 0, 0, 1]]), 2)
        >>> generalized_dice_loss(jnp.full_like(t, 0.5), t)
        Array(0.625, dtype=float32)
    """
    both, false, missed = counts(probabilities, targets, axis, where)
    size, apart = both + missed, false + missed
    present = size > 0
    smallest = jnp.min(jnp.where(present, size, jnp.inf), -1, keepdims=True)
    smallest = jnp.where(jnp.isinf(smallest), 1.0, smallest)
    # in units of the largest weight, which nothing overflows
    weight = jnp.where(present, smallest / jnp.where(present, size, 1.0), 1.0) ** 2
    smooth = smooth * jnp.squeeze(smallest, -1) ** 2
    total = jnp.sum(weight * (2 * both + apart), -1) + smooth
    return safe_divide(jnp.sum(weight * apart, -1), total)


@public
def tversky_loss(
    probabilities: Float[Array, "*pixels classes"],
    targets: Float[Array, "*pixels classes"],
    *,
    alpha: Scalar = 0.5,
    beta: Scalar = 0.5,
    smooth: Scalar = 0.0,
    axis: int | tuple[int, ...] = (-3, -2),
    where: Bool[Array, "*pixels"] | None = None,
) -> Float[Array, "*batch classes"]:
    """Dice in which what is predicted falsely and what is missed weigh unequally.

        loss = 1 - TI,   TI = (Σpt + s) / (Σpt + α Σp(1 - t) + β Σt(1 - p) + s)

    At α = β = ½ it is the Dice loss, with half the smooth; at 1 the Jaccard loss.

    Args:
        probabilities: p in [0, 1].
        targets: t in [0, 1].
        alpha: α >= 0, the weight of false positives.
        beta: β >= 0, the weight of false negatives.
        smooth: s >= 0, in pixels.
        axis: The pixel axes.
        where: The pixels that count.

    Reference:
        Salehi, Erdogmus and Gholipour, Tversky loss function for image segmentation,
        MLMI 2017, https://arxiv.org/abs/1706.05721

    Example:
        >>> p, t = jnp.full((2, 2, 1), 1.0), jnp.zeros((2, 2, 1)).at[0].set(1.0)
        >>> tversky_loss(p, t, alpha=0.5, beta=1.0)
        Array([0.33333334], dtype=float32)
    """
    both, false, missed = counts(probabilities, targets, axis, where)
    apart = alpha * false + beta * missed
    return safe_divide(apart, both + apart + smooth)


@public
def focal_tversky_loss(
    probabilities: Float[Array, "*pixels classes"],
    targets: Float[Array, "*pixels classes"],
    *,
    gamma: Scalar = 0.75,
    alpha: Scalar = 0.5,
    beta: Scalar = 0.5,
    smooth: Scalar = 0.0,
    axis: int | tuple[int, ...] = (-3, -2),
    where: Bool[Array, "*pixels"] | None = None,
) -> Float[Array, "*batch classes"]:
    """The Tversky loss bent so that regions already found count for more or for less.

        loss = (1 - TI)^γ    with TI as in `tversky_loss`

    With γ < 1 its slope grows without bound as TI approaches 1; at TI = 1 itself, where
    nothing can be gained, all derivatives are 0.

    Args:
        probabilities: p in [0, 1].
        targets: t in [0, 1].
        gamma: γ > 0; the paper writes 1/γ and finds 3/4 best.
        alpha: α >= 0, the weight of false positives.
        beta: β >= 0, the weight of false negatives.
        smooth: s >= 0, in pixels.
        axis: The pixel axes.
        where: The pixels that count.

    Reference:
        Abraham and Khan, A novel focal Tversky loss function, ISBI 2019,
        https://arxiv.org/abs/1810.07842

    Example:
        >>> focal_tversky_loss(jnp.ones((2, 2, 1)), jnp.full((2, 2, 1), 0.5), gamma=0.5)
        Array([0.57735026], dtype=float32)
    """
    both, false, missed = counts(probabilities, targets, axis, where)
    apart = alpha * false + beta * missed
    return _power(safe_divide(apart, both + apart + smooth), jnp.asarray(gamma))


def _power_slope(x: Array, y: Array) -> Array:
    return y * _power(x, y - 1)


def _power_growth(x: Array, y: Array) -> Array:
    return _power(x, y) * jnp.log(jnp.where(x == 0, 1.0, x))


@with_partials(_power_slope, _power_growth)
def _power(x: Array, y: Array) -> Array:
    """xʸ for x >= 0, and 0⁰ = 1; 0 where it is infinite, at x = 0 with y < 0."""
    nothing = x == 0
    at_zero = jnp.where(y == 0, 1.0, 0.0)
    return jnp.where(nothing, at_zero, jnp.where(nothing, 1.0, x) ** y)


@public
def jaccard_loss(
    probabilities: Float[Array, "*pixels classes"],
    targets: Float[Array, "*pixels classes"],
    *,
    smooth: Scalar = 0.0,
    axis: int | tuple[int, ...] = (-3, -2),
    where: Bool[Array, "*pixels"] | None = None,
) -> Float[Array, "*batch classes"]:
    """One minus the intersection of the two regions over their union.

        loss = 1 - (Σpt + s) / (Σp + Σt - Σpt + s)

    Args:
        probabilities: p in [0, 1].
        targets: t in [0, 1].
        smooth: s >= 0, in pixels.
        axis: The pixel axes.
        where: The pixels that count.

    Reference:
        Rahman and Wang, Optimizing intersection-over-union in deep neural networks for
        image segmentation, ISVC 2016, https://doi.org/10.1007/978-3-319-50835-1_22

    Example:
        >>> jaccard_loss(jnp.ones((2, 2, 1)), jnp.full((2, 2, 1), 0.5))
        Array([0.5], dtype=float32)
    """
    both, false, missed = counts(probabilities, targets, axis, where)
    apart = false + missed
    return safe_divide(apart, both + apart + smooth)

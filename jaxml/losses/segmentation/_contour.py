"""Segmentation by shape: the skeletons and the contours of regions.

`axis` names the pixel axes, which are the event; the classes are the last axis. One
value per image and class.
"""

import functools
from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float

from jaxml._core.public import public
from jaxml._core.safe import multiply_no_nan, safe_divide
from jaxml._core.types import Axes, NonNegative, Range
from jaxml.losses.segmentation._confusion import mask_pixels, pixel_axes


@public
def cldice_loss(
    probabilities: Float[Array, "*pixels classes"],
    targets: Float[Array, "*pixels classes"],
    *,
    iterations: Annotated[int, Range("be non-negative", lambda n: n >= 0)],
    smooth: NonNegative = 0.0,
    axis: Axes = (-3, -2),
    where: Bool[Array, "*pixels"] | None = None,
) -> Float[Array, "*batch classes"]:
    """One minus the centerline Dice (clDice), for thin structures such as vessels.

        loss = 1 - 2 P S / (P + S),
        P = (Σ K(p) t + s) / (Σ K(p) + s),    S = (Σ K(t) p + s) / (Σ K(t) + s)

    K(x) is the soft skeleton: the residues of opening over successive erosions. An
    empty skeleton counts as covered. Masked pixels count as background.

    Args:
        probabilities: p in [0, 1].
        targets: t in [0, 1].
        iterations: The number of erosions, the largest radius of a region in pixels.
        smooth: s >= 0, in pixels.
        axis: The pixel axes, along which pixels are neighbors.
        where: The pixels that count.

    Reference:
        Shit et al., clDice, CVPR 2021, https://arxiv.org/abs/2003.07311

    Example:
        >>> t = jnp.zeros((5, 5, 1)).at[2].set(1.0)
        >>> cldice_loss(t.at[1:4].set(1.0), t, iterations=2)
        Array([0.], dtype=float32)
    """
    axes = pixel_axes(axis, probabilities)
    p, t = mask_pixels(probabilities, where), mask_pixels(targets, where)

    def fraction_uncovered(x: Array, region: Array) -> Array:
        skeleton = _soft_skeleton(x, axes, iterations)
        uncovered = jnp.sum(skeleton * (1 - region), axes)
        return safe_divide(uncovered, jnp.sum(skeleton, axes) + smooth)

    one_minus_precision = fraction_uncovered(p, t)
    one_minus_sensitivity = fraction_uncovered(t, p)
    precision, sensitivity = 1 - one_minus_precision, 1 - one_minus_sensitivity
    # P + S - 2 P S as a sum of non-negative terms
    numerator = precision * one_minus_sensitivity + sensitivity * one_minus_precision
    denominator = precision + sensitivity
    return jnp.where(denominator == 0, 1.0, safe_divide(numerator, denominator))


def _soft_skeleton(x: Array, axes: tuple[int, ...], iterations: int) -> Array:
    def erode(x: Array) -> Array:
        """The minimum of each pixel and its neighbors along each axis."""
        return functools.reduce(
            jnp.minimum, (_pool3(lax.min, x, (axis,)) for axis in axes)
        )

    def opening_residue(x: Array) -> Array:
        """x minus its opening, which is an erosion followed by a dilation."""
        return jax.nn.relu(x - _pool3(lax.max, erode(x), axes))

    def body(_: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        x, skeleton = carry
        x = erode(x)
        return x, skeleton + (1 - skeleton) * opening_residue(x)

    return lax.fori_loop(0, iterations, body, (x, opening_residue(x)))[1]


def _pool3(reducer: Callable, x: Array, axes: tuple[int, ...]) -> Array:
    """Min- or max-pooling with a window of 3 along these axes and stride 1."""
    init_value = jnp.inf if reducer is lax.min else -jnp.inf
    window = [3 if axis in axes else 1 for axis in range(x.ndim)]
    padding = [(size // 2, size // 2) for size in window]
    return lax.reduce_window(x, init_value, reducer, window, [1] * x.ndim, padding)


@public
def boundary_loss(
    probabilities: Float[Array, "*pixels classes"],
    distances: Float[Array, "*pixels classes"],
    *,
    axis: Axes = (-3, -2),
    where: Bool[Array, "*pixels"] | None = None,
) -> Float[Array, "*batch classes"]:
    """The signed distance to the true contour, weighted by the predicted probability.

        loss = mean of p φ    over the pixels

    It is meant for small regions, as an addition to a region loss. It may be negative.

    Args:
        probabilities: p in [0, 1].
        distances: φ, the signed distance of each pixel from the true contour, negative
            inside the region. `scipy.ndimage` can compute it once per image.
        axis: The pixel axes.
        where: The pixels that count.

    Reference:
        Kervadec et al., Boundary loss for highly unbalanced segmentation, MIDL 2019,
        https://arxiv.org/abs/1812.07032

    Example:
        >>> phi = jnp.array([[[-1.0], [1.0], [2.0], [3.0]]])
        >>> boundary_loss(jnp.array([[[1.0], [1.0], [0.0], [0.0]]]), phi)
        Array([0.], dtype=float32)
    """
    axes = pixel_axes(axis, probabilities)
    p, phi = mask_pixels(probabilities, where), mask_pixels(distances, where)
    num_pixels = jnp.sum(mask_pixels(jnp.ones_like(p), where), axes)
    return safe_divide(jnp.sum(multiply_no_nan(p, phi), axes), num_pixels)

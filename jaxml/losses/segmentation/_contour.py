"""Segmentation by what regions look like: their skeletons, and their contours.

Event, axes and masks are those of the losses by regions; one value per image and class.
"""

import functools
from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float

from jaxml._core.masking import apply_mask
from jaxml._core.public import public
from jaxml._core.safe import multiply_no_nan, safe_divide
from jaxml._core.types import Range, Scalar
from jaxml.losses.segmentation._pixels import check_pixel_axes


@public
def cldice_loss(
    probabilities: Float[Array, "*pixels classes"],
    targets: Float[Array, "*pixels classes"],
    *,
    iterations: Annotated[int, Range("be non-negative", lambda n: n >= 0)],
    smooth: Scalar = 0.0,
    axis: int | tuple[int, ...] = (-3, -2),
    where: Bool[Array, "*pixels"] | None = None,
) -> Float[Array, "*batch classes"]:
    """One minus how well each skeleton lies in the other region: for thin structures.

        loss = 1 - 2 P S / (P + S),
        P = (Σ K(p) t + s) / (Σ K(p) + s),    S = (Σ K(t) p + s) / (Σ K(t) + s)

    Skeletons K(x) are what openings take away while x is eroded pixel by pixel; an
    empty one lies in any region. Pixels that do not count are background to
    their neighbours.

    Args:
        probabilities: p in [0, 1].
        targets: t in [0, 1].
        iterations: How often regions are eroded: the largest radius, in pixels.
        smooth: s >= 0, in pixels.
        axis: The pixel axes, along which pixels are neighbours.
        where: The pixels that count.

    Reference:
        Shit et al., clDice, CVPR 2021, https://arxiv.org/abs/2003.07311

    Example:
        >>> t = jnp.zeros((5, 5, 1)).at[2].set(1.0)
        >>> cldice_loss(t.at[1:4].set(1.0), t, iterations=2)
        Array([0.], dtype=float32)
    """
    check_pixel_axes(axis, probabilities)
    axes = (axis,) if isinstance(axis, int) else axis
    kept = None if where is None else where[..., None]
    p, t = apply_mask(probabilities, kept), apply_mask(targets, kept)
    missed = [
        safe_divide(jnp.sum(line * (1 - region), axes), jnp.sum(line, axes) + smooth)
        for line, region in [
            (_skeleton(p, axes, iterations), t),
            (_skeleton(t, axes, iterations), p),
        ]
    ]
    false, lost = missed  # 1 - P and 1 - S
    precision, sensitivity = 1 - false, 1 - lost
    apart, both = precision * lost + sensitivity * false, precision + sensitivity
    return jnp.where(both == 0, 1.0, safe_divide(apart, both))


def _skeleton(x: Array, axes: tuple[int, ...], iterations: int) -> Array:
    def eroded(x: Array) -> Array:
        along = (_pooled(lax.min, x, (axis,)) for axis in axes)
        return functools.reduce(jnp.minimum, along)

    def ridge(x: Array) -> Array:
        """What an opening, an erosion and then a dilation, takes away."""
        return jax.nn.relu(x - _pooled(lax.max, eroded(x), axes))

    def thinner(_: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        x, found = carry
        x = eroded(x)
        return x, found + (1 - found) * ridge(x)

    return lax.fori_loop(0, iterations, thinner, (x, ridge(x)))[1]


def _pooled(pick: Callable, x: Array, axes: tuple[int, ...]) -> Array:
    """The least, or largest, of each pixel and its neighbours along these axes."""
    beyond = jnp.inf if pick is lax.min else -jnp.inf
    along = [a in {axis % x.ndim for axis in axes} for a in range(x.ndim)]
    window, padding = [3 if a else 1 for a in along], [(int(a), int(a)) for a in along]
    return lax.reduce_window(x, beyond, pick, window, [1] * x.ndim, padding)


@public
def boundary_loss(
    probabilities: Float[Array, "*pixels classes"],
    distances: Float[Array, "*pixels classes"],
    *,
    axis: int | tuple[int, ...] = (-3, -2),
    where: Bool[Array, "*pixels"] | None = None,
) -> Float[Array, "*batch classes"]:
    """How far from the true contour the prediction lies, beyond it more than within.

        loss = mean of p φ    over the pixels

    For small regions, beside a loss by regions. It may be negative.

    Args:
        probabilities: p in [0, 1].
        distances: φ, from each pixel to the true contour, negative inside the region;
            computed once for each image, for instance by `scipy.ndimage`.
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
    check_pixel_axes(axis, probabilities)
    kept = None if where is None else where[..., None]
    p, phi = apply_mask(probabilities, kept), apply_mask(distances, kept)
    counted = jnp.sum(apply_mask(jnp.ones_like(p), kept), axis)
    return safe_divide(jnp.sum(multiply_no_nan(p, phi), axis), counted)

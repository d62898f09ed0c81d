"""Segmentation by regions: how far a predicted region is from covering the true one.

Classes stand last, the pixel axes are named by `axis` and are the event; one value per
image and class, `[*batch classes]`. `where` keeps pixels. Empty against empty costs 0.
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jaxml._core.checks import check_pixel_axes
from jaxml._core.compiled import compiled
from jaxml._core.numerics import keep, safe_divide
from jaxml._core.types import Scalar


@compiled(static=("axis",))
def dice_loss(
    probabilities: Float[Array, "*pixels classes"],
    targets: Float[Array, "*pixels classes"],
    *,
    smoothing: Scalar = 0.0,
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
        smoothing: s >= 0, in pixels: draws small regions towards a loss of 0.
        axis: The pixel axes. Volumes pass (-4, -3, -2); with the batch axis among them,
            the batch is one large image.
        where: The pixels that count.

    Reference:
        Milletari, Navab and Ahmadi, V-Net, 3DV 2016, https://arxiv.org/abs/1606.04797

    Example:
        >>> dice_loss(jnp.full((4, 4, 1), 1.0), jnp.full((4, 4, 1), 0.5))
        Array([0.33333334], dtype=float32)
    """
    check_pixel_axes("dice_loss", axis, probabilities)
    pixels = None if where is None else where[..., None]
    p, t = keep(probabilities, pixels), keep(targets, pixels)
    apart = jnp.sum(p * (1 - t) + t * (1 - p), axis)
    return safe_divide(apart, jnp.sum(p + t, axis) + smoothing)

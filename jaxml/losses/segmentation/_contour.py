"""Segmentation by shape: the skeletons and the contours of regions.

`axis` names the pixel axes, which are the event; the classes are the last axis. One
value per image and class.
"""

import functools
import math
from typing import Annotated

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float

from jaxml._core.blocks import map_blocks
from jaxml._core.collectives import sum_shards
from jaxml._core.contract import cast_floats
from jaxml._core.masking import apply_mask
from jaxml._core.public import public
from jaxml._core.safe import multiply_no_nan, safe_divide
from jaxml._core.types import Axes, AxisName, NonNegative, Range
from jaxml.losses.segmentation._confusion import mask_pixels, pixel_axes


@public(upcast=False)
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
    batch_shape = tuple(n for a, n in enumerate(probabilities.shape) if a not in axes)
    p, t = (
        _split_regions(mask_pixels(x, where), axes) for x in (probabilities, targets)
    )
    # XLA:GPU would copy the carry of a loop; CPUs and TPUs fuse too much without one
    loop = functools.partial(_cldice, iterations, 1)
    unrolled = functools.partial(_cldice, iterations, iterations + 1)
    losses = lax.platform_dependent(p, t, smooth, cpu=loop, tpu=loop, default=unrolled)
    return losses.reshape(batch_shape)


def _split_regions(x: Array, axes: tuple[int, ...]) -> Array:
    """[region *pixels]: one region for each image and class."""
    batch_axes = [a for a in range(x.ndim) if a not in axes]
    count = math.prod(x.shape[a] for a in batch_axes)
    pixel_shape = (x.shape[a] for a in axes)
    return jnp.transpose(x, (*batch_axes, *axes)).reshape(count, *pixel_shape)


def _cldice(iterations: int, unroll: int, p: Array, t: Array, smooth: Array) -> Array:
    """The loss of each region."""

    def formula(regions: tuple[Array, Array]) -> Array:
        p, t = cast_floats(regions, smooth.dtype)
        one_minus_precision = fraction_uncovered(p, t)
        one_minus_sensitivity = fraction_uncovered(t, p)
        precision, sensitivity = 1 - one_minus_precision, 1 - one_minus_sensitivity
        # P + S - 2 P S as a sum of non-negative terms
        numerator = (
            precision * one_minus_sensitivity + sensitivity * one_minus_precision
        )
        denominator = precision + sensitivity
        return jnp.where(denominator == 0, 1.0, safe_divide(numerator, denominator))

    def fraction_uncovered(x: Array, region: Array) -> Array:
        axes = tuple(range(1, x.ndim))
        skeleton = _soft_skeleton(x, iterations, unroll)
        uncovered = jnp.sum(skeleton * (1 - region), axes)
        return safe_divide(uncovered, jnp.sum(skeleton, axes) + smooth)

    num_kept = 2 * (iterations + 1)  # arrays of the backward pass
    return map_blocks(formula, (p, t), num_kept * math.prod(p.shape[1:]))


def _soft_skeleton(x: Array, iterations: int, unroll: int) -> Array:
    """K(x) of each region. The backward pass keeps x and K of every iteration."""

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def body(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        x, skeleton = carry
        eroded = _erode(x)
        opening_residue = jax.nn.relu(x - _dilate(eroded))
        return (eroded, skeleton + (1 - skeleton) * opening_residue), None

    init = x, jnp.zeros_like(x)
    return lax.scan(body, init, None, iterations + 1, unroll=unroll)[0][1]


def _erode(x: Array) -> Array:
    """The minimum of each pixel and its neighbors along each axis."""
    return functools.reduce(
        jnp.minimum, (-_max_pool3(-x, axis) for axis in range(1, x.ndim))
    )


def _dilate(x: Array) -> Array:
    """The maximum of each pixel and all pixels around it."""
    return functools.reduce(_max_pool3, range(1, x.ndim), x)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _max_pool3(x: Array, axis: int) -> Array:
    """The maximum of each pixel and its two neighbors along this axis."""
    return functools.reduce(jnp.maximum, _neighbors(x, axis, -jnp.inf))


@_max_pool3.defjvp
def _max_pool3_jvp(axis: int, primals: tuple, tangents: tuple) -> tuple:
    """Equal maxima share the derivative."""
    (x,), (x_dot,) = primals, tangents
    x_max = _max_pool3(x, axis)
    is_max = [neighbor == x_max for neighbor in _neighbors(x, axis, -jnp.inf)]
    count = sum(mask.astype(x.dtype) for mask in is_max)
    x_max_dot = sum(map(apply_mask, _neighbors(x_dot, axis, 0.0), is_max))
    return x_max, x_max_dot / count


def _neighbors(x: Array, axis: int, fill: float) -> list[Array]:
    """Each pixel's neighbor before it along the axis, itself, and the one after it."""
    padding = [(int(a == axis), int(a == axis)) for a in range(x.ndim)]
    padded = jnp.pad(x, padding, constant_values=fill)
    return [
        lax.slice_in_dim(padded, start, start + x.shape[axis], axis=axis)
        for start in range(3)
    ]


@public
def boundary_loss(
    probabilities: Float[Array, "*pixels classes"],
    distances: Float[Array, "*pixels classes"],
    *,
    axis: Axes = (-3, -2),
    where: Bool[Array, "*pixels"] | None = None,
    axis_name: AxisName | None = None,
) -> Float[Array, "*batch classes"]:
    """The signed distance to the true contour, weighted by the predicted probability.

        loss = mean of p φ    over the pixels

    It is meant for small regions, as an addition to a region loss. It may be negative.

    Args:
        probabilities: p in [0, 1].
        distances: φ, the signed distance of each pixel from the true contour, negative
            inside the region: `distance_map(targets)`.
        axis: The pixel axes.
        where: The pixels that count.
        axis_name: The mesh axes over which the pixels, or the images of one batch, are
            sharded in `jax.shard_map`: the counts are those of all devices.

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
    sums = jnp.sum(multiply_no_nan(p, phi), axes), num_pixels
    return safe_divide(*sum_shards(sums, axis_name))

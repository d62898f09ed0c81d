"""Scores of a predicted distribution against one true value: ensembles and normals.

The event of an ensemble is its members: the last axis, or the last two for vectors. A
score is least in expectation for members, or a normal, of the true distribution.
"""

import math

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float

from jaxml._core.blocks import map_blocks
from jaxml._core.contract import broadcast
from jaxml._core.masking import apply_mask
from jaxml._core.matmul import pairwise_euclidean
from jaxml._core.public import public
from jaxml._core.safe import inverse_magnitude, norm, safe_divide
from jaxml._core.sorting import count_less, sort
from jaxml._core.special.partials import with_partials
from jaxml._core.types import Weights


@public
def crps_loss(
    samples: Float[Array, "*batch m"],
    targets: Float[Array, "*batch"],
    *,
    fair: bool = True,
    where: Bool[Array, "*batch m"] | None = None,
) -> Float[Array, "*batch"]:
    """The continuous ranked probability score of an ensemble, in units of the target.

        loss = 1/m Σᵢ |xᵢ - y| - 1/(2 m (m - 1)) Σᵢⱼ |xᵢ - xⱼ|

    It is a sum over the ranks of the members, in O(m log m), of which no term is
    negative. One member has loss |x - y|, and none 0.

    Args:
        samples: x, the m members.
        targets: y, in the same units.
        fair: Whether to estimate the score of infinitely many members without bias. If
            not, it is the score of the m members as they are, with m² for m (m - 1).
        where: The members that exist.

    Reference:
        Gneiting and Raftery, Strictly proper scoring rules, prediction, and estimation,
        JASA 102(477), 2007, https://doi.org/10.1198/016214506000001437; Ferro, Fair
        scores for ensemble forecasts, QJRMS 140, 2014, https://doi.org/10.1002/qj.2270

    Example:
        >>> crps_loss(jnp.array([0.0, 1.0]), jnp.array(2.0))
        Array(1., dtype=float32)
    """
    if samples.shape[-1] == 0:
        return jnp.zeros_like(targets)
    mask = jnp.ones_like(samples, bool) if where is None else where
    x = apply_mask(samples, where)
    m = jnp.maximum(jnp.sum(mask, -1, keepdims=True, dtype=x.dtype), 1)
    below, above = _count_below_and_above(x, mask)
    residual = x - targets[..., None]
    beyond = jnp.where(residual < 0, below, above)  # farther from the target
    weight = safe_divide(beyond / m, m - 1) if fair else (beyond + 0.5) / m / m
    weight = jnp.where(m == 1, 1.0, 2 * weight)
    return jnp.sum(apply_mask(weight * jnp.abs(residual), where), -1)


def _count_below_and_above(x: Array, mask: Array) -> tuple[Array, Array]:
    """How many other members are less, and greater; half of the equal ones each."""
    x = lax.stop_gradient(apply_mask(x, mask, jnp.inf))
    ascending = sort(x)
    num_less = count_less(ascending, x)
    num_greater = count_less(-ascending[..., ::-1], -x)
    num_greater -= jnp.sum(~mask, -1, keepdims=True, dtype=jnp.int32)
    num_members = jnp.sum(mask, -1, keepdims=True, dtype=jnp.int32)
    ties = (num_members - num_less - num_greater - 1).astype(x.dtype) / 2
    return num_less.astype(x.dtype) + ties, num_greater.astype(x.dtype) + ties


@public
def energy_score(
    samples: Float[Array, "*batch m d"],
    targets: Float[Array, "*batch d"],
    *,
    fair: bool = True,
    where: Bool[Array, "*batch m"] | None = None,
) -> Float[Array, "*batch"]:
    """The energy score of an ensemble of vectors: the CRPS with distances.

        loss = 1/m Σᵢ ‖xᵢ - y‖ - 1/(2 m (m - 1)) Σᵢⱼ ‖xᵢ - xⱼ‖

    The distances of all pairs are computed tile by tile. One member has loss ‖x - y‖,
    and none 0. The derivative of a distance is 0 where it is 0.

    Args:
        samples: x, the m members.
        targets: y, in the same units.
        fair: Whether to estimate the score of infinitely many members without bias. If
            not, it is the score of the m members as they are, with m² for m (m - 1).
        where: The members that exist.

    Reference:
        Gneiting and Raftery, Strictly proper scoring rules, prediction, and estimation,
        JASA 102(477), 2007, https://doi.org/10.1198/016214506000001437

    Example:
        >>> energy_score(jnp.array([[0.0, 0.0], [3.0, 4.0]]), jnp.array([3.0, 4.0]))
        Array(0., dtype=float32)
    """
    *batch, m, d = samples.shape
    if m == 0:
        return jnp.sum(targets[..., :0], -1)
    mask = jnp.all(samples[..., :0], -1) if where is None else where
    residuals = apply_mask(samples - targets[..., None, :], mask[..., None])
    count = jnp.sum(mask, -1, dtype=samples.dtype)
    pairs = count * (count - 1) if fair else count * count
    # each term is divided, so that a sum of large distances does not overflow
    errors = safe_divide(apply_mask(norm(residuals), mask), count[..., None])
    rows = residuals.reshape(math.prod(batch), m, d), mask.reshape(-1, m)
    rows = *rows, pairs.reshape(-1)
    spread = map_blocks(_mean_distance, rows, 4 * m * m).reshape(batch)
    return jnp.sum(errors, -1) - spread / 2


def _mean_distance(rows: tuple[Array, Array, Array]) -> Array:
    """Σᵢⱼ ‖xᵢ - xⱼ‖ / p of each set of rows with p pairs: [batch]."""

    def of_one_set(x: Array, mask: Array, pairs: Array) -> Array:
        largest = jnp.max(jnp.abs(lax.stop_gradient(x)), initial=0.0)
        scale = inverse_magnitude(largest)
        x = scale * x  # so that no square overflows

        def row_sums(block: tuple[Array, Array]) -> Array:
            rows, row_mask = block
            pair_mask = row_mask[:, None] & mask[None]
            return jnp.sum(apply_mask(pairwise_euclidean(rows, x), pair_mask), 1)

        total = jnp.sum(map_blocks(row_sums, (x, mask), 4 * len(x)))
        return safe_divide(total, pairs) / scale

    return jax.vmap(of_one_set)(*rows)


@public(masked=True)
def gaussian_crps_loss(
    mean: Float[Array, "*shape"],
    targets: Float[Array, "*shape"],
    *,
    scale: Weights,
    where: Bool[Array, "*shape"] | None = None,
) -> Float[Array, "*shape"]:
    """The continuous ranked probability score of a normal distribution.

        loss = σ (z (2 Φ(z) - 1) + 2 φ(z) - 1/√π)    with z = (y - μ)/σ

    As σ tends to 0 it tends to |y - μ|. It is less sensitive to outliers than the
    negative log-likelihood, and has the units of the target.

    Args:
        mean: μ, predicted.
        targets: y, in the units of μ.
        scale: σ >= 0, in these units; its shape broadcasts to μ's.
        where: The elements that count; the others have loss 0.

    Reference:
        Gneiting et al., Calibrated probabilistic forecasting using ensemble model
        output statistics and minimum CRPS estimation, Monthly Weather Review 133, 2005,
        https://doi.org/10.1175/MWR2904.1

    Example:
        >>> gaussian_crps_loss(
        ...     jnp.zeros(2), jnp.array([0.0, 3.0]), scale=jnp.array([1.0, 0.0])
        ... )
        Array([0.23369497, 3.        ], dtype=float32)
    """
    scale = apply_mask(broadcast("scale", scale, mean), where, 1.0)
    return _gaussian_crps(targets - mean, scale)


def _z_score(r: Array, scale: Array) -> Array:
    """r/σ, at most 40 in absolute value: beyond, the tails of a normal are 0."""
    is_far = jnp.abs(r) > 40 * scale
    z = safe_divide(r, jnp.where(is_far, 1.0, scale))
    return jnp.where(is_far, 40.0 * jnp.sign(r), z)


def _density(z: Array) -> Array:
    return jnp.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def _gaussian_crps_dr(r: Array, scale: Array) -> Array:
    return lax.erf(_z_score(r, scale) / math.sqrt(2))


def _gaussian_crps_dscale(r: Array, scale: Array) -> Array:
    return 2 * _density(_z_score(r, scale)) - 1 / math.sqrt(math.pi)


@with_partials(_gaussian_crps_dr, _gaussian_crps_dscale)
def _gaussian_crps(r: Array, scale: Array) -> Array:
    """|r| + σ (2 (φ(z) - |z| Φ(-|z|)) - 1/√π)"""
    z = jnp.abs(_z_score(r, scale))
    excess = _density(z) - z * lax.erfc(z / math.sqrt(2)) / 2
    return jnp.abs(r) + scale * (2 * excess - 1 / math.sqrt(math.pi))

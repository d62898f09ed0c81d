"""Activations along an axis: probabilities, unit vectors and maxima.

Those that take `axis` raise a ValueError if x has no such axis. At masked entries
(`where` False), x may hold anything, NaN included, and has gradient 0.
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float

from jaxml._core import safe
from jaxml._core.collectives import sum_shards
from jaxml._core.contract import describe, raise_invalid
from jaxml._core.masking import apply_mask
from jaxml._core.public import public
from jaxml._core.softmax import log_softmax as stable_log_softmax
from jaxml._core.softmax import project_simplex, subtract_max
from jaxml._core.special.exp import exp
from jaxml._core.types import AxisName, Count, Positive, compute_dtype


@public(upcast=False)
def softmax(
    x: Float[Array, "*shape"],
    *,
    axis: int = -1,
    where: Bool[Array, "*shape"] | None = None,
    axis_name: AxisName | None = None,
) -> Float[Array, "*shape"]:
    """Probabilities proportional to the exponentials of the scores.

        softmax(x)ᵢ = e^xᵢ / Σⱼ e^xⱼ

    with j over the unmasked entries. It is invariant to a common offset of the scores.
    If all entries are masked, the result and its derivatives are 0.

    Args:
        x: Scores.
        axis: The axis along which the probabilities sum to 1.
        axis_name: The mesh axes over which that axis is sharded, in `jax.shard_map`.

    Returns:
        Probabilities in [0, 1], 0 at masked entries.

    Reference:
        Bridle, Probabilistic interpretation of feedforward classification network
        outputs, Neurocomputing 1990, https://doi.org/10.1007/978-3-642-76153-9_28

    Example:
        >>> softmax(
        ...     jnp.array([0.0, 0.0, jnp.nan]), where=jnp.array([True, True, False])
        ... )
        Array([0.5, 0.5, 0. ], dtype=float32)
    """
    check_axis(x, axis)
    return apply_mask(_softmax(apply_mask(x, where, -jnp.inf), axis, axis_name), where)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _softmax(x: Array, axis: int, axis_name: AxisName | None) -> Array:
    return _probabilities(x, axis, axis_name).astype(x.dtype)


@_softmax.defjvp
def _softmax_jvp(
    axis: int, axis_name: AxisName | None, primals: tuple, tangents: tuple
) -> tuple:
    """The backward pass saves y, or x if y is rounded to 16 bits."""
    (x,), (x_dot,) = primals, tangents
    y = _softmax(x, axis, axis_name)
    if y.dtype == compute_dtype(y.dtype):
        return y, _softmax_dot(y, x_dot, axis, axis_name)

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def y_dot(x: Array, x_dot: Array) -> Array:
        probabilities = _probabilities(x, axis, axis_name)
        x_dot = x_dot.astype(probabilities.dtype)
        return _softmax_dot(probabilities, x_dot, axis, axis_name).astype(x.dtype)

    return y, y_dot(x, x_dot)


def _softmax_dot(
    y: Array, x_dot: Array, axis: int, axis_name: AxisName | None
) -> Array:
    mean = sum_shards(jnp.sum(y * x_dot, axis, keepdims=True), axis_name)
    # not y (ẋ - Σ y ẋ), for whose transpose a TPU keeps an array of the size of y
    return y * x_dot - y * mean


def _probabilities(x: Array, axis: int, axis_name: AxisName | None) -> Array:
    """softmax(x) in float32 or wider."""
    if x.dtype != compute_dtype(x.dtype):  # 16 bits need no more than XLA's own exp
        _, shifted = subtract_max(x.astype(compute_dtype(x.dtype)), axis, axis_name)
        unnormalized = jnp.exp(shifted)
        total = jnp.sum(unnormalized, axis, keepdims=True)
        return unnormalized / sum_shards(total, axis_name)
    x_max, _ = subtract_max(x, axis, axis_name)
    total = jnp.sum(_exp_difference(x, x_max), axis, keepdims=True)
    total = sum_shards(total, axis_name)
    # a GPU would keep the terms of the sum until they are divided
    x = lax.platform_dependent(x, cuda=lax.optimization_barrier, default=lambda x: x)
    return _exp_difference(x, x_max) / total


def _exp_difference(x: Array, x_max: Array) -> Array:
    """e^(x - x_max), with the rounding error of the difference."""
    difference = apply_mask(x - x_max, x != x_max)
    return exp(difference, _two_sum_error(difference, x, x_max))


def _two_sum_error(difference: Array, x: Array, y: Array) -> Array:
    """x - y - difference: the rounding error of difference = x - y, if it is finite.

    Knuth's two-sum, The art of computer programming, volume 2.
    """
    minus_y = difference - x
    error = (x - (difference - minus_y)) - (y + minus_y)
    return jnp.where(jnp.isfinite(error), error, 0.0)


@public
def log_softmax(
    x: Float[Array, "*shape"],
    *,
    axis: int = -1,
    where: Bool[Array, "*shape"] | None = None,
    axis_name: AxisName | None = None,
) -> Float[Array, "*shape"]:
    """Logarithm of the softmax, accurate where a probability rounds to 0 or 1.

        log_softmax(x)ᵢ = xᵢ - log Σⱼ e^xⱼ

    with j over the unmasked entries.

    Args:
        x: Scores.
        axis: The axis along which the probabilities sum to 1.
        axis_name: The mesh axes over which that axis is sharded, in `jax.shard_map`.

    Returns:
        Log-probabilities in [-∞, 0], -∞ at masked entries.

    Reference:
        Bridle, Probabilistic interpretation of feedforward classification network
        outputs, Neurocomputing 1990, https://doi.org/10.1007/978-3-642-76153-9_28

    Example:
        >>> log_softmax(jnp.array([0.0, 1000.0]))
        Array([-1000.,     0.], dtype=float32)
    """
    check_axis(x, axis)
    return stable_log_softmax(x, axis, where, axis_name)


@public
def sparsemax(
    x: Float[Array, "*shape"],
    *,
    axis: int = -1,
    where: Bool[Array, "*shape"] | None = None,
) -> Float[Array, "*shape"]:
    """Sparse softmax: the probability distribution nearest to the scores.

        sparsemax(x)ᵢ = max(0, xᵢ - τ)    with τ such that Σᵢ sparsemax(x)ᵢ = 1

    with i over the unmasked entries. A probability of 0 has derivative 0, at the kink
    xᵢ = τ too. If all entries are masked, the result is 0.

    Args:
        x: Scores.
        axis: The axis along which the probabilities sum to 1.

    Returns:
        Probabilities in [0, 1], 0 at masked entries.

    Reference:
        Martins and Astudillo, From softmax to sparsemax, ICML 2016,
        https://arxiv.org/abs/1602.02068

    Example:
        >>> sparsemax(jnp.array([1.0, 0.5, -1.0]))
        Array([0.75, 0.25, 0.  ], dtype=float32)
    """
    check_axis(x, axis)
    scores = jnp.moveaxis(apply_mask(x, where, -jnp.inf), axis, -1)
    return apply_mask(jnp.moveaxis(project_simplex(scores), -1, axis), where)


@public(upcast=False)
def l2_normalize(
    x: Float[Array, "*shape"], *, axis: int = -1, eps: Positive = 1e-12
) -> Float[Array, "*shape"]:
    """Vectors scaled to Euclidean length 1.

        l2_normalize(x) = x / √max(Σx², ε)

    A vector shorter than √ε is divided by √ε, which bounds the derivative by 1/√ε. In
    float16, where 1/√ε would overflow, ε is at least 1e-8.

    Args:
        x: Vectors along the axis.
        axis: The axis of the components of a vector.
        eps: ε, the smallest squared length to divide by, positive.

    Returns:
        Vectors of length 1, and 0 for a zero vector.

    Reference:
        Wang et al., NormFace: L2 hypersphere embedding for face verification,
        ACM Multimedia 2017, https://arxiv.org/abs/1704.06369

    Example:
        >>> l2_normalize(jnp.array([[3.0, 4.0], [0.0, 0.0]]))
        Array([[0.6, 0.8],
               [0. , 0. ]], dtype=float32)
    """
    check_axis(x, axis)
    dtype = compute_dtype(x.dtype)
    min_eps = 1e-8 if x.dtype == jnp.float16 else 0.0
    vectors = x.astype(dtype)
    min_norm = jnp.sqrt(jnp.maximum(jnp.asarray(eps, dtype), min_eps))
    return safe.l2_normalize(vectors, min_norm, axis).astype(x.dtype)


@public(keep_dtype=True)
def maxout(
    x: Float[Array, "*batch channels"], *, pieces: Count
) -> Float[Array, "*batch units"]:
    """Maximum over groups of neighboring channels: a learned convex activation.

        maxout(x)ᵢ = max(x₍ᵢ,₁₎, ..., x₍ᵢ,ₙ₎)

    with n = pieces neighboring channels per group. Equal maxima share the derivative.

    Args:
        x: The pieces of the first unit, then those of the second, and so on.
        pieces: n, a divisor of the number of channels.

    Returns:
        One number per group.

    Raises:
        TypeError: The number of channels is not a multiple of n.

    Reference:
        Goodfellow et al., Maxout networks, ICML 2013, https://arxiv.org/abs/1302.4389

    Example:
        >>> maxout(jnp.array([1.0, 2.0, -3.0, -4.0]), pieces=2)
        Array([ 2., -3.], dtype=float32)
    """
    if x.shape[-1] % pieces:
        raise_invalid(TypeError, "x", f"have a multiple of {pieces} channels", x)
    return jnp.max(x.reshape(*x.shape[:-1], x.shape[-1] // pieces, pieces), -1)


def check_axis(x: Array, axis: int) -> None:
    """Raises a ValueError unless x has this axis."""
    if axis not in range(-x.ndim, x.ndim):
        raise_invalid(ValueError, "axis", f"name an axis of {describe(x)}", axis)

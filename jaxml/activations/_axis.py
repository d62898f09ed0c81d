"""Activations along an axis: probabilities, unit vectors and maxima."""

import functools

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jaxml._core import safe
from jaxml._core.contract import describe, raise_invalid
from jaxml._core.masking import apply_mask
from jaxml._core.public import public
from jaxml._core.softmax import log_softmax as stable_log_softmax
from jaxml._core.softmax import project_simplex, subtract_max
from jaxml._core.special.exp import exp
from jaxml._core.types import Count, Scalar, compute_dtype


@public
def softmax(
    x: Float[Array, "*shape"],
    *,
    axis: int = -1,
    where: Bool[Array, "*shape"] | None = None,
) -> Float[Array, "*shape"]:
    """Scores as probabilities: positive, and with sum 1 along the axis.

        softmax(x)ᵢ = e^xᵢ / Σⱼ e^xⱼ

    with j over what `where` keeps. It does not change when a number is added to all
    scores. Where nothing is kept, everything is 0, and so are the derivatives.

    Args:
        x: Scores, in units of log-odds.
        axis: The axis along which the sum is 1.

    Returns:
        Probabilities in [0, 1], 0 for what is not kept.

    Raises:
        ValueError: x has no such axis.

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
    return apply_mask(_softmax(apply_mask(x, where, -jnp.inf), axis), where)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _softmax(x: Array, axis: int) -> Array:
    top, below = subtract_max(x, axis)
    e = exp(below, _rounding(below, x, top))
    return e / jnp.sum(e, axis, keepdims=True)


@_softmax.defjvp
def _(axis: int, primals: tuple, tangents: tuple) -> tuple:
    y, (dx,) = _softmax(*primals, axis), tangents
    return y, y * (dx - jnp.sum(y * dx, axis, keepdims=True))


def _rounding(difference: Array, x: Array, y: Array) -> Array:
    """x - y - difference, which was rounded (Knuth's two-sum); 0 at infinity."""
    back = difference - x
    rest = (x - (difference - back)) - (y + back)
    return jnp.where(jnp.isfinite(rest), rest, 0.0)


@public
def log_softmax(
    x: Float[Array, "*shape"],
    *,
    axis: int = -1,
    where: Bool[Array, "*shape"] | None = None,
) -> Float[Array, "*shape"]:
    """The logarithms of the softmax's probabilities, right where these round to 0 or 1.

        log_softmax(x)ᵢ = xᵢ - log Σⱼ e^xⱼ

    with j over what `where` keeps.

    Args:
        x: Scores, in units of log-odds.
        axis: The axis along which the probabilities have sum 1.

    Returns:
        Numbers in [-∞, 0], -∞ for what is not kept.

    Raises:
        ValueError: x has no such axis.

    Reference:
        Bridle, Probabilistic interpretation of feedforward classification network
        outputs, Neurocomputing 1990, https://doi.org/10.1007/978-3-642-76153-9_28

    Example:
        >>> log_softmax(jnp.array([0.0, 1000.0]))
        Array([-1000.,     0.], dtype=float32)
    """
    check_axis(x, axis)
    return stable_log_softmax(x, axis, where)


@public
def sparsemax(
    x: Float[Array, "*shape"],
    *,
    axis: int = -1,
    where: Bool[Array, "*shape"] | None = None,
) -> Float[Array, "*shape"]:
    """Scores as probabilities, many of them 0: the nearest distribution.

        sparsemax(x)ᵢ = max(0, xᵢ - τ)    with τ such that the sum is 1

    over what `where` keeps. What is 0 has derivative 0, at the kink xᵢ = τ too. Where
    nothing is kept, everything is 0.

    Args:
        x: Scores.
        axis: The axis along which the sum is 1.

    Returns:
        Probabilities in [0, 1], 0 for what is not kept.

    Raises:
        ValueError: x has no such axis.

    Reference:
        Martins and Astudillo, From softmax to sparsemax, ICML 2016,
        https://arxiv.org/abs/1602.02068

    Example:
        >>> sparsemax(jnp.array([1.0, 0.5, -1.0]))
        Array([0.75, 0.25, 0.  ], dtype=float32)
    """
    check_axis(x, axis)
    last = jnp.moveaxis(apply_mask(x, where, -jnp.inf), axis, -1)
    return apply_mask(jnp.moveaxis(project_simplex(last), -1, axis), where)


@public(upcast=False)
def l2_normalize(
    x: Float[Array, "*shape"], *, axis: int = -1, eps: Scalar = 1e-12
) -> Float[Array, "*shape"]:
    """Vectors at length 1: their direction alone.

        l2_normalize(x) = x / √max(Σx², ε)

    Shorter than √ε, a vector is divided by √ε, which bounds the derivative by 1/√ε. In
    float16, where 1/√ε would be ∞, ε is at least 10⁻⁸.

    Args:
        x: Vectors along the axis.
        axis: The axis of a vector's components.
        eps: ε, the square of the least length, positive.

    Returns:
        Vectors of length 1, 0 for 0.

    Raises:
        ValueError: x has no such axis.

    Reference:
        Wang et al., NormFace: L2 hypersphere embedding for face verification,
        ACM Multimedia 2017, https://arxiv.org/abs/1704.06369

    Example:
        >>> l2_normalize(jnp.array([[3.0, 4.0], [0.0, 0.0]]))
        Array([[0.6, 0.8],
               [0. , 0. ]], dtype=float32)
    """
    check_axis(x, axis)
    wide = x.astype(compute_dtype(x.dtype))
    least = 1e-8 if x.dtype == jnp.float16 else 0.0
    shortest = jnp.sqrt(jnp.maximum(jnp.asarray(eps, wide.dtype), least))
    return safe.l2_normalize(wide, shortest, axis).astype(x.dtype)


@public
def maxout(
    x: Float[Array, "*batch channels"], *, pieces: Count
) -> Float[Array, "*batch units"]:
    """The greatest of several linear functions: a convex activation that is learned.

        maxout(x)ᵢ = max(x₍ᵢ,₁₎, ..., x₍ᵢ,ₙ₎)

    with n = pieces neighbouring channels in one group. Equal maxima share the
    derivative.

    Args:
        x: The pieces of the first unit, of the second, ... along the last axis.
        pieces: n, of which the number of channels is a multiple.

    Returns:
        One number a group.

    Raises:
        ValueError: pieces is not positive.
        TypeError: The channels do not fall into groups of so many pieces.

    Reference:
        Goodfellow et al., Maxout networks, ICML 2013, https://arxiv.org/abs/1302.4389

    Example:
        >>> maxout(jnp.array([1.0, 2.0, -3.0, -4.0]), pieces=2)
        Array([ 2., -3.], dtype=float32)
    """
    if x.shape[-1] % pieces:
        raise_invalid(TypeError, "x", f"have a multiple of {pieces} channels", x)
    return jnp.max(x.reshape(*x.shape[:-1], -1, pieces), -1)


def check_axis(x: Array, axis: int) -> None:
    """Raises a ValueError unless x has this axis."""
    if axis not in range(-x.ndim, x.ndim):
        raise_invalid(ValueError, "axis", f"name an axis of {describe(x)}", axis)

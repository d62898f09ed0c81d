"""Activations with learned parameters, which are array arguments.

A parameter is one number for all channels, or one number per channel. The backward
pass saves only x and the parameter.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jaxml._core.contract import describe, raise_invalid
from jaxml._core.public import public
from jaxml._core.special.partials import with_partials
from jaxml._core.types import Count
from jaxml.activations._axis import check_axis


@public(remat=True)
def prelu(
    x: Float[Array, "*shape"],
    slope: Float[Array, ""] | Float[Array, "channels"],
    *,
    axis: int = -1,
) -> Float[Array, "*shape"]:
    """Leaky relu with a learned slope, shared or per channel.

        prelu(x) = x for x > 0, a x otherwise        ∂/∂a = x for x <= 0, 0 otherwise

    Range: (-∞, ∞). Derivative at 0: a.
    Kinks: prelu'(0) = a.

    Args:
        x: Any number.
        slope: a, one number for all channels or one per channel.
        axis: The axis of the channels, unused for a shared slope.

    Raises:
        ValueError: x has no such axis.
        TypeError: The number of slopes is not the number of channels.

    Reference:
        He et al., Delving deep into rectifiers, ICCV 2015,
        https://arxiv.org/abs/1502.01852

    Example:
        >>> prelu(jnp.array([-2.0, 0.0, 2.0]), prelu_init())
        Array([-0.5,  0. ,  2. ], dtype=float32)
    """
    return _prelu(x, _broadcast_param("slope", slope, x, axis))


@public(upcast=False)
def prelu_init(channels: Count | None = None) -> Array:
    """Initial slope of prelu.

        prelu_init() = 1/4

    Args:
        channels: The number of channels; None for one shared slope.

    Returns:
        A float32 array of shape [channels], or of shape [] for a shared slope.

    Reference:
        He et al., Delving deep into rectifiers, ICCV 2015,
        https://arxiv.org/abs/1502.01852

    Example:
        >>> prelu_init(2)
        Array([0.25, 0.25], dtype=float32)
    """
    shape = () if channels is None else (channels,)
    return jnp.full(shape, 0.25, jnp.float32)


@with_partials(
    lambda x, a: jnp.where(x > 0, 1.0, a),
    lambda x, a: jnp.where(x > 0, 0.0, x),
)
def _prelu(x: Array, a: Array) -> Array:
    return jnp.where(x > 0, x, a * x)


@public(remat=True)
def snake(
    x: Float[Array, "*shape"],
    alpha: Float[Array, ""] | Float[Array, "channels"],
) -> Float[Array, "*shape"]:
    """Identity plus a periodic term, for functions that are periodic in their input.

        snake(x) = x + sin²(αx) / α        snake'(x) = 1 + sin(2αx)

    Range: (-∞, ∞). Derivative at 0: 1.

    Near its roots, the error of the derivative is relative to 1, not to itself.

    Args:
        x: Any number.
        alpha: α, the frequency, not 0: one number, or one per channel of the last axis.

    Raises:
        TypeError: The number of frequencies is not the number of channels.

    Reference:
        Liu, Hartwig and Ueda, Neural networks fail to learn periodic functions and how
        to fix it, NeurIPS 2020, https://arxiv.org/abs/2006.08195

    Example:
        >>> snake(jnp.array([-jnp.pi, 0.0, jnp.pi / 2]), jnp.array(1.0))
        Array([-3.1415927,  0.       ,  2.5707965], dtype=float32)
    """
    return _snake(x, _broadcast_param("alpha", alpha, x, -1))


def _snake_dx(x: Array, alpha: Array) -> Array:
    """1 + sin(2αx) = (sin(αx) + cos(αx))², because 2αx could overflow"""
    return jnp.square(jnp.sin(alpha * x) + jnp.cos(alpha * x))


def _snake_dalpha(x: Array, alpha: Array) -> Array:
    """(x sin(2αx) - sin²(αx) / α) / α"""
    sine = jnp.sin(alpha * x)
    return (x * jnp.sin(2 * alpha * x) - sine * sine / alpha) / alpha


@with_partials(_snake_dx, _snake_dalpha)
def _snake(x: Array, alpha: Array) -> Array:
    sine = jnp.sin(alpha * x)
    return x + sine * sine / alpha


def _broadcast_param(name: str, param: Array, x: Array, axis: int) -> Array:
    """A shared or per-channel parameter, broadcast to the shape of x."""
    if param.ndim == 0:
        return jnp.broadcast_to(param, x.shape)
    check_axis(x, axis)
    if param.shape[0] != x.shape[axis]:
        channels = f"for each channel of x = {describe(x)} along axis {axis}"
        raise_invalid(TypeError, name, f"have one entry {channels}", param)
    return jax.lax.broadcast_in_dim(param, x.shape, (axis % x.ndim,))

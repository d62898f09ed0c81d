"""Activations with parameters that are learned: these come in as arrays.

A parameter is one number for all channels, or one number for each. What is kept for the
backward pass are x and the parameters.
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
    """Leaky relu with a slope that is learned, for all channels or for each.

        prelu(x) = x for x > 0, a x otherwise        ∂/∂a = x for x <= 0, 0 otherwise

    with derivative a at the kink 0, the left one.

    Args:
        x: Any number.
        slope: a, one number for all channels or one for each.
        axis: The axis of the channels; a single slope has no use for it.

    Returns:
        Numbers of any size.

    Raises:
        ValueError: x has no such axis.
        TypeError: There are not as many slopes as channels.

    Reference:
        He et al., Delving deep into rectifiers, ICCV 2015,
        https://arxiv.org/abs/1502.01852

    Example:
        >>> prelu(jnp.array([-2.0, 0.0, 2.0]), prelu_init())
        Array([-0.5,  0. ,  2. ], dtype=float32)
    """
    return _prelu(x, _along("slope", slope, x, axis))


def prelu_init(channels: Count | None = None) -> Array:
    """The slope with which prelu begins: 1/4.

    Args:
        channels: The number of channels; None for one slope that all share.

    Returns:
        A float32 array of shape [channels], or of shape [].

    Raises:
        ValueError: The number of channels is not positive.

    Reference:
        He et al., Delving deep into rectifiers, ICCV 2015,
        https://arxiv.org/abs/1502.01852

    Example:
        >>> prelu_init(2)
        Array([0.25, 0.25], dtype=float32)
    """
    if channels is None:
        return jnp.full((), 0.25, jnp.float32)
    return jnp.full((channels,), 0.25, jnp.float32)


@with_partials(
    lambda x, slope: jnp.where(x > 0, 1.0, slope),
    lambda x, slope: jnp.where(x > 0, 0.0, x),
)
def _prelu(x: Array, slope: Array) -> Array:
    return jnp.where(x > 0, x, slope * x)


def _sine_ratio(x: Array, alpha: Array) -> Array:
    """∂/∂α sin²(αx)/α"""
    sine = jnp.sin(alpha * x)
    return (x * jnp.sin(2 * alpha * x) - sine * sine / alpha) / alpha


@public(remat=True)
def snake(
    x: Float[Array, "*shape"],
    alpha: Float[Array, ""] | Float[Array, "channels"],
) -> Float[Array, "*shape"]:
    """The identity with a ripple, for what is periodic in its input.

        snake(x) = x + sin²(αx) / α        snake'(x) = 1 + sin(2αx)

    Near the points where the derivative is 0 its error is relative to 1, not to itself.

    Args:
        x: Any number.
        alpha: α, the frequency, not 0: for all channels or for each of the last axis.

    Returns:
        Numbers of any size.

    Raises:
        TypeError: There are not as many frequencies as channels.

    Reference:
        Liu, Hartwig and Ueda, Neural networks fail to learn periodic functions and how
        to fix it, NeurIPS 2020, https://arxiv.org/abs/2006.08195

    Example:
        >>> snake(jnp.array([-jnp.pi, 0.0, jnp.pi / 2]), jnp.array(1.0))
        Array([-3.1415927,  0.       ,  2.5707965], dtype=float32)
    """
    return _snake(x, _along("alpha", alpha, x, -1))


def _snake_slope(x: Array, alpha: Array) -> Array:
    """1 + sin(2αx), where 2αx might be ∞"""
    return jnp.square(jnp.sin(alpha * x) + jnp.cos(alpha * x))


@with_partials(_snake_slope, _sine_ratio)
def _snake(x: Array, alpha: Array) -> Array:
    sine = jnp.sin(alpha * x)
    return x + sine * sine / alpha


def _along(name: str, parameter: Array, x: Array, axis: int) -> Array:
    """The parameter, one a channel, in the shape of x."""
    if parameter.ndim == 0:
        return jnp.broadcast_to(parameter, x.shape)
    check_axis(x, axis)
    if parameter.shape[0] != x.shape[axis]:
        rule = f"have one entry for each channel of x = {describe(x)} along axis {axis}"
        raise_invalid(TypeError, name, rule, parameter)
    return jax.lax.broadcast_in_dim(parameter, x.shape, (axis % x.ndim,))

"""Gated linear units: one half of an axis multiplied by an activation of the other.

All take x = [a, b] along `axis`, whose length is even and which is halved.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jaxml._core.contract import raise_invalid
from jaxml._core.public import public
from jaxml._core.special import logistic
from jaxml._core.special.partials import with_partials
from jaxml.activations._axis import check_axis
from jaxml.activations._kernels import normal, sigmoid_gated


@public(remat=True)
def glu(x: Float[Array, "*shape"], *, axis: int = -1) -> Float[Array, "*half"]:
    """A linear unit with a sigmoid gate.

        glu([a, b]) = a · σ(b)

    Args:
        x: a and b, one after the other along the axis.
        axis: The axis that is halved.

    Returns:
        Numbers of any size, as many as a has.

    Raises:
        ValueError: x has no such axis.
        TypeError: The axis is of odd length.

    Reference:
        Dauphin et al., Language modeling with gated convolutional networks, ICML 2017,
        https://arxiv.org/abs/1612.08083

    Example:
        >>> glu(jnp.array([1.0, 2.0, 0.0, 100.0]))
        Array([0.5, 2. ], dtype=float32)
    """
    return _gated(x, axis, logistic.sigmoid, logistic.sigmoid_derivative)


@public(remat=True)
def geglu(x: Float[Array, "*shape"], *, axis: int = -1) -> Float[Array, "*half"]:
    """A linear unit with a gelu gate.

        geglu([a, b]) = a · gelu(b)

    Args:
        x: a and b, one after the other along the axis.
        axis: The axis that is halved.

    Returns:
        Numbers of any size, as many as a has.

    Raises:
        ValueError: x has no such axis.
        TypeError: The axis is of odd length.

    Reference:
        Shazeer, GLU variants improve transformer, 2020,
        https://arxiv.org/abs/2002.05202

    Example:
        >>> geglu(jnp.array([1.0, 2.0, 0.0, 100.0]))
        Array([  0., 200.], dtype=float32)
    """
    return _gated(x, axis, normal.gelu, normal.gelu_slope)


@public(remat=True)
def swiglu(x: Float[Array, "*shape"], *, axis: int = -1) -> Float[Array, "*half"]:
    """A linear unit with a silu gate, as in PaLM and Llama.

        swiglu([a, b]) = a · b σ(b)

    Args:
        x: a and b, one after the other along the axis.
        axis: The axis that is halved.

    Returns:
        Numbers of any size, as many as a has.

    Raises:
        ValueError: x has no such axis.
        TypeError: The axis is of odd length.

    Reference:
        Shazeer, GLU variants improve transformer, 2020,
        https://arxiv.org/abs/2002.05202

    Example:
        >>> swiglu(jnp.array([1.0, 2.0, 0.0, 100.0]))
        Array([  0., 200.], dtype=float32)
    """
    return _gated(x, axis, sigmoid_gated.silu, sigmoid_gated.silu_slope)


@public(remat=True)
def reglu(x: Float[Array, "*shape"], *, axis: int = -1) -> Float[Array, "*half"]:
    """A linear unit with a relu gate.

        reglu([a, b]) = a · max(0, b)

    with derivative 0 for b at the kink b = 0.

    Args:
        x: a and b, one after the other along the axis.
        axis: The axis that is halved.

    Returns:
        Numbers of any size, as many as a has.

    Raises:
        ValueError: x has no such axis.
        TypeError: The axis is of odd length.

    Reference:
        Shazeer, GLU variants improve transformer, 2020,
        https://arxiv.org/abs/2002.05202

    Example:
        >>> reglu(jnp.array([1.0, 2.0, -1.0, 100.0]))
        Array([  0., 200.], dtype=float32)
    """
    return _gated(
        x,
        axis,
        lambda b: jnp.maximum(b, 0.0),
        lambda b: jnp.where(b > 0, 1.0, 0.0).astype(b.dtype),
    )


def _gated(
    x: Array,
    axis: int,
    gate: Callable[[Array], Array],
    slope: Callable[[Array], Array],
) -> Array:
    """a · gate(b), of which a and b alone are kept for the backward pass."""
    check_axis(x, axis)
    if x.shape[axis] % 2:
        raise_invalid(TypeError, "x", f"have an even length along axis {axis}", x)

    @with_partials(lambda a, b: gate(b), lambda a, b: a * slope(b))
    def product(a: Array, b: Array) -> Array:
        return a * gate(b)

    return product(*jnp.split(x, 2, axis))

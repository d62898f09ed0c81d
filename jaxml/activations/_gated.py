"""Gated linear units: half of the channels times an activation of the other half.

All take x = [a, b], two halves of equal length along `axis`, and return the shape of a.
They raise a ValueError if x has no such axis, and a TypeError if its length is odd.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from jaxml._core.contract import raise_invalid
from jaxml._core.public import public
from jaxml._core.special import logistic
from jaxml._core.types import Positive, Scalar, compute_dtype
from jaxml.activations._axis import check_axis
from jaxml.activations._kernels import normal, sigmoid_gated


@public(upcast=False, keep_dtype=True)
def glu(x: Float[Array, "*shape"], *, axis: int = -1) -> Float[Array, "*half"]:
    """Gated linear unit with a sigmoid gate.

        glu([a, b]) = a · σ(b)

    Args:
        x: a and b, concatenated along the axis.
        axis: The axis that is split in half.

    Reference:
        Dauphin et al., Language modeling with gated convolutional networks, ICML 2017,
        https://arxiv.org/abs/1612.08083

    Example:
        >>> glu(jnp.array([1.0, 2.0, 0.0, 100.0]))
        Array([0.5, 2. ], dtype=float32)
    """
    return _gated_linear_unit(x, axis, logistic.sigmoid, logistic.sigmoid_derivative)


@public(upcast=False, keep_dtype=True)
def geglu(x: Float[Array, "*shape"], *, axis: int = -1) -> Float[Array, "*half"]:
    """Gated linear unit with a gelu gate.

        geglu([a, b]) = a · gelu(b)

    Args:
        x: a and b, concatenated along the axis.
        axis: The axis that is split in half.

    Reference:
        Shazeer, GLU variants improve transformer, 2020,
        https://arxiv.org/abs/2002.05202

    Example:
        >>> geglu(jnp.array([1.0, 2.0, 0.0, 100.0]))
        Array([  0., 200.], dtype=float32)
    """
    return _gated_linear_unit(x, axis, normal.gelu, normal.gelu_derivative)


@public(upcast=False, keep_dtype=True)
def swiglu(
    x: Float[Array, "*shape"], *, axis: int = -1, limit: Positive | None = None
) -> Float[Array, "*half"]:
    """Gated linear unit with a silu gate, as in PaLM and Llama.

        swiglu([a, b]) = a · b σ(b)

    A limit c clips the linear half a to [-c, c], and the input b of the gate from above
    to (-∞, c], so that |swiglu| <= c². Below, the gate is bounded by itself:
    b σ(b) >= -0.2785. At a kink, the derivative is the left one.

    Args:
        x: a and b, concatenated along the axis.
        axis: The axis that is split in half.
        limit: c > 0; None clips nothing.

    Reference:
        Shazeer, GLU variants improve transformer, 2020,
        https://arxiv.org/abs/2002.05202; the limit is that of OpenAI, gpt-oss, 2025,
        https://arxiv.org/abs/2508.10925

    Example:
        >>> swiglu(jnp.array([1.0, 2.0, 0.0, 100.0]), limit=7.0)
        Array([ 0.      , 13.987246], dtype=float32)
    """
    return _gated_linear_unit(
        x, axis, sigmoid_gated.silu, sigmoid_gated.silu_derivative, limit
    )


@public(upcast=False, keep_dtype=True)
def reglu(x: Float[Array, "*shape"], *, axis: int = -1) -> Float[Array, "*half"]:
    """Gated linear unit with a relu gate.

        reglu([a, b]) = a · max(0, b)

    At the kink b = 0, the derivative with respect to b is 0.

    Args:
        x: a and b, concatenated along the axis.
        axis: The axis that is split in half.

    Reference:
        Shazeer, GLU variants improve transformer, 2020,
        https://arxiv.org/abs/2002.05202

    Example:
        >>> reglu(jnp.array([1.0, 2.0, -1.0, 100.0]))
        Array([  0., 200.], dtype=float32)
    """
    return _gated_linear_unit(
        x,
        axis,
        lambda b: jnp.maximum(b, 0.0),
        lambda b: jnp.where(b > 0, 1.0, 0.0).astype(b.dtype),
    )


def _gated_linear_unit(
    x: Array,
    axis: int,
    gate: Callable[[Array], Array],
    gate_derivative: Callable[[Array], Array],
    limit: Scalar | None = None,
) -> Array:
    """a · gate(b); the backward pass saves only x, in its own dtype."""
    check_axis(x, axis)
    if x.shape[axis] % 2:
        raise_invalid(TypeError, "x", f"have an even length along axis {axis}", x)

    def halves(x: Array, *limit: Array) -> tuple[Array, Array]:
        # split before the upcast: a TPU would keep a float32 copy of x
        dtype = compute_dtype(x.dtype)
        a, b = (half.astype(dtype) for half in jnp.split(x, 2, axis))
        return _clip(a, b, *limit) if limit else (a, b)

    @jax.custom_jvp
    def gated(x: Array, *limit: Array) -> Array:
        a, b = halves(x, *limit)
        return (a * gate(b)).astype(x.dtype)

    @gated.defjvp
    def gated_jvp(primals: tuple, tangents: tuple) -> tuple:
        @jax.checkpoint
        def tangent(primals: tuple, tangents: tuple) -> Array:
            (a, b), (a_dot, b_dot) = jax.jvp(halves, primals, tangents)
            # a GPU would keep an array that the gate and its derivative share
            x, *limit = primals
            _, b_again = halves(_separate_on_gpu(x), *limit)
            result = gate(b) * a_dot + a * gate_derivative(b_again) * b_dot
            return result.astype(x.dtype)

        return gated(*primals), tangent(primals, tangents)

    return gated(x) if limit is None else gated(x, jnp.asarray(limit))


def _clip(a: Array, b: Array, limit: Array) -> tuple[Array, Array]:
    """a clipped to [-limit, limit] and b from above, with left derivatives"""
    a = jnp.where(a > -limit, jnp.where(a > limit, limit, a), -limit)
    return a, jnp.where(b > limit, limit, b)


def _separate_on_gpu(x: Array) -> Array:
    """x, but a GPU shares no work between formulas of x and of this."""
    return lax.platform_dependent(x, cuda=lax.optimization_barrier, default=lambda x: x)

"""Rectified activations: the identity above 0, something small below, a kink at 0.

All are elementwise and keep the shape of x. At the kink the derivative is the left one.
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jaxml._core.compiled import elementwise
from jaxml._core.types import Scalar


def _below(x: Array) -> Array:
    """x where x <= 0, and 0 above."""
    return jnp.where(x > 0, 0.0, x)


@elementwise(lambda x: jnp.where(x > 0, 1.0, 0.0))
def relu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The positive part of x.

        relu(x) = max(0, x)        relu'(0) = 0

    Args:
        x: Any number.

    Returns:
        Numbers in [0, ∞).

    Reference:
        Nair and Hinton, Rectified linear units improve restricted Boltzmann machines,
        ICML 2010, https://icml.cc/Conferences/2010/papers/432.pdf

    Example:
        >>> relu(jnp.array([-1.0, 0.0, 2.0]))
        Array([0., 0., 2.], dtype=float32)
    """
    return jnp.maximum(x, 0.0)


@elementwise(
    lambda x, slope: jnp.where(x > 0, 1.0, slope),
    lambda x, slope: _below(x),
)
def leaky_relu(
    x: Float[Array, "*shape"], *, slope: Scalar = 0.01
) -> Float[Array, "*shape"]:
    """x above 0, and a small fixed share of it below, so that no unit dies.

        leaky_relu(x) = x for x > 0, slope · x otherwise        leaky_relu'(0) = slope

    Args:
        x: Any number.
        slope: The share of a negative x, usually in [0, 1).

    Returns:
        Numbers of any size.

    Reference:
        Maas, Hannun and Ng, Rectifier nonlinearities improve neural network acoustic
        models, ICML 2013, https://ai.stanford.edu/~amaas/papers/relu_hybrid_icml2013_final.pdf

    Example:
        >>> leaky_relu(jnp.array([-2.0, 0.0, 2.0]), slope=0.25)
        Array([-0.5,  0. ,  2. ], dtype=float32)
    """
    return jnp.where(x > 0, x, slope * x)


@elementwise(
    lambda x, alpha: jnp.where(x > 0, 1.0, alpha * jnp.exp(_below(x))),
    lambda x, alpha: jnp.expm1(_below(x)),
)
def elu(x: Float[Array, "*shape"], *, alpha: Scalar = 1.0) -> Float[Array, "*shape"]:
    """x above 0, and an exponential approach to -α below: mean activations near 0.

        elu(x) = x for x > 0, α (eˣ - 1) otherwise        elu'(0) = α

    Args:
        x: Any number.
        alpha: α, the depth at -∞, non-negative.

    Returns:
        Numbers in (-α, ∞).

    Reference:
        Clevert, Unterthiner and Hochreiter, Fast and accurate deep network learning by
        exponential linear units, ICLR 2016, https://arxiv.org/abs/1511.07289

    Example:
        >>> elu(jnp.array([-jnp.inf, 0.0, 2.0]))
        Array([-1.,  0.,  2.], dtype=float32)
    """
    return jnp.where(x > 0, x, alpha * jnp.expm1(_below(x)))

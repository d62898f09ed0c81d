"""Stochastic activations: elementwise, with one random draw per element."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Key

from jaxml._core.public import public
from jaxml._core.special.partials import with_partials
from jaxml._core.types import Scalar
from jaxml.activations._kernels import normal


@public(remat=True)
def rrelu(
    key: Key[Array, ""],
    x: Float[Array, "*shape"],
    *,
    lower: Scalar = 1 / 8,
    upper: Scalar = 1 / 3,
) -> Float[Array, "*shape"]:
    """Leaky relu with a random slope per element, for training.

        rrelu(x) = x for x > 0, a x otherwise    with a ~ U[l, u]

    At the kink x = 0, the derivative is a, the left one. For evaluation, use leaky_relu
    with negative_slope (l + u)/2.

    Args:
        key: A random key.
        x: Any number.
        lower: l, the smallest slope.
        upper: u, the largest slope.

    Reference:
        Xu et al., Empirical evaluation of rectified activations in convolutional
        network, 2015, https://arxiv.org/abs/1505.00853

    Example:
        >>> rrelu(
        ...     jax.random.key(0), jnp.array([-4.0, 0.0, 2.0]), lower=0.25, upper=0.25
        ... )
        Array([-1.,  0.,  2.], dtype=float32)
    """
    a = lower + (upper - lower) * _uniform(key, x).astype(x.dtype)
    return jnp.where(x > 0, x, a * x)


@public(remat=True)
def stochastic_gelu(
    key: Key[Array, ""], x: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """x with probability Φ(x), else 0: a random gate whose mean is gelu.

        stochastic_gelu(x) = x m    with m ~ Bernoulli(Φ(x))

    The derivative is that of the mean, gelu'(x). The derivative m of one draw would
    leave out the change of Φ(x).

    Args:
        key: A random key.
        x: Any number.

    Reference:
        Hendrycks and Gimpel, Gaussian error linear units, 2016, section 2,
        https://arxiv.org/abs/1606.08415

    Example:
        >>> stochastic_gelu(jax.random.key(0), jnp.array([-100.0, 0.0, 100.0]))
        Array([  0.,   0., 100.], dtype=float32)
    """
    return _bernoulli_gate(_uniform(key, x), x)


@with_partials(
    lambda uniform, x: jnp.zeros_like(x),
    lambda uniform, x: normal.gelu_derivative(x),
)
def _bernoulli_gate(uniform: Array, x: Array) -> Array:
    """x with probability Φ(x), else 0; the derivative is that of the mean."""
    return jnp.where(uniform < normal.normal_cdf(x).astype(uniform.dtype), x, 0.0)


def _uniform(key: Array, x: Array) -> Array:
    """One draw from U[0, 1) per element, the same for every dtype of x."""
    return jax.random.uniform(key, x.shape, jnp.float32)

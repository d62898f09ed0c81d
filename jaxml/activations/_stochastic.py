"""Stochastic activations: they take a key, and draw one number for each of x."""

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
    """Leaky relu with a slope that is drawn anew for each number: for training.

        rrelu(x) = x for x > 0, a x otherwise    with a ~ U[l, u]

    with derivative a at the kink 0, the left one. For evaluation take leaky_relu with
    slope (l + u)/2.

    Args:
        key: A random key.
        x: Any number.
        lower: l, the least slope.
        upper: u, the greatest slope.

    Returns:
        Numbers of any size.

    Reference:
        Xu et al., Empirical evaluation of rectified activations in convolutional
        network, 2015, https://arxiv.org/abs/1505.00853

    Example:
        >>> rrelu(
        ...     jax.random.key(0), jnp.array([-4.0, 0.0, 2.0]), lower=0.25, upper=0.25
        ... )
        Array([-1.,  0.,  2.], dtype=float32)
    """

    share = _uniform(key, x).astype(x.dtype)
    return jnp.where(x > 0, x, (lower + (upper - lower) * share) * x)


@public(remat=True)
def stochastic_gelu(
    key: Key[Array, ""], x: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """x or 0: x with the probability that a standard normal variable lies below it.

        stochastic_gelu(x) = x m    with m ~ Bernoulli(Φ(x))

    Its mean over keys is gelu(x), and its derivative is taken to be that of the mean,
    gelu'(x): m alone would leave out that Φ(x) moves.

    Args:
        key: A random key.
        x: Any number.

    Returns:
        x or 0.

    Reference:
        Hendrycks and Gimpel, Gaussian error linear units, 2016, section 2,
        https://arxiv.org/abs/1606.08415

    Example:
        >>> stochastic_gelu(jax.random.key(0), jnp.array([-100.0, 0.0, 100.0]))
        Array([  0.,   0., 100.], dtype=float32)
    """
    return _kept(_uniform(key, x), x)


@with_partials(
    lambda draw, x: jnp.zeros_like(x),
    lambda draw, x: normal.gelu_slope(x),
)
def _kept(draw: Array, x: Array) -> Array:
    """x with probability Φ(x), and the derivative of the mean."""
    return jnp.where(draw < normal.normal_cdf(x).astype(draw.dtype), x, 0.0)


def _uniform(key: Array, x: Array) -> Array:
    """One draw from [0, 1) for each x, the same for every dtype of x."""
    return jax.random.uniform(key, x.shape, jnp.float32)

"""Smooth activations: a rectifier whose kink is rounded off.

All are elementwise and keep the shape of x.
"""

from jax import Array
from jaxtyping import Float

from jaxml._core.compiled import elementwise
from jaxml._core.numerics import normal_cdf, normal_pdf, sigmoid, times
from jaxml._core.types import Scalar


@elementwise(lambda x: normal_cdf(x) + times(normal_pdf(x), x))
def gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """x times the probability that a standard normal variable lies below it.

        gelu(x) = x Φ(x)        gelu'(x) = Φ(x) + x φ(x)

    with Φ and φ the distribution and the density of N(0, 1): the exact form, by erf.

    Args:
        x: Any number.

    Returns:
        Numbers in (-0.17, ∞), 0 at -∞.

    Reference:
        Hendrycks and Gimpel, Gaussian error linear units, 2016,
        https://arxiv.org/abs/1606.08415

    Example:
        >>> gelu(jnp.array([-jnp.inf, 0.0, 100.0]))
        Array([ -0.,   0., 100.], dtype=float32)
    """
    return times(normal_cdf(x), x)


def _swish_slope(x: Array, beta: Array) -> Array:
    return sigmoid(beta * x) + times(sigmoid(beta * x) * sigmoid(-beta * x), beta * x)


@elementwise(
    _swish_slope,
    lambda x, beta: times(times(sigmoid(beta * x) * sigmoid(-beta * x), x), x),
)
def swish(x: Float[Array, "*shape"], *, beta: Scalar = 1.0) -> Float[Array, "*shape"]:
    """x gated by its own sigmoid: smooth, bounded below, not monotonic.

        swish(x) = x σ(βx)        swish'(x) = σ(βx) + βx σ(βx) σ(-βx)

    It is x/2 at β = 0, silu at β = 1, and tends to relu as β grows. It may be
    differentiated for β, which can be learned.

    Args:
        x: Any number.
        beta: β, how sharp the gate is.

    Returns:
        Numbers in (-0.28/β, ∞) for β > 0.

    Reference:
        Ramachandran, Zoph and Le, Searching for activation functions, 2017,
        https://arxiv.org/abs/1710.05941

    Example:
        >>> swish(jnp.array([-1.0, 0.0, 1.0]), beta=0.0)
        Array([-0.5,  0. ,  0.5], dtype=float32)
    """
    return times(sigmoid(beta * x), x)

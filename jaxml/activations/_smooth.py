"""Smooth activations: a rectifier whose kink is rounded off.

All are elementwise and keep the shape of x.
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jaxml._core.public import elementwise
from jaxml._core.safe import multiply_no_nan
from jaxml._core.special.logistic import sigmoid, sigmoid_derivative
from jaxml._core.types import Scalar
from jaxml.activations._kernels import normal, sigmoid_gated


@elementwise(normal.gelu_slope)
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
        Array([  0.,   0., 100.], dtype=float32)
    """
    return normal.gelu(x)


@elementwise(sigmoid_gated.gelu_tanh_slope)
def gelu_tanh(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """gelu with its normal distribution replaced by a tanh, as BERT and GPT-2 have it.

        gelu_tanh(x) = x/2 (1 + tanh(√(2/π) (x + 0.044715 x³)))

    It differs from gelu by at most 0.0005.

    Args:
        x: Any number.

    Returns:
        Numbers in (-0.18, ∞), 0 at -∞.

    Reference:
        Hendrycks and Gimpel, Gaussian error linear units, 2016,
        https://arxiv.org/abs/1606.08415

    Example:
        >>> gelu_tanh(jnp.array([-jnp.inf, 0.0, 100.0]))
        Array([  0.,   0., 100.], dtype=float32)
    """
    return sigmoid_gated.gelu_tanh(x)


@elementwise(sigmoid_gated.quick_gelu_slope)
def quick_gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """gelu with its normal distribution replaced by a sigmoid, as CLIP has it.

        quick_gelu(x) = x σ(1.702 x)

    It differs from gelu by at most 0.021.

    Args:
        x: Any number.

    Returns:
        Numbers in (-0.17, ∞), 0 at -∞.

    Reference:
        Hendrycks and Gimpel, Gaussian error linear units, 2016,
        https://arxiv.org/abs/1606.08415

    Example:
        >>> quick_gelu(jnp.array([-jnp.inf, 0.0, 100.0]))
        Array([  0.,   0., 100.], dtype=float32)
    """
    return sigmoid_gated.quick_gelu(x)


@elementwise(
    sigmoid_gated.swish_slope,
    lambda x, beta: multiply_no_nan(
        multiply_no_nan(sigmoid_derivative(beta * x), x), x
    ),
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
    return sigmoid_gated.swish(x, jnp.asarray(beta))


@elementwise(sigmoid_gated.silu_slope)
def silu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """swish at β = 1: the sigmoid linear unit.

        silu(x) = x σ(x)        silu'(x) = σ(x) + x σ(x) σ(-x)

    Args:
        x: Any number.

    Returns:
        Numbers in (-0.28, ∞), 0 at -∞.

    Reference:
        Elfwing, Uchibe and Doya, Sigmoid-weighted linear units for neural network
        function approximation, 2017, https://arxiv.org/abs/1702.03118

    Example:
        >>> silu(jnp.array([-jnp.inf, 0.0, 100.0]))
        Array([  0.,   0., 100.], dtype=float32)
    """
    return sigmoid_gated.silu(x)


@elementwise(sigmoid_gated.mish_slope)
def mish(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """x gated by the tanh of its softplus: swish's shape, a little steeper.

        mish(x) = x tanh(log(1 + eˣ))        mish'(0) = 3/5

    Args:
        x: Any number.

    Returns:
        Numbers in (-0.31, ∞), 0 at -∞.

    Reference:
        Misra, Mish: a self regularized non-monotonic activation function, BMVC 2020,
        https://arxiv.org/abs/1908.08681

    Example:
        >>> mish(jnp.array([-jnp.inf, 0.0, 100.0]))
        Array([  0.,   0., 100.], dtype=float32)
    """
    return sigmoid_gated.mish(x)


def _softplus_beta_slope(x: Array, beta: Array) -> Array:
    """-(log(1 + eʸ) - y σ(y)) / β² with y = βx: even in y, and all terms positive."""
    y = -jnp.abs(beta * x)
    return -(softplus(y) - multiply_no_nan(sigmoid(y), y)) / (beta * beta)


@elementwise(sigmoid_gated.softplus_slope, _softplus_beta_slope)
def softplus(
    x: Float[Array, "*shape"], *, beta: Scalar = 1.0
) -> Float[Array, "*shape"]:
    """relu with its kink rounded off over a width of 1/β.

        softplus(x) = log(1 + e^(βx)) / β        softplus'(x) = σ(βx)

    Args:
        x: Any number.
        beta: β, how sharp the bend is, positive.

    Returns:
        Numbers in (0, ∞).

    Reference:
        Dugas et al., Incorporating second-order functional knowledge for better option
        pricing, NeurIPS 2000,
        https://papers.nips.cc/paper/2000/hash/44968aece94f667e4095002d140b5896-Abstract.html

    Example:
        >>> softplus(jnp.array([-jnp.inf, 0.0, 100.0]))
        Array([  0.       ,   0.6931472, 100.       ], dtype=float32)
    """
    return sigmoid_gated.softplus(x, jnp.asarray(beta))


def _squareplus_slope(x: Array) -> Array:
    """(1 + x/√(x² + 4)) / 2, and for x < -1, where the sum would cancel, a quotient."""
    x = jnp.clip(x, -1e19, 1e19)
    root = _root_of_square(x)
    below = 2 / ((x * x + 4) + jnp.abs(x) * root)
    return jnp.where(x > -1, 0.5 + x / root / 2, below)


@elementwise(_squareplus_slope)
def squareplus(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """softplus without exponentials: a branch of a hyperbola.

        squareplus(x) = (x + √(x² + 4)) / 2        squareplus'(0) = 1/2

    Args:
        x: Any number.

    Returns:
        Numbers in (0, ∞).

    Reference:
        Barron, Squareplus: a softplus-like algebraic rectifier, 2021,
        https://arxiv.org/abs/2112.11687

    Example:
        >>> squareplus(jnp.array([-jnp.inf, 0.0, 1.5]))
        Array([0., 1., 2.], dtype=float32)
    """
    return _squareplus(x)


def _squareplus(x: Array) -> Array:
    """For x < 0 the inverse of its value at -x, since there the sum would cancel."""
    above = jnp.abs(x) / 2 + _root_of_square(x) / 2
    return jnp.where(x > 0, above, 1 / above)


def _root_of_square(x: Array) -> Array:
    """√(x² + 4), which far from 0, where x² is ∞, is |x|."""
    near = jnp.clip(x, -1e19, 1e19)
    return jnp.where(jnp.abs(x) < 1e19, jnp.sqrt(near * near + 4), jnp.abs(x))


@elementwise(
    lambda x: jnp.where(x > 3, 1.0, jnp.where(x > -3, (2 * x + 3) / 6, 0.0)),
)
def hard_swish(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """silu with its sigmoid replaced by three line segments.

        hard_swish(x) = x · min(max(x + 3, 0), 6) / 6

    with derivative 0 at the kink -3 and 3/2 at the kink 3: the left ones.

    Args:
        x: Any number.

    Returns:
        Numbers in [-3/8, ∞), 0 from -3 down.

    Reference:
        Howard et al., Searching for MobileNetV3, ICCV 2019,
        https://arxiv.org/abs/1905.02244

    Example:
        >>> hard_swish(jnp.array([-3.0, 0.0, 1.5, 3.0]))
        Array([-0.   ,  0.   ,  1.125,  3.   ], dtype=float32)
    """
    return multiply_no_nan(jnp.clip(x + 3, 0, 6) / 6, x)

"""Smooth activations: smooth approximations of relu, most of them not monotonic.

All are elementwise and keep the shape of x. Only `hard_swish` has kinks, where its
derivative is the left one.
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jaxml._core.public import elementwise
from jaxml._core.safe import multiply_no_nan, safe_divide, safe_sqrt
from jaxml._core.special.logistic import sigmoid, sigmoid_derivative
from jaxml._core.special.partials import with_partials
from jaxml._core.types import NonNegative, Positive, Scalar
from jaxml.activations._kernels import normal, sigmoid_gated


@elementwise(normal.gelu_derivative)
def gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Gaussian error linear unit, exact: x weighted by the normal CDF.

        gelu(x) = x Φ(x)        gelu'(x) = Φ(x) + x φ(x)

    with Φ and φ the CDF and the density of N(0, 1).

    Range: [-0.1700, ∞). Derivative at 0: 1/2.

    Args:
        x: Any number.

    Reference:
        Hendrycks and Gimpel, Gaussian error linear units, 2016,
        https://arxiv.org/abs/1606.08415

    Example:
        >>> gelu(jnp.array([-jnp.inf, 0.0, 100.0]))
        Array([  0.,   0., 100.], dtype=float32)
    """
    return normal.gelu(x)


@elementwise(sigmoid_gated.gelu_tanh_derivative)
def gelu_tanh(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Tanh approximation of gelu, as in BERT and GPT-2.

        gelu_tanh(x) = x/2 (1 + tanh(√(2/π) (x + 0.044715 x³)))

    Range: [-0.1700, ∞). Derivative at 0: 1/2.

    It differs from gelu by at most 0.0005.

    Args:
        x: Any number.

    Reference:
        Hendrycks and Gimpel, Gaussian error linear units, 2016,
        https://arxiv.org/abs/1606.08415

    Example:
        >>> gelu_tanh(jnp.array([-jnp.inf, 0.0, 100.0]))
        Array([  0.,   0., 100.], dtype=float32)
    """
    return sigmoid_gated.gelu_tanh(x)


@elementwise(sigmoid_gated.quick_gelu_derivative)
def quick_gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Sigmoid approximation of gelu, as in CLIP.

        quick_gelu(x) = x σ(1.702 x)

    Range: [-0.1636, ∞). Derivative at 0: 1/2.

    It differs from gelu by at most 0.021.

    Args:
        x: Any number.

    Reference:
        Hendrycks and Gimpel, Gaussian error linear units, 2016,
        https://arxiv.org/abs/1606.08415

    Example:
        >>> quick_gelu(jnp.array([-jnp.inf, 0.0, 100.0]))
        Array([  0.,   0., 100.], dtype=float32)
    """
    return sigmoid_gated.quick_gelu(x)


def _swish_dbeta(x: Array, beta: Array) -> Array:
    """x² σ(βx) σ(-βx), where x² could overflow"""
    return multiply_no_nan(multiply_no_nan(sigmoid_derivative(beta * x), x), x)


@elementwise(sigmoid_gated.swish_derivative, _swish_dbeta)
def swish(x: Float[Array, "*shape"], *, beta: Scalar = 1.0) -> Float[Array, "*shape"]:
    """x gated by its own sigmoid, whose sharpness β can be learned.

        swish(x) = x σ(βx)        swish'(x) = σ(βx) + βx σ(βx) σ(-βx)

    Range: [-0.2785/β, ∞) for β > 0. Derivative at 0: 1/2.

    It is x/2 at β = 0, silu at β = 1, and tends to relu as β grows.

    Args:
        x: Any number.
        beta: β, the sharpness of the gate.

    Reference:
        Ramachandran, Zoph and Le, Searching for activation functions, 2017,
        https://arxiv.org/abs/1710.05941

    Example:
        >>> swish(jnp.array([-1.0, 0.0, 1.0]), beta=0.0)
        Array([-0.5,  0. ,  0.5], dtype=float32)
    """
    return sigmoid_gated.swish(x, jnp.asarray(beta))


@elementwise(sigmoid_gated.silu_derivative)
def silu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Sigmoid linear unit: swish with β = 1.

        silu(x) = x σ(x)        silu'(x) = σ(x) + x σ(x) σ(-x)

    Range: [-0.2785, ∞). Derivative at 0: 1/2.

    Args:
        x: Any number.

    Reference:
        Elfwing, Uchibe and Doya, Sigmoid-weighted linear units for neural network
        function approximation, 2017, https://arxiv.org/abs/1702.03118

    Example:
        >>> silu(jnp.array([-jnp.inf, 0.0, 100.0]))
        Array([  0.,   0., 100.], dtype=float32)
    """
    return sigmoid_gated.silu(x)


@elementwise(sigmoid_gated.mish_derivative)
def mish(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """x gated by the tanh of its softplus: similar to silu, slightly steeper.

        mish(x) = x tanh(log(1 + eˣ))

    Range: [-0.3088, ∞). Derivative at 0: 3/5.

    Args:
        x: Any number.

    Reference:
        Misra, Mish: a self regularized non-monotonic activation function, BMVC 2020,
        https://arxiv.org/abs/1908.08681

    Example:
        >>> mish(jnp.array([-jnp.inf, 0.0, 100.0]))
        Array([  0.,   0., 100.], dtype=float32)
    """
    return sigmoid_gated.mish(x)


def _softplus_dbeta(x: Array, beta: Array) -> Array:
    """-(log(1 + eʸ) - y σ(y)) / β² with y = βx

    It is even in y, and for y <= 0 both terms have the same sign.
    """
    y = -jnp.abs(beta * x)
    return -(softplus(y) - multiply_no_nan(sigmoid(y), y)) / (beta * beta)


@elementwise(sigmoid_gated.softplus_derivative, _softplus_dbeta)
def softplus(
    x: Float[Array, "*shape"], *, beta: Positive = 1.0
) -> Float[Array, "*shape"]:
    """Smooth relu, with its kink rounded over a width of 1/β.

        softplus(x) = log(1 + e^(βx)) / β        softplus'(x) = σ(βx)

    Range: (0, ∞). Derivative at 0: 1/2.

    Args:
        x: Any number.
        beta: β, the sharpness of the bend, positive.

    Reference:
        Dugas et al., Incorporating second-order functional knowledge for better option
        pricing, NeurIPS 2000,
        https://papers.nips.cc/paper/2000/hash/44968aece94f667e4095002d140b5896-Abstract.html

    Example:
        >>> softplus(jnp.array([-jnp.inf, 0.0, 100.0]))
        Array([  0.       ,   0.6931472, 100.       ], dtype=float32)
    """
    return sigmoid_gated.softplus(x, jnp.asarray(beta))


def _root_dx(x: Array, b: Array) -> Array:
    return safe_divide(x, _root(x, b))


def _root_db(x: Array, b: Array) -> Array:
    return safe_divide(jnp.full_like(x, 0.5), _root(x, b))


@with_partials(_root_dx, _root_db)
def _root(x: Array, b: Array) -> Array:
    """√(x² + b), which is |x| where x² overflows or underflows"""
    near = jnp.clip(x, -1e19, 1e19)
    return jnp.maximum(safe_sqrt(near * near + b), jnp.abs(x))


def _squareplus(x: Array, b: Array) -> Array:
    """squareplus(-x) = b/4 / squareplus(x): for x < 0 the sum would cancel"""
    positive = jnp.where(x > 0, x, -x) / 2 + _root(x, b) / 2
    return jnp.where(x > 0, positive, safe_divide(b / 4, positive))


def _squareplus_dx(x: Array, b: Array) -> Array:
    """(1 + x/√(x² + b)) / 2, as a quotient for x < 0, where the sum cancels"""
    largest = float(jnp.finfo(x.dtype).max)
    # s x and s² b have the same derivative, and x² does not overflow where it counts
    scale = jnp.where(jnp.abs(x) > 1e18, jnp.asarray(2.0**-32, x.dtype), 1.0)
    x, b = scale * jnp.clip(x, -largest, largest), scale * scale * b
    negative = jnp.where(x > 0, 0.0, x)
    root = _root(negative, b)
    quotient = safe_divide(b / 2, (negative * negative + b) - negative * root)
    return jnp.where(x > 0, 0.5 + safe_divide(x, _root(x, b)) / 2, quotient)


@elementwise(_squareplus_dx, lambda x, b: _root_db(x, b) / 2)
def squareplus(
    x: Float[Array, "*shape"], *, b: NonNegative = 4.0
) -> Float[Array, "*shape"]:
    """Algebraic softplus: one branch of a hyperbola, without exponentials.

        squareplus(x) = (x + √(x² + b)) / 2

    Range: (0, ∞) for b > 0. Derivative at 0: 1/2.

    At b = 0 it is relu; there, at x = 0, both derivatives are 0.

    Args:
        x: Any number.
        b: b, the size of the bend, non-negative: squareplus(0) = √b/2.

    Reference:
        Barron, Squareplus: a softplus-like algebraic rectifier, 2021,
        https://arxiv.org/abs/2112.11687

    Example:
        >>> squareplus(jnp.array([-jnp.inf, 0.0, 1.5]))
        Array([0., 1., 2.], dtype=float32)
    """
    return _squareplus(x, jnp.asarray(b))


@elementwise(
    lambda x: jnp.where(x > 3, 1.0, jnp.where(x > -3, (2 * x + 3) / 6, 0.0)),
)
def hard_swish(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """silu with its sigmoid replaced by hard_sigmoid.

        hard_swish(x) = x · min(max(x + 3, 0), 6) / 6

    Range: [-3/8, ∞). Derivative at 0: 1/2.
    Kinks: hard_swish'(-3) = 0, hard_swish'(3) = 3/2.

    Args:
        x: Any number.

    Reference:
        Howard et al., Searching for MobileNetV3, ICCV 2019,
        https://arxiv.org/abs/1905.02244

    Example:
        >>> hard_swish(jnp.array([-3.0, 0.0, 1.5, 3.0]))
        Array([-0.   ,  0.   ,  1.125,  3.   ], dtype=float32)
    """
    return multiply_no_nan(jnp.clip(x + 3, 0, 6) / 6, x)

"""Rectified activations and shrinkage functions.

All are elementwise and keep the shape of x. At a kink, the derivative is the left one;
at the jumps of `hard_shrink` and `threshold` it is 0.
"""

import math

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jaxml._core.public import elementwise
from jaxml._core.special import logistic
from jaxml._core.special.exp import (
    exp,
    expm1,
    is_float32,
    polynomial,
    scale_by_exp,
    scaled_exp,
    split_quotient,
)
from jaxml._core.types import NonNegative, Positive, Scalar


def _negative_part(x: Array) -> Array:
    """min(x, 0), with derivative 1 at 0."""
    return jnp.where(x > 0, 0.0, x)


@elementwise(lambda x: x > 0)
def relu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Rectified linear unit: the positive part of x.

        relu(x) = max(0, x)

    Range: [0, ∞). Derivative at 0: 0.
    Kinks: relu'(0) = 0.

    Args:
        x: Any number.

    Reference:
        Nair and Hinton, Rectified linear units improve restricted Boltzmann machines,
        ICML 2010, https://icml.cc/Conferences/2010/papers/432.pdf

    Example:
        >>> relu(jnp.array([-1.0, 0.0, 2.0]))
        Array([0., 0., 2.], dtype=float32)
    """
    return jnp.maximum(x, 0.0)


@elementwise(lambda x: 2 * jnp.maximum(x, 0.0))
def relu_squared(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The square of relu, whose derivative is continuous.

        relu_squared(x) = max(0, x)²        relu_squared'(x) = 2 max(0, x)

    Range: [0, ∞). Derivative at 0: 0.

    Args:
        x: Any number.

    Reference:
        So et al., Primer: searching for efficient transformers for language modeling,
        NeurIPS 2021, https://arxiv.org/abs/2109.08668

    Example:
        >>> relu_squared(jnp.array([-1.0, 0.0, 3.0]))
        Array([0., 0., 9.], dtype=float32)
    """
    return jnp.square(jnp.maximum(x, 0.0))


@elementwise(lambda x: (x > 0) & (x <= 6))
def relu6(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """relu capped at 6, for low-precision arithmetic.

        relu6(x) = min(max(0, x), 6)

    Range: [0, 6]. Derivative at 0: 0.
    Kinks: relu6'(0) = 0, relu6'(6) = 1.

    Args:
        x: Any number.

    Reference:
        Howard et al., MobileNets, 2017, https://arxiv.org/abs/1704.04861

    Example:
        >>> relu6(jnp.array([-1.0, 2.0, 8.0]))
        Array([0., 2., 6.], dtype=float32)
    """
    return jnp.clip(x, 0, 6)


@elementwise(
    lambda x, a: jnp.where(x > 0, 1.0, a),
    lambda x, a: _negative_part(x),
)
def leaky_relu(
    x: Float[Array, "*shape"], *, negative_slope: Scalar = 0.01
) -> Float[Array, "*shape"]:
    """relu with a small slope for negative x, so that no unit dies.

        leaky_relu(x) = x for x > 0, a x otherwise

    Range: (-∞, ∞). Derivative at 0: a.
    Kinks: leaky_relu'(0) = a.

    Args:
        x: Any number.
        negative_slope: a, usually in (0, 1).

    Reference:
        Maas, Hannun and Ng, Rectifier nonlinearities improve neural network acoustic
        models, ICML 2013, https://ai.stanford.edu/~amaas/papers/relu_hybrid_icml2013_final.pdf

    Example:
        >>> leaky_relu(jnp.array([-2.0, 0.0, 2.0]), negative_slope=0.25)
        Array([-0.5,  0. ,  2. ], dtype=float32)
    """
    return jnp.where(x > 0, x, negative_slope * x)


@elementwise(
    lambda x, alpha: jnp.where(x > 0, 1.0, alpha * exp(_negative_part(x))),
    lambda x, alpha: expm1(_negative_part(x)),
)
def elu(
    x: Float[Array, "*shape"], *, alpha: NonNegative = 1.0
) -> Float[Array, "*shape"]:
    """Exponential linear unit: x above 0, and an exponential decay to -α below.

        elu(x) = x for x > 0, α (eˣ - 1) otherwise

    Range: (-α, ∞). Derivative at 0: α.
    Kinks: elu'(0) = α.

    The negative values bring the mean activation closer to 0.

    Args:
        x: Any number.
        alpha: α, minus the limit at -∞, non-negative. At α = 1 there is no kink.

    Reference:
        Clevert, Unterthiner and Hochreiter, Fast and accurate deep network learning by
        exponential linear units, ICLR 2016, https://arxiv.org/abs/1511.07289

    Example:
        >>> elu(jnp.array([-jnp.inf, 0.0, 2.0]))
        Array([-1.,  0.,  2.], dtype=float32)
    """
    return jnp.where(x > 0, x, alpha * expm1(_negative_part(x)))


def _celu_dalpha(x: Array, alpha: Array) -> Array:
    """e^z - 1 - z e^z with z = x/α, and 0 for x > 0"""
    z = jnp.maximum(_negative_part(x) / alpha, -200.0)
    return expm1(z) - z * exp(z)


@elementwise(
    lambda x, alpha: jnp.where(
        x > 0, 1.0, exp(*split_quotient(_negative_part(x), alpha))
    ),
    _celu_dalpha,
)
def celu(x: Float[Array, "*shape"], *, alpha: Positive = 1.0) -> Float[Array, "*shape"]:
    """elu with its exponent divided by α, so that its derivative is continuous.

        celu(x) = x for x > 0, α (e^(x/α) - 1) otherwise

    Range: (-α, ∞). Derivative at 0: 1.

    Args:
        x: Any number.
        alpha: α, minus the limit at -∞, positive.

    Reference:
        Barron, Continuously differentiable exponential linear units, 2017,
        https://arxiv.org/abs/1704.07483

    Example:
        >>> celu(jnp.array([-jnp.inf, 0.0, 2.0]), alpha=2.0)
        Array([-2.,  0.,  2.], dtype=float32)
    """
    return jnp.where(x > 0, x, alpha * expm1(_negative_part(x) / alpha))


SELU_SCALE = 1.0507009873554804934  # λ
SELU_SCALE_TIMES_ALPHA = 1.7580993408473768599  # α = 1.6732632423543772848


def _selu_derivative(x: Array) -> Array:
    scale_times_alpha = jnp.full_like(x, SELU_SCALE_TIMES_ALPHA)
    negative = scale_by_exp(scale_times_alpha, scaled_exp(_negative_part(x)))
    return jnp.where(x > 0, SELU_SCALE, negative)


@elementwise(_selu_derivative)
def selu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """elu scaled so that activations keep mean 0 and variance 1 from layer to layer.

        selu(x) = λ x for x > 0, λ α (eˣ - 1) otherwise

    Range: (-λα, ∞). Derivative at 0: λα.
    Kinks: selu'(0) = λα.

    λ = 1.0507009873554805 and α = 1.6732632423543772.

    Args:
        x: Any number.

    Reference:
        Klambauer et al., Self-normalizing neural networks, NeurIPS 2017,
        https://arxiv.org/abs/1706.02515

    Example:
        >>> selu(jnp.array([-jnp.inf, 0.0, 1.0]))
        Array([-1.7580993,  0.       ,  1.050701 ], dtype=float32)
    """
    negative = SELU_SCALE_TIMES_ALPHA * expm1(_negative_part(x))
    return jnp.where(x > 0, SELU_SCALE * x, negative)


@elementwise(
    lambda x, threshold, value: x > threshold,
    lambda x, threshold, value: jnp.zeros_like(x),
    lambda x, threshold, value: jnp.where(x > threshold, 0.0, 1.0),
)
def threshold(
    x: Float[Array, "*shape"], *, threshold: Scalar, value: Scalar
) -> Float[Array, "*shape"]:
    """x above a threshold, and a fixed value at or below it.

        threshold(x) = x for x > θ, v otherwise

    Range: {v} ∪ (θ, ∞). Derivative at 0: 0 for θ >= 0, else 1.
    Kinks: threshold'(θ) = 0.

    The derivative with respect to θ is 0 everywhere: it leaves out the jump.

    Args:
        x: Any number.
        threshold: θ.
        value: v.

    Reference:
        Konda, Memisevic and Krueger, Zero-bias autoencoders and the benefits of
        co-adapting features, ICLR 2015, https://arxiv.org/abs/1402.3337

    Example:
        >>> threshold(jnp.array([0.5, 1.0, 2.0]), threshold=1.0, value=0.0)
        Array([0., 0., 2.], dtype=float32)
    """
    return jnp.where(x > threshold, x, value)


@elementwise(
    lambda x, threshold: jnp.abs(x) > threshold,
    lambda x, threshold: jnp.zeros_like(x),
)
def hard_shrink(
    x: Float[Array, "*shape"], *, threshold: NonNegative = 0.5
) -> Float[Array, "*shape"]:
    """Hard thresholding: sets x near 0 to 0 and leaves all other x unchanged.

        hard_shrink(x) = x for |x| > θ, 0 otherwise

    Range: (-∞, -θ) ∪ {0} ∪ (θ, ∞). Derivative at 0: 0.
    Kinks: hard_shrink'(-θ) = 0, hard_shrink'(θ) = 0.

    The derivative with respect to θ is 0 everywhere: it leaves out the jumps.

    Args:
        x: Any number.
        threshold: θ, non-negative.

    Reference:
        Donoho and Johnstone, Ideal spatial adaptation by wavelet shrinkage, Biometrika
        1994, https://doi.org/10.1093/biomet/81.3.425

    Example:
        >>> hard_shrink(jnp.array([-2.0, 0.5, 1.0]))
        Array([-2.,  0.,  1.], dtype=float32)
    """
    return jnp.where(jnp.abs(x) <= threshold, 0.0, x)


@elementwise(
    lambda x, threshold: (x > threshold) | (x <= -threshold),
    lambda x, threshold: -jnp.sign(_soft_threshold(x, threshold)),
)
def soft_shrink(
    x: Float[Array, "*shape"], *, threshold: NonNegative = 0.5
) -> Float[Array, "*shape"]:
    """Soft thresholding: moves x toward 0 by θ, and to 0 where |x| <= θ.

        soft_shrink(x) = sign(x) max(0, |x| - θ)

    Range: (-∞, ∞). Derivative at 0: 0.
    Kinks: soft_shrink'(-θ) = 1, soft_shrink'(θ) = 0.

    Args:
        x: Any number.
        threshold: θ, non-negative.

    Reference:
        Donoho, De-noising by soft-thresholding, IEEE Transactions on Information Theory
        1995, https://doi.org/10.1109/18.382009

    Example:
        >>> soft_shrink(jnp.array([-2.0, 0.5, 1.0]))
        Array([-1.5,  0. ,  0.5], dtype=float32)
    """
    return _soft_threshold(x, threshold)


def _soft_threshold(x: Array, threshold: Scalar) -> Array:
    """x is moved toward 0, and NaN stays NaN."""
    is_small = jnp.abs(x) <= threshold
    return jnp.where(is_small, 0.0, x - jnp.copysign(threshold, x))


@elementwise(lambda x: jnp.square(logistic.tanh(x)))
def tanh_shrink(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """x minus its tanh: about x³/3 near 0, and x ∓ 1 far from it.

        tanh_shrink(x) = x - tanh(x)        tanh_shrink'(x) = tanh²(x)

    Range: (-∞, ∞). Derivative at 0: 0.

    Args:
        x: Any number.

    Reference:
        PyTorch, torch.nn.Tanhshrink,
        https://pytorch.org/docs/stable/generated/torch.nn.Tanhshrink.html

    Example:
        >>> tanh_shrink(jnp.array([-100.0, 0.0, 1e-10]))
        Array([-9.9000000e+01,  0.0000000e+00,  3.3333336e-31], dtype=float32)
    """
    near = jnp.clip(x, -1.5, 1.5)
    far = x - logistic.tanh(x)
    return jnp.where(jnp.abs(x) < 1.5, _tanh_shrink_near_0(near), far)


# fmt: off
TANH_SHRINK = (  # (x - tanh x) / x³ in x², from `python -m bench.truths.fit_kernels`
    0.3333333432674408, -0.1333332061767578, 0.05396583303809166, -0.02185216173529625,
    0.008798357099294662, -0.0034463671036064625, 0.0012429810594767332,
    -0.000376646697986871, 8.515471563441679e-05, -1.2259706636541523e-05,
    8.229426384787075e-07,
)
# fmt: on


def _tanh_shrink_near_0(x: Array) -> Array:
    """x - tanh(x) for |x| <= 1.5, where the difference cancels."""
    square = x * x
    if is_float32(x):
        return x * (square * polynomial(square, TANH_SHRINK))
    # (x cosh x - sinh x) / cosh x, whose numerator is Σₖ 2k x²ᵏ⁺¹ / (2k + 1)!
    terms = tuple(2 * k / math.factorial(2 * k + 1) for k in range(1, 15))
    return x * square * polynomial(square, terms) / jnp.cosh(x)

"""Rectified activations and shrinkage: the identity far out, with kinks nearer 0.

All are elementwise and keep the shape of x. At a kink the derivative is the left one.
"""

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
from jaxml._core.types import Scalar


def _below(x: Array) -> Array:
    """x where x <= 0, and 0 above."""
    return jnp.where(x > 0, 0.0, x)


@elementwise(lambda x: x > 0)
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


@elementwise(lambda x: (x > 0) & (x <= 6))
def relu6(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """relu that stops at 6, which numbers of few bits still resolve.

        relu6(x) = min(max(0, x), 6)        relu6'(0) = 0, relu6'(6) = 1

    Args:
        x: Any number.

    Returns:
        Numbers in [0, 6].

    Reference:
        Howard et al., MobileNets, 2017, https://arxiv.org/abs/1704.04861

    Example:
        >>> relu6(jnp.array([-1.0, 2.0, 8.0]))
        Array([0., 2., 6.], dtype=float32)
    """
    return jnp.clip(x, 0, 6)


@elementwise(
    lambda x, slope: jnp.where(x > 0, 1.0, slope),
    lambda x, slope: _below(x),
)
def leaky_relu(
    x: Float[Array, "*shape"], *, negative_slope: Scalar = 0.01
) -> Float[Array, "*shape"]:
    """x above 0, and a small fixed share of it below, so that no unit dies.

        leaky_relu(x) = x for x > 0, negative_slope · x otherwise        leaky_relu'(0) = negative_slope

    Args:
        x: Any number.
        negative_slope: The share of a negative x, usually in [0, 1).

    Returns:
        Numbers of any size.

    Reference:
        Maas, Hannun and Ng, Rectifier nonlinearities improve neural network acoustic
        models, ICML 2013, https://ai.stanford.edu/~amaas/papers/relu_hybrid_icml2013_final.pdf

    Example:
        >>> leaky_relu(jnp.array([-2.0, 0.0, 2.0]), negative_slope=0.25)
        Array([-0.5,  0. ,  2. ], dtype=float32)
    """
    return jnp.where(x > 0, x, negative_slope * x)


@elementwise(
    lambda x, alpha: jnp.where(x > 0, 1.0, alpha * exp(_below(x))),
    lambda x, alpha: expm1(_below(x)),
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
    return jnp.where(x > 0, x, alpha * expm1(_below(x)))


def _celu_alpha_slope(x: Array, alpha: Array) -> Array:
    """e^z - 1 - z e^z with z = x/α, and 0 above 0."""
    z = jnp.maximum(_below(x) / alpha, -200.0)
    return expm1(z) - z * exp(z)


@elementwise(
    lambda x, alpha: jnp.where(x > 0, 1.0, exp(*split_quotient(_below(x), alpha))),
    _celu_alpha_slope,
)
def celu(x: Float[Array, "*shape"], *, alpha: Scalar = 1.0) -> Float[Array, "*shape"]:
    """elu with its exponent scaled, so that its derivative has no jump at 0.

        celu(x) = x for x > 0, α (e^(x/α) - 1) otherwise        celu'(0) = 1

    Args:
        x: Any number.
        alpha: α, the depth at -∞, positive.

    Returns:
        Numbers in (-α, ∞).

    Reference:
        Barron, Continuously differentiable exponential linear units, 2017,
        https://arxiv.org/abs/1704.07483

    Example:
        >>> celu(jnp.array([-jnp.inf, 0.0, 2.0]), alpha=2.0)
        Array([-2.,  0.,  2.], dtype=float32)
    """
    return jnp.where(x > 0, x, alpha * expm1(_below(x) / alpha))


SELU_SCALE = 1.0507009873554804934
SELU_DEPTH = 1.7580993408473768599  # the scale times α = 1.6732632423543772848


def _selu_slope(x: Array) -> Array:
    below = scale_by_exp(jnp.full_like(x, SELU_DEPTH), scaled_exp(_below(x)))
    return jnp.where(x > 0, SELU_SCALE, below)


@elementwise(_selu_slope)
def selu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """elu at a scale that keeps activations of mean 0 and variance 1 as they are.

        selu(x) = λ x for x > 0, λ α (eˣ - 1) otherwise        selu'(0) = λ α

    with λ = 1.0507009873554805 and α = 1.6732632423543772.

    Args:
        x: Any number.

    Returns:
        Numbers in (-1.76, ∞).

    Reference:
        Klambauer et al., Self-normalizing neural networks, NeurIPS 2017,
        https://arxiv.org/abs/1706.02515

    Example:
        >>> selu(jnp.array([-jnp.inf, 0.0, 1.0]))
        Array([-1.7580993,  0.       ,  1.050701 ], dtype=float32)
    """
    return jnp.where(x > 0, SELU_SCALE * x, SELU_DEPTH * expm1(_below(x)))


@elementwise(
    lambda x, threshold, value: x > threshold,
    lambda x, threshold, value: jnp.zeros_like(x),
    lambda x, threshold, value: jnp.where(x > threshold, 0.0, 1.0),
)
def threshold(
    x: Float[Array, "*shape"], *, threshold: Scalar, value: Scalar
) -> Float[Array, "*shape"]:
    """What is above a threshold, and one fixed value for everything else.

        threshold(x) = x for x > θ, v otherwise        threshold'(θ) = 0

    The derivative for θ is 0: the jump at θ has none.

    Args:
        x: Any number.
        threshold: θ.
        value: v, what stands for a number that is not above θ.

    Returns:
        v, or numbers in (θ, ∞).

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
    x: Float[Array, "*shape"], *, threshold: Scalar = 0.5
) -> Float[Array, "*shape"]:
    """What is far from 0, and 0 for everything near it.

        hard_shrink(x) = x for |x| > θ, 0 otherwise        hard_shrink'(±θ) = 0

    The derivative for θ is 0: the jumps at ±θ have none.

    Args:
        x: Any number.
        threshold: θ, non-negative.

    Returns:
        0, or numbers beyond ±θ.

    Reference:
        Donoho and Johnstone, Ideal spatial adaptation by wavelet shrinkage, Biometrika
        1994, https://doi.org/10.1093/biomet/81.3.425

    Example:
        >>> hard_shrink(jnp.array([-2.0, 0.5, 1.0]))
        Array([-2.,  0.,  1.], dtype=float32)
    """
    return jnp.where(jnp.abs(x) > threshold, x, 0.0)


@elementwise(
    lambda x, threshold: (x > threshold) | (x <= -threshold),
    lambda x, threshold: -jnp.sign(_shrunk(x, threshold)),
)
def soft_shrink(
    x: Float[Array, "*shape"], *, threshold: Scalar = 0.5
) -> Float[Array, "*shape"]:
    """x moved towards 0 by a fixed length, and 0 once it is there.

        soft_shrink(x) = sign(x) max(0, |x| - θ)

    with derivative 1 at the kink -θ and 0 at the kink θ: the left ones.

    Args:
        x: Any number.
        threshold: θ, non-negative.

    Returns:
        Numbers of any size.

    Reference:
        Donoho, De-noising by soft-thresholding, IEEE Transactions on Information Theory
        1995, https://doi.org/10.1109/18.382009

    Example:
        >>> soft_shrink(jnp.array([-2.0, 0.5, 1.0]))
        Array([-1.5,  0. ,  0.5], dtype=float32)
    """
    return _shrunk(x, threshold)


def _shrunk(x: Array, threshold: Scalar) -> Array:
    return jnp.where(
        x > threshold, x - threshold, jnp.where(x < -threshold, x + threshold, 0.0)
    )


@elementwise(lambda x: jnp.square(logistic.tanh(x)))
def tanh_shrink(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """What tanh takes away: next to nothing near 0, all but 1 far from it.

        tanh_shrink(x) = x - tanh(x)        tanh_shrink'(x) = tanh²(x)

    Args:
        x: Any number.

    Returns:
        Numbers of any size, about x³/3 near 0.

    Reference:
        PyTorch, torch.nn.Tanhshrink,
        https://pytorch.org/docs/stable/generated/torch.nn.Tanhshrink.html

    Example:
        >>> tanh_shrink(jnp.array([-100.0, 0.0, 1e-10]))
        Array([-9.9000000e+01,  0.0000000e+00,  3.3333336e-31], dtype=float32)
    """
    near = jnp.clip(x, -1.5, 1.5)
    far = x - logistic.tanh(x)
    return jnp.where(jnp.abs(x) < 1.5, _tanh_shrink_near(near), far)


TANH_SHRINK = (  # (x - tanh x) / x³ in x², from `python -m bench.fit_kernels`
    *(0.3333333432674408, -0.1333332061767578, 0.05396583303809166),
    *(-0.02185216173529625, 0.008798357099294662, -0.0034463671036064625),
    *(0.0012429810594767332, -0.000376646697986871, 8.515471563441679e-05),
    *(-1.2259706636541523e-05, 8.229426384787075e-07),
)


def _tanh_shrink_near(x: Array) -> Array:
    """For |x| <= 1.5, where the difference cancels."""
    square = x * x
    if is_float32(x):
        return x * (square * polynomial(square, TANH_SHRINK))
    terms = (-square * square / 15 * 2, square / 3)  # enough below 10⁻⁴
    return jnp.where(square < 1e-8, x * (terms[0] + terms[1]), x - jnp.tanh(x))

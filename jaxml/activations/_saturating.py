"""Saturating activations, with the logarithm and the inverse of the sigmoid.

All are elementwise and keep the shape of x. At a kink, the derivative is the left one.
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jaxml._core.public import elementwise
from jaxml._core.special import logistic
from jaxml._core.special.exp import is_float32, polynomial
from jaxml._core.special.log1p import wide_log1p


@elementwise(logistic.sigmoid_derivative)
def sigmoid(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Logistic function: the probability that belongs to given log-odds.

        σ(x) = 1 / (1 + e⁻ˣ)        σ'(x) = σ(x) σ(-x)

    Range: (0, 1). Derivative at 0: 1/4.

    Write σ(-x) for 1 - σ(x): the difference cancels where σ(x) is near 1.

    Args:
        x: Log-odds.

    Example:
        >>> sigmoid(jnp.array([-jnp.inf, 0.0, jnp.inf]))
        Array([0. , 0.5, 1. ], dtype=float32)
    """
    return logistic.sigmoid(x)


@elementwise(lambda x: logistic.sigmoid(-x))
def log_sigmoid(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Logarithm of the sigmoid, accurate where the sigmoid rounds to 0 or 1.

        log σ(x) = -log(1 + e⁻ˣ)        (log σ)'(x) = σ(-x)

    Range: (-∞, 0). Derivative at 0: 1/2.

    Args:
        x: Log-odds.

    Example:
        >>> log_sigmoid(jnp.array([-100.0, 0.0, jnp.inf]))
        Array([-100.        ,   -0.6931472,   -0.       ], dtype=float32)
    """
    return -logistic.softplus(-x)


@elementwise(lambda x: jnp.where((x > -3) & (x <= 3), 1 / 6, 0.0))
def hard_sigmoid(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Sigmoid approximated by three line segments.

        hard_sigmoid(x) = min(max(x + 3, 0), 6) / 6

    Range: [0, 1]. Derivative at 0: 1/6.
    Kinks: hard_sigmoid'(-3) = 0, hard_sigmoid'(3) = 1/6.

    Args:
        x: Any number.

    Reference:
        Howard et al., Searching for MobileNetV3, ICCV 2019,
        https://arxiv.org/abs/1905.02244

    Example:
        >>> hard_sigmoid(jnp.array([-3.0, 0.0, 3.0]))
        Array([0. , 0.5, 1. ], dtype=float32)
    """
    return jnp.clip(x + 3, 0, 6) / 6


@elementwise(lambda p: 1 / p + 1 / (1 - p))
def logit(p: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Log-odds of a probability: the inverse of the sigmoid.

        logit(p) = log(p / (1 - p))        logit'(p) = 1/p + 1/(1 - p)

    Range: (-∞, ∞). Derivative at 0: ∞.

    logit(0) is -∞ and logit(1) is ∞. Outside [0, 1] the result is NaN.

    Args:
        p: Probabilities.

    Reference:
        Berkson, Application of the logistic function to bio-assay, JASA 1944,
        https://doi.org/10.1080/01621459.1944.10500699

    Example:
        >>> logit(jnp.array([0.0, 0.5, 1.0]))
        Array([-inf,   0.,  inf], dtype=float32)
    """
    w = jnp.clip(2 * p - 1, -0.5, 0.5)
    far = jnp.log(p) - jnp.log1p(-p)
    return jnp.where(jnp.abs(2 * p - 1) < 0.5, _twice_artanh(w), far)


# fmt: off
LOGIT = (  # 2 (artanh w - w) / w³ in w², from `python -m bench.truths.fit_kernels`
    0.6666666865348816, 0.39999920129776, 0.28576570749282837, 0.22101660072803497,
    0.1950388103723526, 0.08183246105909348, 0.3125832974910736,
)
# fmt: on


def _twice_artanh(w: Array) -> Array:
    """log(p / (1 - p)) for w = 2p - 1 near 0, where the two logarithms cancel."""
    if not is_float32(w):
        return wide_log1p(w) - wide_log1p(-w)
    return 2 * w + w * w * w * polynomial(w * w, LOGIT)


@elementwise(logistic.sech_squared)
def tanh(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Hyperbolic tangent: an odd sigmoid between -1 and 1.

        tanh(x) = (eˣ - e⁻ˣ) / (eˣ + e⁻ˣ)        tanh'(x) = 1 / cosh²(x)

    Range: (-1, 1). Derivative at 0: 1.

    Args:
        x: Any number.

    Reference:
        LeCun et al., Efficient BackProp, 1998,
        http://yann.lecun.com/exdb/publis/pdf/lecun-98b.pdf

    Example:
        >>> tanh(jnp.array([-jnp.inf, 0.0, jnp.inf]))
        Array([-1.,  0.,  1.], dtype=float32)
    """
    return logistic.tanh(x)


@elementwise(lambda x: (x > -1) & (x <= 1))
def hard_tanh(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Tanh approximated by three line segments: x clipped to [-1, 1].

        hard_tanh(x) = min(max(x, -1), 1)

    Range: [-1, 1]. Derivative at 0: 1.
    Kinks: hard_tanh'(-1) = 0, hard_tanh'(1) = 1.

    Args:
        x: Any number.

    Reference:
        Collobert and Bengio, Links between perceptrons, MLPs and SVMs, ICML 2004,
        https://doi.org/10.1145/1015330.1015415

    Example:
        >>> hard_tanh(jnp.array([-2.0, 0.5, 2.0]))
        Array([-1. ,  0.5,  1. ], dtype=float32)
    """
    return jnp.clip(x, -1, 1)


@elementwise(lambda x: jnp.square(1 / (1 + jnp.abs(x))))
def softsign(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Rational alternative to tanh that saturates far more slowly.

        softsign(x) = x / (1 + |x|)        softsign'(x) = 1 / (1 + |x|)²

    Range: (-1, 1). Derivative at 0: 1.

    Args:
        x: Any number.

    Reference:
        Turian, Bergstra and Bengio, Quadratic features and deep architectures for
        chunking, NAACL 2009, https://aclanthology.org/N09-2062

    Example:
        >>> softsign(jnp.array([-jnp.inf, 0.0, 1.0]))
        Array([-1. ,  0. ,  0.5], dtype=float32)
    """
    x = jnp.clip(x, -1e30, 1e30)  # at ±∞ the quotient would be NaN
    return x / (1 + jnp.abs(x))

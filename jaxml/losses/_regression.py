"""Regression: predicted values x against true values y, with residual r = x - y.

All losses are elementwise, except `cosine_distance`, which consumes the last axis.
Derivatives at a kink are 0.
"""

import functools
import math
from typing import Annotated

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float

from jaxml._core.public import elementwise, public
from jaxml._core.safe import Length, clip_rounding_error, safe_divide
from jaxml._core.special.exp import expm1, log1p
from jaxml._core.special.log1p import log1p_ratio
from jaxml._core.special.logistic import tanh
from jaxml._core.types import NonNegative, PerElement, Positive, Range, Scalar


@elementwise(lambda x, y: 2 * (x - y), lambda x, y: 2 * (y - x), one_loop=False)
def squared_error(
    predicted: Float[Array, "*shape"],
    true: Float[Array, "*shape"],
    *,
    where: Bool[Array, "*shape"] | None = None,
) -> Float[Array, "*shape"]:
    """The square of the residual. The expectation minimizes its mean.

        loss = r²

    Args:
        predicted: x.
        true: y, in the units of x; the loss is in their square.
        where: The elements that count; the others have loss 0.

    Reference:
        Hastie, Tibshirani and Friedman, The elements of statistical learning, section
        2.4, Springer 2009, https://hastie.su.domains/ElemStatLearn

    Example:
        >>> squared_error(jnp.array([1.0, 3.0]), jnp.array([1.0, 1.0]))
        Array([0., 4.], dtype=float32)
    """
    return (predicted - true) ** 2


@elementwise(lambda x, y: jnp.sign(x - y), lambda x, y: jnp.sign(y - x), one_loop=False)
def absolute_error(
    predicted: Float[Array, "*shape"],
    true: Float[Array, "*shape"],
    *,
    where: Bool[Array, "*shape"] | None = None,
) -> Float[Array, "*shape"]:
    """The absolute value of the residual. The median minimizes its mean.

        loss = |r|

    Args:
        predicted: x.
        true: y, in the units of x.
        where: The elements that count; the others have loss 0.

    Reference:
        Hastie, Tibshirani and Friedman, The elements of statistical learning, section
        2.4, Springer 2009, https://hastie.su.domains/ElemStatLearn

    Example:
        >>> absolute_error(jnp.array([1.0, 3.0]), jnp.array([2.0, 3.0]))
        Array([1., 0.], dtype=float32)
    """
    return jnp.abs(predicted - true)


def _clip(r: Array, bound: Scalar) -> Array:
    """r clipped to [-bound, bound], with derivative 1 inside, the bounds included."""
    return jnp.where(jnp.abs(r) > bound, bound * jnp.sign(r), r)


@elementwise(
    lambda x, y, delta: _clip(x - y, delta),
    lambda x, y, delta: _clip(y - x, delta),
    lambda x, y, delta: jnp.abs(x - y) - jnp.abs(_clip(x - y, delta)),
)
def huber_loss(
    predicted: Float[Array, "*shape"],
    true: Float[Array, "*shape"],
    *,
    delta: Positive = 1.0,
    where: Bool[Array, "*shape"] | None = None,
) -> Float[Array, "*shape"]:
    """Half the squared error for small residuals, linear for large ones.

        loss = ½ r² for |r| <= δ, δ (|r| - ½ δ) beyond

    The gradient is at most δ in absolute value, so outliers have less weight.

    Args:
        predicted: x.
        true: y, in the units of x.
        delta: δ > 0, in the same units.
        where: The elements that count; the others have loss 0.

    Reference:
        Huber, Robust estimation of a location parameter, Annals of Mathematical
        Statistics 35(1), 1964, https://doi.org/10.1214/aoms/1177703732

    Example:
        >>> huber_loss(jnp.array([0.5, 3.0]), jnp.zeros(2))
        Array([0.125, 2.5  ], dtype=float32)
    """
    abs_r = jnp.abs(predicted - true)
    clipped = jnp.minimum(abs_r, delta)
    return clipped * (abs_r - clipped / 2)


def _clip_ratio(r: Array, beta: Scalar) -> Array:
    """r/β clipped to [-1, 1], which is the sign of r at β = 0."""
    is_outside = jnp.abs(r) >= beta
    return jnp.where(is_outside, jnp.sign(r), r / jnp.where(is_outside, 1.0, beta))


@elementwise(
    lambda x, y, beta: _clip_ratio(x - y, beta),
    lambda x, y, beta: _clip_ratio(y - x, beta),
    lambda x, y, beta: -(_clip_ratio(x - y, beta) ** 2) / 2,
)
def smooth_l1_loss(
    predicted: Float[Array, "*shape"],
    true: Float[Array, "*shape"],
    *,
    beta: NonNegative = 1.0,
    where: Bool[Array, "*shape"] | None = None,
) -> Float[Array, "*shape"]:
    """The absolute error with a quadratic part near 0: the Huber loss divided by β.

        loss = ½ r²/β for |r| < β, |r| - ½ β beyond

    At β = 0 it is the absolute error.

    Args:
        predicted: x.
        true: y, in the units of x.
        beta: β >= 0, in the same units.
        where: The elements that count; the others have loss 0.

    Reference:
        Girshick, Fast R-CNN, ICCV 2015, https://arxiv.org/abs/1504.08083

    Example:
        >>> smooth_l1_loss(jnp.array([1.0, 5.0]), jnp.zeros(2), beta=2.0)
        Array([0.25, 4.  ], dtype=float32)
    """
    abs_r = jnp.abs(predicted - true)
    ratio = _clip_ratio(abs_r, beta)
    return ratio * (abs_r - ratio * beta / 2)


@elementwise(lambda x, y: tanh(x - y), lambda x, y: tanh(y - x))
def log_cosh_loss(
    predicted: Float[Array, "*shape"],
    true: Float[Array, "*shape"],
    *,
    where: Bool[Array, "*shape"] | None = None,
) -> Float[Array, "*shape"]:
    """A smooth absolute error: about ½ r² near 0, about |r| - log 2 far from it.

        loss = log cosh r

    It is computed as log1p(cosh r - 1) for |r| < 1, else as
    |r| - log 2 + log1p(e^(-2|r|)).

    Args:
        predicted: x.
        true: y, without units.
        where: The elements that count; the others have loss 0.

    Reference:
        Saleh and Saleh, Statistical properties of the log-cosh loss function used in
        machine learning, 2022, https://arxiv.org/abs/2208.04564

    Example:
        >>> log_cosh_loss(jnp.array([100.0]), jnp.zeros(1))
        Array([99.306854], dtype=float32)
    """
    abs_r = jnp.abs(predicted - true)
    is_small, expm1_neg = abs_r < 1, expm1(-abs_r)
    small_expm1 = jnp.where(is_small, expm1_neg, 0.0)  # divides by at least 1/e
    cosh_minus_1 = small_expm1 * small_expm1 / (2 * (1 + small_expm1))
    log = log1p(jnp.where(is_small, cosh_minus_1, (1 + expm1_neg) ** 2))
    return log + jnp.where(is_small, 0.0, abs_r - math.log(2))


@elementwise(
    lambda x, y, q: jnp.where(x < y, -q, jnp.where(x > y, 1 - q, 0.0)),
    lambda x, y, q: jnp.where(x < y, q, jnp.where(x > y, q - 1, 0.0)),
    lambda x, y, q: y - x,
)
def quantile_loss(
    predicted: Float[Array, "*shape"],
    true: Float[Array, "*shape"],
    *,
    quantile: Annotated[PerElement, Range("be in (0, 1)", lambda x: 0 < x < 1)],
    where: Bool[Array, "*shape"] | None = None,
) -> Float[Array, "*shape"]:
    """The pinball loss. The q-quantile minimizes its mean.

        loss = max(q (y - x), (1 - q) (x - y))

    At q = ½ it is half the absolute error.

    Args:
        predicted: x.
        true: y, in the units of x.
        quantile: q in (0, 1), or several that broadcast to the shape of x: with one
            per prediction in the last axis, all are learned at once.
        where: The elements that count; the others have loss 0.

    Reference:
        Koenker and Bassett, Regression quantiles, Econometrica 46(1), 1978,
        https://doi.org/10.2307/1913643

    Example:
        >>> quantile_loss(jnp.array([0.0, 2.0]), jnp.ones(2), quantile=0.75)
        Array([0.75, 0.25], dtype=float32)
    """
    r = predicted - true
    return jnp.where(r < 0, -quantile * r, (1 - quantile) * r)


@public(masked=True)
def cosine_distance(
    predicted: Float[Array, "*batch d"],
    true: Float[Array, "*batch d"],
    *,
    where: Bool[Array, "*batch"] | None = None,
) -> Float[Array, "*batch"]:
    """One minus the cosine of the angle between two vectors.

        loss = 1 - x·y / (‖x‖ ‖y‖) = ½ ‖x/‖x‖ - y/‖y‖‖²

    The second form is the one computed: it keeps full precision for nearly parallel
    vectors. A zero vector has distance 1 from every vector, with gradient 0.

    Args:
        predicted: x, of any norm.
        true: y, of any norm.
        where: The examples that count; the others have loss 0.

    Returns:
        Values from 0, for the same direction, to 2, for the opposite direction.

    Reference:
        Salton and McGill, Introduction to modern information retrieval, 1983,
        https://archive.org/details/introductiontomo00salt

    Example:
        >>> cosine_distance(jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 5.0]]))
        Array([1.], dtype=float32)
    """
    return _cosine_distance(predicted, true)


@jax.custom_jvp
def _cosine_distance(x: Array, y: Array) -> Array:
    """½ ‖u - v‖² with u = x/‖x‖ and v = y/‖y‖, 1 if one of them is 0."""
    length_x, length_y = Length.of(x), Length.of(y)
    difference = length_x.unit(x) - length_y.unit(y)
    distance = clip_rounding_error(jnp.sum(jnp.square(difference), -1) / 2, 0.0, 2.0)
    return jnp.where(_is_zero(length_x) | _is_zero(length_y), 1.0, distance)


def _is_zero(length: Length) -> Array:
    return length.scaled[..., 0] == 0


@_cosine_distance.defjvp
def _cosine_distance_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    """∂/∂x = (u - v - distance u) / ‖x‖, and 0 if x or y is 0."""
    distance, (x_dot, y_dot) = _cosine_distance(*primals), tangents

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def gradient_dot(x: Array, y: Array, x_dot: Array, y_dot: Array) -> Array:
        # a barrier: XLA:CPU would hold the unit vectors, which the value needs too
        length_x, length_y = lax.optimization_barrier((Length.of(x), Length.of(y)))
        is_zero = _is_zero(length_x) | _is_zero(length_y)
        u, v = length_x.unit(x), length_y.unit(y)
        d = _cosine_distance(x, y)[..., None]
        terms = (u - v - d * u) * length_x.unit(x_dot)
        terms += (v - u - d * v) * length_y.unit(y_dot)
        return jnp.where(is_zero, 0.0, jnp.sum(terms, -1))

    return distance, gradient_dot(*primals, x_dot, y_dot)


@elementwise(
    lambda x, y: 2 * log1p_ratio(x, y) / (1 + x),
    lambda x, y: -2 * log1p_ratio(x, y) / (1 + y),
)
def squared_log_error(
    predicted: Float[Array, "*shape"],
    true: Float[Array, "*shape"],
    *,
    where: Bool[Array, "*shape"] | None = None,
) -> Float[Array, "*shape"]:
    """The squared error of the logarithms, which measures relative errors.

        loss = (log(1 + x) - log(1 + y))²

    Args:
        predicted: x > -1.
        true: y > -1.
        where: The elements that count; the others have loss 0.

    Reference:
        Hyndman and Koehler, Another look at measures of forecast accuracy, 2006,
        https://doi.org/10.1016/j.ijforecast.2006.03.001

    Example:
        >>> squared_log_error(jnp.array([3.0]), jnp.array([1.0]))
        Array([0.480453], dtype=float32)
    """
    return log1p_ratio(predicted, true) ** 2


@elementwise(
    lambda x, y: safe_divide(jnp.sign(x - y), jnp.abs(y)),
    lambda x, y: safe_divide(-jnp.sign(x - y) * safe_divide(x, y), jnp.abs(y)),
)
def absolute_percentage_error(
    predicted: Float[Array, "*shape"],
    true: Float[Array, "*shape"],
    *,
    where: Bool[Array, "*shape"] | None = None,
) -> Float[Array, "*shape"]:
    """The absolute error as a fraction (not a percentage) of the true value.

        loss = |x - y| / |y|

    At y = 0 it is 0 for x = 0 and ∞ otherwise, with derivative 0.

    Args:
        predicted: x.
        true: y, in the units of x.
        where: The elements that count; the others have loss 0.

    Reference:
        de Myttenaere et al., Mean absolute percentage error for regression models,
        Neurocomputing 192, 2016, https://doi.org/10.1016/j.neucom.2015.12.114

    Example:
        >>> absolute_percentage_error(jnp.array([1.5]), jnp.array([2.0]))
        Array([0.25], dtype=float32)
    """
    abs_r = jnp.abs(predicted - true)
    return jnp.where(abs_r == 0, 0.0, abs_r / jnp.abs(true))

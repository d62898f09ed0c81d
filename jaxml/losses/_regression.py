"""Regression: predicted numbers x against true ones y, one loss per element.

r = x - y is the residual. Derivatives at a kink are 0.
"""

import math

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jaxml._core.masking import apply_mask
from jaxml._core.public import elementwise, public
from jaxml._core.safe import l2_normalize, multiply_no_nan, safe_divide
from jaxml._core.special.exp import expm1, log1p
from jaxml._core.special.logistic import tanh
from jaxml._core.types import Scalar


@elementwise(lambda x, y: 2 * (x - y), lambda x, y: 2 * (y - x))
def squared_error(
    predicted: Float[Array, "*shape"], true: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """The square of the residual; what minimises its mean is the expectation.

        loss = r²

    Args:
        predicted: x.
        true: y, in the units of x; the loss is in their square.

    Reference:
        Hastie, Tibshirani and Friedman, The elements of statistical learning, section
        2.4, Springer 2009, https://hastie.su.domains/ElemStatLearn

    Example:
        >>> squared_error(jnp.array([1.0, 3.0]), jnp.array([1.0, 1.0]))
        Array([0., 4.], dtype=float32)
    """
    return (predicted - true) ** 2


@elementwise(lambda x, y: jnp.sign(x - y), lambda x, y: jnp.sign(y - x))
def absolute_error(
    predicted: Float[Array, "*shape"], true: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """The size of the residual; what minimises its mean is the median.

        loss = |r|

    Args:
        predicted: x.
        true: y, in the units of x.

    Reference:
        Hastie, Tibshirani and Friedman, The elements of statistical learning, section
        2.4, Springer 2009, https://hastie.su.domains/ElemStatLearn

    Example:
        >>> absolute_error(jnp.array([1.0, 3.0]), jnp.array([2.0, 3.0]))
        Array([1., 0.], dtype=float32)
    """
    return jnp.abs(predicted - true)


def _clipped(r: Array, bound: Scalar) -> Array:
    """r between -bound and bound, with derivative 1 inside."""
    return jnp.where(jnp.abs(r) > bound, bound * jnp.sign(r), r)


@elementwise(
    lambda x, y, delta: _clipped(x - y, delta),
    lambda x, y, delta: _clipped(y - x, delta),
    lambda x, y, delta: jnp.abs(x - y) - jnp.abs(_clipped(x - y, delta)),
)
def huber_loss(
    predicted: Float[Array, "*shape"],
    true: Float[Array, "*shape"],
    *,
    delta: Scalar = 1.0,
) -> Float[Array, "*shape"]:
    """Squared for small residuals, absolute for large ones: outliers weigh less.

        loss = ½ r² for |r| <= δ, δ (|r| - ½ δ) beyond

    Args:
        predicted: x.
        true: y, in the units of x.
        delta: δ > 0, in the same units.

    Reference:
        Huber, Robust estimation of a location parameter, Annals of Mathematical
        Statistics 35(1), 1964, https://doi.org/10.1214/aoms/1177703732

    Example:
        >>> huber_loss(jnp.array([0.5, 3.0]), jnp.zeros(2))
        Array([0.125, 2.5  ], dtype=float32)
    """
    size = jnp.abs(predicted - true)
    inside = jnp.minimum(size, delta)
    return inside * (size - inside / 2)


@elementwise(
    lambda x, y, beta: _clipped_ratio(x - y, beta),
    lambda x, y, beta: _clipped_ratio(y - x, beta),
    lambda x, y, beta: -(_clipped_ratio(x - y, beta) ** 2) / 2,
)
def smooth_l1_loss(
    predicted: Float[Array, "*shape"],
    true: Float[Array, "*shape"],
    *,
    beta: Scalar = 1.0,
) -> Float[Array, "*shape"]:
    """The absolute error with its kink rounded off: Huber's loss divided by β.

        loss = ½ r²/β for |r| < β, |r| - ½ β beyond

    At β = 0 it is the absolute error.

    Args:
        predicted: x.
        true: y, in the units of x.
        beta: β >= 0, in the same units.

    Reference:
        Girshick, Fast R-CNN, ICCV 2015, https://arxiv.org/abs/1504.08083

    Example:
        >>> smooth_l1_loss(jnp.array([1.0, 5.0]), jnp.zeros(2), beta=2.0)
        Array([0.25, 4.  ], dtype=float32)
    """
    size = jnp.abs(predicted - true)
    share = _clipped_ratio(size, beta)
    return share * (size - share * beta / 2)


def _clipped_ratio(r: Array, beta: Scalar) -> Array:
    """r / β inside ±β, the sign of r beyond."""
    beyond = jnp.abs(r) >= beta
    return jnp.where(beyond, jnp.sign(r), r / jnp.where(beyond, 1.0, beta))


@elementwise(lambda x, y: tanh(x - y), lambda x, y: tanh(y - x))
def log_cosh_loss(
    predicted: Float[Array, "*shape"], true: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """Squared near 0, absolute far from it, and smooth in between.

        loss = log cosh r

    By log(1 + 2 sinh²(r/2)) near 0, and |r| + log(1 + e^(-2|r|)) - log 2 beyond 1.

    Args:
        predicted: x.
        true: y, without units.

    Reference:
        Saleh and Saleh, Statistical properties of the log-cosh loss function used in
        machine learning, 2022, https://arxiv.org/abs/2208.04564

    Example:
        >>> log_cosh_loss(jnp.array([100.0]), jnp.zeros(1))
        Array([99.306854], dtype=float32)
    """
    size = jnp.abs(predicted - true)
    near, fall = size < 1, expm1(-size)
    inner = jnp.where(near, fall, 0.0)  # 1 + fall is 0 far away
    power = jnp.where(near, inner * inner / (2 * (1 + inner)), (1 + fall) ** 2)
    return log1p(power) + jnp.where(near, 0.0, size - math.log(2))


@elementwise(
    lambda x, y, q: jnp.where(x < y, -q, jnp.where(x > y, 1 - q, 0.0)),
    lambda x, y, q: jnp.where(x < y, q, jnp.where(x > y, q - 1, 0.0)),
    lambda x, y, q: y - x,
)
def quantile_loss(
    predicted: Float[Array, "*shape"], true: Float[Array, "*shape"], *, quantile: Scalar
) -> Float[Array, "*shape"]:
    """The absolute error, tilted: what minimises its mean is the q-quantile.

        loss = max(q (y - x), (1 - q) (x - y))

    Args:
        predicted: x.
        true: y, in the units of x.
        quantile: q in (0, 1); at 0.5 it is half the absolute error.

    Reference:
        Koenker and Bassett, Regression quantiles, Econometrica 46(1), 1978,
        https://doi.org/10.2307/1913643

    Example:
        >>> quantile_loss(jnp.array([0.0, 2.0]), jnp.ones(2), quantile=0.75)
        Array([0.75, 0.25], dtype=float32)
    """
    r = predicted - true
    return jnp.where(r < 0, -quantile * r, (1 - quantile) * r)


@elementwise(lambda r, k: jnp.exp(r) - k, lambda r, k: -r)
def poisson_nll_loss(
    log_rate: Float[Array, "*shape"], counts: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """The negative log-likelihood of counts, without its constant log k!.

        loss = eʳ - k r

    Args:
        log_rate: r, the logarithm of the expected count.
        counts: k >= 0.

    Reference:
        Nelder and Wedderburn, Generalized linear models, J. Royal Statistical Society A
        135(3), 1972, https://doi.org/10.2307/2344614

    Example:
        >>> poisson_nll_loss(jnp.zeros(1), jnp.array([3.0]))
        Array([1.], dtype=float32)
    """
    return jnp.exp(log_rate) - multiply_no_nan(counts, log_rate)


@public
def gaussian_nll_loss(
    mean: Float[Array, "*shape"],
    targets: Float[Array, "*shape"],
    *,
    variance: Float[Array, "*shape"],
) -> Float[Array, "*shape"]:
    """The negative log-likelihood under a normal distribution, without ½ log 2π.

        loss = ½ (log σ² + (y - μ)²/σ²)

    Args:
        mean: μ, predicted.
        targets: y, in the units of μ.
        variance: σ² > 0, predicted too, in their square.

    Reference:
        Nix and Weigend, Estimating the mean and variance of the target probability
        distribution, ICNN 1994, https://doi.org/10.1109/ICNN.1994.374138

    Example:
        >>> gaussian_nll_loss(jnp.zeros(1), jnp.array([2.0]), variance=jnp.ones(1))
        Array([2.], dtype=float32)
    """
    return (jnp.log(variance) + (targets - mean) ** 2 / variance) / 2


@public
def cosine_distance(
    predicted: Float[Array, "*batch d"], true: Float[Array, "*batch d"]
) -> Float[Array, "*batch"]:
    """One minus the cosine of the angle between two rows.

        loss = 1 - x·y / (‖x‖ ‖y‖) = ½ ‖x/‖x‖ - y/‖y‖‖²

    By the second form, which keeps its digits where the rows are nearly parallel. A row
    of zeros is at distance 1 from all others, with gradient 0.

    Args:
        predicted: Rows of any length.
        true: Rows of any length.

    Returns:
        Numbers from 0, the same direction, to 2, the opposite one.

    Reference:
        Salton and McGill, Introduction to modern information retrieval, 1983,
        https://archive.org/details/introductiontomo00salt

    Example:
        >>> cosine_distance(jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 5.0]]))
        Array([1.], dtype=float32)
    """
    nothing = jnp.all(predicted == 0, -1) | jnp.all(true == 0, -1)
    rows = (apply_mask(v, ~nothing[..., None], 1.0) for v in (predicted, true))
    x, y = (l2_normalize(v, jnp.finfo(v.dtype).tiny) for v in rows)
    return jnp.where(nothing, 1.0, jnp.sum((x - y) ** 2, -1) / 2)


@elementwise(
    lambda x, y: 2 * _log_ratio(x, y) / (1 + x),
    lambda x, y: -2 * _log_ratio(x, y) / (1 + y),
)
def squared_log_error(
    predicted: Float[Array, "*shape"], true: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """The squared error of the logarithms: relative errors count, absolute ones do not.

        loss = (log(1 + x) - log(1 + y))²

    Args:
        predicted: x > -1.
        true: y > -1.

    Reference:
        Hyndman and Koehler, Another look at measures of forecast accuracy, 2006,
        https://doi.org/10.1016/j.ijforecast.2006.03.001

    Example:
        >>> squared_log_error(jnp.array([3.0]), jnp.array([1.0]))
        Array([0.480453], dtype=float32)
    """
    return _log_ratio(predicted, true) ** 2


def _log_ratio(x: Array, y: Array) -> Array:
    """log((1 + x) / (1 + y)), by log1p of the difference where they are close."""
    ratio = (x - y) / (1 + y)
    close = jnp.abs(ratio) < 0.5
    return jnp.where(
        close, jnp.log1p(jnp.where(close, ratio, 0.0)), jnp.log1p(x) - jnp.log1p(y)
    )


@elementwise(
    lambda x, y: safe_divide(jnp.sign(x - y), jnp.abs(y)),
    lambda x, y: safe_divide(-jnp.sign(x - y) * x, y * jnp.abs(y)),
)
def absolute_percentage_error(
    predicted: Float[Array, "*shape"], true: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """The size of the residual as a fraction, not per cent, of the true number.

        loss = |x - y| / |y|

    Where y = 0 it is 0 for x = 0 and ∞ for any other, with derivative 0.

    Args:
        predicted: x.
        true: y, in the units of x.

    Reference:
        de Myttenaere et al., Mean absolute percentage error for regression models,
        Neurocomputing 192, 2016, https://doi.org/10.1016/j.neucom.2015.12.114

    Example:
        >>> absolute_percentage_error(jnp.array([1.5]), jnp.array([2.0]))
        Array([0.25], dtype=float32)
    """
    size = jnp.abs(predicted - true)
    return jnp.where(size == 0, 0.0, size / jnp.abs(true))

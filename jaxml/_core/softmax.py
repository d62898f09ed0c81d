"""Log-sum-exp, log-softmax and the negative log-likelihood of a softmax.

Every function is invariant to a common offset of its scores and keeps full precision
where a probability is near 0 or 1. `axis_name` is for scores that are sharded along the
axis inside `jax.shard_map`.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxml._core.collectives import max_shards, sum_shards
from jaxml._core.masking import apply_mask
from jaxml._core.safe import safe_divide, safe_subtract, zero_if_inf
from jaxml._core.special.logistic import sigmoid, softplus
from jaxml._core.types import AxisName

MIN_LOG_P = -1000.0
"""A logarithm whose exponential is 0 in float64 too."""


class Normalizer(NamedTuple):
    """log Σ eˣ in two parts, whose sum would lose digits at a large offset of all x."""

    max: Array
    """max x, a constant; -∞ for no terms."""
    log_sum: Array
    """log Σ e^(x - max), with the derivative of log Σ eˣ."""


def normalizer_of_shards(x: Normalizer, axis_name: AxisName | None) -> Normalizer:
    """That of the terms of all devices."""
    if axis_name is None:
        return x
    x_max, local = shard_log_sums(x, axis_name)
    return Normalizer(x_max, logsumexp_shards(local, axis_name))


def shard_log_sums(x: Normalizer, axis_name: AxisName | None) -> tuple[Array, Array]:
    """The maximum of all devices, and log Σ e^(x - max) of the terms of this one."""
    x_max = max_shards(x.max, axis_name)
    return x_max, safe_subtract(x.max, x_max) + x.log_sum


class LogSumExp(NamedTuple):
    """Σ eˣ as `sum` · e^`max`, which takes more terms block by block."""

    max: Array
    sum: Array

    @classmethod
    def empty(cls, like: Array) -> "LogSumExp":
        """The sum of no terms for each element of `like`."""
        return cls(jnp.full_like(like, -jnp.inf), jnp.zeros_like(like))

    @classmethod
    def of(cls, x: Array, axis: int) -> "LogSumExp":
        """The sum of the terms of x along this axis."""
        x_max = jnp.max(x, axis, initial=-jnp.inf)
        shift = jnp.expand_dims(zero_if_inf(x_max), axis)
        return cls(x_max, jnp.sum(jnp.exp(x - shift), axis))

    def update(self, x: Array, axis: int) -> "LogSumExp":
        """The sum with the terms of x along this axis added (online softmax)."""
        x_max = jnp.maximum(self.max, jnp.max(x, axis, initial=-jnp.inf))
        shift = zero_if_inf(x_max)
        terms = jnp.sum(jnp.exp(x - jnp.expand_dims(shift, axis)), axis)
        return LogSumExp(x_max, self.sum * jnp.exp(self.max - shift) + terms)

    def add(self, other: "LogSumExp") -> "LogSumExp":
        """The sum of both."""
        x_max = jnp.maximum(self.max, other.max)
        shift = zero_if_inf(x_max)
        a, b = (t.sum * jnp.exp(t.max - shift) for t in (self, other))
        return LogSumExp(x_max, a + b)

    def log_odds(self, other: "LogSumExp") -> Array:
        """log(self / other), clipped where one of them is negligible or empty."""
        d = safe_subtract(self.max, other.max) + self.log_sum() - other.log_sum()
        d = jnp.where(self.sum > 0, d, MIN_LOG_P)
        d = jnp.where(other.sum > 0, d, -MIN_LOG_P)
        return jnp.clip(d, MIN_LOG_P, -MIN_LOG_P)

    def log(self) -> Array:
        """log Σ eˣ, -∞ for no terms."""
        return self.max + self.log_sum()

    def log_sum(self) -> Array:
        """log Σ e^(x - max), 0 for no terms."""
        return jnp.log(jnp.where(self.sum > 0, self.sum, 1.0))

    def normalizer(self) -> Normalizer:
        constant_max = lax.stop_gradient(self.max)
        with_derivative = safe_subtract(self.max, constant_max)
        return Normalizer(constant_max, self.log_sum() + with_derivative)


class SoftmaxEntropy(NamedTuple):
    """`LogSumExp`, with the entropy of the softmax of its terms."""

    total: LogSumExp
    entropy: Array

    @classmethod
    def empty(cls, like: Array) -> "SoftmaxEntropy":
        return cls(LogSumExp.empty(like), jnp.zeros_like(like))

    def update(self, x: Array, axis: int) -> "SoftmaxEntropy":
        """With the terms of x along this axis added.

        A tile's entropy is log Σ eˢ + Σ (-s) eˢ / Σ eˢ with s = x - max x, and the
        logarithm is log1p of all terms but the largest. So no digits cancel.
        """
        x_max = jnp.max(x, axis, keepdims=True, initial=-jnp.inf)
        s = jnp.maximum(x - zero_if_inf(x_max), MIN_LOG_P)
        is_max = s == 0
        exps = jnp.exp(s)
        others = jnp.sum(jnp.where(is_max, 0.0, exps), axis)
        others += jnp.maximum(jnp.sum(is_max, axis, dtype=x.dtype) - 1, 0)
        energy = jnp.sum(-s * exps, axis)
        x_max = jnp.squeeze(x_max, axis)
        is_empty = x_max == -jnp.inf
        tile = LogSumExp(x_max, jnp.where(is_empty, 0.0, 1 + others))
        entropy = jnp.log1p(others) + energy / (1 + others)
        entropy = mixture_entropy(
            self.total.log_odds(tile), self.entropy, jnp.where(is_empty, 0.0, entropy)
        )
        return SoftmaxEntropy(self.total.add(tile), entropy)

    def normalizer(self) -> Normalizer:
        return self.total.normalizer()


def mixture_entropy(log_odds: Array, entropy: Array, other_entropy: Array) -> Array:
    """The entropy of a mixture of two distributions without a common outcome.

    The first one has weight σ(log_odds).
    """
    d = jnp.clip(log_odds, MIN_LOG_P, -MIN_LOG_P)
    first = sigmoid(d) * (softplus(-d) + entropy)
    return first + sigmoid(-d) * (softplus(d) + other_entropy)


def logsumexp(
    x: Array,
    axis: int = -1,
    mask: Array | None = None,
    axis_name: AxisName | None = None,
) -> Array:
    """log Σ eˣ over the unmasked entries, -∞ if there are none."""
    return _logsumexp(apply_mask(x, mask, -jnp.inf), axis, axis_name)


def logsumexp_shards(x: Array, axis_name: AxisName | None) -> Array:
    """log Σ eˣ over the devices, elementwise."""
    return x if axis_name is None else logsumexp(x[..., None], axis_name=axis_name)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _logsumexp(x: Array, axis: int, axis_name: AxisName | None) -> Array:
    return jnp.squeeze(exp_terms(x, axis, axis_name)[0].log(), axis)


@_logsumexp.defjvp
def _logsumexp_jvp(
    axis: int, axis_name: AxisName | None, primals: tuple, tangents: tuple
) -> tuple:
    (x,), (x_dot,) = primals, tangents
    lse, exps = exp_terms(x, axis, axis_name)
    p = safe_divide(exps, lse.sum)
    lse_dot = sum_shards(jnp.sum(p * x_dot, axis), axis_name)
    return jnp.squeeze(lse.log(), axis), lse_dot


def exp_terms(
    x: Array, axis: int, axis_name: AxisName | None = None
) -> tuple[LogSumExp, Array]:
    """Σ eˣ along an axis, which stays with length 1, and its terms e^(x - max x).

    The maximum carries no derivative. At a maximum of ∞ the terms are 1 where x = ∞.
    """
    x_max = lax.stop_gradient(jnp.max(x, axis, keepdims=True, initial=-jnp.inf))
    x_max = max_shards(x_max, axis_name)
    exps = jnp.exp(x - zero_if_inf(x_max))
    exps = jnp.where(x_max == jnp.inf, (x == x_max).astype(x.dtype), exps)
    total = sum_shards(jnp.sum(exps, axis, keepdims=True), axis_name)
    return LogSumExp(x_max, total), exps


def log_softmax(
    x: Array,
    axis: int = -1,
    mask: Array | None = None,
    axis_name: AxisName | None = None,
) -> Array:
    """log(eˣ / Σ eˣ) over the unmasked entries, -∞ at the masked ones.

    Values near 0 keep full relative precision: log(1 - 1e-30) is -1e-30.
    """
    log_p = _log_softmax(apply_mask(x, mask, -jnp.inf), axis, axis_name)
    return apply_mask(log_p, mask, -jnp.inf)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _log_softmax(x: Array, axis: int, axis_name: AxisName | None) -> Array:
    shifted, log_sum = shifted_logsumexp(x, axis, axis_name)
    return shifted - log_sum


@_log_softmax.defjvp
def _log_softmax_jvp(
    axis: int, axis_name: AxisName | None, primals: tuple, tangents: tuple
) -> tuple:
    (x,), (x_dot,) = primals, tangents
    log_p = _log_softmax(x, axis, axis_name)
    p, one_minus_p = jnp.exp(log_p), -jnp.expm1(log_p)
    mean = sum_shards(jnp.sum(p * x_dot, axis, keepdims=True), axis_name)
    return log_p, one_minus_p * x_dot + p * x_dot - mean


def shifted_logsumexp(
    x: Array, axis: int, axis_name: AxisName | None = None
) -> tuple[Array, Array]:
    """s = x - max x and log Σ eˢ >= 0, in full relative precision near 0."""
    shifted, _, others = shifted_exps(x, axis, axis_name)
    return shifted, jnp.log1p(others)


def shifted_exps(
    x: Array, axis: int, axis_name: AxisName | None = None
) -> tuple[Array, Array, Array]:
    """s = x - max x, eˢ, and Σ eˢ - 1 >= 0 in full relative precision near 0."""
    _, shifted = subtract_max(x, axis, axis_name)
    exps = jnp.exp(shifted)
    # without the largest terms, which are 1 and would hide the digits of the others
    sums = (
        jnp.sum(exps, axis, keepdims=True),
        jnp.sum(exps - jnp.floor(exps), axis, keepdims=True),
    )
    total, others = sum_shards(sums, axis_name)
    ties = jnp.round(total - others)
    return shifted, exps, others + jnp.maximum(ties - 1, 0)


def subtract_max(
    x: Array, axis: int, axis_name: AxisName | None = None
) -> tuple[Array, Array]:
    """max x, and x - max x, which is 0 at an infinite maximum too."""
    x_max = jnp.max(x, axis, keepdims=True, initial=-jnp.inf)
    x_max = max_shards(x_max, axis_name)
    return x_max, apply_mask(x - x_max, x != x_max)


def softmax_nll(label_logit: Array, other_lse: Array) -> Array:
    """-log(e^z / (e^z + e^L)) = log(1 + e^(L - z)), from 0 to ∞ in full precision.

    z is the logit of the label (or the similarity of the positive), and L the
    log-sum-exp of all other logits (of the negatives).
    """
    return softplus(other_lse - label_logit)


@jax.custom_jvp
def project_simplex(x: Array) -> Array:
    """The distribution nearest to x: max(0, x - τ) along the last axis, with sum 1.

    Newton's method finds τ from below. Each step solves the equation for the current
    support, which only shrinks, so a few steps reach the exact solution (Michelot, A
    finite algorithm for finding the projection of a point onto the canonical simplex,
    1986, https://doi.org/10.1007/BF00938486).
    """
    _, z = subtract_max(x, -1)

    def newton_step(threshold: Array | float) -> Array:
        is_support = z > threshold
        size = jnp.sum(is_support, -1, keepdims=True, dtype=z.dtype)
        total = jnp.sum(apply_mask(z, is_support), -1, keepdims=True)
        return jnp.maximum(threshold, (total - 1) / size)

    def has_grown(thresholds: tuple[Array, Array]) -> Array:
        last, threshold = thresholds
        return jnp.any(threshold > last)

    first = newton_step(-1.0)
    _, threshold = lax.while_loop(
        has_grown,
        lambda thresholds: (thresholds[1], newton_step(thresholds[1])),
        (jnp.full_like(first, -1.0), first),
    )
    return jnp.maximum(z - threshold, 0.0)


@project_simplex.defjvp
def project_simplex_jvp(primals: tuple, tangents: tuple) -> tuple:
    p, (x_dot,) = project_simplex(*primals), tangents
    support = (p > 0).astype(p.dtype)
    masked_dot = support * x_dot
    mean = jnp.sum(masked_dot, -1, keepdims=True) / jnp.sum(support, -1, keepdims=True)
    return p, masked_dot - support * mean

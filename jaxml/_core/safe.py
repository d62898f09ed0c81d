"""Arithmetic with a value and a derivative wherever the mathematics has them.

All arrays have one float dtype, float32 or wider; `directions` takes any.
"""

import functools
from typing import NamedTuple

import jax
import jax.core
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from jaxml._core.special.partials import with_partials
from jaxml._core.types import Axes, compute_dtype

MIN_NORM = 1e-6
"""The smallest norm by which `l2_normalize` divides, by default."""

MIN_EXPONENT = -19
"""2⁻¹⁹ > `MIN_NORM`, so that `directions` need not scale shorter rows up to 1."""


def is_known_zero(x: Array | float) -> bool:
    """Whether x is 0 and not traced, so that a term times x need not be computed."""
    return not isinstance(x, jax.core.Tracer) and float(x) == 0


def safe_subtract(x: Array, y: Array) -> Array:
    """x - y, and 0 where both are the same infinity."""
    return jnp.where(jnp.isinf(x) & (x == y), 0.0, x - y)


@jax.custom_jvp
def safe_divide(x: Array, y: Array) -> Array:
    """x / y; where y = 0, the value and all derivatives are 0."""
    return jnp.where(y == 0, 0.0, x / jnp.where(y == 0, 1.0, y))


@safe_divide.defjvp
def safe_divide_jvp(primals: tuple, tangents: tuple) -> tuple:
    """(ẋ - (x/y) ẏ) / y, where y² would overflow or underflow."""
    (x, y), (x_dot, y_dot) = primals, tangents
    ratio = safe_divide(x, y)
    return ratio, safe_divide(x_dot - ratio * y_dot, y)


def divide_no_nan(x: Array, y: Array) -> Array:
    """x / y, where 0 / 0 = 0."""
    is_zero = x == 0
    return jnp.where(is_zero, 0.0, x / jnp.where(is_zero, 1.0, y))


def multiply_no_nan(weight: ArrayLike, x: ArrayLike) -> Array:
    """weight · x, where 0 · ∞ = 0."""
    weight = jnp.asarray(weight)
    return weight * jnp.where((weight == 0) & jnp.isinf(x), 0.0, x)


def multiply_no_nan_in_sum(weight: Array, x: Array) -> Array:
    """weight · x for x >= 0, where 0 · ∞ = 0, for the terms of a sum.

    XLA:CPU computes a minimum within the sum, but not a selection.
    """
    largest = jnp.finfo(x.dtype).max
    at_most = jnp.abs(weight * largest) * largest  # ∞, or 0 for weight 0
    return weight * jnp.minimum(x, at_most)


def safe_sqrt(x: Array) -> Array:
    """√x, with derivative 0 at 0."""
    return jnp.where(x == 0, 0.0, jnp.sqrt(jnp.where(x == 0, 1.0, x)))


def _safe_power_dx(x: Array, p: Array) -> Array:
    return p * safe_power(x, p - 1)


def _safe_power_dp(x: Array, p: Array) -> Array:
    return safe_power(x, p) * jnp.log(jnp.where(x == 0, 1.0, x))


@with_partials(_safe_power_dx, _safe_power_dp)
def safe_power(x: Array, p: Array) -> Array:
    """xᵖ for x >= 0, with 0⁰ = 1, and 0 where it is infinite: at x = 0 with p < 0."""
    at_zero = jnp.where(p == 0, 1.0, 0.0)
    return jnp.where(x == 0, at_zero, jnp.where(x == 0, 1.0, x) ** p)


def zero_if_inf(x: Array) -> Array:
    """x with ±∞ replaced by 0: a safe shift for exp(x - shift)."""
    return jnp.where(jnp.isinf(x), 0.0, x)


def inverse_magnitude(x: Array, min_exponent: int | None = None) -> Array:
    """A power of 2 that brings x >= 0 near 1, as far as its dtype has one; 1 for 0.

    Its inverse is a float too, so that no product or quotient with it is rounded.
    """
    limit = jnp.finfo(x.dtype).maxexp - 2
    min_exponent = -limit if min_exponent is None else min_exponent
    exponent = jnp.clip(jnp.frexp(lax.stop_gradient(x))[1], min_exponent, limit)
    return jnp.ldexp(jnp.ones_like(x), -exponent)


class Length(NamedTuple):
    """‖x‖ along axes that stay with length 1, as `scaled` / `scale`."""

    scale: Array
    """A power of 2 that brings the largest |x| near 1: no square overflows."""
    scaled: Array
    """‖scale · x‖"""

    @classmethod
    def of(cls, x: Array, axis: Axes = -1) -> "Length":
        """The length of x, with derivative 0 at 0."""
        largest = jnp.max(jnp.abs(lax.stop_gradient(x)), axis, keepdims=True, initial=0)
        scale = inverse_magnitude(largest)
        # a barrier: XLA:CPU would hold the products, which have other uses
        squares = jnp.square(lax.optimization_barrier(scale) * x)
        return cls(scale, safe_sqrt(jnp.sum(squares, axis, keepdims=True)))

    def unit(self, x: Array) -> Array:
        """x / ‖x‖, 0 for 0."""
        return self.scale * x / jnp.where(self.scaled == 0, jnp.inf, self.scaled)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def norm(x: Array, axis: Axes = -1) -> Array:
    """‖x‖₂, with derivative 0 at 0. The squares neither overflow nor underflow."""
    length = Length.of(x, axis)
    return jnp.squeeze(length.scaled / length.scale, axis)


@norm.defjvp
def norm_jvp(axis: Axes, primals: tuple, tangents: tuple) -> tuple:
    (x,), (x_dot,) = primals, tangents
    return norm(x, axis), jnp.sum(Length.of(x, axis).unit(x) * x_dot, axis)


def l2_normalize(x: Array, min_norm: ArrayLike = MIN_NORM, axis: int = -1) -> Array:
    """x / max(‖x‖, min_norm): 0 for 0, with a derivative of at most 1 / min_norm."""
    return _l2_normalize(x, jnp.asarray(min_norm, x.dtype), axis)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _l2_normalize(x: Array, min_norm: Array, axis: int) -> Array:
    scale, divisor, _ = _scaled_divisor(x, min_norm, axis)
    return scale * x / divisor


@_l2_normalize.defjvp
def _l2_normalize_jvp(axis: int, primals: tuple, tangents: tuple) -> tuple:
    (x, min_norm), (x_dot, min_norm_dot) = primals, tangents
    y = _l2_normalize(x, min_norm, axis)
    scale, divisor, is_long = _scaled_divisor(x, min_norm, axis)
    scaled_dot = scale * x_dot
    norm_dot = jnp.sum(y * scaled_dot, axis, keepdims=True)
    divisor_dot = jnp.where(is_long, norm_dot, scale * min_norm_dot)
    return y, (scaled_dot - y * divisor_dot) / divisor


def _scaled_divisor(x: Array, min_norm: Array, axis: int) -> tuple[Array, ...]:
    """s, max(‖s x‖, s min_norm), and whether ‖s x‖ is larger.

    s is a power of 2 that brings the largest |x| near 1, so that no norm overflows.
    """
    largest = jnp.max(jnp.abs(lax.stop_gradient(x)), axis, keepdims=True, initial=0.0)
    largest = jnp.maximum(largest, lax.stop_gradient(min_norm))
    scale = inverse_magnitude(largest)
    scaled_norm = jnp.expand_dims(norm(scale * x, axis), axis)
    min_scaled = scale * min_norm
    return scale, jnp.maximum(scaled_norm, min_scaled), scaled_norm > min_scaled


def directions(x: Array) -> tuple[Array, Array]:
    """Each row times a power of 2, so that its largest entry is about 1, and 1/‖row‖.

    The rows keep their dtype and lose no digit: cosines are scaled after the product.
    """
    wide = x.astype(compute_dtype(x.dtype))
    largest = jnp.max(jnp.abs(lax.stop_gradient(wide)), -1, initial=0.0)
    power = inverse_magnitude(largest, MIN_EXPONENT)
    scaled = wide * power[:, None]
    length = safe_sqrt(jnp.sum(jnp.square(scaled), -1))
    inverse_length = 1 / jnp.maximum(length, MIN_NORM * power)
    if x.dtype == jnp.float16:  # in which a derivative of 10⁶ overflows
        inverse_length = jnp.where(largest == 0, 0.0, inverse_length)
    return scaled.astype(x.dtype), inverse_length


def clip_rounding_error(x: Array, lower: float, upper: float) -> Array:
    """x clipped to the range of its exact value; the derivative stays that of x."""
    return x + lax.stop_gradient(jnp.clip(x, lower, upper) - x)

"""Safe arithmetic: a value and a derivative wherever the mathematics has them.

All functions take and return arrays of one float dtype, float32 or wider.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from jaxml._core.special.partials import with_derivatives


def keep(x: Array, where: Array | None, otherwise: float = 0.0) -> Array:
    """`x` where `where` holds; elsewhere `otherwise`, with derivative 0."""
    return x if where is None else jnp.where(where, x, otherwise)


def difference(x: Array, y: Array) -> Array:
    """x - y, and 0 where they are equal at infinity."""
    return jnp.where(jnp.isinf(x) & (x == y), 0.0, x - y)


def safe_divide(x: Array, y: Array) -> Array:
    """x / y; where y = 0, 0 with all derivatives 0."""
    return jnp.where(y == 0, 0.0, x / jnp.where(y == 0, 1.0, y))


def times(weight: ArrayLike, x: ArrayLike) -> Array:
    """weight · x, where a weight of 0 takes away even an infinite x."""
    weight = jnp.asarray(weight)
    return weight * jnp.where((weight == 0) & jnp.isinf(x), 0.0, x)


def sqrt(x: Array) -> Array:
    """√x, with derivative 0 at 0."""
    return jnp.where(x == 0, 0.0, jnp.sqrt(jnp.where(x == 0, 1.0, x)))


@jax.custom_jvp
def over_root(x: Array, y: Array, eps: Array) -> Array:
    """x / (√y + ε) for y >= 0; at y = 0, ∂/∂y is 0, and ∂/∂x is 1/ε, or 1 if ε = 0.

    In few operations, for a compiler reads them once for each leaf of a large tree: a
    selection would take it as long as all the rest.
    """
    return x / (jnp.sqrt(jnp.maximum(y, jnp.finfo(y.dtype).tiny)) + eps)


@over_root.defjvp
def _(primals: tuple, tangents: tuple) -> tuple:
    def selected(x: Array, y: Array, eps: Array) -> Array:
        tiny = jnp.finfo(y.dtype).tiny  # what is below, XLA takes for 0
        least = jnp.where(eps > 0, tiny, 1.0).astype(y.dtype)
        return x / (jnp.sqrt(jnp.where(y < tiny, least, y)) + eps)

    return over_root(*primals), jax.jvp(selected, primals, tangents)[1]


def log_softmax(x: Array, axis: int = -1, where: Array | None = None) -> Array:
    """log(eˣ / Σ eˣ) over what is kept, -∞ elsewhere.

    Near 0 too every digit is right: log(1 - 1e-30) is -1e-30.
    """
    return keep(_log_softmax(keep(x, where, -jnp.inf), axis), where, -jnp.inf)


def logsumexp(x: Array, axis: int = -1, where: Array | None = None) -> Array:
    """log Σ eˣ over what is kept, -∞ when that is nothing."""
    return _logsumexp(keep(x, where, -jnp.inf), axis)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _log_softmax(x: Array, axis: int) -> Array:
    _, below = below_max(x, axis)
    return below - _log_total(below, axis)


@_log_softmax.defjvp
def _(axis: int, primals: tuple, tangents: tuple) -> tuple:
    y = _log_softmax(*primals, axis)
    p, rest = jnp.exp(y), -jnp.expm1(y)  # for p near 1, 1 - p keeps its digits
    (dx,) = tangents
    return y, rest * dx + p * dx - jnp.sum(p * dx, axis, keepdims=True)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _logsumexp(x: Array, axis: int) -> Array:
    return jnp.squeeze(log_of_sum(*exponentials(x, axis)[:2]), axis)


@_logsumexp.defjvp
def _(axis: int, primals: tuple, tangents: tuple) -> tuple:
    (x,), (dx,) = primals, tangents
    top, total, each = exponentials(x, axis)
    share = safe_divide(each, total)
    return jnp.squeeze(log_of_sum(top, total), axis), jnp.sum(share * dx, axis)


def exponentials(x: Array, axis: int) -> tuple[Array, Array, Array]:
    """Σ e^x as total · e^top, with the terms of the total; top takes no derivative."""
    top = lax.stop_gradient(jnp.max(x, axis, keepdims=True, initial=-jnp.inf))
    each = jnp.exp(x - finite(top))
    each = jnp.where(top == jnp.inf, (x == top).astype(x.dtype), each)
    return top, jnp.sum(each, axis, keepdims=True), each


def finite(x: Array) -> Array:
    """x, 0 where it is infinite: what powers are taken beside."""
    return jnp.where(jnp.isinf(x), 0.0, x)


def add_exponentials(
    top: Array, total: Array, x: Array, axis: int
) -> tuple[Array, Array]:
    """Σ e^x as total · e^top, after more terms; of none it is 0 · e^(-∞)."""
    higher = jnp.maximum(top, jnp.max(x, axis, initial=-jnp.inf))
    shift = finite(higher)
    terms = jnp.sum(jnp.exp(x - jnp.expand_dims(shift, axis)), axis)
    return higher, total * jnp.exp(top - shift) + terms


def log_of_sum(top: Array, total: Array) -> Array:
    """top + log total, and -∞ of no terms."""
    return top + jnp.log(jnp.where(total > 0, total, 1.0))


def below_max(x: Array, axis: int) -> tuple[Array, Array]:
    """max x, and x - max x, which is 0 at an infinite maximum too."""
    top = jnp.max(x, axis, keepdims=True)
    return top, jnp.where(x == top, 0.0, x - top)


def _log_total(below: Array, axis: int) -> Array:
    """log Σ e^(x - max x), with log1p of all terms but the largest."""
    others = jnp.sum(jnp.where(below == 0, 0.0, jnp.exp(below)), axis, keepdims=True)
    ties = jnp.sum(below == 0, axis, keepdims=True, dtype=below.dtype)
    return jnp.log1p(others + jnp.maximum(ties - 1, 0))


def norm(x: Array, axis: int = -1) -> Array:
    """‖x‖₂, with derivative 0 at 0; neither overflows nor underflows on the way."""
    return _norm(x, axis)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _norm(x: Array, axis: int) -> Array:
    scale = jnp.max(jnp.abs(x), axis, keepdims=True)
    unit = safe_divide(x, scale)
    return jnp.squeeze(scale, axis) * sqrt(jnp.sum(jnp.square(unit), axis))


@_norm.defjvp
def _(axis: int, primals: tuple, tangents: tuple) -> tuple:
    (x,), (dx,) = primals, tangents
    length = _norm(x, axis)
    unit = safe_divide(x, jnp.expand_dims(length, axis))
    return length, jnp.sum(unit * dx, axis)


SHORTEST = 1e-6  # of a vector that is divided by its own length


def unit(x: Array, shortest: ArrayLike = SHORTEST, axis: int = -1) -> Array:
    """x / max(‖x‖, shortest): 0 for 0, with a derivative of at most 1 / shortest."""
    return _unit(x, jnp.asarray(shortest, x.dtype), axis)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _unit(x: Array, shortest: Array, axis: int) -> Array:
    return x / jnp.maximum(_length(x, axis), shortest)


@_unit.defjvp
def _(axis: int, primals: tuple, tangents: tuple) -> tuple:
    (x, shortest), (dx, d_shortest) = primals, tangents
    y = _unit(x, shortest, axis)
    length = _length(x, axis)
    along = jnp.sum(y * dx, axis, keepdims=True)
    change = y * jnp.where(length > shortest, along, d_shortest)
    return y, (dx - change) / jnp.maximum(length, shortest)


def _length(x: Array, axis: int) -> Array:
    return jnp.expand_dims(norm(x, axis), axis)


@with_derivatives(
    lambda b, t: -t * b ** (t - 1),
    lambda b, t: -(b**t) * jnp.log(b),
)
def one_minus_power(b: Array, t: Array) -> Array:
    """1 - bᵗ for b in [0, 1), without the difference."""
    return -jnp.expm1(t * jnp.log(b))


def abs_squared(x: Array) -> Array:
    """|x|², real for complex x too."""
    return jnp.square(x.real) + jnp.square(x.imag) if jnp.iscomplexobj(x) else x * x


def _excess_slope(x: Array) -> Array:
    return jnp.expm1(x)


@with_derivatives(_excess_slope)
def excess(x: Array) -> Array:
    """eˣ - 1 - x: by its series near 0, where the difference has no digits left."""
    near = jnp.where(jnp.abs(x) < 0.5, x, 0.0)
    by_series = near * near * excess_series(near)
    return jnp.where(jnp.abs(x) < 0.5, by_series, jnp.expm1(x) - x)


def excess_series(x: Array) -> Array:
    """(eˣ - 1 - x) / x² = 1/2! + x/3! + x²/4! + ..., for |x| < 0.5"""
    series = jnp.zeros_like(x)
    for n in range(18 if x.dtype == jnp.float64 else 9, 1, -1):
        series = 1 / math.factorial(n) + x * series
    return series

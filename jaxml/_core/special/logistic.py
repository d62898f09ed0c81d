"""The logistic function and its relatives, in full precision in both tails.

Every formula is a rational function of e = e^-|x| with e or 1 factored out.
"""

import jax.numpy as jnp
from jax import Array

from jaxml._core.special.exp import (
    exp,
    is_float32,
    log1p,
    polynomial,
    scale_by_exp,
    scaled_exp,
    to_float,
)
from jaxml._core.special.partials import with_partials

# fmt: off
TANH = (  # (tanh x - x) / x³ in x², from `python -m bench.truths.fit_kernels`
    -0.3333333432674408, 0.13333310186862946, -0.05396341532468796,
    0.021829549223184586, -0.008697847835719585, 0.0032068034633994102,
    -0.0009235008619725704, 0.00014279318565968424,
)
# fmt: on


def _sigmoid_second_derivative(x: Array) -> Array:
    return -sigmoid_derivative(x) * tanh(x / 2)


@with_partials(_sigmoid_second_derivative)
def sigmoid_derivative(x: Array) -> Array:
    """σ(x) σ(-x) = e / (1 + e)² with e = e^-|x|."""
    return _scaled_sigmoid_derivative(x, 1.0)


def _scaled_sigmoid_derivative(x: Array, f: float) -> Array:
    """f σ(x) σ(-x)"""
    scaled_e = scaled_exp(-jnp.abs(x))
    e = to_float(scaled_e)
    return scale_by_exp(f * jnp.ones_like(x), scaled_e) / (1 + e * (2 + e))


@with_partials(sigmoid_derivative)
def sigmoid(x: Array) -> Array:
    """1 / (1 + e⁻ˣ). Write sigmoid(-x) for 1 - sigmoid(x), which cancels."""
    e = exp(-jnp.abs(x))
    return jnp.where(x > 0, 1.0, e) / (1 + e)


@with_partials(sigmoid)
def softplus(x: Array) -> Array:
    """log(1 + eˣ)"""
    return jnp.maximum(x, 0) + log1p(exp(-jnp.abs(x)))


def _tanh_derivative(x: Array) -> Array:
    return sech_squared(x)


@with_partials(_tanh_derivative)
def tanh(x: Array) -> Array:
    """(eˣ - e⁻ˣ) / (eˣ + e⁻ˣ)"""
    if not is_float32(x):
        return jnp.tanh(x)
    e2 = exp(-2 * jnp.abs(x))
    small = jnp.clip(x, -1, 1)
    square = small * small
    return jnp.where(
        jnp.abs(x) < 1,
        small + small * square * polynomial(square, TANH),
        jnp.copysign(1 - 2 * e2 / (1 + e2), x),
    )


def sech_squared(x: Array) -> Array:
    """1 / cosh² x = 1 - tanh² x, without cancellation."""
    return _scaled_sigmoid_derivative(2 * x, 4.0)

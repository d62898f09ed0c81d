"""The logistic function and what is made of it, with every digit in the tails.

Everything is a rational function of e = e^-|x|, with e or 1 taken out in front.
"""

import jax.numpy as jnp
from jax import Array

from jaxml._core.special.exp import (
    exp,
    is_single,
    log1p,
    polynomial,
    power,
    times_power,
    value,
)
from jaxml._core.special.partials import with_derivatives

TANH = (  # (tanh x - x) / x³ in x², from `python -m bench.fit_kernels`
    *(-0.3333333432674408, 0.13333310186862946, -0.05396341532468796),
    *(0.021829549223184586, -0.008697847835719585, 0.0032068034633994102),
    *(-0.0009235008619725704, 0.00014279318565968424),
)


def _sigmoid_curvature(x: Array) -> Array:
    return -sigmoid_slope(x) * tanh(x / 2)


@with_derivatives(_sigmoid_curvature)
def sigmoid_slope(x: Array) -> Array:
    """σ(x) σ(-x) = e / (1 + e)² with e = e^-|x|"""
    return _bell(x, 1.0)


def _bell(x: Array, f: float) -> Array:
    """f σ(x) σ(-x)"""
    decay = power(-jnp.abs(x))
    e = value(decay)
    return times_power(f * jnp.ones_like(x), decay) / (1 + e * (2 + e))


@with_derivatives(sigmoid_slope)
def sigmoid(x: Array) -> Array:
    """1 / (1 + e⁻ˣ); 1 - sigmoid(x) is sigmoid(-x), which keeps its digits."""
    decay = exp(-jnp.abs(x))
    return jnp.where(x > 0, 1.0, decay) / (1 + decay)


@with_derivatives(sigmoid)
def softplus(x: Array) -> Array:
    """log(1 + eˣ)"""
    return jnp.maximum(x, 0) + log1p(exp(-jnp.abs(x)))


def _tanh_slope(x: Array) -> Array:
    return sech_squared(x)


@with_derivatives(_tanh_slope)
def tanh(x: Array) -> Array:
    """(eˣ - e⁻ˣ) / (eˣ + e⁻ˣ)"""
    if not is_single(x):
        return jnp.tanh(x)
    decay = exp(-2 * jnp.abs(x))
    near = jnp.clip(x, -1, 1)
    square = near * near
    return jnp.where(
        jnp.abs(x) < 1,
        near + near * square * polynomial(square, TANH),
        jnp.copysign(1 - 2 * decay / (1 + decay), x),
    )


def sech_squared(x: Array) -> Array:
    """1 / cosh²x = 1 - tanh²x, without the difference"""
    return _bell(2 * x, 4.0)

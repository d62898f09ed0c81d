"""Schedules without warmup: constant, or decaying from the first step.

s = 0, 1, ... is the step, η(s) the value, T the number of steps.
"""

import functools
import operator
from typing import Annotated

import jax.numpy as jnp
from jax import Array

from jaxml._core.public import factory
from jaxml._core.safe import safe_power
from jaxml._core.types import NonNegative, Positive, Range, Scalar, Schedule
from jaxml.schedules._progress import (
    as_float,
    as_whole,
    divide_steps,
    fraction_left,
    half_cosine,
    lerp,
)


@factory
def constant(value: Scalar) -> Schedule:
    """The same value at every step.

        η(s) = η₀

    Args:
        value: η₀.

    Example:
        >>> constant(0.5)(7)
        Array(0.5, dtype=float32)
    """
    return lambda step: as_float(value)


@factory
def linear(init_value: Scalar, end_value: Scalar, decay_steps: NonNegative) -> Schedule:
    """Linear interpolation from the initial value to the end value.

        η(s) = η₁ + (η₀ - η₁) (1 - s/T)

    Args:
        init_value: η₀, at step 0.
        end_value: η₁, from step T on.
        decay_steps: T >= 0.

    Example:
        >>> [float(linear(1.0, 0.0, 4)(step)) for step in range(6)]
        [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    """

    def schedule(step: Array) -> Array:
        return lerp(end_value, init_value, fraction_left(step, 0, decay_steps))

    return schedule


@factory
def polynomial(
    init_value: Scalar,
    end_value: Scalar,
    decay_steps: NonNegative,
    *,
    power: NonNegative = 1.0,
) -> Schedule:
    """Polynomial decay from the initial value to the end value ("poly").

        η(s) = η₁ + (η₀ - η₁) (1 - s/T)ᵖ  for s < T,  η₁ from T on

    Args:
        init_value: η₀, at step 0.
        end_value: η₁, from step T on.
        decay_steps: T >= 0.
        power: p >= 0; 1 is linear, p > 1 decays faster at first.

    Reference:
        Chen et al., DeepLab: semantic image segmentation, TPAMI 2018,
        https://arxiv.org/abs/1606.00915 ("poly", with p = 0.9).

    Example:
        >>> [float(polynomial(1.0, 0.0, 4, power=2)(step)) for step in range(5)]
        [1.0, 0.5625, 0.25, 0.0625, 0.0]
    """

    def schedule(step: Array) -> Array:
        fraction = fraction_left(step, 0, decay_steps)
        curve = safe_power(fraction, as_float(power))
        # The end value at T holds for p = 0 too, where 0⁰ = 1.
        return lerp(end_value, init_value, jnp.where(fraction > 0, curve, 0.0))

    return schedule


@factory
def exponential(
    init_value: Scalar,
    *,
    decay_rate: NonNegative,
    decay_steps: Positive,
) -> Schedule:
    """Exponential decay, by a factor of r over every T steps.

        η(s) = η₀ r^(s/T)

    `step_decay` is the same in discrete steps.

    Args:
        init_value: η₀, at step 0.
        decay_rate: r >= 0, the factor over T steps.
        decay_steps: T > 0.

    Example:
        >>> schedule = exponential(1.0, decay_rate=0.25, decay_steps=2)
        >>> [round(float(schedule(step)), 4) for step in range(4)]
        [1.0, 0.5, 0.25, 0.125]
    """

    def schedule(step: Array) -> Array:
        exponent = as_float(step) / as_float(decay_steps)
        return as_float(init_value) * as_float(decay_rate) ** exponent

    return schedule


@factory
def step_decay(
    init_value: Scalar, *, decay_rate: NonNegative, step_size: Positive
) -> Schedule:
    """Step decay: multiplied by r every n steps.

        η(s) = η₀ r^⌊s/n⌋

    Args:
        init_value: η₀, at step 0.
        decay_rate: r >= 0.
        step_size: n > 0, the number of steps between two drops.

    Reference:
        He et al., Deep residual learning for image recognition, CVPR 2016,
        https://arxiv.org/abs/1512.03385

    Example:
        >>> schedule = step_decay(1.0, decay_rate=0.5, step_size=2)
        >>> [float(schedule(step)) for step in range(5)]
        [1.0, 1.0, 0.5, 0.5, 0.25]
    """

    def schedule(step: Array) -> Array:
        num_drops, _ = divide_steps(step, step_size)
        return as_float(init_value) * as_float(decay_rate) ** num_drops

    return schedule


@factory
def cosine(
    init_value: Scalar, decay_steps: NonNegative, *, end_value: Scalar = 0.0
) -> Schedule:
    """Cosine decay: half a period of the cosine from the initial to the end value.

        η(s) = η₁ + (η₀ - η₁) ½ (1 + cos(π s/T))

    Args:
        init_value: η₀, at step 0.
        decay_steps: T >= 0.
        end_value: η₁, from step T on.

    Reference:
        Loshchilov and Hutter, SGDR: stochastic gradient descent with warm restarts,
        ICLR 2017, https://arxiv.org/abs/1608.03983

    Example:
        >>> [round(float(cosine(1.0, 4)(step)), 2) for step in range(6)]
        [1.0, 0.85, 0.5, 0.15, 0.0, 0.0]
    """

    def schedule(step: Array) -> Array:
        fraction = fraction_left(step, 0, decay_steps)
        return lerp(end_value, init_value, half_cosine(fraction))

    return schedule


@factory
def cosine_restarts(
    init_value: Scalar,
    period: Positive,
    *,
    period_factor: Annotated[Scalar, Range("be at least 1", lambda x: x >= 1)] = 1.0,
    value_factor: NonNegative = 1.0,
    end_value: Scalar = 0.0,
) -> Schedule:
    """Cosine decay with warm restarts (SGDR).

        η(s) = η₁ + (η₀ vⁱ - η₁) ½ (1 + cos(π (s - Sᵢ)/(P fⁱ)))   for Sᵢ <= s < Sᵢ₊₁
        Sᵢ = P (1 + f + ... + fⁱ⁻¹)

    Args:
        init_value: η₀, at step 0.
        period: P > 0, the number of steps before the first restart. Beyond 2²⁴ steps,
            float32 has exact restarts only if P and f are whole.
        period_factor: f >= 1, the ratio of each period to the one before.
        value_factor: v >= 0, the ratio of the values at two successive restarts.
        end_value: η₁, towards which each period decays.

    Reference:
        Loshchilov and Hutter, SGDR: stochastic gradient descent with warm restarts,
        ICLR 2017, https://arxiv.org/abs/1608.03983

    Example:
        >>> [round(float(cosine_restarts(1.0, 2)(step)), 2) for step in range(5)]
        [1.0, 0.5, 1.0, 0.5, 1.0]
    """

    def schedule(step: Array) -> Array:
        i, elapsed = _restart_index_and_elapsed(step, period, period_factor)
        peak = as_float(init_value) * as_float(value_factor) ** i
        length = as_float(period) * as_float(period_factor) ** i
        left = jnp.clip((length - elapsed) / length, 0.0, 1.0)
        return lerp(end_value, peak, half_cosine(left))

    return schedule


def _restart_index_and_elapsed(
    step: Array, period: Scalar, period_factor: Scalar
) -> tuple[Array, Array]:
    """i with Sᵢ <= s < Sᵢ₊₁, and s - Sᵢ."""
    s, p, f = as_float(step), as_float(period), as_float(period_factor)
    grows = f > 1
    growth = jnp.where(grows, f - 1, 1.0)
    log_f = jnp.log1p(growth)

    def elapsed(i: Array) -> Array:
        restart = p * jnp.expm1(i * log_f) / growth
        rounded = s - restart
        # rounding must not place a step at a restart before it
        is_restart = jnp.abs(rounded) <= s * (8 * jnp.finfo(s.dtype).eps)
        rounded = jnp.where(is_restart, 0.0, rounded)
        exact, is_exact = _exact_elapsed(i, step, period, period_factor)
        return jnp.where(is_exact & (restart < 2.0**31), exact, rounded)

    i = jnp.floor(jnp.log1p(s / p * growth) / log_f)
    i = jnp.where(elapsed(i + 1) >= 0, i + 1, i)
    i = jnp.where(elapsed(i) < 0, i - 1, i)
    num_periods, remainder = divide_steps(step, period)
    return jnp.where(grows, i, num_periods), jnp.where(grows, elapsed(i), remainder)


def _exact_elapsed(i: Array, *numbers: Scalar) -> tuple[Array, Array | bool]:
    """s - Sᵢ in integers, and whether s, P and f are integers; for i < 32."""
    (s, p, f), are_whole = zip(*map(as_whole, numbers))
    bits = i.astype(s.dtype)
    total, power = jnp.zeros_like(f * bits), jnp.ones_like(f * bits)
    for bit in (16, 8, 4, 2, 1):  # 1 + f + ... + fⁱ⁻¹ and fⁱ, by doubling
        total, power = total * (1 + power), power * power
        is_set = bits & bit != 0
        total = jnp.where(is_set, 1 + f * total, total)
        power = jnp.where(is_set, f * power, power)
    return as_float(s - p * total), functools.reduce(operator.and_, are_whole)

"""Schedules without warmup: constant, or decaying from the first step.

s = 0, 1, ... is the step, η(s) the value, T the number of steps.
"""

from typing import Annotated

import jax.numpy as jnp
from jax import Array

from jaxml._core.public import factory
from jaxml._core.safe import safe_power
from jaxml._core.types import NonNegative, Positive, Range, Scalar, Schedule
from jaxml.schedules._progress import (
    as_float,
    floor_divide,
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
        num_drops = floor_divide(as_float(step), as_float(step_size))
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
        period: P > 0, the number of steps before the first restart.
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
        s, p, f = as_float(step), as_float(period), as_float(period_factor)
        i, start = _restart_index_and_step(s, p, f)
        peak = as_float(init_value) * as_float(value_factor) ** i
        fraction = fraction_left(s, start, start + p * f**i)
        return lerp(end_value, peak, half_cosine(fraction))

    return schedule


def _restart_index_and_step(s: Array, p: Array, f: Array) -> tuple[Array, Array]:
    """i and Sᵢ with Sᵢ <= s < Sᵢ₊₁, where Sᵢ = P (fⁱ - 1)/(f - 1), or P i if f = 1."""
    grows = f > 1
    growth = jnp.where(grows, f - 1, 1.0)
    log_f = jnp.log1p(growth)

    def restart(i: Array) -> Array:
        return p * jnp.where(grows, jnp.expm1(i * log_f) / growth, i)

    i = jnp.floor(jnp.where(grows, jnp.log1p(s / p * growth) / log_f, s / p))
    # Rounding must not place a step at a restart before it.
    s_upper = s * (1 + 8 * jnp.finfo(s.dtype).eps)
    i = jnp.where(restart(i + 1) <= s_upper, i + 1, i)
    i = jnp.where(restart(i) > s_upper, i - 1, i)
    return i, restart(i)

"""Learning rates that stay, or fall from the first step on.

s = 0, 1, ... is the step, T the number of steps.
"""

from typing import Annotated

import jax.numpy as jnp
from jax import Array

from jaxml._core.public import factory
from jaxml._core.types import NonNegative, Positive, Range, Scalar, Schedule
from jaxml.schedules._progress import (
    between,
    half_cosine,
    left,
    number,
    turns,
)
from jaxml.schedules._progress import (
    power as power_of,
)


@factory
def constant(value: Scalar) -> Schedule:
    """One value at every step.

        η(s) = η₀

    Args:
        value: η₀.

    Example:
        >>> constant(0.5)(7)
        Array(0.5, dtype=float32)
    """
    return lambda step: number(value)


@factory
def linear(init_value: Scalar, end_value: Scalar, decay_steps: NonNegative) -> Schedule:
    """From the first value to the last along a line.

        η(s) = η₁ + (η₀ - η₁) (1 - s/T)

    Args:
        init_value: η₀, at step 0.
        end_value: η₁, from T on.
        decay_steps: T, the step at which the end is reached.

    Raises:
        ValueError: If `decay_steps` is negative.

    Example:
        >>> [float(linear(1.0, 0.0, 4)(step)) for step in range(6)]
        [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    """

    def schedule(step: Array) -> Array:
        ahead = left(number(step), number(0), number(decay_steps))
        return between(end_value, init_value, ahead)

    return schedule


@factory
def polynomial(
    init_value: Scalar,
    end_value: Scalar,
    decay_steps: NonNegative,
    *,
    power: NonNegative = 1.0,
) -> Schedule:
    """From the first value to the last along a power of what is left.

        η(s) = η₁ + (η₀ - η₁) (1 - s/T)ᵖ

    Args:
        init_value: η₀, at step 0.
        end_value: η₁, from T on.
        decay_steps: T, the step at which the end is reached.
        power: p >= 0; 1 is the line, above 1 the rate falls fast at first.

    Raises:
        ValueError: If `decay_steps` or `power` is negative.

    Reference:
        Chen et al., DeepLab: semantic image segmentation, TPAMI 2018,
        https://arxiv.org/abs/1606.00915 ("poly", with p = 0.9).

    Example:
        >>> [float(polynomial(1.0, 0.0, 4, power=2)(step)) for step in range(5)]
        [1.0, 0.5625, 0.25, 0.0625, 0.0]
    """

    def schedule(step: Array) -> Array:
        ahead = left(number(step), number(0), number(decay_steps))
        return between(end_value, init_value, power_of(ahead, power))

    return schedule


@factory
def exponential(
    init_value: Scalar,
    *,
    decay_rate: NonNegative,
    decay_steps: Positive,
) -> Schedule:
    """Multiplied by one factor over every so many steps, smoothly.

        η(s) = η₀ r^(s/T)

    Args:
        init_value: η₀, at step 0.
        decay_rate: r >= 0, the factor over T steps.
        decay_steps: T > 0.

    Raises:
        ValueError: If a number is out of its range.

    Example:
        >>> schedule = exponential(1.0, decay_rate=0.25, decay_steps=2)
        >>> [round(float(schedule(step)), 4) for step in range(4)]
        [1.0, 0.5, 0.25, 0.125]
    """

    def schedule(step: Array) -> Array:
        exponent = number(step) / number(decay_steps)
        return number(init_value) * number(decay_rate) ** exponent

    return schedule


@factory
def step_decay(
    init_value: Scalar, *, decay_rate: NonNegative, step_size: Positive
) -> Schedule:
    """Multiplied by one factor at once, every so many steps.

        η(s) = η₀ f^⌊s/n⌋

    Args:
        init_value: η₀, at step 0.
        decay_rate: f >= 0.
        step_size: n > 0, the steps between two falls.

    Raises:
        ValueError: If a number is out of its range.

    Reference:
        He et al., Deep residual learning for image recognition, CVPR 2016,
        https://arxiv.org/abs/1512.03385

    Example:
        >>> schedule = step_decay(1.0, decay_rate=0.5, step_size=2)
        >>> [float(schedule(step)) for step in range(5)]
        [1.0, 1.0, 0.5, 0.5, 0.25]
    """

    def schedule(step: Array) -> Array:
        falls = turns(number(step), number(step_size))
        return number(init_value) * number(decay_rate) ** falls

    return schedule


@factory
def cosine(
    init_value: Scalar, decay_steps: NonNegative, *, end_value: Scalar = 0.0
) -> Schedule:
    """From the first value to the last along half a period of the cosine.

        η(s) = η₁ + (η₀ - η₁) ½ (1 + cos(π s/T))

    Args:
        init_value: η₀, at step 0.
        decay_steps: T, the step at which the end is reached.
        end_value: η₁, from there on.

    Raises:
        ValueError: If `decay_steps` is negative.

    Reference:
        Loshchilov and Hutter, SGDR: stochastic gradient descent with warm restarts,
        ICLR 2017, https://arxiv.org/abs/1608.03983

    Example:
        >>> [round(float(cosine(1.0, 4)(step)), 2) for step in range(6)]
        [1.0, 0.85, 0.5, 0.15, 0.0, 0.0]
    """

    def schedule(step: Array) -> Array:
        remaining = left(number(step), number(0), number(decay_steps))
        return between(end_value, init_value, half_cosine(remaining))

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
    """Down along half a period of the cosine, and back to the top, again and again.

        η(s) = η₁ + (η₀ vⁱ - η₁) ½ (1 + cos(π (s - Sᵢ)/(P fⁱ)))   for Sᵢ <= s < Sᵢ₊₁
        Sᵢ = P (1 + f + ... + fⁱ⁻¹)

    Args:
        init_value: η₀, at step 0.
        period: P > 0, the steps before the first restart.
        period_factor: f >= 1, how much longer each period is than the last.
        value_factor: v >= 0, how high each period begins, by the last.
        end_value: η₁, to which each period falls.

    Raises:
        ValueError: If a number is out of its range.

    Reference:
        Loshchilov and Hutter, SGDR: stochastic gradient descent with warm restarts,
        ICLR 2017, https://arxiv.org/abs/1608.03983

    Example:
        >>> [round(float(cosine_restarts(1.0, 2)(step)), 2) for step in range(5)]
        [1.0, 0.5, 1.0, 0.5, 1.0]
    """

    def schedule(step: Array) -> Array:
        s, first, f = number(step), number(period), number(period_factor)
        turn, start = _turn_and_start(s, first, f)
        peak = number(init_value) * number(value_factor) ** turn
        ahead = left(s, start, start + first * f**turn)
        return between(end_value, peak, half_cosine(ahead))

    return schedule


def _turn_and_start(s: Array, first: Array, f: Array) -> tuple[Array, Array]:
    """In which turn s lies, and where that began, for turns P, P f, P f², ... long."""
    grows = f > 1
    growth = jnp.where(grows, f - 1, 1.0)
    log_f = jnp.log1p(growth)

    def start(turn: Array) -> Array:
        return first * jnp.where(grows, jnp.expm1(turn * log_f) / growth, turn)

    turn = jnp.floor(jnp.where(grows, jnp.log1p(s / first * growth) / log_f, s / first))
    # A step at a restart is not before it, whatever was rounded on the way.
    reached = s * (1 + 8 * jnp.finfo(s.dtype).eps)
    turn = jnp.where(start(turn + 1) <= reached, turn + 1, turn)
    turn = jnp.where(start(turn) > reached, turn - 1, turn)
    return turn, start(turn)

"""Learning rates that rise first: small steps while the directions are still wild.

s = 0, 1, ... is the step, W the steps of the warm-up, T all steps, warm-up included.
"""

import jax.numpy as jnp
from jax import Array

from jaxml._core.contract import check_number
from jaxml._core.public import factory
from jaxml._core.safe import safe_divide, safe_sqrt
from jaxml._core.types import Fraction, NonNegative, Positive, Range, Scalar, Schedule
from jaxml.schedules._progress import (
    between,
    half_cosine,
    left,
    number,
    passed,
)


@factory
def warmup_cosine(
    peak_value: Scalar,
    warmup_steps: NonNegative,
    decay_steps: NonNegative,
    *,
    init_value: Scalar = 0.0,
    end_value: Scalar = 0.0,
) -> Schedule:
    """Up along a line, then down along half a period of the cosine.

        η(s) = η₀ + (η₁ - η₀) s/W                              for s < W
        η(s) = η₂ + (η₁ - η₂) ½ (1 + cos(π (s - W)/(T - W)))   from W to T

    Args:
        peak_value: η₁, at step W.
        warmup_steps: W; 0 begins at the peak.
        decay_steps: T >= W, the step at which the end is reached.
        init_value: η₀, at step 0.
        end_value: η₂, from T on.

    Raises:
        ValueError: If a number of steps is negative, or T < W.

    Reference:
        Goyal et al., Accurate, large minibatch SGD, 2017,
        https://arxiv.org/abs/1706.02677 (warm-up); for the descent see `cosine`.

    Example:
        >>> [round(float(warmup_cosine(1.0, 2, 4)(step)), 2) for step in range(6)]
        [0.0, 0.5, 1.0, 0.5, 0.0, 0.0]
    """
    _check_steps(warmup_steps, decay_steps)

    def schedule(step: Array) -> Array:
        s, warm, end = number(step), number(warmup_steps), number(decay_steps)
        rising = between(init_value, peak_value, passed(s, number(0), warm))
        falling = between(end_value, peak_value, half_cosine(left(s, warm, end)))
        return jnp.where(s < warm, rising, falling)

    return schedule


@factory
def warmup_linear(
    peak_value: Scalar,
    warmup_steps: NonNegative,
    decay_steps: NonNegative,
    *,
    init_value: Scalar = 0.0,
    end_value: Scalar = 0.0,
) -> Schedule:
    """Up along a line, then down along another.

        η(s) = η₀ + (η₁ - η₀) s/W                    for s < W
        η(s) = η₂ + (η₁ - η₂) (T - s)/(T - W)        from W to T

    Args:
        peak_value: η₁, at step W.
        warmup_steps: W; 0 begins at the peak.
        decay_steps: T >= W, the step at which the end is reached.
        init_value: η₀, at step 0.
        end_value: η₂, from T on.

    Raises:
        ValueError: If a number of steps is negative, or T < W.

    Reference:
        Devlin et al., BERT: pre-training of deep bidirectional transformers, NAACL
        2019, https://arxiv.org/abs/1810.04805

    Example:
        >>> [float(warmup_linear(1.0, 2, 6)(step)) for step in range(7)]
        [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0]
    """
    _check_steps(warmup_steps, decay_steps)

    def schedule(step: Array) -> Array:
        s, warm, end = number(step), number(warmup_steps), number(decay_steps)
        rising = between(init_value, peak_value, passed(s, number(0), warm))
        falling = between(end_value, peak_value, left(s, warm, end))
        return jnp.where(s < warm, rising, falling)

    return schedule


def _check_steps(warmup_steps: Scalar, decay_steps: Scalar) -> None:
    if isinstance(warmup_steps, int | float):
        least = warmup_steps
        rule = f"be at least warmup_steps, {least}"
        check_number("decay_steps", decay_steps, Range(rule, lambda n: n >= least))


@factory
def inverse_sqrt(peak_value: Scalar, warmup_steps: Positive) -> Schedule:
    """Up along a line, then down as one over the root of the step, without an end.

        η(s) = η₁ s/W        for s < W
        η(s) = η₁ √(W/s)     from W on

    Args:
        peak_value: η₁, at step W.
        warmup_steps: W > 0.

    Raises:
        ValueError: If `warmup_steps` is not positive.

    Reference:
        Vaswani et al., Attention is all you need, NeurIPS 2017,
        https://arxiv.org/abs/1706.03762; there η₁ = 1/√(d W) for width d.

    Example:
        >>> [float(inverse_sqrt(1.0, 4)(step)) for step in (0, 2, 4, 16)]
        [0.0, 0.5, 1.0, 0.5]
    """

    def schedule(step: Array) -> Array:
        s, warm = number(step), number(warmup_steps)
        rising = passed(s, number(0), warm)
        falling = safe_sqrt(safe_divide(warm, jnp.maximum(s, warm)))
        return number(peak_value) * jnp.where(s < warm, rising, falling)

    return schedule


@factory
def one_cycle(
    peak_value: Scalar,
    decay_steps: NonNegative,
    *,
    warmup_fraction: Fraction = 0.3,
    initial_factor: NonNegative = 1 / 25,
    end_factor: NonNegative = 1e-4,
) -> Schedule:
    """Up and down once, each along half a period of the cosine, to far below the start.

        η(s) = η (a + (1 - a) ½ (1 - cos(π s/W)))                  for s < W = r T
        η(s) = η (b + (1 - b) ½ (1 + cos(π (s - W)/(T - W))))      from W to T

    Args:
        peak_value: η, at step W.
        decay_steps: T, the step at which the end is reached.
        warmup_fraction: r in [0, 1], the share of the steps that go up.
        initial_factor: a, the value at step 0 by the peak.
        end_factor: b, the value from T on by the peak.

    Raises:
        ValueError: If a number is out of its range.

    Reference:
        Smith and Topin, Super-convergence: very fast training of neural networks using
        large learning rates, 2018, https://arxiv.org/abs/1708.07120

    Example:
        >>> schedule = one_cycle(
        ...     1.0, 4, warmup_fraction=0.5, initial_factor=0.5, end_factor=0.0
        ... )
        >>> [round(float(schedule(step)), 2) for step in range(5)]
        [0.5, 0.75, 1.0, 0.5, 0.0]
    """

    def schedule(step: Array) -> Array:
        s, end = number(step), number(decay_steps)
        top = number(warmup_fraction) * end
        rising = between(initial_factor, 1.0, half_cosine(passed(s, number(0), top)))
        falling = between(end_factor, 1.0, half_cosine(left(s, top, end)))
        return number(peak_value) * jnp.where(s < top, rising, falling)

    return schedule

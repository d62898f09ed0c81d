"""Schedules with warmup: small steps at first, while gradients are still unreliable.

s = 0, 1, ... is the step, η(s) the value, W the number of warmup steps, T the number of
all steps, warmup included.
"""

import jax.numpy as jnp
from jax import Array

from jaxml._core.contract import check_number
from jaxml._core.public import factory
from jaxml._core.safe import safe_divide, safe_power, safe_sqrt
from jaxml._core.special.exp import expm1
from jaxml._core.special.log1p import wide_log1p
from jaxml._core.types import Fraction, NonNegative, Positive, Range, Scalar, Schedule
from jaxml.schedules._progress import (
    add,
    as_float,
    fraction_done,
    fraction_left,
    half_cosine,
    is_before,
    lerp,
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
    """Linear warmup, then cosine decay.

        η(s) = η₀ + (η₁ - η₀) s/W                              for s < W
        η(s) = η₂ + (η₁ - η₂) ½ (1 + cos(π (s - W)/(T - W)))   from W to T

    Args:
        peak_value: η₁, at step W.
        warmup_steps: W >= 0; 0 starts at the peak.
        decay_steps: T >= W, warmup included.
        init_value: η₀, at step 0.
        end_value: η₂, from step T on.

    Reference:
        Goyal et al., Accurate, large minibatch SGD, 2017,
        https://arxiv.org/abs/1706.02677 (warmup); see `cosine` for the decay.

    Example:
        >>> [round(float(warmup_cosine(1.0, 2, 4)(step)), 2) for step in range(6)]
        [0.0, 0.5, 1.0, 0.5, 0.0, 0.0]
    """
    _check_decay_steps(decay_steps, warmup_steps)

    def schedule(step: Array) -> Array:
        done = fraction_done(step, 0, warmup_steps)
        left = fraction_left(step, warmup_steps, decay_steps)
        warmup = lerp(init_value, peak_value, done)
        decay = lerp(end_value, peak_value, half_cosine(left))
        return jnp.where(is_before(step, warmup_steps), warmup, decay)

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
    """Linear warmup, then linear decay.

        η(s) = η₀ + (η₁ - η₀) s/W                    for s < W
        η(s) = η₂ + (η₁ - η₂) (T - s)/(T - W)        from W to T

    Args:
        peak_value: η₁, at step W.
        warmup_steps: W >= 0; 0 starts at the peak.
        decay_steps: T >= W, warmup included.
        init_value: η₀, at step 0.
        end_value: η₂, from step T on.

    Reference:
        Devlin et al., BERT: pre-training of deep bidirectional transformers, NAACL
        2019, https://arxiv.org/abs/1810.04805

    Example:
        >>> [float(warmup_linear(1.0, 2, 6)(step)) for step in range(7)]
        [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0]
    """
    _check_decay_steps(decay_steps, warmup_steps)

    def schedule(step: Array) -> Array:
        done = fraction_done(step, 0, warmup_steps)
        left = fraction_left(step, warmup_steps, decay_steps)
        warmup = lerp(init_value, peak_value, done)
        decay = lerp(end_value, peak_value, left)
        return jnp.where(is_before(step, warmup_steps), warmup, decay)

    return schedule


def _check_decay_steps(decay_steps: Scalar, warmup_steps: Scalar) -> None:
    if isinstance(warmup_steps, int | float):
        low = warmup_steps
        range_ = Range(f"be at least warmup_steps, {low}", lambda n: n >= low)
        check_number("decay_steps", decay_steps, range_)


@factory
def warmup_stable_decay(
    peak_value: Scalar,
    warmup_steps: NonNegative,
    stable_steps: NonNegative,
    decay_steps: NonNegative,
    *,
    init_value: Scalar = 0.0,
    end_value: Scalar = 0.0,
    power: Positive = 1.0,
) -> Schedule:
    """Linear warmup, then a constant value, then a decay at the end (WSD, trapezoid).

        η(s) = η₀ + (η₁ - η₀) s/W                    for s < W
        η(s) = η₁                                    from W to W + S
        η(s) = η₁ + (η₂ - η₁) ((s - W - S)/D)ᵖ       from W + S to W + S + D

    Unlike in the other schedules, all three counts are lengths: it ends at W + S + D,
    so that a longer run changes S alone.

    Args:
        peak_value: η₁.
        warmup_steps: W >= 0; 0 starts at the peak.
        stable_steps: S >= 0.
        decay_steps: D >= 0, without the steps before.
        init_value: η₀, at step 0.
        end_value: η₂, from step W + S + D on.
        power: p > 0; 1 is linear, ½ is 1 - √.

    Reference:
        Hägele et al., Scaling laws and compute-optimal training beyond fixed training
        durations, NeurIPS 2024, https://arxiv.org/abs/2405.18392

    Example:
        >>> schedule = warmup_stable_decay(1.0, 2, 3, 4)
        >>> [float(schedule(step)) for step in range(10)]
        [0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]
    """

    def schedule(step: Array) -> Array:
        start = add(warmup_steps, stable_steps)
        interval = start, add(start, decay_steps)
        done, left = fraction_done(step, *interval), fraction_left(step, *interval)
        curve = _one_minus_power(done, left, as_float(power))
        decay = lerp(end_value, peak_value, curve)
        warmed_up = fraction_done(step, 0, warmup_steps)
        warmup = lerp(init_value, peak_value, warmed_up)
        return jnp.where(is_before(step, warmup_steps), warmup, decay)

    return schedule


def _one_minus_power(done: Array, left: Array, p: Array) -> Array:
    """1 - doneᵖ with done = 1 - left, accurate near both ends"""
    near_end = -expm1(p * wide_log1p(-jnp.minimum(left, 0.5)))
    curve = jnp.where(left > 0.5, 1 - safe_power(done, p), near_end)
    return jnp.where(p == 1, left, curve)


@factory
def inverse_sqrt(
    peak_value: Scalar, warmup_steps: Positive, *, init_value: Scalar = 0.0
) -> Schedule:
    """Linear warmup, then decay with the inverse square root of the step.

        η(s) = η₀ + (η₁ - η₀) s/W    for s < W
        η(s) = η₁ √(W/s)             from W on

    It never ends.

    Args:
        peak_value: η₁, at step W.
        warmup_steps: W > 0.
        init_value: η₀, at step 0.

    Reference:
        Vaswani et al., Attention is all you need, NeurIPS 2017,
        https://arxiv.org/abs/1706.03762; there η₁ = 1/√(d W) for width d.

    Example:
        >>> [float(inverse_sqrt(1.0, 4)(step)) for step in (0, 2, 4, 16)]
        [0.0, 0.5, 1.0, 0.5]
    """

    def schedule(step: Array) -> Array:
        s, w = as_float(step), as_float(warmup_steps)
        warmup = lerp(init_value, peak_value, fraction_done(step, 0, warmup_steps))
        decay = as_float(peak_value) * safe_sqrt(safe_divide(w, jnp.maximum(s, w)))
        return jnp.where(is_before(step, warmup_steps), warmup, decay)

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
    """The 1cycle policy: cosine warmup to the peak, then cosine decay.

        η(s) = η (a + (1 - a) ½ (1 - cos(π s/W)))                  for s < W = r T
        η(s) = η (b + (1 - b) ½ (1 + cos(π (s - W)/(T - W))))      from W to T

    By default the end value is far below the initial one.

    Args:
        peak_value: η, at step W.
        decay_steps: T >= 0, warmup included.
        warmup_fraction: r in [0, 1], the fraction of the steps that are warmup.
        initial_factor: a >= 0, the ratio of the initial value to the peak.
        end_factor: b >= 0, the ratio of the end value, from step T on, to the peak.

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
        w = as_float(warmup_fraction) * as_float(decay_steps)
        done, left = fraction_done(step, 0, w), fraction_left(step, w, decay_steps)
        warmup = lerp(initial_factor, 1.0, half_cosine(done))
        decay = lerp(end_factor, 1.0, half_cosine(left))
        return as_float(peak_value) * jnp.where(is_before(step, w), warmup, decay)

    return schedule

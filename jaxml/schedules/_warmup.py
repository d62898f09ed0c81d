"""Learning rates that rise first: small steps while the directions are still wild.

s = 0, 1, ... is the step, W the steps of the warm-up, T all steps, warm-up included.
"""

import jax.numpy as jnp
from jax import Array

from jaxml._core.checks import check_range
from jaxml._core.types import Scalar, Schedule
from jaxml.schedules._progress import between, half_cosine, left, number, passed


def warmup_cosine(
    peak_value: Scalar,
    warmup_steps: Scalar,
    decay_steps: Scalar,
    *,
    initial_value: Scalar = 0.0,
    end_value: Scalar = 0.0,
) -> Schedule:
    """Up along a line, then down along half a period of the cosine.

        η(s) = η₀ + (η₁ - η₀) s/W                              for s < W
        η(s) = η₂ + (η₁ - η₂) ½ (1 + cos(π (s - W)/(T - W)))   from W to T

    Args:
        peak_value: η₁, at step W.
        warmup_steps: W; 0 begins at the peak.
        decay_steps: T >= W, the step at which the end is reached.
        initial_value: η₀, at step 0.
        end_value: η₂, from T on.

    Raises:
        ValueError: If a number of steps is negative.

    Reference:
        Goyal et al., Accurate, large minibatch SGD, 2017,
        https://arxiv.org/abs/1706.02677 (warm-up); for the descent see `cosine`.

    Example:
        >>> [float(warmup_cosine(1.0, 2, 4)(step)) for step in range(5)]
        [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    for name, steps in [("warmup_steps", warmup_steps), ("decay_steps", decay_steps)]:
        check_range("warmup_cosine", name, steps, "be non-negative", lambda n: n >= 0)

    def schedule(step: Array) -> Array:
        s, warm, end = number(step), number(warmup_steps), number(decay_steps)
        rising = between(initial_value, peak_value, passed(s, number(0), warm))
        falling = between(end_value, peak_value, half_cosine(left(s, warm, end)))
        return jnp.where(s < warm, rising, falling)

    return schedule

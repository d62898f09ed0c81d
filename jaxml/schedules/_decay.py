"""Learning rates that stay, or fall from the first step on.

s = 0, 1, ... is the step, T the number of steps.
"""

from jax import Array

from jaxml._core.checks import check_range
from jaxml._core.types import Scalar, Schedule
from jaxml.schedules._progress import between, half_cosine, left, number


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


def cosine(
    initial_value: Scalar, decay_steps: Scalar, *, end_value: Scalar = 0.0
) -> Schedule:
    """From the first value to the last along half a period of the cosine.

        η(s) = η₁ + (η₀ - η₁) ½ (1 + cos(π s/T))

    Args:
        initial_value: η₀, at step 0.
        decay_steps: T, the step at which the end is reached.
        end_value: η₁, from there on.

    Raises:
        ValueError: If `decay_steps` is negative.

    Reference:
        Loshchilov and Hutter, SGDR: stochastic gradient descent with warm restarts,
        ICLR 2017, https://arxiv.org/abs/1608.03983

    Example:
        >>> float(cosine(1.0, 10)(5))
        0.5
    """
    check_range(
        "cosine", "decay_steps", decay_steps, "be non-negative", lambda n: n >= 0
    )

    def schedule(step: Array) -> Array:
        remaining = left(number(step), number(0), number(decay_steps))
        return between(end_value, initial_value, half_cosine(remaining))

    return schedule

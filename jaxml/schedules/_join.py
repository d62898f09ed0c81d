"""Schedules one after the other."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array

from jaxml._core.contract import check_number, raise_invalid
from jaxml._core.public import factory
from jaxml._core.types import Range, Scalar, Schedule
from jaxml.schedules._progress import number


@factory
def join(
    schedules: Sequence[Schedule], boundaries: Sequence[Scalar] | Array
) -> Schedule:
    """One schedule after the other, each of which sees the step since its boundary.

        η(s) = ηᵢ(s - bᵢ)    for bᵢ <= s < bᵢ₊₁,  with b₀ = 0

    Args:
        schedules: η₀, η₁, ..., functions of the step.
        boundaries: b₁ <= b₂ <= ..., one less than the schedules.

    Raises:
        TypeError: If a schedule is not a function.
        ValueError: If the boundaries are not one less, or do not rise.

    Example:
        >>> schedule = join([linear(0.0, 1.0, 2), constant(0.5)], [3])
        >>> [float(schedule(step)) for step in range(5)]
        [0.0, 0.5, 1.0, 0.5, 0.5]
    """
    for i, schedule in enumerate(schedules):
        if not callable(schedule):
            name, rule = f"schedules[{i}]", "be a function of the step"
            raise_invalid(TypeError, name, rule, schedule)
    if len(boundaries) != len(schedules) - 1:
        rule = f"have one element less than the {len(schedules)} schedules"
        raise_invalid(ValueError, "boundaries", rule, len(boundaries))
    last = 0
    for i, boundary in enumerate(boundaries):
        rule, name = f"be at least {last}", f"boundaries[{i}]"
        check_number(name, boundary, Range(rule, lambda b, last=last: b >= last))
        last = boundary if isinstance(boundary, int | float) else last

    def joined(step: Array) -> Array:
        s = number(step)
        value = number(schedules[0](s))
        for schedule, boundary in zip(schedules[1:], boundaries):
            since = jnp.maximum(s - number(boundary), 0)
            value = jnp.where(s >= number(boundary), number(schedule(since)), value)
        return value

    return joined

"""Schedules in sequence."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array

from jaxml._core.contract import check_number, raise_invalid
from jaxml._core.public import factory
from jaxml._core.types import Range, Scalar, Schedule
from jaxml.schedules._progress import as_float, is_before, steps_since


@factory
def join(
    schedules: Sequence[Schedule], boundaries: Sequence[Scalar] | Array
) -> Schedule:
    """Schedules in sequence, each a function of the step since its boundary.

        η(s) = ηᵢ(s - bᵢ)    for bᵢ <= s < bᵢ₊₁,  with b₀ = 0

    Args:
        schedules: η₀, η₁, ..., functions of the step.
        boundaries: b₁ <= b₂ <= ..., one for each schedule but the first.

    Raises:
        TypeError: If a schedule is not a function.
        ValueError: If the number of boundaries is wrong, or they decrease.

    Example:
        >>> schedule = join([linear(0.0, 1.0, 2), constant(0.5)], [3])
        >>> [float(schedule(step)) for step in range(5)]
        [0.0, 0.5, 1.0, 0.5, 0.5]
    """
    for i, schedule in enumerate(schedules):
        if not callable(schedule):
            requirement = "be a function of the step"
            raise_invalid(TypeError, f"schedules[{i}]", requirement, schedule)
    num_boundaries = len(schedules) - 1
    if len(boundaries) != num_boundaries:
        requirement = f"have len(schedules) - 1 = {num_boundaries} elements"
        raise_invalid(ValueError, "boundaries", requirement, len(boundaries))
    previous = 0
    for i, boundary in enumerate(boundaries):
        range_ = Range(f"be at least {previous}", lambda b, low=previous: b >= low)
        check_number(f"boundaries[{i}]", boundary, range_)
        previous = boundary if isinstance(boundary, int | float) else previous

    def joined(step: Array) -> Array:
        value = as_float(schedules[0](step))
        for schedule, boundary in zip(schedules[1:], boundaries):
            value_there = as_float(schedule(steps_since(boundary, step)))
            value = jnp.where(is_before(step, boundary), value, value_there)
        return value

    return joined

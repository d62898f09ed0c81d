"""Schedules: the value at each step, written from the definition by cases."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cases import Case
from jaxml import schedules

STEPS = np.array([*range(13), 10**9])


def curve(schedule: Callable[..., Any]) -> Callable[..., jax.Array]:
    return lambda steps, **numbers: jax.vmap(schedule(**numbers))(jnp.asarray(steps))


def points(value: Callable[..., float]) -> Callable[..., np.ndarray]:
    return lambda steps, **numbers: np.array([value(int(s), **numbers) for s in steps])


def cosine(s, initial_value=1.0, decay_steps=10, end_value=0.0):
    if s >= decay_steps:
        return end_value
    share = 0.5 * (1 + np.cos(np.pi * s / decay_steps))
    return end_value + (initial_value - end_value) * share


def warmup_cosine(
    s, peak_value=1.0, warmup_steps=3, decay_steps=10, initial_value=0.0, end_value=0.0
):
    if s < warmup_steps:
        return initial_value + (peak_value - initial_value) * s / warmup_steps
    return cosine(s - warmup_steps, peak_value, decay_steps - warmup_steps, end_value)


def row(function: Any, at: Any, required: dict[str, float], **numbers: Any) -> Case:
    return Case(
        function,
        lambda rng: (STEPS,),
        points(at),
        numbers=numbers,
        call=lambda steps, **given: curve(function)(steps, **{**required, **given}),
        dtypes=(),
    )


VALUES = (0.0, 0.3, 2.0)
CASES = [
    row(
        schedules.constant,
        lambda s, value=1.0: value,
        {"value": 1.0},
        value=VALUES,
    ),
    row(
        schedules.cosine,
        cosine,
        {"initial_value": 1.0, "decay_steps": 10},
        initial_value=VALUES,
        decay_steps=(0, 1, 7, 20),
        end_value=VALUES,
    ),
    row(
        schedules.warmup_cosine,
        warmup_cosine,
        {"peak_value": 1.0, "warmup_steps": 3, "decay_steps": 10},
        peak_value=VALUES,
        warmup_steps=(0, 1, 10),
        decay_steps=(3, 5, 20),
        initial_value=VALUES,
        end_value=VALUES,
    ),
]

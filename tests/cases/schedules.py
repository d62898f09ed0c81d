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


def linear(s, init_value, end_value, decay_steps):
    return polynomial(s, init_value, end_value, decay_steps)


def polynomial(s, init_value, end_value, decay_steps, power=1.0):
    if s >= decay_steps:
        return end_value
    return end_value + (init_value - end_value) * (1 - s / decay_steps) ** power


def exponential(s, init_value, decay_rate, decay_steps):
    return init_value * decay_rate ** (s / decay_steps)


def step_decay(s, init_value, decay_rate, step_size):
    return init_value * decay_rate ** (s // step_size)


def cosine(s, init_value=1.0, decay_steps=10, end_value=0.0):
    if s >= decay_steps:
        return end_value
    share = 0.5 * (1 + np.cos(np.pi * s / decay_steps))
    return end_value + (init_value - end_value) * share


def warmup_cosine(
    s, peak_value=1.0, warmup_steps=3, decay_steps=10, init_value=0.0, end_value=0.0
):
    if s < warmup_steps:
        return init_value + (peak_value - init_value) * s / warmup_steps
    return cosine(s - warmup_steps, peak_value, decay_steps - warmup_steps, end_value)


def warmup_linear(
    s, peak_value=1.0, warmup_steps=3, decay_steps=10, init_value=0.0, end_value=0.0
):
    if s < warmup_steps:
        return init_value + (peak_value - init_value) * s / warmup_steps
    return linear(s - warmup_steps, peak_value, end_value, decay_steps - warmup_steps)


def cosine_restarts(
    s, init_value, period, period_factor=1.0, value_factor=1.0, end_value=0.0
):
    """Period after period, as long as there are steps."""
    if period_factor == 1.0:
        turns, s = divmod(s, period)
        init_value *= value_factor**turns
    while s >= period:
        s -= period
        period *= period_factor
        init_value *= value_factor
    return cosine(s, init_value, period, end_value)


def inverse_sqrt(s, peak_value, warmup_steps):
    if s < warmup_steps:
        return peak_value * s / warmup_steps
    return peak_value * np.sqrt(warmup_steps / s)


def one_cycle(
    s,
    peak_value,
    decay_steps,
    warmup_fraction=0.3,
    initial_factor=1 / 25,
    end_factor=1e-4,
):
    top, first, last = warmup_fraction * decay_steps, initial_factor, end_factor
    if s < top:
        return peak_value * cosine(s, first, top, 1.0)
    return peak_value * cosine(s - top, 1.0, decay_steps - top, last)


def joined(s, low, high, first, second):
    if s < first:
        return cosine(s, low, 4, high)
    return high * 0.5 ** (s - first) if s < second else low * (s - second)


def joins(low: Any, high: Any, first: Any, second: Any) -> Any:
    parts = [
        schedules.cosine(low, 4, end_value=high),
        schedules.exponential(high, decay_rate=0.5, decay_steps=1),
        lambda step: low * step,
    ]
    return schedules.join(parts, [first, second])


def row(
    function: Any,
    at: Any,
    required: dict[str, float],
    *,
    made: Any = None,
    id_suffix: str = "",
    rtol: float = 1e-12,
    **numbers: Any,
) -> Case:
    whole = jax.jit(curve(made or function))
    return Case(
        function,
        lambda rng: (STEPS,),
        lambda steps, **given: points(at)(steps, **{**required, **given}),
        hyperparams=numbers,
        adapter=lambda steps, **given: whole(steps, **{**required, **given}),
        dtypes=(),
        id_suffix=id_suffix,
        rtol=rtol,
    )


VALUES = (0.0, 0.3, 2.0)
LENGTHS = (0, 1, 7, 20)
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
        {"init_value": 1.0, "decay_steps": 10},
        init_value=VALUES,
        decay_steps=LENGTHS,
        end_value=VALUES,
    ),
    row(
        schedules.warmup_cosine,
        warmup_cosine,
        {"peak_value": 1.0, "warmup_steps": 3, "decay_steps": 10},
        peak_value=VALUES,
        warmup_steps=(0, 1, 10),
        decay_steps=(3, 5, 20),
        init_value=VALUES,
        end_value=VALUES,
    ),
    row(
        schedules.linear,
        linear,
        {"init_value": 1.0, "end_value": 0.1, "decay_steps": 10},
        init_value=VALUES,
        end_value=VALUES,
        decay_steps=LENGTHS,
    ),
    row(
        schedules.polynomial,
        polynomial,
        {"init_value": 1.0, "end_value": 0.1, "decay_steps": 10},
        init_value=VALUES,
        end_value=VALUES,
        decay_steps=LENGTHS,
        power=(0.0, 0.5, 2.0),
    ),
    row(
        schedules.exponential,
        exponential,
        {"init_value": 1.0, "decay_rate": 0.9, "decay_steps": 3},
        init_value=VALUES,
        decay_rate=(0.0, 0.5, 1.0),
        decay_steps=(1, 7, 2.5),
        rtol=1e-11,
    ),
    row(
        schedules.step_decay,
        step_decay,
        {"init_value": 1.0, "decay_rate": 0.5, "step_size": 3},
        init_value=VALUES,
        decay_rate=(0.0, 0.1, 1.0),
        step_size=(1, 7, 2.5),
        rtol=1e-11,
    ),
    row(
        schedules.cosine_restarts,
        cosine_restarts,
        {"init_value": 1.0, "period": 3},
        init_value=VALUES,
        period=(1, 2, 20),
        period_factor=(1.5, 2.0, 3.0),
        value_factor=(0.0, 0.5),
        end_value=VALUES,
        rtol=1e-11,
    ),
    row(
        schedules.warmup_linear,
        warmup_linear,
        {"peak_value": 1.0, "warmup_steps": 3, "decay_steps": 10},
        peak_value=VALUES,
        warmup_steps=(0, 1, 10),
        decay_steps=(3, 5, 20),
        init_value=VALUES,
        end_value=VALUES,
    ),
    row(
        schedules.inverse_sqrt,
        inverse_sqrt,
        {"peak_value": 1.0, "warmup_steps": 3},
        peak_value=VALUES,
        warmup_steps=(1, 2, 20),
    ),
    row(
        schedules.one_cycle,
        one_cycle,
        {"peak_value": 1.0, "decay_steps": 10},
        peak_value=VALUES,
        decay_steps=LENGTHS,
        warmup_fraction=(0.0, 0.5, 1.0),
        initial_factor=VALUES,
        end_factor=VALUES,
    ),
    row(
        schedules.join,
        joined,
        {"low": 0.1, "high": 1.0, "first": 4, "second": 8},
        made=joins,
        low=VALUES,
        high=VALUES,
        first=(0, 2, 8),
        second=(4, 5, 20),
    ),
]

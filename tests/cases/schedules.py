"""Schedules: the value at each step, written from the definition by cases."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cases import Case
from jaxml import schedules

STEPS = np.array([*range(13), 10**9])


def curve(make: Callable[..., Any]) -> Callable[..., jax.Array]:
    """The values of a schedule at all steps."""

    @jax.jit
    def values(steps: Any, **hyperparams: Any) -> jax.Array:
        return jax.vmap(make(**hyperparams))(jnp.asarray(steps))

    return values


def true_curve(value_at: Callable[..., float]) -> Callable[..., np.ndarray]:
    """The same from the true value at one step."""

    def values(steps: np.ndarray, **hyperparams: Any) -> np.ndarray:
        return np.array([value_at(int(s), **hyperparams) for s in steps])

    return values


def constant(s, value=1.0):
    return value


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
    fraction = 0.5 * (1 + np.cos(np.pi * s / decay_steps))
    return end_value + (init_value - end_value) * fraction


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


def warmup_stable_decay(
    s,
    peak_value,
    warmup_steps,
    stable_steps,
    decay_steps,
    init_value=0.0,
    end_value=0.0,
    power=1.0,
):
    if s < warmup_steps:
        return init_value + (peak_value - init_value) * s / warmup_steps
    s -= warmup_steps
    if s < stable_steps:
        return peak_value
    s -= stable_steps
    if s >= decay_steps:
        return end_value
    return peak_value - (peak_value - end_value) * (s / decay_steps) ** power


def cosine_restarts(
    s, init_value, period, period_factor=1.0, value_factor=1.0, end_value=0.0
):
    """Subtracts one period after another from s."""
    if period_factor == 1.0:
        num_restarts, s = divmod(s, period)
        init_value *= value_factor**num_restarts
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
    warmup_steps = warmup_fraction * decay_steps
    if s < warmup_steps:
        return peak_value * cosine(s, initial_factor, warmup_steps, 1.0)
    return peak_value * cosine(
        s - warmup_steps, 1.0, decay_steps - warmup_steps, end_factor
    )


def join(s, low, high, first, second):
    if s < first:
        return cosine(s, low, 4, high)
    return high * 0.5 ** (s - first) if s < second else low * (s - second)


def join_of_three(low: Any, high: Any, first: Any, second: Any) -> Any:
    parts = [
        schedules.cosine(low, 4, end_value=high),
        schedules.exponential(high, decay_rate=0.5, decay_steps=1),
        lambda step: low * jnp.asarray(step, float),
    ]
    return schedules.join(parts, [first, second])


def schedule_case(
    function: Any,
    value_at: Any,
    required: dict[str, float],
    *,
    make: Any = None,
    rtol: float = 1e-12,
    **hyperparams: Any,
) -> Case:
    """A row of a schedule, whose required arguments have these values by default."""
    values, truth = curve(make or function), true_curve(value_at)
    return Case(
        function,
        lambda rng: (STEPS,),
        lambda steps, **given: truth(steps, **{**required, **given}),
        hyperparams=hyperparams,
        adapter=lambda steps, **given: values(steps, **{**required, **given}),
        dtypes=(),
        rtol=rtol,
    )


VALUES = (0.0, 0.3, 2.0)
STEP_COUNTS = (0, 1, 7, 20)
CASES = [
    schedule_case(
        schedules.constant,
        constant,
        {"value": 1.0},
        value=VALUES,
    ),
    schedule_case(
        schedules.cosine,
        cosine,
        {"init_value": 1.0, "decay_steps": 10},
        init_value=VALUES,
        decay_steps=STEP_COUNTS,
        end_value=VALUES,
    ),
    schedule_case(
        schedules.warmup_cosine,
        warmup_cosine,
        {"peak_value": 1.0, "warmup_steps": 3, "decay_steps": 10},
        peak_value=VALUES,
        warmup_steps=(0, 1, 10),
        decay_steps=(3, 5, 20),
        init_value=VALUES,
        end_value=VALUES,
    ),
    schedule_case(
        schedules.linear,
        linear,
        {"init_value": 1.0, "end_value": 0.1, "decay_steps": 10},
        init_value=VALUES,
        end_value=VALUES,
        decay_steps=STEP_COUNTS,
    ),
    schedule_case(
        schedules.polynomial,
        polynomial,
        {"init_value": 1.0, "end_value": 0.1, "decay_steps": 10},
        init_value=VALUES,
        end_value=VALUES,
        decay_steps=STEP_COUNTS,
        power=(0.0, 0.5, 2.0),
    ),
    schedule_case(
        schedules.exponential,
        exponential,
        {"init_value": 1.0, "decay_rate": 0.9, "decay_steps": 3},
        init_value=VALUES,
        decay_rate=(0.0, 0.5, 1.0),
        decay_steps=(1, 7, 2.5),
        rtol=1e-11,
    ),
    schedule_case(
        schedules.step_decay,
        step_decay,
        {"init_value": 1.0, "decay_rate": 0.5, "step_size": 3},
        init_value=VALUES,
        decay_rate=(0.0, 0.1, 1.0),
        step_size=(1, 7, 2.5),
        rtol=1e-11,
    ),
    schedule_case(
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
    schedule_case(
        schedules.warmup_linear,
        warmup_linear,
        {"peak_value": 1.0, "warmup_steps": 3, "decay_steps": 10},
        peak_value=VALUES,
        warmup_steps=(0, 1, 10),
        decay_steps=(3, 5, 20),
        init_value=VALUES,
        end_value=VALUES,
    ),
    schedule_case(
        schedules.warmup_stable_decay,
        warmup_stable_decay,
        {"peak_value": 1.0, "warmup_steps": 2, "stable_steps": 3, "decay_steps": 5},
        peak_value=VALUES,
        warmup_steps=(0, 1, 4.5),
        stable_steps=(0, 1, 4),
        decay_steps=(0, 1, 6),
        init_value=VALUES,
        end_value=VALUES,
        power=(0.5, 1.0, 2.0),
    ),
    schedule_case(
        schedules.inverse_sqrt,
        inverse_sqrt,
        {"peak_value": 1.0, "warmup_steps": 3},
        peak_value=VALUES,
        warmup_steps=(1, 2, 20),
    ),
    schedule_case(
        schedules.one_cycle,
        one_cycle,
        {"peak_value": 1.0, "decay_steps": 10},
        peak_value=VALUES,
        decay_steps=STEP_COUNTS,
        warmup_fraction=(0.0, 0.5, 1.0),
        initial_factor=VALUES,
        end_factor=VALUES,
    ),
    schedule_case(
        schedules.join,
        join,
        {"low": 0.1, "high": 1.0, "first": 4, "second": 8},
        make=join_of_three,
        low=VALUES,
        high=VALUES,
        first=(0, 2, 8),
        second=(4, 5, 20),
    ),
]

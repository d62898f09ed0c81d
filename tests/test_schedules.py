"""Schedules: what the table of cases cannot say."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxml import optimizers, schedules

MADE = {  # each with its numbers, lengths among them
    schedules.constant: {"value": 0.5},
    schedules.linear: {"init_value": 1.0, "end_value": 0.1, "decay_steps": 10.0},
    schedules.polynomial: {
        "init_value": 1.0,
        "end_value": 0.1,
        "decay_steps": 10.0,
        "power": 2.0,
    },
    schedules.exponential: {
        "init_value": 1.0,
        "decay_rate": 0.9,
        "decay_steps": 10.0,
    },
    schedules.step_decay: {"init_value": 1.0, "decay_rate": 0.5, "step_size": 4.0},
    schedules.cosine: {"init_value": 1.0, "decay_steps": 10.0, "end_value": 0.1},
    schedules.cosine_restarts: {
        "init_value": 1.0,
        "period": 4.0,
        "period_factor": 2.0,
        "value_factor": 0.5,
    },
    schedules.warmup_cosine: {
        "peak_value": 1.0,
        "warmup_steps": 3.0,
        "decay_steps": 10.0,
    },
    schedules.warmup_linear: {
        "peak_value": 1.0,
        "warmup_steps": 3.0,
        "decay_steps": 10.0,
    },
    schedules.inverse_sqrt: {"peak_value": 1.0, "warmup_steps": 3.0},
    schedules.one_cycle: {
        "peak_value": 1.0,
        "decay_steps": 10.0,
        "warmup_fraction": 0.3,
    },
}
LENGTHS = ("decay_steps", "warmup_steps", "period", "step_size")
ENDLESS = (schedules.exponential, schedules.step_decay, schedules.cosine_restarts)
ENDLESS += (schedules.inverse_sqrt,)
STEPS = jnp.arange(24)

every = pytest.mark.parametrize(
    ("make", "numbers"), MADE.items(), ids=[make.__name__ for make in MADE]
)


def test_none_is_missing_here() -> None:
    known = {f for f in vars(schedules).values() if inspect.isfunction(f)}
    assert known == {*MADE, schedules.join}


@every
def test_any_kind_of_step_has_the_same_value(make, numbers) -> None:
    schedule = make(**numbers)
    for step in (0, 2, 7):
        value = schedule(step)
        assert value.shape == () and value.dtype == jnp.float64 and not value.weak_type
        for kind in (float, np.int64, jnp.int32, jnp.uint8, jnp.float32, jnp.bfloat16):
            assert schedule(kind(step)) == value


@every
def test_the_last_of_all_steps_has_a_value(make, numbers) -> None:
    """Nothing is counted in integers, which would wrap."""
    schedule = make(**numbers)
    last = schedule(jnp.int32(2**31 - 1))
    assert jnp.isfinite(last)
    if make not in ENDLESS:
        assert last == schedule(10) == schedule(11)


@every
def test_lengths_may_be_integers_and_change_without_compiling(make, numbers) -> None:
    lengths = [name for name in numbers if name in LENGTHS]
    traces = []

    @jax.jit
    def curve(numbers):
        traces.append(numbers)
        return jax.vmap(make(**numbers))(STEPS)

    for longer in (0, 3):
        whole = {n: jnp.int32(numbers[n]) + longer for n in lengths}
        got = curve({**numbers, **whole})
        alone = make(**{**numbers, **{n: int(v) for n, v in whole.items()}})
        expected = [float(alone(step)) for step in range(0, len(STEPS), 5)]
        np.testing.assert_allclose(got[::5], expected, rtol=1e-12)
    assert len(traces) == 1


@every
def test_every_number_has_a_derivative_at_every_step(make, numbers) -> None:
    """At both ends and where a length is 0 too."""
    slopes = jax.jit(jax.jacobian(lambda numbers: jax.vmap(make(**numbers))(STEPS)))
    for length in (None, 0.0):
        given = {
            n: length if length == 0 and n in LENGTHS else v for n, v in numbers.items()
        }
        if length == 0 and make in ENDLESS:
            continue  # their lengths are positive
        for name, slope in slopes(given).items():
            assert jnp.isfinite(slope).all(), (name, length)


@every
def test_it_stands_where_optax_takes_one(make, numbers) -> None:
    schedule, gradient = make(**numbers), jnp.ones(1)
    with jax.numpy_dtype_promotion("standard"), jax.disable_jit():
        for optimizer in (
            optax.scale_by_schedule(schedule),
            optax.chain(optax.scale_by_learning_rate(schedule), optax.scale(-1.0)),
            optax.chain(optimizers.sgd(schedule), optax.scale(-1.0)),
            optax.inject_hyperparams(optax.scale)(step_size=schedule),
        ):
            state = optimizer.init(gradient)
            for step in range(5):
                update, state = optimizer.update(gradient, state)
                np.testing.assert_allclose(update[0], schedule(step), rtol=1e-6)


def test_join_hands_over_at_its_boundaries() -> None:
    parts = [schedules.constant(1.0), schedules.linear(0.5, 0.0, 4), lambda step: step]
    boundaries = jnp.array([2, 8])
    joined = jax.jit(jax.vmap(schedules.join(parts, boundaries)))(jnp.arange(10))
    np.testing.assert_allclose(
        joined, [1, 1, 0.5, 0.375, 0.25, 0.125, 0, 0, 0, 1], atol=1e-15
    )

"""Schedules: what the table of cases cannot say."""

import inspect

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import schedules as truths

from jaxml import optimizers, schedules, sweep

HYPERPARAMS = {  # of each schedule, step counts included
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
    schedules.warmup_stable_decay: {
        "peak_value": 1.0,
        "warmup_steps": 3.0,
        "stable_steps": 3.0,
        "decay_steps": 4.0,
        "power": 0.5,
    },
    schedules.inverse_sqrt: {"peak_value": 1.0, "warmup_steps": 3.0},
    schedules.one_cycle: {
        "peak_value": 1.0,
        "decay_steps": 10.0,
        "warmup_fraction": 0.3,
    },
}
STEP_COUNTS = ("decay_steps", "warmup_steps", "stable_steps", "period", "step_size")
ENDLESS = (  # their step counts are positive
    schedules.exponential,
    schedules.step_decay,
    schedules.cosine_restarts,
    schedules.inverse_sqrt,
)
STEPS = jnp.arange(24)

all_schedules = pytest.mark.parametrize(
    ("make", "hyperparams"),
    HYPERPARAMS.items(),
    ids=[make.__name__ for make in HYPERPARAMS],
)


def test_this_file_covers_every_schedule() -> None:
    public = {f for f in vars(schedules).values() if inspect.isfunction(f)}
    assert public == {*HYPERPARAMS, schedules.join}


@all_schedules
def test_the_value_does_not_depend_on_the_dtype_of_the_step(make, hyperparams) -> None:
    schedule = make(**hyperparams)
    for step in (0, 2, 7):
        value = schedule(step)
        assert value.shape == () and value.dtype == jnp.float64 and not value.weak_type
        for cast in (float, np.int64, jnp.int32, jnp.uint8, jnp.float32, jnp.bfloat16):
            assert schedule(cast(step)) == value


@all_schedules
def test_the_largest_int32_step_does_not_overflow(make, hyperparams) -> None:
    schedule = make(**hyperparams)
    last = schedule(jnp.int32(2**31 - 1))
    assert jnp.isfinite(last)
    if make not in ENDLESS:
        assert last == schedule(10) == schedule(11)


@all_schedules
def test_step_counts_may_be_integers_and_traced(make, hyperparams) -> None:
    chex.clear_trace_counter()  # chex identifies a function by its source

    @jax.jit
    @chex.assert_max_traces(1)
    def curve(hyperparams):
        return jax.vmap(make(**hyperparams))(STEPS)

    for extra_steps in (0, 3):
        counts = {
            name: int(value) + extra_steps
            for name, value in hyperparams.items()
            if name in STEP_COUNTS
        }
        result = curve(hyperparams | {n: jnp.int32(v) for n, v in counts.items()})
        schedule = make(**hyperparams | counts)
        expected = [float(schedule(step)) for step in range(0, len(STEPS), 5)]
        np.testing.assert_allclose(result[::5], expected, rtol=1e-12)


@all_schedules
def test_every_hyperparameter_has_a_finite_derivative(make, hyperparams) -> None:
    """At both ends, and for step counts of 0 too."""
    jacobian = jax.jit(
        jax.jacobian(lambda hyperparams: jax.vmap(make(**hyperparams))(STEPS))
    )
    chex.assert_tree_all_finite(jacobian(hyperparams))
    if make not in ENDLESS:
        zero_counts = dict.fromkeys(hyperparams.keys() & set(STEP_COUNTS), 0.0)
        chex.assert_tree_all_finite(jacobian(hyperparams | zero_counts))


@all_schedules
def test_optax_takes_a_schedule(make, hyperparams) -> None:
    schedule, grad = make(**hyperparams), jnp.ones(1)
    with jax.numpy_dtype_promotion("standard"), jax.disable_jit():
        for optimizer in (
            optax.scale_by_schedule(schedule),
            optax.chain(optax.scale_by_learning_rate(schedule), optax.scale(-1.0)),
            optax.chain(optimizers.sgd(schedule), optax.scale(-1.0)),
            optax.inject_hyperparams(optax.scale)(step_size=schedule),
        ):
            state = optimizer.init(grad)
            for step in range(5):
                update, state = optimizer.update(grad, state)
                np.testing.assert_allclose(update[0], schedule(step), rtol=1e-6)


def test_join_switches_at_the_boundaries() -> None:
    parts = [schedules.constant(1.0), schedules.linear(0.5, 0.0, 4), lambda step: step]
    schedule = schedules.join(parts, jnp.array([2, 8]))
    values = jax.jit(jax.vmap(schedule))(jnp.arange(10))
    expected = [1, 1, 0.5, 0.375, 0.25, 0.125, 0, 0, 0, 1]
    np.testing.assert_allclose(values, expected, atol=1e-15)


BILLIONS = {  # step counts beyond 2²⁴, and steps about their ends
    schedules.linear: {"decay_steps": 3 * 2**26 + 5},
    schedules.polynomial: {"decay_steps": 3 * 2**26 + 5, "power": 0.5},
    schedules.exponential: {"decay_rate": 0.5, "decay_steps": 2**25 + 1},
    schedules.step_decay: {"decay_rate": 0.5, "step_size": 2**25 + 1},
    schedules.cosine: {"decay_steps": 3 * 2**26 + 5},
    schedules.cosine_restarts: {"period": 2**25 + 1, "period_factor": 2.0},
    schedules.warmup_cosine: {"warmup_steps": 2**25 + 1, "decay_steps": 2**27 + 3},
    schedules.warmup_linear: {"warmup_steps": 2**25 + 1, "decay_steps": 2**27 + 3},
    schedules.warmup_stable_decay: {
        "warmup_steps": 2**25 + 1,
        "stable_steps": 2**25 + 1,
        "decay_steps": 2**26 + 1,
        "power": 0.5,
    },
    schedules.inverse_sqrt: {"warmup_steps": 2**25 + 1},
    schedules.one_cycle: {"decay_steps": 2**27 + 3, "warmup_fraction": 0.25},
}
ENDS = (2**25 + 1, 2**26 + 2, 3 * 2**25 + 3, 2**27 + 3, 3 * 2**26 + 5)
NEAR_ENDS = [end + offset for end in ENDS for offset in (-4097, -2, -1, 0, 1, 2)]


def values_in_float32(make, hyperparams) -> np.ndarray:
    counts = {n: v for n, v in hyperparams.items() if isinstance(v, int)}

    @jax.jit
    def curve(steps, counts):
        return jax.vmap(make(**hyperparams | counts))(steps)

    with jax.enable_x64(False):
        steps = jnp.array(NEAR_ENDS, jnp.int32)
        by_number = jax.jit(jax.vmap(make(**hyperparams)))(steps)
        traced = curve(steps, jax.tree.map(jnp.int32, counts))
        np.testing.assert_allclose(by_number, traced, rtol=1e-6, atol=1e-12)
        return np.float64(traced)


@pytest.mark.parametrize(
    ("make", "counts"), BILLIONS.items(), ids=[make.__name__ for make in BILLIONS]
)
def test_step_counts_beyond_2_to_the_24_are_exact(make, counts) -> None:
    """To the last bits in float32, though neighboring steps round to one float32."""
    required = {
        name: HYPERPARAMS[make][name]
        for name in ("init_value", "peak_value", "end_value")
        if name in HYPERPARAMS[make]
    }
    hyperparams = required | counts
    truth = truths.true_curve(getattr(truths, make.__name__))
    expected = truth(np.array(NEAR_ENDS), **hyperparams)
    got = values_in_float32(make, hyperparams)
    # near its end, a cosine's truth cancels; a long period is a rounded number of steps
    atol = 1e-10 if make is schedules.cosine_restarts else 1e-15
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=atol)


@pytest.mark.parametrize(("period", "factor"), [(3, 1), (7, 2), (1000, 3), (2**24, 1)])
def test_restarts_of_whole_periods_are_exact_in_float32(period, factor) -> None:
    last, length = 0, period
    while last + length < 2**30:
        last, length = last + length, length * factor
        if factor == 1:
            last += (2**30 - last) // period * period
    with jax.enable_x64(False):
        schedule = schedules.cosine_restarts(1.0, period, period_factor=factor)
        before, at = (schedule(jnp.int32(last + k)) for k in (-1, 0))
    assert at == 1 and before < (0.3 if period == 3 else 1e-6)


@pytest.mark.parametrize("boundary", [2**25 + 1, jnp.int32(2**25 + 1)])
def test_join_is_exact_beyond_2_to_the_24(boundary) -> None:
    parts = [schedules.constant(0.0), schedules.linear(1.0, 0.0, 2**26 + 1)]
    with jax.enable_x64(False):
        schedule = schedules.join(parts, [boundary])
        assert schedule(jnp.int32(2**25)) == 0
        assert schedule(jnp.int32(2**25 + 1)) == 1
        end = 3 * 2**25 + 2
        near_end = [float(schedule(jnp.int32(end - k))) for k in (2, 1, 0)]
    expected = [2 / (2**26 + 1), 1 / (2**26 + 1), 0]
    np.testing.assert_allclose(near_end, expected, rtol=1e-6)


def test_a_sweep_does_not_round_step_counts() -> None:
    """Float32 would round these to 2²⁵."""

    def loss(w, batch, point):
        return w

    def metrics(w, data, point):
        excess = schedules.join([jnp.asarray, jnp.asarray], [point["warmup_steps"]])
        return {"since": excess(jnp.int32(2**25 + 8))}

    counts, data = [2**25 + 1, 2**25 + 3], jnp.zeros(1)
    plan = sweep.plan(
        sweep.Task(lambda key, point: jnp.zeros(()), loss, metrics, data, data),
        sweep.grid(optimizer=["sgd"], warmup_steps=counts, seed=[0]),
        optimizers={"sgd": lambda point: optimizers.sgd(0.1)},
        steps=1,
    )
    np.testing.assert_array_equal(sweep.run(plan).final["valid_since"], [7, 5])

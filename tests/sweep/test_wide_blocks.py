"""The blocks of an accelerator, on a CPU: all models side by side, and no branches."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxml import optimizers, sweep, tasks
from jaxml.sweep.engine import _layout

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("sweep")]
X = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
OPTIMIZERS = {
    "adam": lambda point: optimizers.adam(point["learning_rate"]),
    "momentum": lambda point: optimizers.momentum(point["learning_rate"]),
}
CHOICES = {"activation": {"tanh": jnp.tanh, "identity": lambda x: x}}
SELECTIONS = {"scale": {"one": lambda x: x, "half": lambda x: 0.5 * x}}
METRIC = {"metric": "valid_loss", "higher_is_better": False}


def make_task() -> sweep.Task:
    """Regression on features that a running mean centers."""

    def init(key: jax.Array, point: sweep.Point) -> jax.Array:
        return jax.random.normal(key, (3,), jnp.float32)

    def state(key: jax.Array, point: sweep.Point) -> dict[str, jax.Array]:
        return {"mean": jnp.zeros(3, jnp.float32)}

    def error(
        w: jax.Array, batch: jax.Array, point: sweep.Point, mean: jax.Array
    ) -> jax.Array:
        predicted = point["activation"](point["scale"]((batch - mean[None]) @ w))
        return jnp.mean((predicted - jnp.sin(batch[:, 0])) ** 2)

    def loss(
        w: jax.Array, batch: jax.Array, point: sweep.Point, *, key: Any, state: Any
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        noise = 0.1 * jax.random.normal(key, batch.shape, jnp.float32)
        mean = 0.9 * state["mean"] + 0.1 * batch.mean(0)
        return error(w, batch + noise, point, mean), {"mean": mean}

    def metrics(
        w: jax.Array, data: jax.Array, point: sweep.Point, *, state: Any
    ) -> dict[str, jax.Array]:
        return {"loss": error(w, data, point, state["mean"])}

    def outputs(w: jax.Array, point: sweep.Point) -> dict[str, jax.Array]:
        return {"scaled": point["scale"](w)}

    data = jnp.asarray(X)
    return sweep.Task(init, loss, metrics, data, data, outputs, state)


def make_plan(**options: Any) -> sweep.Plan:
    points = sweep.grid(
        optimizer=[*OPTIMIZERS],
        activation=[*CHOICES["activation"]],
        scale=[*SELECTIONS["scale"]],
        learning_rate=[0.01, 0.1, 1e30],  # the last one diverges
        seed=range(5),
    )
    default = {"steps": 20, "batch_size": 8, "num_evals": 3}  # chunks of 7, 6 and 7
    return sweep.plan(
        make_task(),
        points,
        optimizers=OPTIMIZERS,
        choices=CHOICES,
        selections=SELECTIONS,
        **(default | options),
    )


def wide_plan(monkeypatch: pytest.MonkeyPatch, **options: Any) -> sweep.Plan:
    with monkeypatch.context() as patch:
        patch.setattr(_layout, "has_wide_blocks", lambda devices: True)
        return make_plan(**options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"shared_batches": True},
        {"batch_size": None},
        {"halving": sweep.SuccessiveHalving(rungs=1, **METRIC)},
        {
            "population": sweep.PopulationBasedTraining(
                explore=lambda rng, c: c, **METRIC
            )
        },
    ],
    ids=["own batches", "shared batches", "full batches", "halving", "population"],
)
def test_wide_blocks_train_the_same_models(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = wide_plan(monkeypatch, **options)
    assert plan.shape[0] * plan.shape[1] * plan.shape[2] >= 32  # more than one group
    records = [
        sweep.run(plan, keep_params=True),
        sweep.run(make_plan(**options), keep_params=True),
    ]
    replaces_diverged = "population" in options
    assert ("diverged" in records[0].status) is not replaces_diverged
    columns, expected = (record.flatten() for record in records)
    assert columns.keys() == expected.keys()
    for name, column in columns.items():
        if column.dtype.kind == "f":
            is_huge = np.abs(expected[name]) > 1e6  # on the way to infinity
            finite = (
                np.where(is_huge, np.nan, column),
                np.where(is_huge, np.nan, expected[name]),
            )
            np.testing.assert_allclose(*finite, rtol=1e-5, atol=1e-6, err_msg=name)
        else:
            np.testing.assert_array_equal(column, expected[name], err_msg=name)


def test_wide_blocks_have_no_branch_and_no_loop_of_unknown_length(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for plan, is_wide in (wide_plan(monkeypatch), True), (make_plan(), False):
        program = plan.programs.advance.as_text()
        loops = [line for line in program.splitlines() if " while(" in line]
        known = ["known_trip_count" in line for line in loops]
        assert all(known) is is_wide
        assert (" conditional(" not in program) is is_wide


def test_points_of_a_wide_plan_train_in_blocks_of_its_width(
    monkeypatch: pytest.MonkeyPatch, compilations: list[str]
) -> None:
    plan = wide_plan(monkeypatch)
    compilations.clear()
    half = {name: column[::2] for name, column in plan.points.items()}
    some = plan.evaluate(half).final["valid_loss"]
    assert not compilations
    every = sweep.run(plan).final["valid_loss"][::2]
    np.testing.assert_allclose(some, every, rtol=1e-5)


@pytest.mark.parametrize("memory", [None, 10**6])
def test_memory_bounds_the_width(
    memory: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_layout, "WIDE_MODELS", 64)
    plan = wide_plan(monkeypatch, memory=memory)
    assert np.prod(plan.shape) <= 64
    assert memory is None or plan.bytes <= memory


def test_a_bundled_task_trains_in_wide_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its functions on the CPU are those of the platform, not of the layout."""
    losses = []
    for is_wide in (True, False):
        monkeypatch.setattr(_layout, "has_wide_blocks", lambda devices, w=is_wide: w)
        plan = sweep.plan(
            tasks.digits_convnet(channels=2),
            sweep.grid(
                optimizer=["momentum"],
                activation=["tanh", "identity"],
                loss=["squares"],
                learning_rate=[0.001],
                seed=range(2),
            ),
            optimizers={"momentum": OPTIMIZERS["momentum"]},
            choices=CHOICES | {"loss": {"squares": sum_of_squares}},
            steps=3,
            batch_size=8,
        )
        losses.append(sweep.run(plan).curves["train_loss"])
    np.testing.assert_allclose(*losses, rtol=1e-5)


def sum_of_squares(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return jnp.sum((logits - jax.nn.one_hot(labels, 10, dtype=jnp.float32)) ** 2, -1)

"""A plan evaluates new points without compiling, and equal plans compile once."""

import jax
import numpy as np
import pytest
from test_sweep import CHOICES, OPTIMIZERS, bitwise_equal, make_points, make_task

from jaxml import sweep

pytestmark = pytest.mark.xdist_group("sweep")


def make_plan(points, task=None, **options) -> sweep.Plan:
    default = {"optimizers": OPTIMIZERS, "choices": CHOICES, "steps": 20}
    return sweep.plan(
        task or make_task(), points, **{**default, "batch_size": 8, **options}
    )


@pytest.fixture(scope="module")
def plan() -> sweep.Plan:
    return make_plan(make_points())


@pytest.fixture(scope="module")
def record(plan) -> sweep.Record:
    return sweep.run(plan, keep_params=True)


@pytest.mark.parametrize("count", [1, 7, 162, 500])
def test_evaluated_points_have_the_bits_of_a_run(count, plan, record) -> None:
    rng = np.random.default_rng(count)
    index = rng.integers(len(record.status), size=count)
    points = {name: column[index] for name, column in record.points.items()}
    evaluated = plan.evaluate(points, keep_params=True)
    assert bitwise_equal(evaluated, record, index)
    for name, params in evaluated.params.items():
        assert params.tobytes() == record.params[name][index].tobytes()


def test_evaluate_compiles_nothing(plan, record, compilations) -> None:
    counts = []
    for size in (1, 40, 3):
        points = make_points(learning_rate=[0.3, 0.4], seed=range(100, 100 + size))
        evaluated = plan.evaluate(points, callback=lambda n, _: counts.append(n))
        assert set(evaluated.status) == {"ok"}
        assert counts[-1] == len(evaluated.status)
    assert not compilations


def test_columns_may_be_lists(plan) -> None:
    points = {"optimizer": ["sgd"], "activation": ["tanh"]}
    record = plan.evaluate({**points, "learning_rate": [0.1], "seed": [3]})
    assert record.status.tolist() == ["ok"]
    assert record.points["optimizer"].tolist() == ["sgd"]


def test_shared_batches_are_those_of_a_run() -> None:
    shared = make_plan(make_points(), shared_batches=True)
    record = sweep.run(shared)
    index = slice(20, 60)
    points = {name: column[index] for name, column in record.points.items()}
    assert bitwise_equal(shared.evaluate(points), record, index)


def test_an_equal_plan_finds_its_programs(plan, record, compilations) -> None:
    compilations.clear()
    seeds = range(100, 109)
    again = make_plan(make_points(seed=seeds, learning_rate=[0.2, 0.5, 0.6]))
    assert not [event for event in compilations if "backend_compile" in event]
    assert again.programs == plan.programs
    assert bitwise_equal(sweep.run(make_plan(make_points())), record)


def test_shapes_of_the_data_are_enough_to_compile(plan) -> None:
    task = make_task()
    train, valid = jax.eval_shape(lambda: (task.train, task.valid))
    shapes = task._replace(train=train, valid=valid)
    assert make_plan(make_points(), shapes).programs == plan.programs


def test_a_plan_of_other_constants_does_not(plan) -> None:
    task = make_task()
    doubled = task._replace(loss=lambda *arguments: 2 * task.loss(*arguments))
    assert make_plan(make_points(), doubled).programs.advance != plan.programs.advance


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"momentum": np.ones(162)},
            "points must have the columns of the plan alone, optimizer, activation, "
            "learning_rate, seed, got 'momentum'.",
        ),
        (
            {"learning_rate": None},
            "points must have a column 'learning_rate', got ('optimizer', "
            "'activation', 'seed').",
        ),
        (
            {"activation": np.full(162, "tan")},
            "points['activation'] must name one of tanh, identity, got 'tan'.",
        ),
        (
            {"seed": np.arange(3)},
            "points must be equally long columns, got {optimizer: 162, activation: "
            "162, learning_rate: 162, seed: 3}.",
        ),
    ],
)
def test_points_that_the_plan_does_not_know_are_refused(change, message, plan) -> None:
    points = {**make_points(), **change}
    points = {name: column for name, column in points.items() if column is not None}
    with pytest.raises(ValueError, match="evaluate: ") as error:
        plan.evaluate(points)
    assert str(error.value) == f"evaluate: {message}"

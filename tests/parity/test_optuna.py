"""Optuna asks and is told in batches, as the README of the sweeps shows."""

import pathlib
import re
import time

import jax
import numpy as np
import pytest

from jaxml import losses, optimizers, sweep, tasks

pytestmark = pytest.mark.parity
README = pathlib.Path(__file__).parents[2] / "jaxml" / "sweep" / "README.md"
FACTORIES = {"sgd": optimizers.sgd, "adam": optimizers.adam}


def make_plan() -> sweep.Plan:
    iris = tasks.iris(hidden=4)
    point = {"activation": jax.nn.relu, "loss": losses.cross_entropy}
    task = iris._replace(
        init=lambda key, _: iris.init(key, point),
        loss=lambda params, batch, _: iris.loss(params, batch, point),
        metrics=lambda params, data, _: iris.metrics(params, data, point),
    )
    points = sweep.grid(optimizer=[*FACTORIES], learning_rate=[0.1], seed=[0])
    return sweep.plan(
        task,
        points,
        optimizers={
            name: lambda point, make=make: make(point["learning_rate"])
            for name, make in FACTORIES.items()
        },
        steps=50,
        batch_size=16,
    )


def test_the_recipe_asks_and_tells_1000_trials() -> None:
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    recipe = next(
        block
        for block in re.findall(r"```py\n(.*?)```", README.read_text(), re.DOTALL)
        if "import optuna" in block
    )
    recipe = recipe.replace(
        "create_study(", "create_study(sampler=optuna.samplers.TPESampler(seed=0), "
    )
    with jax.enable_x64(False), jax.numpy_rank_promotion("allow"):
        plan = make_plan()
        seconds, evaluate = [], plan.evaluate

        class TimedPlan:
            def evaluate(self, points):
                start = time.perf_counter()
                record = evaluate(points)
                seconds.append(time.perf_counter() - start)
                return record

        names = {"plan": TimedPlan()}
        exec(compile(recipe, "README.md", "exec"), names)
    study = names["study"]
    assert len(study.trials) == 1000
    assert study.best_value == max(t.value for t in study.trials)
    assert study.best_value > 0.9
    print(f"{1000 / sum(seconds):,.0f} trials/s without the sampler")
    for trial in study.trials[::99]:  # the score of a trial is that of its own run
        points = {n: np.array([v]) for n, v in {**trial.params, "seed": 0}.items()}
        with jax.enable_x64(False):
            alone = evaluate(points)
        assert alone.final["valid_accuracy"][0] == trial.value


def test_the_table_loads_in_pandas(tmp_path) -> None:
    pandas = pytest.importorskip("pandas")
    with jax.enable_x64(False), jax.numpy_rank_promotion("allow"):
        points = sweep.grid(
            optimizer=[*FACTORIES], learning_rate=[0.1, 1e30], seed=[0, 1]
        )
        record = make_plan().evaluate(points)
    record.save(tmp_path)
    table = pandas.read_csv(tmp_path / "table.csv")
    assert len(table) == 8
    assert list(table["status"]) == list(record.status)
    assert set(table["optimizer"]) == {"sgd", "adam"}
    for name, column in {**record.points, **record.final}.items():
        if column.dtype.kind in "fiu":
            np.testing.assert_allclose(table[name], column, rtol=1e-6)

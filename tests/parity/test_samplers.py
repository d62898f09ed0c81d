"""Optuna and Vizier ask and are told in batches, as the README of the sweeps shows."""

import importlib.util
import pathlib
import re
import time
import uuid

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


def run_recipe(module: str, *replacement: str) -> tuple[dict, sweep.Plan]:
    """The names that a recipe of the README leaves, and the plan that it asked."""
    recipe = next(
        block
        for block in re.findall(r"```py\n(.*?)```", README.read_text(), re.DOTALL)
        if f"import {module}" in block
    )
    recipe = recipe.replace(*replacement) if replacement else recipe
    with jax.enable_x64(False), jax.numpy_rank_promotion("allow"):
        plan = make_plan()
        seconds = []

        class TimedPlan:
            def evaluate(self, points):
                start = time.perf_counter()
                record = plan.evaluate(points)
                seconds.append(time.perf_counter() - start)
                return record

        names = {"plan": TimedPlan()}
        exec(compile(recipe, "README.md", "exec"), names)
    print(f"{1000 / sum(seconds):,.0f} trials/s without the sampler")
    return names, plan


def assert_score_is_that_of_its_own_run(plan, params, score) -> None:
    points = {n: np.array([v]) for n, v in {**params, "seed": 0}.items()}
    with jax.enable_x64(False):
        alone = plan.evaluate(points)
    assert alone.final["valid_accuracy"][0] == score


def test_the_recipe_for_optuna_asks_and_tells_1000_trials() -> None:
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = "create_study(sampler=optuna.samplers.TPESampler(seed=0), "
    names, plan = run_recipe("optuna", "create_study(", sampler)
    study = names["study"]
    assert len(study.trials) == 1000
    assert study.best_value == max(t.value for t in study.trials)
    assert study.best_value > 0.9
    for trial in study.trials[::99]:
        assert_score_is_that_of_its_own_run(plan, trial.params, trial.value)


if importlib.util.find_spec("vizier"):  # not in [parity]: it pins an older Equinox

    def test_the_recipe_for_vizier_asks_and_tells_1000_trials() -> None:
        unused = f'study_id="{uuid.uuid4()}"'  # Vizier keeps its studies
        names, plan = run_recipe("clients", 'study_id="iris"', unused)
        trials = [trial.materialize() for trial in names["study"].trials()]
        scores = [t.final_measurement.metrics["accuracy"].value for t in trials]
        assert len(trials) == 1000
        assert max(scores) > 0.9
        for trial, score in list(zip(trials, scores))[::99]:
            params = trial.parameters.as_dict()
            assert_score_is_that_of_its_own_run(plan, params, score)


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

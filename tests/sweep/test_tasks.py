"""Invalid tasks and points are reported in one sentence; models are independent."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxml import optimizers, sweep

X = np.linspace(-1, 1, 24, dtype=np.float32).reshape(8, 3)
Y = np.arange(8) % 2
POINTS = sweep.grid(optimizer=["sgd"], learning_rate=[0.1, 0.2], seed=range(2))


def residuals(params: Any, batch: Any) -> jax.Array:
    return batch["x"] @ params["w"] - batch["y"].astype(jnp.float32)


def make_task(**changes: Any) -> sweep.Task:
    data = {"x": X, "y": Y}
    fields: dict[str, Any] = {
        "init": lambda key, point: {"w": jax.random.normal(key, 3, jnp.float32)},
        "loss": lambda params, batch, point: jnp.mean(residuals(params, batch) ** 2),
        "metrics": lambda params, batch, point: {"rows": jnp.float32(len(batch["y"]))},
        "train": data,
        "valid": data,
    }
    return sweep.Task(**(fields | changes))


def make_plan(points: Any = POINTS, **changes: Any) -> sweep.Plan:
    make = {"sgd": lambda point: optimizers.sgd(point["learning_rate"])}
    task = make_task(**changes)
    return sweep.plan(task, points, steps=2, batch_size=4, optimizers=make)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"train": {"x": X, "y": True}}, "task.train['y'] must be an array of numbers"),
        ({"train": {"x": X, "y": "a"}}, "examples first, got 'a'."),
        ({"valid": {"x": X, "y": np.array(["a"])}}, "examples first, got <U1[1]."),
        ({"train": {"x": [1.0], "y": Y}}, "task.train['x'][0] must be an array"),
        (
            {"train": {"x": X, "y": Y[:5]}},
            "task.train['y'] must have 8 examples, as task.train['x'], got int64[5].",
        ),
        ({"metrics": [len]}, "task.metrics must be a function, got a list."),
        ({"points": [{"seed": 0}]}, "points must be columns by name, got a list."),
        (
            {"metrics": lambda params, batch, point: {"v": residuals(params, batch)}},
            "task.metrics must return a scalar, got float32[8].",
        ),
        (
            {"metrics": lambda *_: {"a": jnp.float32(0), "b": None}},
            "task.metrics must return a scalar as 'b', got None.",
        ),
        ({"metrics": lambda *_: 0.0}, "must return scalars by name, got 0.0."),
        (
            {"loss": lambda params, batch, point: residuals(params, batch)},
            "task.loss must return a scalar, got float32[4].",
        ),
    ],
)
def test_one_sentence_for_what_is_no_task(changes: dict, sentence: str) -> None:
    with pytest.raises(TypeError, match=re.escape(sentence)) as raised:
        make_plan(**changes)
    assert str(raised.value).startswith("plan: ")


def test_booleans_and_nothing_are_data() -> None:
    data = {"x": X, "y": Y > 0, "none": None}
    record = sweep.run(make_plan(train=data, valid=data))
    assert np.all(record.curves["valid_rows"] == 8)


def test_a_plan_evaluates_numbers_in_the_dtype_that_it_compiled() -> None:
    """float32 rounds 2²⁵ + 1: a column of such step counts is int32."""
    columns = {"optimizer": ["sgd"], "learning_rate": [0.1], "seed": [0]}
    large, small = ({**columns, "horizon": [n]} for n in (2**25 + 1, 7))
    for compiled, new in (large, small), (small, large):
        record = make_plan(compiled).evaluate(new)
        assert np.isfinite(record.curves["train_loss"]).all()


@pytest.mark.parametrize("implementation", ["rbg", "unsafe_rbg"])
def test_a_model_does_not_depend_on_its_neighbors(implementation: str) -> None:
    """Other generators than threefry give other numbers under vmap."""
    one = {"optimizer": ["sgd"], "learning_rate": [0.2], "seed": [1]}
    with jax.default_prng_impl(implementation):
        together, alone = (
            sweep.run(make_plan(points)).curves["train_loss"]
            for points in (POINTS, one)
        )
    assert together[-1].tobytes() == alone[0].tobytes()

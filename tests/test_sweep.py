"""The sweep: right, independent of its neighbours, and honest about what failed."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from jaxml import cli, losses, optimizers, sweep, tasks

OPTIMIZERS = {
    "sgd": lambda point: optimizers.sgd(point["learning_rate"]),
    "adam": lambda point: optimizers.adam(point["learning_rate"]),
    "momentum": lambda point: optimizers.momentum(point["learning_rate"]),
}
CHOICES = {"activation": {"tanh": jnp.tanh, "identity": lambda x: x}}
HOW = "watch", "folder", "resume", "keep_params"
ROWS = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
TARGETS = np.tanh(ROWS @ np.array([1.0, -2.0, 0.5], np.float32))


def task() -> sweep.Task:
    """Regression on one layer of three weights."""

    def init(key, point):
        return {"w": jax.random.normal(key, (3,), jnp.float32)}

    def loss(params, batch, point):
        x, y = batch
        return jnp.mean((point["activation"](x @ params["w"]) - y) ** 2)

    def metrics(params, data, point):
        return {"loss": loss(params, data, point)}

    data = jnp.asarray(ROWS), jnp.asarray(TARGETS)
    return sweep.Task(init, loss, metrics, data, data)


def points(**axes):
    default = {
        "optimizer": list(OPTIMIZERS),
        "activation": list(CHOICES["activation"]),
        "learning_rate": [0.01, 0.05, 0.1],
        "seed": range(9),
    }
    return sweep.grid(**{**default, **axes})


def run(table, **options):
    given = {"optimizers": OPTIMIZERS, "choices": CHOICES, "steps": 20, "batch_size": 8}
    how = {n: options.pop(n) for n in HOW if n in options}
    return sweep.run(sweep.plan(task(), table, **{**given, **options}), **how)


@pytest.fixture(scope="module")
def record():
    return run(points())


def same_bits(one, other, rows=slice(None)):
    """Of every column but the curve of the training loss, which chunks cut up."""
    pairs = [(one.final[name], other.final[name][rows]) for name in other.final]
    if len(one.steps) == len(other.steps):
        pairs += [(one.curves[name], other.curves[name][rows]) for name in other.curves]
    return all(a.tobytes() == b.tobytes() for a, b in pairs)


@pytest.mark.slow
def test_a_model_is_what_a_plain_loop_makes_of_it(record) -> None:
    one = task()
    for i in (0, 50, 161):
        point = {name: column[i] for name, column in record.points.items()}
        point["activation"] = CHOICES["activation"][point["activation"]]
        optimizer = OPTIMIZERS[record.points["optimizer"][i]](point)
        init, draw = (
            jax.random.fold_in(jax.random.key(point["seed"]), j) for j in (0, 1)
        )
        params = one.init(init, point)
        state = optimizer.init(params)
        for step in range(20):
            drawn = jax.random.randint(jax.random.fold_in(draw, step), (8,), 0, 40)
            batch = jax.tree.map(lambda a, rows=drawn: a[rows], one.train)
            grads = jax.grad(one.loss)(params, batch, point)
            updates, state = optimizer.update(grads, state, params)
            params = jax.tree.map(jnp.add, params, updates)
        truth = one.metrics(params, one.valid, point)["loss"]
        np.testing.assert_allclose(record.final["valid_loss"][i], truth, rtol=1e-4)
        np.testing.assert_allclose(record.curves["valid_loss"][i, -1], truth, rtol=1e-4)


def test_alone_or_in_the_grid_the_bits_are_the_same(record) -> None:
    for i in (3, 100):
        alone = {name: column[i : i + 1] for name, column in record.points.items()}
        assert same_bits(run(alone), record, slice(i, i + 1))


@pytest.mark.slow
def test_order_chunks_and_devices_change_no_bit(record) -> None:
    order = np.random.default_rng(1).permutation(len(record.status))
    shuffled = {name: column[order] for name, column in record.points.items()}
    assert same_bits(run(shuffled), record, order)
    one_device = run(record.points, devices=jax.local_devices()[:1])
    assert same_bits(one_device, record)
    assert same_bits(run(record.points, evaluations=1), record)


@pytest.mark.slow
def test_a_diverged_model_touches_no_neighbour() -> None:
    table = points(learning_rate=[0.01, 1e30])
    record = run(table, keep_params=True)
    wild = table["learning_rate"] == 1e30
    linear = table["activation"] == "identity"  # nothing bounds it
    hopeless = wild & linear & (table["optimizer"] == "sgd")
    assert set(record.status[hopeless]) == {"diverged"}
    assert set(record.final["trained"][hopeless]) == {1}
    assert np.isfinite(record.params["['w']"][hopeless]).all()  # frozen as they were
    assert set(record.status[~wild]) == {"ok"}
    calm = {name: column[~wild] for name, column in table.items()}
    assert same_bits(run(calm), record, ~wild)
    ranked = sweep.leaderboard(record, "valid_loss", higher_is_better=False)
    assert ranked[0].diverged == 0
    assert ranked[-1].diverged > 0


def test_a_selection_is_the_function_of_its_name(no_xla_optimizations) -> None:
    def scaled(point):
        return optimizers.sgd(point["scale"](point["learning_rate"]))

    shares = {"none": lambda x: 0 * x, "half": lambda x: 0.5 * x, "same": lambda x: x}
    axes = {"optimizer": ["sgd"], "activation": ["tanh"], "seed": [0]}
    record = run(
        points(**axes, learning_rate=[0.05, 0.1], scale=[*shares]),
        optimizers={"sgd": scaled},
        selections={"scale": shares},
    )
    (none, half, same), (still, slow, fast) = record.final["valid_loss"].reshape(2, 3)
    assert none == still and same == slow
    assert len({none, half, same, fast}) == 4


SEARCHING = {  # optimizers whose update takes the objective, or its value
    "newton": lambda point: optimizers.newton(),
    "newton_cg": lambda point: optimizers.newton_cg(radius=point["learning_rate"]),
    "lbfgs": lambda point: optax.lbfgs(),
    "plateau": lambda point: optax.chain(
        optax.sgd(point["learning_rate"] / 5), optax.contrib.reduce_on_plateau()
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SEARCHING)
def test_an_optimizer_may_look_at_the_objective(name) -> None:
    table = points(optimizer=[name], learning_rate=[0.5, 1.0], seed=range(2))
    given = {"optimizers": {name: SEARCHING[name]}, "batch_size": None, "steps": 12}
    with jax.numpy_dtype_promotion("standard"), jax.enable_x64(False):
        record = run(table, **given)
    assert set(record.status) == {"ok"}
    start, end = record.curves["train_loss"][:, [0, -1]].T
    assert np.all(end < start)
    if name != "plateau":  # the optimum, or nearly
        best = np.linalg.lstsq(ROWS, TARGETS)[0]
        lowest = np.mean((ROWS @ best - TARGETS) ** 2)
        straight = table["activation"] == "identity"
        found = record.final["valid_loss"][straight]
        np.testing.assert_allclose(found, lowest, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [None, 1])
def test_batch_and_stochastic_descent(batch_size) -> None:
    record = run(points(seed=range(2)), batch_size=batch_size, steps=50)
    assert set(record.status) == {"ok"}
    good = (record.points["activation"] == "tanh") & (
        record.points["learning_rate"] == 0.1
    )
    start, end = record.curves["train_loss"][good][:, [0, -1]].T
    assert end.mean() < start.mean() / 2


@pytest.mark.slow
def test_outputs_are_kept_of_every_model_and_all_was_planned(compilations) -> None:
    one = task()._replace(outputs=lambda params, _: {"w": params["w"]})
    one = one._replace(valid=jax.tree.map(lambda a: a[:30], one.train))
    table = points(seed=range(2), activation=["tanh"])
    plan = sweep.plan(
        one, table, optimizers=OPTIMIZERS, choices=CHOICES, steps=3, batch_size=8
    )
    assert "devices: 5 programs" in str(plan)
    compilations.clear()
    record = sweep.run(plan)
    assert not compilations
    errors = np.tanh(ROWS @ record.outputs["w"].T) - TARGETS[:, None]
    np.testing.assert_allclose(
        np.mean(errors**2, 0), record.final["train_loss"], rtol=1e-4
    )


@pytest.mark.slow
def test_a_plan_counts_what_evaluations_hold(no_xla_optimizations) -> None:
    def metrics(params, data, point):
        rows = jnp.sin(params["w"][0] * jnp.ones((1000, 1000), jnp.float32).cumsum(0))
        return {"loss": jnp.vdot(rows @ rows, rows)}  # 4 MB that nothing fuses away

    one, table = task()._replace(metrics=metrics), points(optimizer=["sgd"], seed=[0])
    given = {"optimizers": {"sgd": OPTIMIZERS["sgd"]}, "choices": CHOICES, "steps": 1}
    plan = sweep.plan(one, table, **given)
    assert "devices: 3 programs" in str(plan)  # both data are of one shape
    assert plan.bytes > 2 * 16 * 4e6
    halving = sweep.Halving("accuracy")
    with pytest.raises(ValueError, match=r"halving.metric must name one of train_loss"):
        sweep.plan(one, table, halving=halving, **given)


def test_the_derivatives_of_a_task_are_those_of_its_network() -> None:
    one = tasks.digits(hidden=8)
    point = {"activation": jnp.tanh, "loss": losses.cross_entropy}
    params = one.init(jax.random.key(0), point)
    x, y = jax.tree.map(lambda a: a[:16], one.train)

    def plain(params: Any) -> jax.Array:
        hidden = jnp.tanh(x @ params["w1"].T + params["b1"].T)
        scores = hidden @ params["w2"].T + params["b2"].T
        return losses.mean(losses.cross_entropy(scores, y))

    def first_and_second(loss: Any) -> Any:
        return jax.jvp(jax.grad(loss), (params,), (params,))

    got = first_and_second(lambda params: one.loss(params, (x, y), point))
    expected = first_and_second(plain)
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), got, expected
    )


@pytest.mark.parametrize("name", cli.TASKS)
def test_a_task_has_numbers_for_its_losses_and_metrics(name) -> None:
    setup = cli.TASKS[name]
    one, key = setup.task(), jax.random.key(0)
    batch = jax.tree.map(lambda a: a[:8], one.train)
    for loss in setup.losses.values():
        point = {"activation": jax.nn.relu, "loss": loss}
        with jax.numpy_dtype_promotion("standard"):
            params = jax.eval_shape(lambda key, p=point: one.init(key, p), key)
            value = jax.eval_shape(lambda x, p=point: one.loss(x, batch, p), params)
            found = jax.eval_shape(lambda x, p=point: one.metrics(x, batch, p), params)
        assert value.shape == ()
        assert {"loss", setup.metric} <= set(found)


def test_scattered_digits_have_every_class_and_ink_where_a_label_is() -> None:
    for x, y in (tasks.digits_segmentation().train, tasks.digits_segmentation().valid):
        assert set(np.unique(y)) == set(range(11))
        assert x[..., 0][y > 0].mean() > 0.4 + x[..., 0][y == 0].mean()


@pytest.mark.slow
def test_watch_counts_every_model_once(record) -> None:
    seen = []
    run(record.points, watch=lambda done, _: seen.append(done))
    assert seen == sorted(seen)
    assert seen[-1] == len(record.status)


def test_the_leaderboard_is_students_interval(record) -> None:
    rows = sweep.leaderboard(record, "valid_loss", higher_is_better=False)
    assert len(rows) == 18
    assert [row.mean for row in rows] == sorted(row.mean for row in rows)
    for row in rows[:3]:
        values = record.final["valid_loss"][row.model_ids].astype(float)
        low, high = stats.t.interval(
            0.95, len(values) - 1, values.mean(), stats.sem(values)
        )
        np.testing.assert_allclose([row.low, row.high], [low, high])
    best = sweep.leaderboard(
        record, "valid_loss", higher_is_better=False, by=["optimizer"]
    )
    assert sorted(row.settings["optimizer"] for row in best) == sorted(OPTIMIZERS)


def test_wrong_points_are_refused_in_a_sentence() -> None:
    for table, message in [
        (points(optimizer=["adamm"]), r"points\['optimizer'\] must name one of adam"),
        (points(activation=["tan"]), r"points\['activation'\] must name one of tanh"),
        ({"optimizer": np.array(["sgd"])}, "must have a column 'activation'"),
        ({**points(), "seed": np.arange(2)}, "must be equally long columns"),
        (
            points(loss=["huber"]),
            r"plan: points\['loss'\] must be numbers, or a column of choices or "
            r"selections, got 'huber'\.",
        ),
        (points(seed=[0.5, 1.5]), r"points\['seed'\] must be whole numbers in"),
        (points(seed=[-1, 0]), r"points\['seed'\] must be whole numbers .* got -1\."),
    ]:
        with pytest.raises(ValueError, match=message):
            run(table)
    for wrong, message in [
        ({"steps": 0}, "plan: steps must be at least 1, got 0."),
        (
            {"halving": sweep.Halving("valid_loss", eta=1.0)},
            "Halving: eta must be above 1, got 1.0.",
        ),
        (
            {"halving": sweep.Halving("valid_loss", rungs=0)},
            "Halving: rungs must be at least 1, got 0.",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            run(points(), **wrong)


def test_a_space_that_is_none_is_refused_in_a_sentence() -> None:
    rates, values = sweep.log(1e-3, 1e-1), "be several values, as [0.1, 0.2] or"
    for made, sentence in [
        (
            lambda: sweep.grid(rate=rates),
            f"grid: rate must {values} log(low, high, count), got (0.001, 0.1, True).",
        ),
        (
            lambda: sweep.grid(optimizer="adam"),
            f"grid: optimizer must {values} log(low, high, count), got 'adam'.",
        ),
        (
            lambda: sweep.grid(seed=5),
            f"grid: seed must {values} log(low, high, count), got 5.",
        ),
        (
            lambda: sweep.random(2, 0, optimizer="adam"),
            "random: optimizer must be several values, as [0.1, 0.2], or an interval, "
            "as log(low, high), got 'adam'.",
        ),
        (lambda: sweep.log(0.0, 1.0), "log: low must be positive, got 0.0."),
        (
            lambda: sweep.product(sweep.grid(rate=[1], seed=[0]), sweep.grid(seed=[1])),
            "product: spaces must have no column in common, got 'seed'.",
        ),
        (
            lambda: sweep.grid(optimizer=[], seed=[0]),
            "grid: optimizer must have at least one value, got ().",
        ),
        (
            lambda: sweep.concat(sweep.grid(loss=["mse"]), sweep.grid(seed=[0])),
            "concat: loss must be in all spaces, for it is no number, got 'mse'.",
        ),
    ]:
        with pytest.raises((TypeError, ValueError)) as refusal:
            made()
        assert str(refusal.value) == sentence

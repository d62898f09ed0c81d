"""A sweep trains each model correctly, and bitwise independently of the others."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from jaxml import optimizers, sweep

pytestmark = pytest.mark.xdist_group("sweep")  # its tests share a trained grid
OPTIMIZERS = {
    "sgd": lambda point: optimizers.sgd(point["learning_rate"]),
    "adam": lambda point: optimizers.adam(point["learning_rate"]),
    "momentum": lambda point: optimizers.momentum(point["learning_rate"]),
}
CHOICES = {"activation": {"tanh": jnp.tanh, "identity": lambda x: x}}
RUN_OPTIONS = "callback", "checkpoint_dir", "resume", "keep_params"
X = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
Y = np.tanh(X @ np.array([1.0, -2.0, 0.5], np.float32))


def make_task() -> sweep.Task:
    """Regression with one layer of three weights."""

    def init(key, point):
        return {"w": jax.random.normal(key, (3,), jnp.float32)}

    def loss(params, batch, point):
        x, y = batch
        return jnp.mean((point["activation"](x @ params["w"]) - y) ** 2)

    def metrics(params, data, point):
        return {"loss": loss(params, data, point)}

    data = jnp.asarray(X), jnp.asarray(Y)
    return sweep.Task(init, loss, metrics, data, data)


def make_points(**axes):
    default = {
        "optimizer": list(OPTIMIZERS),
        "activation": list(CHOICES["activation"]),
        "learning_rate": [0.01, 0.05, 0.1],
        "seed": range(9),
    }
    return sweep.grid(**{**default, **axes})


def run(points, **options):
    default = {"optimizers": OPTIMIZERS, "choices": CHOICES, "steps": 20}
    run_options = {n: options.pop(n) for n in RUN_OPTIONS if n in options}
    plan_options = {**default, "batch_size": 8, **options}
    return sweep.run(sweep.plan(make_task(), points, **plan_options), **run_options)


def take(points, index):
    return {name: column[index] for name, column in points.items()}


@pytest.fixture(scope="module")
def record():
    return run(make_points())


def bitwise_equal(record, other, index=slice(None)):
    """Compares `record` with the models `index` of `other`: final and curves.

    Curves of other steps differ: the training loss is a mean between two of them.
    """
    pairs = [(record.final[name], other.final[name][index]) for name in other.final]
    if len(record.steps) == len(other.steps):
        curves = record.curves, other.curves
        pairs += [(curves[0][name], curves[1][name][index]) for name in curves[1]]
    return all(a.tobytes() == b.tobytes() for a, b in pairs)


@pytest.mark.slow
def test_a_model_matches_a_plain_training_loop(record) -> None:
    task = make_task()
    for i in (0, 50, 161):
        point = take(record.points, i)
        point["activation"] = CHOICES["activation"][point["activation"]]
        optimizer = OPTIMIZERS[record.points["optimizer"][i]](point)
        init_key, batch_key = (
            jax.random.fold_in(jax.random.key(point["seed"]), j) for j in (0, 1)
        )
        params = task.init(init_key, point)
        opt_state = optimizer.init(params)
        for step in range(20):
            step_key = jax.random.fold_in(batch_key, step)
            indices = jax.random.randint(step_key, (8,), 0, 40)
            batch = jax.tree.map(lambda x, indices=indices: x[indices], task.train)
            grads = jax.grad(task.loss)(params, batch, point)
            updates, opt_state = optimizer.update(grads, opt_state, params)
            params = jax.tree.map(jnp.add, params, updates)
        expected = task.metrics(params, task.valid, point)["loss"]
        for value in record.final["valid_loss"][i], record.curves["valid_loss"][i, -1]:
            np.testing.assert_allclose(value, expected, rtol=1e-4)


def test_a_model_trained_alone_equals_its_row_of_the_grid(record) -> None:
    for i in (3, 100):
        alone = slice(i, i + 1)
        assert bitwise_equal(run(take(record.points, alone)), record, alone)


@pytest.mark.slow
def test_order_chunks_and_devices_do_not_change_results(record) -> None:
    order = np.random.default_rng(1).permutation(len(record.status))
    assert bitwise_equal(run(take(record.points, order)), record, order)
    one_device = run(record.points, devices=jax.local_devices()[:1])
    assert bitwise_equal(one_device, record)
    assert bitwise_equal(run(record.points, num_evals=1), record)


@pytest.mark.slow
def test_a_diverged_model_does_not_affect_the_others() -> None:
    points = make_points(learning_rate=[0.01, 1e30])
    record = run(points, keep_params=True)
    is_huge = points["learning_rate"] == 1e30
    is_linear = points["activation"] == "identity"  # tanh would bound the loss
    diverges = is_huge & is_linear & (points["optimizer"] == "sgd")
    assert set(record.status[diverges]) == {"diverged"}
    assert set(record.final["trained"][diverges]) == {1}
    assert np.isfinite(record.params["['w']"][diverges]).all()  # no later update
    assert set(record.status[~is_huge]) == {"ok"}
    assert bitwise_equal(run(take(points, ~is_huge)), record, ~is_huge)
    rows = sweep.leaderboard(record, "valid_loss", higher_is_better=False)
    assert rows[0].diverged == 0
    assert rows[-1].diverged > 0


def test_a_selection_applies_the_named_function(no_xla_optimizations) -> None:
    def scaled_sgd(point):
        return optimizers.sgd(point["scale"](point["learning_rate"]))

    scales = {"zero": lambda x: 0 * x, "half": lambda x: 0.5 * x, "one": lambda x: x}
    axes = {"optimizer": ["sgd"], "activation": ["tanh"], "seed": [0]}
    record = run(
        make_points(**axes, learning_rate=[0.05, 0.1], scale=[*scales]),
        optimizers={"sgd": scaled_sgd},
        selections={"scale": scales},
    )
    slow, fast = record.final["valid_loss"].reshape(2, 3)  # rate 0.05, 0.1
    assert slow[0] == fast[0]
    assert slow[2] == fast[1]
    assert len({*slow, fast[2]}) == 4


OBJECTIVE_OPTIMIZERS = {  # their update uses the objective or its value
    "newton": lambda point: optimizers.newton(),
    "newton_cg": lambda point: optimizers.newton_cg(radius=point["learning_rate"]),
    "lbfgs": lambda point: optax.lbfgs(),
    "plateau": lambda point: optax.chain(
        optax.sgd(point["learning_rate"] / 5), optax.contrib.reduce_on_plateau()
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OBJECTIVE_OPTIMIZERS)
def test_an_optimizer_may_evaluate_the_objective(name) -> None:
    points = make_points(optimizer=[name], learning_rate=[0.5, 1.0], seed=range(2))
    optimizer = {name: OBJECTIVE_OPTIMIZERS[name]}
    with jax.numpy_dtype_promotion("standard"), jax.enable_x64(False):
        record = run(points, optimizers=optimizer, batch_size=None, steps=12)
    assert set(record.status) == {"ok"}
    first, last = record.curves["train_loss"][:, [0, -1]].T
    assert np.all(last < first)
    if name != "plateau":  # the others reach the optimum
        w = np.linalg.lstsq(X, Y)[0]
        lowest = np.mean((X @ w - Y) ** 2)
        is_linear = points["activation"] == "identity"
        valid_loss = record.final["valid_loss"][is_linear]
        np.testing.assert_allclose(valid_loss, lowest, rtol=1e-3)


CONTRIB = {
    name: partial(lambda make, point: make(point["learning_rate"]), make)
    for name, make in vars(optax.contrib).items()
    if name in {"acprop", "ademamix", "adopt", "dadapt_adamw", "dog", "madgrad", "momo"}
    or name in {"dowg", "momo_adam", "prodigy", "schedule_free_adamw"}
}


@pytest.mark.slow
def test_optimizers_of_optax_contrib_may_be_swept() -> None:
    points = make_points(optimizer=list(CONTRIB), activation=["identity"], seed=[0])
    with jax.numpy_dtype_promotion("standard"), jax.enable_x64(False):
        record = run(points, optimizers=CONTRIB, batch_size=None)
    assert set(record.status) == {"ok"}
    first, last = record.curves["train_loss"][:, [0, -1]].T
    assert np.all(last <= first)  # learning-rate-free ones start with tiny steps


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [None, 1])
def test_full_batch_and_single_example_descent(batch_size) -> None:
    record = run(make_points(seed=range(2)), batch_size=batch_size, steps=50)
    assert set(record.status) == {"ok"}
    is_tanh = record.points["activation"] == "tanh"
    mask = is_tanh & (record.points["learning_rate"] == 0.1)
    first, last = record.curves["train_loss"][mask][:, [0, -1]].T
    assert last.mean() < first.mean() / 2


@pytest.mark.slow
def test_run_records_outputs_and_compiles_nothing(compilations) -> None:
    task = make_task()._replace(outputs=lambda params, _: {"w": params["w"]})
    task = task._replace(valid=jax.tree.map(lambda x: x[:30], task.train))
    plan = sweep.plan(
        task,
        make_points(seed=range(2), activation=["tanh"]),
        optimizers=OPTIMIZERS,
        choices=CHOICES,
        steps=3,
        batch_size=8,
    )
    assert "devices: 5 programs" in str(plan)
    compilations.clear()
    record = sweep.run(plan)
    assert not compilations
    errors = np.tanh(X @ record.outputs["w"].T) - Y[:, None]
    train_loss = record.final["train_loss"]
    np.testing.assert_allclose(np.mean(errors**2, 0), train_loss, rtol=1e-4)


@pytest.mark.slow
def test_plan_counts_the_memory_of_evaluations(no_xla_optimizations) -> None:
    def metrics(params, data, point):
        rows = jnp.sin(params["w"][0] * jnp.ones((1000, 1000), jnp.float32).cumsum(0))
        return {"loss": jnp.vdot(rows @ rows, rows)}  # 4 MB that XLA cannot fuse away

    task = make_task()._replace(metrics=metrics)
    points = make_points(optimizer=["sgd"], seed=[0])
    sgd = {"sgd": OPTIMIZERS["sgd"]}
    options = {"optimizers": sgd, "choices": CHOICES, "steps": 1}
    plan = sweep.plan(task, points, **options)
    assert "devices: 3 programs" in str(plan)  # one evaluates both data sets
    assert plan.bytes > 2 * 16 * 4e6
    halving = sweep.SuccessiveHalving("accuracy")
    with pytest.raises(ValueError, match=r"halving.metric must name one of train_loss"):
        sweep.plan(task, points, halving=halving, **options)


@pytest.mark.slow
def test_callback_counts_every_model_once(record) -> None:
    counts = []
    run(record.points, callback=lambda num_models, _: counts.append(num_models))
    assert counts == sorted(counts)
    assert counts[-1] == len(record.status)


def test_the_leaderboard_has_students_t_intervals(record) -> None:
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


def test_invalid_plans_raise_one_sentence() -> None:
    for points, message in [
        (
            make_points(optimizer=["adamm"]),
            r"points\['optimizer'\] must name one of adam",
        ),
        (
            make_points(activation=["tan"]),
            r"points\['activation'\] must name one of tanh",
        ),
        ({"optimizer": np.array(["sgd"])}, "must have a column 'activation'"),
        ({**make_points(), "seed": np.arange(2)}, "must be equally long columns"),
        (
            make_points(loss=["huber"]),
            r"plan: points\['loss'\] must be numbers, or a column of choices or "
            r"selections, got 'huber'\.",
        ),
        (make_points(seed=[0.5, 1.5]), r"points\['seed'\] must be whole numbers in"),
        (
            make_points(seed=[-1, 0]),
            r"points\['seed'\] must be whole numbers .* got -1\.",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            run(points)
    for options, message in [
        ({"steps": 0}, "plan: steps must be at least 1, got 0."),
        ({"num_evals": 0}, "plan: num_evals must be at least 1, got 0."),
        (
            {"halving": sweep.SuccessiveHalving("valid_loss", reduction_factor=1.0)},
            "SuccessiveHalving: reduction_factor must be above 1, got 1.0.",
        ),
        (
            {"halving": sweep.SuccessiveHalving("valid_loss", rungs=0)},
            "SuccessiveHalving: rungs must be at least 1, got 0.",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            run(make_points(), **options)


def test_invalid_search_spaces_raise_one_sentence() -> None:
    rates, values = sweep.log(1e-3, 1e-1), "be several values, as [0.1, 0.2] or"
    for make_space, sentence in [
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
        with pytest.raises((TypeError, ValueError)) as error:
            make_space()
        assert str(error.value) == sentence

"""Models with a state and random keys: correct, and the same bits everywhere."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxml import optimizers, sweep

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("stateful")]
X = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32) + 1
Y = np.tanh(X @ np.array([1.0, -2.0, 0.5], np.float32))
OPTIMIZERS = {
    "sgd": lambda point: optimizers.sgd(point["rate"]),
    "adam": lambda point: optimizers.adam(point["rate"]),
}
MOMENTUM = 0.75


def make_task() -> sweep.Task:
    """Regression with dropout on inputs that are centered by their running mean."""

    def init(key, point):
        return jax.random.normal(key, (3,), jnp.float32)

    def state(key, point):
        return {"mean": jnp.zeros(3, jnp.float32), "count": jnp.zeros((), jnp.int32)}

    def loss(w, batch, point, *, key, state):
        x, y = batch
        keep = jax.random.bernoulli(key, 0.5, x.shape)
        mean = x.mean(0)
        predictions = jnp.where(keep, x - mean[None], jnp.zeros_like(x)) @ w
        mean = MOMENTUM * state["mean"] + (1 - MOMENTUM) * mean
        new_state = {"mean": mean, "count": state["count"] + 1}
        return jnp.mean((jnp.tanh(predictions) - y) ** 2), new_state

    def metrics(w, data, point, *, state):
        x, y = data
        return {"loss": jnp.mean((jnp.tanh((x - state["mean"][None]) @ w) - y) ** 2)}

    def outputs(w, point, *, state):
        return {"mean": state["mean"]}

    data = jnp.asarray(X), jnp.asarray(Y)
    return sweep.Task(init, loss, metrics, data, data, outputs, state)


def make_points(seeds=range(20)):
    return sweep.grid(optimizer=[*OPTIMIZERS], rate=[0.01, 0.1], seed=seeds)


def make_plan(points=None, **options) -> sweep.Plan:
    options = {"steps": 20, "batch_size": 8, **options}
    points = points or make_points()
    return sweep.plan(make_task(), points, optimizers=OPTIMIZERS, **options)


@pytest.fixture(scope="module")
def record() -> sweep.Record:
    return sweep.run(make_plan(), keep_params=True)


def assert_equal_bits(record, expected, index=slice(None)) -> None:
    columns, expected = record.flatten(), expected.flatten()
    assert columns.keys() == expected.keys()
    for name in columns.keys() - {"steps:"}:
        assert columns[name].tobytes() == expected[name][index].tobytes(), name


def test_a_model_matches_a_plain_training_loop(record) -> None:
    task = make_task()
    for i in (0, 33, 79):
        point = {"rate": record.points["rate"][i].astype(np.float32)}
        optimizer = OPTIMIZERS[record.points["optimizer"][i]](point)
        seed_key = jax.random.key(record.points["seed"][i])
        init_key, batch_key, step_key = (
            jax.random.fold_in(seed_key, j) for j in range(3)
        )
        w, state = task.init(init_key, point), task.state(init_key, point)
        opt_state = optimizer.init(w)
        for step in range(20):
            draw = jax.random.fold_in(batch_key, step)
            rows = jax.random.randint(draw, (8,), 0, 40)
            batch = jax.tree.map(lambda x, rows=rows: x[rows], task.train)
            key = jax.random.fold_in(step_key, step)
            grads, state = jax.grad(task.loss, has_aux=True)(
                w, batch, point, key=key, state=state
            )
            updates, opt_state = optimizer.update(grads, opt_state, w)
            w = w + updates
        assert record.state["['count']"][i] == 20
        for value, expected in [
            (record.params[""][i], w),
            (record.state["['mean']"][i], state["mean"]),
            (record.outputs["mean"][i], state["mean"]),
            (
                record.final["valid_loss"][i],
                task.metrics(w, task.valid, point, state=state)["loss"],
            ),
        ]:
            np.testing.assert_allclose(value, expected, rtol=1e-4)


def test_blocks_do_not_change_the_bits(record) -> None:
    alone = slice(33, 34)
    points = {name: column[alone] for name, column in record.points.items()}
    assert_equal_bits(sweep.run(make_plan(points), keep_params=True), record, alone)
    some = np.random.default_rng(0).permutation(80)[:50]
    points = {name: column[some] for name, column in record.points.items()}
    assert_equal_bits(make_plan().evaluate(points, keep_params=True), record, some)


@pytest.mark.slow
@pytest.mark.parametrize("num_devices", [1, 2, 4])
def test_devices_do_not_change_the_bits(num_devices, record) -> None:
    plan = make_plan(devices=jax.local_devices()[:num_devices])
    assert_equal_bits(sweep.run(plan, keep_params=True), record)


def test_a_running_block_resumes_to_the_same_bits(tmp_path, record) -> None:
    counts = []

    def interrupt_fifth(num_models, _):
        counts.append(num_models)
        if len(counts) == 4:
            time.sleep(1.1)  # states are saved every second
        if len(counts) == 5:
            raise KeyboardInterrupt

    options = {"checkpoint_dir": tmp_path, "keep_params": True}
    sweep.run(make_plan(), callback=interrupt_fifth, **options)
    assert list(tmp_path.glob("running-*.npz"))
    assert_equal_bits(sweep.run(make_plan(), resume=True, **options), record)


def test_halving_carries_the_state(record) -> None:
    halving = sweep.SuccessiveHalving("valid_loss", higher_is_better=False)
    halved = sweep.run(make_plan(halving=halving), keep_params=True)
    best = halved.status == "ok"
    assert 0 < best.sum() < 80
    for name in record.state:
        assert halved.state[name][best].tobytes() == record.state[name][best].tobytes()


def test_the_state_of_a_diverged_model_is_frozen() -> None:
    points = {**make_points(seeds=[0]), "rate": np.full(4, np.inf)}
    record = sweep.run(make_plan(points), keep_params=True)
    assert set(record.status) == {"diverged"}
    assert (record.state["['count']"] == record.final["trained"]).all()
    assert np.isfinite(record.state["['mean']"]).all()


def test_the_best_model_has_its_state(tmp_path, record) -> None:
    record.save(tmp_path)
    task, key = make_task(), jax.random.key(0)
    best = sweep.Record.load(tmp_path).best(
        "valid_loss",
        higher_is_better=False,
        like=task.init(key, {}),
        like_state=task.state(key, {}),
    )
    loss = task.metrics(best.params, task.valid, {}, state=best.state)["loss"]
    np.testing.assert_allclose(loss, best.final["valid_loss"], rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"state": None}, "plan: task.state must be given, because task.loss takes a"),
        (
            {"loss": lambda params, batch, point: 0.0},
            "plan: task.loss must take a state by keyword and return",
        ),
    ],
)
def test_a_state_on_one_side_alone_is_refused(change, message) -> None:
    task = make_task()._replace(**change)
    with pytest.raises(TypeError, match=message):
        sweep.plan(task, make_points(), optimizers=OPTIMIZERS, steps=2)

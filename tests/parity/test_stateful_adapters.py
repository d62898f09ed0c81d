"""Batch norm and dropout of other libraries train in a sweep: state and random keys."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxml import losses, sweep

pytestmark = pytest.mark.parity
X = np.random.default_rng(0).normal(size=(96, 4)).astype(np.float32)
Y = (X @ np.array([1.0, -2.0, 0.5, 0.0]) > 0).astype(np.int32)
DATA = jnp.asarray(X), jnp.asarray(Y)
SGD = {"sgd": lambda point: optax.sgd(point["rate"])}


@pytest.fixture(autouse=True)
def default_jax_settings():
    with (
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
        jax.enable_x64(False),
    ):
        yield


def make_linen(dropout: float = 0.5) -> sweep.Model:
    nn = pytest.importorskip("flax.linen")

    class Network(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
            x = nn.Dropout(dropout, deterministic=not train)(nn.relu(nn.Dense(32)(x)))
            return nn.Dense(2)(x)

    return sweep.from_linen(lambda _: Network(), X[:1])


def make_nnx(dropout: float = 0.5) -> sweep.Model:
    nnx = pytest.importorskip("flax.nnx")

    class Network(nnx.Module):
        def __init__(self, rngs):
            self.norm = nnx.BatchNorm(4, momentum=0.9, rngs=rngs)
            self.first = nnx.Linear(4, 32, rngs=rngs)
            self.dropout = nnx.Dropout(dropout, rngs=rngs)
            self.second = nnx.Linear(32, 2, rngs=rngs)

        def __call__(self, x):
            return self.second(self.dropout(nnx.relu(self.first(self.norm(x)))))

    return sweep.from_nnx(lambda key, _: Network(nnx.Rngs(key)))


def make_equinox(dropout: float = 0.5) -> sweep.Model:
    eqx = pytest.importorskip("equinox")

    class Network(eqx.Module):
        norm: eqx.nn.BatchNorm
        first: eqx.nn.Linear
        dropout: eqx.nn.Dropout
        second: eqx.nn.Linear

        def __init__(self, key):
            keys = jax.random.split(key)
            self.norm = eqx.nn.BatchNorm(4, "batch", momentum=0.9, mode="ema")
            self.first = eqx.nn.Linear(4, 32, key=keys[0])
            self.dropout = eqx.nn.Dropout(dropout)
            self.second = eqx.nn.Linear(32, 2, key=keys[1])

        def __call__(self, x, state, key):
            x, state = self.norm(x, state)
            x = self.dropout(jax.nn.relu(self.first(x)), key=key)
            return self.second(x), state

    return sweep.from_equinox(lambda key, _: eqx.nn.make_with_state(Network)(key))


MAKERS = [make_linen, make_nnx, make_equinox]


def make_task(model: sweep.Model) -> sweep.Task:
    def accuracy(logits, y):
        return jnp.mean(jnp.argmax(logits, -1) == y, dtype=jnp.float32)

    metrics = {"accuracy": accuracy}
    return sweep.supervised(
        model, DATA, DATA, loss=losses.cross_entropy, metrics=metrics
    )


def make_plan(model: sweep.Model, **options) -> sweep.Plan:
    points = sweep.grid(optimizer=["sgd"], rate=[0.1, 0.5], seed=range(3))
    return sweep.plan(make_task(model), points, optimizers=SGD, steps=60, **options)


@pytest.mark.parametrize("make_model", MAKERS)
def test_a_stateful_stochastic_model_learns_and_is_restored(make_model) -> None:
    model = make_model()
    record = sweep.run(make_plan(model), keep_params=True)
    assert record.final["valid_accuracy"].max() > 0.95
    init = jax.random.key(0), {}
    best = record.best(
        "valid_accuracy",
        like=jax.eval_shape(lambda: model.init(*init)),
        like_state=jax.eval_shape(lambda: model.state(*init)),
    )
    metrics = make_task(model).metrics(best.params, DATA, {}, state=best.state)
    np.testing.assert_allclose(metrics["loss"], best.final["valid_loss"], rtol=1e-5)


@pytest.mark.parametrize("make_model", MAKERS)
def test_the_running_mean_approaches_that_of_the_data(make_model) -> None:
    record = sweep.run(make_plan(make_model(), batch_size=None), keep_params=True)
    means = [column for name, column in record.state.items() if column.shape == (6, 4)]
    errors = [np.abs(column - X.mean(0)).max() for column in means]
    assert min(errors) < 1e-2


@pytest.mark.parametrize("make_model", MAKERS)
def test_dropout_depends_on_the_seed_and_is_off_in_evaluation(make_model) -> None:
    model, key, point = make_model(), jax.random.key(0), {}
    params, state = model.init(key, point), model.state(key, point)

    def predict(key):
        return model.apply(params, DATA[0], point, key=key, state=state)[0]

    first, again, other = (predict(jax.random.key(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    rows = [model.apply(params, DATA[0][:n], point, state=state)[0] for n in (96, 1)]
    np.testing.assert_allclose(rows[0][:1], rows[1], rtol=1e-5)


@pytest.mark.parametrize("make_model", MAKERS)
def test_without_dropout_a_step_is_that_of_the_library(make_model) -> None:
    model, key = make_model(0.0), jax.random.fold_in(jax.random.key(0), 0)
    params, state = model.init(key, {}), model.state(key, {})
    task = make_task(model)

    def loss(params):
        return task.loss(params, DATA, {}, key=jax.random.key(1), state=state)

    grads, new_state = jax.grad(loss, has_aux=True)(params)
    expected = jax.tree.map(lambda x, g: x - 0.5 * g, params, grads)
    points = sweep.grid(optimizer=["sgd"], rate=[0.5], seed=[0])
    options = {"optimizers": SGD, "batch_size": None, "steps": 1}
    record = sweep.run(sweep.plan(task, points, **options), keep_params=True)
    for columns, tree in ((record.params, expected), (record.state, new_state)):
        for column, leaf in zip(columns.values(), jax.tree.leaves(tree), strict=True):
            np.testing.assert_allclose(column[0], leaf, rtol=1e-4, atol=1e-6)

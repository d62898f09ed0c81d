"""Models of other libraries train in a sweep, and the best one is restored."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxml import losses, sweep

pytestmark = pytest.mark.parity
X = np.random.default_rng(0).normal(size=(96, 4)).astype(np.float32)
Y = (X @ np.array([1.0, -2.0, 0.5, 0.0]) > 0).astype(np.int32)


@pytest.fixture(autouse=True)
def default_jax_settings():
    """Other libraries rely on rank and dtype promotion and on 32-bit defaults."""
    with (
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
        jax.enable_x64(False),
    ):
        yield


def make_linen() -> sweep.Model:
    nn = pytest.importorskip("flax.linen")

    class Network(nn.Module):
        activation: object

        @nn.compact
        def __call__(self, x):
            return nn.Dense(2)(self.activation(nn.Dense(8)(x)))

    return sweep.from_linen(lambda point: Network(point["activation"]), X[:1])


def make_nnx() -> sweep.Model:
    nnx = pytest.importorskip("flax.nnx")

    class Network(nnx.Module):
        def __init__(self, rngs, activation):
            self.first = nnx.Linear(4, 8, rngs=rngs)
            self.second = nnx.Linear(8, 2, rngs=rngs)
            self.activation = activation

        def __call__(self, x):
            return self.second(self.activation(self.first(x)))

    return sweep.from_nnx(
        lambda key, point: Network(nnx.Rngs(key), point["activation"])
    )


def make_equinox() -> sweep.Model:
    equinox = pytest.importorskip("equinox")
    return sweep.from_equinox(
        lambda key, point: equinox.nn.MLP(
            4, 2, 8, 1, activation=point["activation"], key=key
        )
    )


@pytest.mark.parametrize("make_model", [make_linen, make_nnx, make_equinox])
def test_a_model_of_another_library_learns_and_is_restored(make_model) -> None:
    model = make_model()
    data = jnp.asarray(X), jnp.asarray(Y)

    def accuracy(logits, y):
        return jnp.mean(jnp.argmax(logits, -1) == y, dtype=jnp.float32)

    def clipped_adam(point):
        return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(point["rate"]))

    task = sweep.supervised(
        model, data, data, loss=losses.cross_entropy, metrics={"accuracy": accuracy}
    )
    points = sweep.grid(
        optimizer=["clipped"], activation=["tanh", "relu"], rate=[0.01, 0.1], seed=[0]
    )
    activations = {"tanh": jnp.tanh, "relu": jax.nn.relu}
    plan = sweep.plan(
        task,
        points,
        optimizers={"clipped": clipped_adam},
        choices={"activation": activations},
        steps=60,
    )
    record = sweep.run(plan, keep_params=True)
    assert record.final["valid_accuracy"].max() > 0.95
    point = {"activation": jnp.tanh}
    like = jax.eval_shape(lambda: model.init(jax.random.key(0), point))
    best = record.best("valid_accuracy", like=like)
    point = {"activation": activations[best.settings["activation"]]}
    metrics = task.metrics(best.params, data, point)
    np.testing.assert_allclose(metrics["accuracy"], best.final["valid_accuracy"])


def test_a_task_without_a_loss_is_refused() -> None:
    model, data = make_linen(), (jnp.asarray(X), jnp.asarray(Y))
    task = sweep.supervised(model, data, data)
    point = {"activation": jnp.tanh}
    params = model.init(jax.random.key(0), point)
    with pytest.raises(TypeError, match="supervised: loss must be given, or be a"):
        task.loss(params, data, point)

"""Models of other libraries in a sweep: each trains, and to the same end as by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxml import losses, sweep

X = np.random.default_rng(0).normal(size=(96, 4)).astype(np.float32)
Y = (X @ np.array([1.0, -2.0, 0.5, 0.0]) > 0).astype(np.int32)


@pytest.fixture(autouse=True)
def customs_of_others():
    """Other libraries promote ranks and dtypes, and mean 32 bits."""
    with (
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
        jax.enable_x64(False),
    ):
        yield


def linen() -> sweep.Model:
    nn = pytest.importorskip("flax.linen")

    class Network(nn.Module):
        activation: object

        @nn.compact
        def __call__(self, x):
            return nn.Dense(2)(self.activation(nn.Dense(8)(x)))

    return sweep.from_linen(lambda point: Network(point["activation"]), X[:1])


def nnx() -> sweep.Model:
    library = pytest.importorskip("flax.nnx")

    class Network(library.Module):
        def __init__(self, rngs, activation):
            self.first = library.Linear(4, 8, rngs=rngs)
            self.second = library.Linear(8, 2, rngs=rngs)
            self.activation = activation

        def __call__(self, x):
            return self.second(self.activation(self.first(x)))

    return sweep.from_nnx(
        lambda key, point: Network(library.Rngs(key), point["activation"])
    )


def equinox() -> sweep.Model:
    library = pytest.importorskip("equinox")
    return sweep.from_equinox(
        lambda key, point: library.nn.MLP(
            4, 2, 8, 1, activation=point["activation"], key=key
        )
    )


@pytest.mark.parametrize("library", [linen, nnx, equinox])
def test_a_model_of_another_library_learns_and_loads_again(library) -> None:
    model = library()
    data = jnp.asarray(X), jnp.asarray(Y)

    def accuracy(logits, y):
        return jnp.mean(jnp.argmax(logits, -1) == y, dtype=jnp.float32)

    task = sweep.supervised(
        model, data, data, loss=losses.cross_entropy, metrics={"accuracy": accuracy}
    )
    points = sweep.grid(
        optimizer=["clipped"], activation=["tanh", "relu"], rate=[0.01, 0.1], seed=[0]
    )

    def clipped(point):
        return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(point["rate"]))

    choices = {"activation": {"tanh": jnp.tanh, "relu": jax.nn.relu}}
    record = sweep.run(
        sweep.plan(
            task, points, optimizers={"clipped": clipped}, choices=choices, steps=60
        ),
        keep_params=True,
    )
    assert record.final["valid_accuracy"].max() > 0.95
    named = {"activation": jnp.tanh}
    start = jax.eval_shape(lambda: model.init(jax.random.key(0), named))
    best = record.best("valid_accuracy", like=start)
    named = {"activation": choices["activation"][best.settings["activation"]]}
    again = task.metrics(best.params, data, named)
    np.testing.assert_allclose(again["accuracy"], best.final["valid_accuracy"])


def test_a_task_without_a_loss_is_refused_in_a_sentence() -> None:
    data = jnp.asarray(X), jnp.asarray(Y)
    task = sweep.supervised(linen(), data, data)
    point = {"activation": jnp.tanh}
    params = linen().init(jax.random.key(0), point)
    with pytest.raises(TypeError, match="supervised: loss must be given, or be a"):
        task.loss(params, data, point)

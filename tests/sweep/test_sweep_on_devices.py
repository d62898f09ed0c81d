"""A sweep on 1 to 8 devices, and inside the user's own mesh: the same bits."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from jaxml import optimizers, sweep

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("sweep")]
X = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
OPTIMIZERS = {
    "adam": lambda point: optimizers.adam(point["learning_rate"]),
    "momentum": lambda point: optimizers.momentum(point["learning_rate"]),
}


def run(**options: Any) -> sweep.Record:
    """Plans and runs a regression with three weights."""

    def init(key: jax.Array, point: sweep.Point) -> jax.Array:
        return jax.random.normal(key, (3,), jnp.float32)

    def loss(w: jax.Array, batch: jax.Array, point: sweep.Point) -> jax.Array:
        return jnp.mean((jnp.tanh(batch @ w) - jnp.sin(batch[:, 0])) ** 2)

    def metrics(*arguments: Any) -> dict[str, jax.Array]:
        return {"loss": loss(*arguments)}

    data = jnp.asarray(X)
    task = sweep.Task(init, loss, metrics, data, data)
    points = sweep.grid(
        optimizer=[*OPTIMIZERS], learning_rate=[0.01, 0.1, 1.0], seed=range(20)
    )
    plan = sweep.plan(
        task, points, optimizers=OPTIMIZERS, steps=10, batch_size=8, **options
    )
    return sweep.run(plan, keep_params=True)


@pytest.fixture(scope="module")
def record() -> sweep.Record:
    return run(devices=jax.local_devices()[:1])


def assert_equal_bits(record: sweep.Record, expected: sweep.Record) -> None:
    columns, expected_columns = record.flatten(), expected.flatten()
    assert columns.keys() == expected_columns.keys()
    for name, column in columns.items():
        assert column.tobytes() == expected_columns[name].tobytes(), name


@pytest.mark.parametrize("num_devices", [2, 4, 8])
def test_the_number_of_devices_does_not_change_results(
    num_devices: int, record: sweep.Record
) -> None:
    assert_equal_bits(run(devices=jax.local_devices()[:num_devices]), record)


@pytest.mark.parametrize("num_devices", [1, 4, 8])
@pytest.mark.parametrize(
    "axis_type", [AxisType.Auto, AxisType.Explicit], ids=lambda t: t.name
)
def test_the_mesh_of_the_user_does_not_change_results(
    axis_type: AxisType, num_devices: int, record: sweep.Record
) -> None:
    mesh = jax.make_mesh((8,), ("data",), axis_types=(axis_type,))
    with jax.set_mesh(mesh):
        assert_equal_bits(run(devices=jax.local_devices()[:num_devices]), record)

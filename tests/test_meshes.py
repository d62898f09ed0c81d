"""Every function traces inside `jax.shard_map`, which is strict about types."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import PartitionSpec
from test_contract import Case, as_function_of_floats, for_rows, samples

from jaxml import losses

MESH = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))


@pytest.mark.slow
@for_rows(lambda case: case.dtypes)
def test_traces_with_one_argument_that_varies_over_the_mesh(case: Case) -> None:
    function, floats = as_function_of_floats(case, samples(case)[0])

    def total(*xs: jax.Array) -> jax.Array:
        return jnp.sum(function(*xs))

    def value_and_gradients(first: jax.Array, *others: jax.Array) -> tuple:
        first = lax.pcast(first, "data", to="varying")
        value, gradients = jax.value_and_grad(total, range(len(floats)))(first, *others)
        replicated = gradients[1:]  # the gradient of a replicated array is a sum
        return lax.psum((value, gradients[0]), "data"), replicated

    jax.make_jaxpr(
        jax.shard_map(
            value_and_gradients,
            mesh=MESH,
            in_specs=PartitionSpec(),
            out_specs=PartitionSpec(),
        )
    )(*floats)


def test_the_gradient_of_replicated_weights_is_the_sum_over_the_mesh() -> None:
    rng = np.random.default_rng(0)
    x, w = jnp.asarray(rng.normal(size=(4, 3))), jnp.asarray(rng.normal(size=(3, 5)))
    labels = jnp.array([0, 4, 2, 1])

    def total(x: jax.Array, w: jax.Array, labels: jax.Array) -> jax.Array:
        return jnp.sum(losses.linear_cross_entropy(x, w, labels))

    rows, replicated = PartitionSpec("data"), PartitionSpec()
    sharded = jax.shard_map(
        jax.grad(total, (0, 1)),
        mesh=MESH,
        in_specs=(rows, replicated, rows),
        out_specs=(rows, replicated),
    )
    got, expected = sharded(x, w, labels), jax.grad(total, (0, 1))(x, w, labels)
    for a, b in zip(got, expected):
        np.testing.assert_allclose(a, b, rtol=1e-12)

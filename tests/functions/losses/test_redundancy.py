"""What losses that decorrelate features promise beyond the contract."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import PartitionSpec as P

from jaxml import losses


@pytest.mark.parametrize("num_devices", [1, 8])
@pytest.mark.parametrize("masked", [False, True])
def test_a_constant_feature_has_no_correlation(num_devices: int, masked: bool) -> None:
    """Its mean is exact, and so are its zero deviations, on each device and on all."""
    rng = np.random.default_rng(0)
    a, b = jnp.asarray(rng.normal(size=(2, 80, 3)), jnp.float32)
    where = jnp.arange(80) >= (15 if masked else 0)  # the first device has no row
    mesh = jax.make_mesh((num_devices,), ("data",), (jax.sharding.AxisType.Auto,))
    axes = {"axis_name": "data"} if num_devices > 1 else {}

    @jax.shard_map(mesh=mesh, in_specs=P("data"), out_specs=P())
    def loss(a: jax.Array, b: jax.Array, where: jax.Array) -> jax.Array:
        loss = losses.barlow_twins_loss(a, b, where=where, **axes)
        return loss if axes else lax.pmean(loss, "data")

    for constant in (0.1, 1.7):
        got = loss(a.at[:, 0].set(constant), b.at[:, 1].set(constant), where)
        expected = loss(a.at[:, 0].set(0), b.at[:, 1].set(0), where)
        np.testing.assert_allclose(got, expected, rtol=1e-6)

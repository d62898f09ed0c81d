"""Contrastive losses over a ring of eight devices equal those of one device."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilation import jit_without_fusion_emitters
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from test_meshes import DEVICES, assert_equal, make_mesh

from jaxml import losses

RINGS = {
    losses.info_nce: {"temperature": 0.5},
    losses.clip_loss: {"temperature": 0.5},
    losses.siglip_loss: {"scale": 2.0, "bias": -1.0},
}
"""The functions with `ring`, and their hyperparameters."""


def random_views(rows: int = 24, more_keys: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(rows, 5)), rng.normal(size=(rows + more_keys, 5))
    return jnp.asarray(a), jnp.asarray(b)


def on_ring(
    function: Callable[..., Array], mesh: Mesh, axis_name: Any
) -> Callable[..., Array]:
    """The loss of sharded arrays and of replicated hyperparameters, by a ring."""

    def sharded(arrays: tuple[Array, ...], hyperparams: dict[str, Array]) -> Array:
        return jax.shard_map(
            lambda arrays, hyperparams: function(
                *arrays, **hyperparams, axis_name=axis_name, ring=True
            ),
            mesh=mesh,
            in_specs=(P(axis_name), P()),
            out_specs=P(axis_name),
        )(arrays, hyperparams)

    return sharded


def derivatives(
    loss: Callable[..., Array], arrays: tuple[Array, ...], hyperparams: dict[str, Any]
) -> Any:
    """Value, gradient and a second derivative, for the hyperparameters too."""
    inputs = arrays, jax.tree.map(jnp.float64, hyperparams)
    tangents = jax.tree.map(jnp.cos, inputs)

    def call(*inputs: Any) -> tuple[Array, Any]:
        def sum_of_sines(*inputs: Any) -> Array:
            return jnp.sum(jnp.sin(loss(*inputs)))

        gradient = jax.grad(sum_of_sines, (0, 1))
        return loss(*inputs), jax.jvp(gradient, inputs, tangents)

    return jit_without_fusion_emitters(call)(*inputs)


@pytest.mark.slow
@pytest.mark.usefixtures("no_xla_optimizations")
@pytest.mark.parametrize("block", [None, 2])
@pytest.mark.parametrize("function", RINGS, ids=lambda f: f.__name__)
def test_ring_equals_one_device(
    function: Callable[..., Array], block: int | None
) -> None:
    arrays, hyperparams = random_views(), RINGS[function]
    function = partial(function, block=block)
    expected = derivatives(lambda x, h: function(*x, **h), arrays, hyperparams)
    for shape, axes in ((8,), "data"), ((2, 4), ("data", "model")):
        loss = on_ring(function, make_mesh(shape), axes)
        assert_equal(derivatives(loss, arrays, hyperparams), expected)


@pytest.mark.slow
@pytest.mark.usefixtures("no_xla_optimizations")
def test_ring_with_a_mask_and_more_keys_than_queries() -> None:
    """What no pair uses is NaN. Query i of a device has key i of it."""
    q, k = random_views(more_keys=DEVICES)
    per_device = np.arange(24).reshape(DEVICES, -1) + np.arange(DEVICES)[:, None]
    where = np.random.default_rng(1).random((24, 32)) < 0.7
    where[3], where[:, 7] = False, False
    own, others = per_device.ravel(), np.setdiff1d(np.arange(32), per_device)
    order = np.concatenate([own, others])

    def one_device(arrays: tuple[Array, ...], hyperparams: dict[str, Array]) -> Array:
        q, k = arrays
        return losses.info_nce(q, k[order], where=where[:, order], **hyperparams)

    def masked(q: Array, k: Array, **keywords: Any) -> Array:
        axis = jax.lax.axis_index("data")
        rows = jax.lax.dynamic_slice_in_dim(jnp.asarray(where), 3 * axis, 3)
        return losses.info_nce(q, k, where=rows, **keywords)

    arrays = q.at[3].set(jnp.nan), k.at[7].set(jnp.nan)
    hyperparams = {"temperature": 0.5}
    expected = derivatives(one_device, arrays, hyperparams)
    got = derivatives(on_ring(masked, make_mesh((8,)), "data"), arrays, hyperparams)
    assert not any(np.isnan(x).any() for x in jax.tree.leaves(expected))
    assert_equal(got, expected)


@pytest.mark.slow
@pytest.mark.parametrize("function", RINGS, ids=lambda f: f.__name__)
def test_memory_of_a_ring_does_not_grow_with_the_devices(
    function: Callable[..., Array],
) -> None:
    def compiled(devices: int, ring: bool) -> Any:
        def total(a: Array, b: Array) -> Array:
            keywords = {"axis_name": "data", "ring": ring, "block": 8}
            loss = function(a, b, **RINGS[function], **keywords)
            return jax.lax.psum(jnp.sum(loss), "data")

        mesh = jax.make_mesh(
            (devices,), "data", (AxisType.Auto,), devices=jax.devices()[:devices]
        )
        specs = {"in_specs": P("data"), "out_specs": P()}
        total = jax.shard_map(total, mesh=mesh, **specs)
        sharding = NamedSharding(mesh, P("data"))
        x = jax.ShapeDtypeStruct((8 * devices, 512), jnp.float32, sharding=sharding)
        return jax.jit(jax.grad(total, (0, 1))).lower(x, x).compile()

    def growth(ring: bool) -> float:
        small, large = (
            compiled(devices, ring).memory_analysis().temp_size_in_bytes
            for devices in (2, DEVICES)
        )
        return large / small

    text = compiled(DEVICES, ring=True).as_text()
    assert "collective-permute" in text and "all-gather" not in text
    assert growth(ring=True) < 1.1
    assert growth(ring=False) > 2


@pytest.mark.parametrize("function", RINGS, ids=lambda f: f.__name__)
def test_ring_without_axis_name_is_refused(function: Callable[..., Array]) -> None:
    message = f"{function.__name__}: ring must be False without axis_name, got True."
    with pytest.raises(ValueError, match=f"^{message}$"):
        function(*random_views(), **RINGS[function], ring=True)


def test_ring_refuses_a_mask_of_the_local_keys() -> None:
    masked = partial(losses.info_nce, where=jnp.ones((3, 3), bool))
    loss = on_ring(masked, make_mesh((8,)), "data")
    with pytest.raises(TypeError, match=r"where must be of shape \[3,24\], all pairs"):
        loss(random_views(), {})

"""Masks of pairs in losses of two views: on one device, on eight, and in a ring."""

import inspect
from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases.losses.inbatch import clip, info_nce, siglip
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from jaxml import losses

LOSSES = {
    losses.n_pair_loss: ({}, partial(info_nce, temperature=1.0)),
    losses.clip_loss: ({"temperature": 0.5}, clip),
    losses.siglip_loss: ({"scale": 2.0, "bias": -1.0}, siglip),
}
of_every_loss = pytest.mark.parametrize(
    ("loss", "hyperparams", "truth"),
    [(loss, *rest) for loss, rest in LOSSES.items()],
    ids=[loss.__name__ for loss in LOSSES],
)


def views(n: int = 16) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Two views, and a mask in which rows 3 and 9 of both take no part."""
    rng = np.random.default_rng(0)
    where = rng.random((n, n)) < 0.6
    where[[3, 9]] = where[:, [3, 9]] = False
    a, b = rng.normal(size=(2, n, 5)) / 2
    return jnp.asarray(a), jnp.asarray(b), jnp.asarray(where)


@of_every_loss
@pytest.mark.parametrize("block", [None, 5])
def test_the_loss_is_that_of_the_unmasked_pairs(
    loss, hyperparams, truth, block
) -> None:
    a, b, where = views()
    got = loss(a, b, where=where, block=block, **hyperparams)
    expected = truth(
        np.asarray(a), np.asarray(b), where=np.asarray(where), **hyperparams
    )
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-13)
    everywhere = loss(a, b, where=jnp.ones_like(where), **hyperparams)
    np.testing.assert_allclose(everywhere, loss(a, b, **hyperparams), rtol=1e-12)


@of_every_loss
def test_masked_rows_may_be_nan(loss, hyperparams, truth) -> None:
    a, b, where = views()
    rows = jnp.array([3, 9])
    spoiled = a.at[rows].set(jnp.nan), b.at[rows].set(jnp.nan)

    def total(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.sum(jnp.cos(jnp.arange(16)) * loss(a, b, where=where, **hyperparams))

    gradient = jax.value_and_grad(total, (0, 1))
    value, (a_bar, b_bar) = gradient(*spoiled)
    chex.assert_trees_all_close((value, (a_bar, b_bar)), gradient(a, b), rtol=1e-12)
    assert not a_bar[rows].any() and not b_bar[rows].any()


def sharded_gradient(loss: Any, hyperparams: dict[str, float], **options: Any) -> Any:
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))

    def mean(views: Any, where: jax.Array) -> jax.Array:
        values = loss(*views, where=where, axis_name="data", **hyperparams, **options)
        return losses.mean(values, axis_name="data")

    rows = P("data")
    return jax.jit(
        jax.shard_map(
            jax.value_and_grad(mean), mesh=mesh, in_specs=rows, out_specs=(P(), rows)
        )
    )


@pytest.mark.parametrize(
    ("loss", "ring"),
    [
        (loss, ring)
        for loss in LOSSES
        for ring in (False, True)
        if not ring or "ring" in inspect.signature(loss).parameters
    ],
)
def test_masks_have_a_column_for_each_row_of_all_devices(loss, ring) -> None:
    hyperparams, _ = LOSSES[loss]
    a, b, where = views()
    rows = jnp.array([3, 9])
    spoiled = a.at[rows].set(jnp.nan), b.at[rows].set(jnp.nan)
    options = {"ring": True} if ring else {}
    result = sharded_gradient(loss, hyperparams, **options)(spoiled, where)
    expected = jax.value_and_grad(
        lambda views: losses.mean(loss(*views, where=where, **hyperparams))
    )((a, b))
    chex.assert_trees_all_close(result, expected, rtol=1e-10, atol=1e-14)


@of_every_loss
def test_a_mask_of_another_shape_is_refused(loss, hyperparams, truth) -> None:
    a, b, where = views()
    with pytest.raises(TypeError, match=f"{loss.__name__}: where must"):
        loss(a, b, where=where[:, :3], **hyperparams)


@pytest.mark.parametrize("loss", [losses.vicreg_loss, losses.barlow_twins_loss])
def test_statistics_are_those_of_the_unmasked_rows_of_all_devices(loss) -> None:
    a, b, where = views()
    where = where[:, 0]
    spoiled = tuple(jnp.where(where[:, None], x, jnp.nan) for x in (a, b))
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))

    def sharded_loss(views: Any, where: jax.Array) -> jax.Array:
        return loss(*views, where=where, axis_name="data")

    rows = P("data")
    result = jax.jit(
        jax.shard_map(
            jax.value_and_grad(sharded_loss),
            mesh=mesh,
            in_specs=rows,
            out_specs=(P(), rows),
        )
    )(spoiled, where)
    expected = jax.value_and_grad(lambda views: loss(*views, where=where))((a, b))
    chex.assert_trees_all_close(result, expected, rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(result[0], loss(a[where], b[where]), rtol=1e-12)


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit], ids=str)
@pytest.mark.parametrize("loss", [losses.info_nce, losses.supcon_loss])
def test_more_candidates_than_rows_on_a_mesh(loss: Any, axis_type: AxisType) -> None:
    """Row i of the keys belongs to query i; a memory bank belongs to no row."""
    a, b, where = views()
    bank, where = jnp.concatenate([b, 2 * b]), jnp.tile(where, 2)
    labels = jnp.arange(16) % 5

    def mean(a: jax.Array, bank: jax.Array) -> jax.Array:
        if loss is losses.info_nce:
            return losses.mean(loss(a, bank))
        return losses.mean(
            loss(
                a,
                labels,
                references=bank,
                reference_labels=jnp.tile(labels, 2),
                where=where,
            )
        )

    expected = jax.value_and_grad(mean, (0, 1))(a, bank)
    with jax.set_mesh(jax.make_mesh((8,), ("data",), axis_types=(axis_type,))):
        rows = jax.device_put((a, bank), P("data"))
        result = jax.jit(jax.value_and_grad(mean, (0, 1)))(*rows)
    chex.assert_trees_all_close(result, expected, rtol=1e-10, atol=1e-14)

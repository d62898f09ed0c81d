"""The load-balancing loss, where public implementations were wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from jaxml import losses


def router_logits(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(size=shape))


def test_an_even_load_has_loss_1_for_every_k() -> None:
    """Not k: transformers issue 28255 counted each slot of the k as a router."""
    z = jnp.stack([jnp.roll(jnp.arange(4.0), i) for i in range(4)])
    for k in (1, 2, 3, 4):
        np.testing.assert_allclose(losses.load_balance_loss(z, top_k=k), 1.0)


def test_layers_do_not_cancel() -> None:
    """transformers issue 31464: concatenated layers with opposite loads look even."""
    layer = jnp.array([[9.0, 0.0]] * 8)
    layers = jnp.stack([layer, layer[:, ::-1]])
    per_layer = losses.load_balance_loss(layers, top_k=1)
    np.testing.assert_allclose(per_layer, [2.0, 2.0], rtol=1e-3)
    assert losses.load_balance_loss(layers, top_k=1, axis=(0, 1)) < 1.01
    each = [losses.load_balance_loss(x, top_k=1) for x in layers]
    np.testing.assert_array_equal(per_layer, each)


def test_padding_does_not_count() -> None:
    """transformers issue 28505: all padding tokens go to one expert."""
    z, where = router_logits(2, 10, 4), jnp.arange(10) < 6
    padded = jnp.where(where[:, None], z, jnp.nan)
    mask = jnp.broadcast_to(where, (2, 10))
    got = losses.load_balance_loss(padded, top_k=2, where=mask)
    expected = losses.load_balance_loss(z[:, :6], top_k=2)
    np.testing.assert_allclose(got, expected, rtol=1e-14)


def test_the_loss_of_the_global_batch_is_not_the_mean_of_its_parts() -> None:
    """Pai-Megatron-Patch issue 519. Masked tokens of other devices count as well."""
    z = router_logits(16, 4) + 2 * jnp.repeat(jnp.eye(4), 4, 0)
    where = jnp.arange(16) % 5 > 0

    def loss(z: jax.Array, where: jax.Array, axis_name: str | None = None) -> jax.Array:
        return losses.load_balance_loss(z, top_k=2, where=where, axis_name=axis_name)

    sharded = jax.shard_map(
        jax.value_and_grad(lambda z, where: loss(z, where, "data")),
        mesh=jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,)),
        in_specs=(P("data"), P("data")),
        out_specs=(P(), P("data")),
    )
    value, gradient = sharded(z, where)
    expected, expected_gradient = jax.value_and_grad(loss)(z, where)
    np.testing.assert_allclose(value, expected, rtol=1e-14)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-15)
    parts = [loss(a, b) for a, b in zip(z.reshape(8, 2, 4), where.reshape(8, 2))]
    assert np.mean(parts) > 1.2 * expected


def test_the_fraction_of_tokens_carries_no_gradient() -> None:
    z = router_logits(6, 4)
    fraction = jnp.sum(jax.nn.one_hot(jax.lax.top_k(z, 2)[1], 4), (0, 1)) / 12

    def with_constant_fraction(z: jax.Array) -> jax.Array:
        return 4 * jnp.sum(fraction * jnp.mean(jax.nn.softmax(z), 0))

    gradient = jax.grad(lambda z: losses.load_balance_loss(z, top_k=2))(z)
    np.testing.assert_allclose(
        gradient, jax.grad(with_constant_fraction)(z), atol=1e-15
    )


def test_more_experts_per_token_than_experts_are_refused() -> None:
    sentence = r"load_balance_loss: top_k must be at most 4, got 5\."
    with pytest.raises(ValueError, match=sentence):
        losses.load_balance_loss(router_logits(6, 4), top_k=5)
    with pytest.raises(ValueError, match=r"top_k must be at least 1, got 0\."):
        losses.load_balance_loss(router_logits(6, 4), top_k=0)


def test_axes_that_are_not_those_of_tokens_are_refused() -> None:
    for axis in (-1, 1, 2, (0, 1)):
        with pytest.raises(ValueError, match="axis must name axes of the tokens, got"):
            losses.load_balance_loss(router_logits(6, 4), top_k=1, axis=axis)

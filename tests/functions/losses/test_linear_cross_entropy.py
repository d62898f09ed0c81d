"""Cross entropy of a linear layer: precision, memory and second derivatives."""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilation import jit_without_fusion_emitters

from jaxml import losses


def test_bfloat16_is_precise_at_large_logits() -> None:
    rng = np.random.default_rng(4)
    x = jnp.asarray(rng.normal(size=(16, 32)), jnp.bfloat16)
    w = jnp.asarray(rng.normal(size=(32, 200)) * 40, jnp.bfloat16)
    y = jnp.asarray(rng.integers(0, 200, 16))
    z = x.astype(jnp.float64) @ w.astype(jnp.float64)
    assert abs(z).max() > 640
    exact = losses.cross_entropy(z, y)
    in_float32 = losses.linear_cross_entropy(
        x.astype(jnp.float32), w.astype(jnp.float32), y
    )
    np.testing.assert_allclose(in_float32, exact, atol=1e-2)
    in_bfloat16 = np.float64(losses.linear_cross_entropy(x, w, y))
    np.testing.assert_allclose(in_bfloat16, exact, rtol=2**-8, atol=1e-2)


def test_the_logits_are_never_held() -> None:
    n, d, classes = 512, 64, 8192
    labels = jnp.arange(n) % classes

    def loss(x: jax.Array, w: jax.Array) -> jax.Array:
        return losses.linear_cross_entropy(x, w, labels, block=256).sum()

    gradient = jax.jit(jax.value_and_grad(loss, (0, 1)))
    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in [(n, d), (d, classes)]]
    memory = gradient.lower(*shapes).compile().memory_analysis()
    logits_size = 4 * n * classes
    assert memory.temp_size_in_bytes < logits_size / 8


@pytest.mark.usefixtures("no_xla_optimizations")
def test_second_derivatives_equal_those_of_the_dense_loss() -> None:
    rng = np.random.default_rng(5)
    x, w = (jnp.asarray(rng.normal(size=s)) for s in [(7, 3), (3, 11)])
    y = jnp.arange(7)

    def dense(x: jax.Array, w: jax.Array) -> jax.Array:
        return losses.cross_entropy(x @ w, y).sum()

    def tiled(x: jax.Array, w: jax.Array) -> jax.Array:
        return losses.linear_cross_entropy(x, w, y, block=4).sum()

    def hessian_vector_product(loss: Callable) -> tuple[jax.Array, jax.Array]:
        v = jnp.ones_like(x), jnp.ones_like(w)
        gradient = jax.grad(loss, (0, 1))
        along_v = jit_without_fusion_emitters(lambda *xs: jax.jvp(gradient, xs, v)[1])
        return along_v(x, w)

    chex.assert_trees_all_close(
        hessian_vector_product(tiled), hessian_vector_product(dense), rtol=1e-10
    )


def test_a_block_of_0_rows_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"linear_cross_entropy: block must be at least 1"
    ):
        losses.linear_cross_entropy(
            jnp.ones((1, 2)), jnp.ones((2, 3)), jnp.array([0]), block=0
        )

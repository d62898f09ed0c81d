"""Parts of models too large for the cache of a core, several at a time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_batching import sequential_vmap


def one_model_at_a_time(
    loss: Callable[..., tuple[Array, Any]],
) -> Callable[..., tuple[Array, Any]]:
    """Makes `vmap` compute the loss of one model after another, each in the cache.

    The loss maps the parameters and other arrays to a scalar and an auxiliary tree. It
    is differentiable in the parameters alone.
    """

    @jax.custom_vjp
    def sequential_loss(params: Any, *arrays: Any) -> tuple[Array, Any]:
        return sequential_vmap(loss)(params, *arrays)

    def sequential_loss_fwd(params: Any, *arrays: Any) -> tuple[tuple[Array, Any], Any]:
        value_and_grad = jax.value_and_grad(loss, has_aux=True)
        result, grads = sequential_vmap(value_and_grad)(params, *arrays)
        return result, (grads, (None,) * len(arrays))

    def sequential_loss_bwd(residuals: Any, cotangents: Any) -> tuple:
        (grads, others), (ct, _) = residuals, cotangents
        return jax.tree.map(lambda grad: ct * grad, grads), *others

    sequential_loss.defvjp(sequential_loss_fwd, sequential_loss_bwd)
    return sequential_loss


def conv3x3(w: Array, x: Array, stride: int) -> Array:
    """W ∗ x as one product with the 3 x 3 patches of x, [channels images h w]."""
    height, width = x.shape[-2:]
    padded = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    shifted = [
        padded[..., i : i + height : stride, j : j + width : stride]
        for i in range(3)
        for j in range(3)
    ]
    patches = jnp.concatenate(shifted, 0)
    return (w @ patches.reshape(len(patches), -1)).reshape(-1, *patches.shape[1:])

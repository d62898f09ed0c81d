"""What keeps XLA:CPU from splitting a formula into several arrays."""

import jax
import jax.numpy as jnp
from jax import Array, lax


@jax.custom_jvp
def in_one_loop(x: Array) -> Array:
    """x, which XLA:CPU computes in one loop before it adds its elements.

    XLA:CPU moves the last steps of a formula into its kernel for sums (YNNPACK), as far
    as that kernel knows them. What they have in common with the gradient, constants
    included, it holds in arrays of the size of x. The kernel does not know a clamp.
    """
    infinity = jnp.asarray(jnp.inf, x.dtype)
    return lax.clamp(-infinity, x, infinity)


@in_one_loop.defjvp
def in_one_loop_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    return in_one_loop(*primals), tangents[0]

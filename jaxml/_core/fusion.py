"""What keeps XLA:CPU from splitting a formula into several arrays."""

import jax
import jax.numpy as jnp
from jax import Array, lax


@jax.custom_jvp
def in_one_loop(x: Array) -> Array:
    """Returns x, which XLA:CPU then computes in one loop, even before a sum.

    XLA:CPU moves the last operations before a sum into its sum kernel (YNNPACK). If the
    gradient uses their inputs too, it stores these inputs as arrays of the size of x,
    even constants. The kernel does not support clamps, so a clamp to [-∞, ∞] stops it.
    """
    infinity = jnp.asarray(jnp.inf, x.dtype)
    return lax.clamp(-infinity, x, infinity)


@in_one_loop.defjvp
def in_one_loop_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    return in_one_loop(*primals), tangents[0]

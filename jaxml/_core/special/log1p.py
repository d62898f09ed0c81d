"""log(1 + x) over its whole domain."""

import jax.numpy as jnp
from jax import Array


def wide_log1p(x: Array) -> Array:
    """log(1 + x) for x >= -1, within 2 ulp in float64 too.

    XLA's float64 log1p on a CPU is off by up to 128 ulp for x in (-0.42, -0.35)
    (https://github.com/jax-ml/jax/issues/39707). There 1 + x = c (1 + y) with c = 5/8.
    """
    if x.dtype != jnp.float64:
        return jnp.log1p(x)
    is_inaccurate = (x > -0.5) & (x < -0.25)
    c = jnp.where(is_inaccurate, 0.625, 1.0)
    log_c = jnp.where(is_inaccurate, jnp.log(0.625), 0.0)
    return log_c + jnp.log1p((x + (1 - c)) / c)

"""What dtypes promote to, also where JAX was told to promote none by itself."""

from typing import Any

import jax
import jax.numpy as jnp


def promoted(*dtypes: Any) -> Any:
    """The dtype that holds all of these."""
    with jax.numpy_dtype_promotion("standard"):
        return jnp.result_type(*dtypes)


def widened(*dtypes: Any) -> Any:
    """The dtype in which arithmetic on these is done: float32 or wider."""
    return promoted(*dtypes, jnp.float32)

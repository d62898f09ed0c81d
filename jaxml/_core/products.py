"""Products of matrices, with all the digits that their factors have.

By default a GPU rounds factors of float32 to 10 bits (TensorFloat-32). A distance or a
similarity that is divided by a temperature afterwards has no digits to give away.
"""

from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxml._core.dtypes import widened


def matmul(x: Array, y: Array) -> Array:
    """x y, and its derivatives alike: a product hands its precision down."""
    return jnp.matmul(x, y, precision="highest")


def precision_of(dtype: Any) -> str | None:
    """What a product of factors of this dtype needs: 16 bits go in as they are."""
    return "highest" if widened(dtype) == dtype else None

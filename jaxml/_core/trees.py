"""Vector arithmetic on trees of real arrays: x and y have one structure and dtype.

On a mesh with explicit axes the arrays may be sharded; the scalars are replicated.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree
from jax.sharding import PartitionSpec

from jaxml._core import safe
from jaxml._core.types import PyTree


def dot(x: PyTree, y: PyTree) -> Array:
    """The dot product Σ xᵢ yᵢ over all elements of all arrays."""
    out_sharding = PartitionSpec() if _has_explicit_axes() else None

    def leaf_dot(a: Array, b: Array) -> Array:
        return jnp.tensordot(
            a, b, a.ndim, precision="highest", out_sharding=out_sharding
        )

    return sum(jax.tree.leaves(jax.tree.map(leaf_dot, x, y)))  # pyright: ignore[reportReturnType]


def norm(x: PyTree) -> Array:
    """‖x‖₂ over all elements. The squares neither overflow nor underflow."""
    leaf_norms = [safe.norm(a, tuple(range(a.ndim))) for a in jax.tree.leaves(x)]
    return safe.norm(jnp.stack(leaf_norms))


def zeros_like(x: PyTree) -> PyTree:
    """Zeros with the shapes and dtypes of x."""
    return jax.tree.map(jnp.zeros_like, x)


def scale(scalar: Array, x: PyTree) -> PyTree:
    """scalar · x."""
    return jax.tree.map(lambda a: scalar * a, x)


def add_scaled(x: PyTree, scalar: Array, y: PyTree) -> PyTree:
    """x + scalar · y."""
    return jax.tree.map(lambda a, b: a + scalar * b, x, y)


def subtract(x: PyTree, y: PyTree) -> PyTree:
    """x - y."""
    return jax.tree.map(lambda a, b: a - b, x, y)


def where(condition: Array, x: PyTree, y: PyTree) -> PyTree:
    """x if the scalar condition is True, else y."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), x, y)


def cast(x: PyTree, dtype: Any) -> PyTree:
    """x with every array in this dtype."""
    return jax.tree.map(lambda a: jnp.asarray(a, dtype), x)


def ravel(x: PyTree) -> tuple[Array, Callable[[Array], PyTree]]:
    """x as one replicated vector, and the inverse: arrays that are sharded as x."""
    flat, unravel = ravel_pytree(jax.tree.map(unshard, x))
    if not _has_explicit_axes():
        return flat, unravel

    def unravel_sharded(flat: Array) -> PyTree:
        return jax.tree.map(
            lambda a, like: jax.reshard(a, jax.typeof(like).sharding.spec),
            unravel(flat),
            x,
        )

    return flat, unravel_sharded


def unshard(x: Array) -> Array:
    """x on all devices of a mesh with explicit axes, which reshapes would refuse."""
    return jax.reshard(x, PartitionSpec()) if _has_explicit_axes() else x


def _has_explicit_axes() -> bool:
    return bool(jax.sharding.get_abstract_mesh().explicit_axes)

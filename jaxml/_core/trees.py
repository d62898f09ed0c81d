"""Vector arithmetic on trees of real arrays: x and y have one structure and dtype."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxml._core import safe
from jaxml._core.types import PyTree


def dot(x: PyTree, y: PyTree) -> Array:
    """The dot product Σ xᵢ yᵢ over all elements of all arrays."""
    terms = jax.tree.map(lambda a, b: jnp.vdot(a, b, precision="highest"), x, y)
    return sum(jax.tree.leaves(terms))  # pyright: ignore[reportReturnType]


def norm(x: PyTree) -> Array:
    """‖x‖₂ over all elements. The squares neither overflow nor underflow."""
    leaf_norms = [safe.norm(jnp.ravel(a)) for a in jax.tree.leaves(x)]
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

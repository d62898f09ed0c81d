"""Trees of real arrays as vectors: x and y are alike, and of one dtype."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxml._core.types import Tree


def dot(x: Tree, y: Tree) -> Array:
    """Σ xᵢ yᵢ over all elements of all arrays."""
    terms = jax.tree.map(lambda a, b: jnp.vdot(a, b, precision="highest"), x, y)
    return sum(jax.tree.leaves(terms))  # pyright: ignore[reportReturnType]


def norm(x: Tree) -> Array:
    """‖x‖₂ over all elements, which neither overflows nor underflows on the way."""
    largest = [jnp.max(jnp.abs(a), initial=0) for a in jax.tree.leaves(x)]
    top = jnp.max(jnp.stack(largest))
    scale = jnp.where(top > 0, top, 1)
    unit = jax.tree.map(lambda a: a / scale, x)
    return jnp.where(jnp.isfinite(top), top * jnp.sqrt(dot(unit, unit)), top)


def zeros_like(x: Tree) -> Tree:
    """0 for every element, where x is NaN too."""
    return jax.tree.map(jnp.zeros_like, x)


def scaled(scale: Array, x: Tree) -> Tree:
    """scale · x."""
    return jax.tree.map(lambda a: scale * a, x)


def plus(x: Tree, scale: Array, y: Tree) -> Tree:
    """x + scale · y."""
    return jax.tree.map(lambda a, b: a + scale * b, x, y)


def minus(x: Tree, y: Tree) -> Tree:
    """x - y."""
    return jax.tree.map(lambda a, b: a - b, x, y)


def choose(condition: Array, x: Tree, y: Tree) -> Tree:
    """x where the condition, one boolean, holds, else y."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), x, y)


def cast(x: Tree, dtype: Any) -> Tree:
    """x with all arrays in one dtype."""
    return jax.tree.map(lambda a: jnp.asarray(a, dtype), x)

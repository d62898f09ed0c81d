"""What one writes without jaxml: optax, and losses on a matrix of all pairs."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax import Array

cross_entropy = optax.losses.softmax_cross_entropy_with_integer_labels


@jax.custom_vjp
def products(x: Array, y: Array) -> Array:
    """All products of the rows of x and y, in float32.

    The backward pass multiplies in the dtype of the rows, which is fastest.
    """
    precision = "highest" if x.dtype == jnp.float32 else None
    return jnp.matmul(x, y.T, precision=precision, preferred_element_type=jnp.float32)


def products_fwd(x: Array, y: Array) -> tuple[Array, tuple[Array, Array]]:
    return products(x, y), (x, y)


def products_bwd(factors: tuple[Array, Array], ct: Array) -> tuple[Array, Array]:
    x, y = factors
    ct = ct.astype(x.dtype)
    return products(ct, y.T).astype(x.dtype), products(ct.T, x.T).astype(y.dtype)


products.defvjp(products_fwd, products_bwd)


def linear_cross_entropy(x: Array, w: Array, labels: Array) -> Array:
    return cross_entropy(products(x, w.T), labels)


def ctc_loss(logits: Array, labels: Array) -> Array:
    paddings = jnp.zeros(logits.shape[:2]), jnp.zeros(labels.shape)
    return optax.losses.ctc_loss(logits, paddings[0], labels, paddings[1])

"""Sampling of batches in which each class has several examples."""

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Integer, Key

from jaxml._core.contract import raise_invalid
from jaxml._core.public import public
from jaxml._core.types import Count


@public(upcast=False)
def m_per_class(
    key: Key[Array, ""],
    labels: Integer[Array, "n"],
    *,
    classes_per_batch: Count,
    per_class: Count,
) -> Integer[Array, "batch"]:
    """Indices of a random batch: m examples of each of k classes, class by class.

        batch = [m of class c₁, ..., m of class cₖ]    with distinct c₁, ..., cₖ

    Classes are uniform over those that have an example, and examples uniform in their
    class, without replacement. A class of fewer than m examples repeats them, equally
    often to within one. Of fewer than k classes, each is drawn again in turn, with
    examples of its own that are still left.

    It sorts the labels. To draw many batches at once, `jax.vmap` it over keys.

    Args:
        key: A random key.
        labels: The class of each example of the data set, any integers.
        classes_per_batch: k.
        per_class: m.

    Raises:
        TypeError: If there are no labels.

    Reference:
        Hermans, Beyer and Leibe, In defense of the triplet loss for person
        re-identification, 2017, https://arxiv.org/abs/1703.07737 (batches of P K).

    Example:
        >>> labels = jnp.array([7, 3, 7, 3, 7])
        >>> m_per_class(jax.random.key(0), labels, classes_per_batch=1, per_class=2)
        Array([4, 2], dtype=int32)
    """
    n = len(labels)
    if n == 0:
        raise_invalid(TypeError, "labels", "have at least one element", labels)
    order_key, class_key = jax.random.split(key)
    noise = jax.random.bits(order_key, (n,), jnp.uint32)
    index = jnp.arange(n, dtype=jnp.int32)
    # each class is a run, in random order
    labels, _, order = lax.sort((labels, noise, index), num_keys=2)
    is_first = jnp.pad(labels[1:] != labels[:-1], (1, 0), constant_values=True)

    priority = jax.random.bits(class_key, (n,), jnp.uint32) >> 1
    priority = jnp.where(is_first, priority.astype(jnp.int32), -1)
    first = lax.top_k(priority, min(classes_per_batch, n))[1]
    num_distinct = jnp.minimum(jnp.sum(is_first, dtype=jnp.int32), len(first))
    turn, c = jnp.divmod(jnp.arange(classes_per_batch, dtype=jnp.int32), num_distinct)
    first = first[c]
    class_size = jnp.searchsorted(labels, labels[first], side="right") - first

    offset = turn[:, None] * per_class + jnp.arange(per_class, dtype=jnp.int32)[None]
    return order[first[:, None] + offset % class_size[:, None]].ravel()

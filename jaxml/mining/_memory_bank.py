"""A memory bank: embeddings of earlier batches, as candidates of an in-batch loss."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float, Integer, Shaped

from jaxml._core.contract import raise_invalid
from jaxml._core.public import factory, public
from jaxml._core.types import Count


class MemoryBankState(NamedTuple):
    """The rows of a memory bank, the oldest first."""

    embeddings: Float[Array, "size d"]
    """Pass it as `references`."""
    labels: Integer[Array, "size"]
    """Pass it as `reference_labels`."""
    is_filled: Bool[Array, "size"]
    """False where no row has been pushed yet: broadcast it to `where`."""


class MemoryBank(NamedTuple):
    """A queue of embeddings and labels, as a pair of pure functions."""

    init: Callable[[], MemoryBankState]
    """() -> an empty state."""
    push: Callable[[MemoryBankState, Array, Array], MemoryBankState]
    """(state, embeddings, labels) -> the state with these rows as its newest."""


@factory
def memory_bank(size: Count, dim: Count, *, dtype: Any = jnp.float32) -> MemoryBank:
    """A queue of the last embeddings and labels: cross-batch memory (XBM).

        push(state, x, y) = the last `size` rows of [state, (x, y)]

    The rows carry no gradient. Pushed rows take the dtype of the bank, and labels JAX's
    default integer dtype. After a push, the batch is the last rows of the bank.

    Args:
        size: The number of rows. Of a larger batch the last ones stay.
        dim: The number of features of an embedding.
        dtype: The float dtype of the rows.

    Returns:
        `MemoryBank(init, push)`. `init()` has no filled rows: a loss must mask them by
        `is_filled`.

    Reference:
        Wang et al., Cross-batch memory for embedding learning, CVPR 2020,
        https://arxiv.org/abs/1912.06798

    Example:
        >>> bank = memory_bank(3, 1)
        >>> state = bank.push(bank.init(), jnp.array([[1.0], [2.0]]), jnp.array([7, 8]))
        >>> state.labels, state.is_filled
        (Array([0, 7, 8], dtype=int32), Array([False,  True,  True], dtype=bool))
    """
    if not jnp.issubdtype(dtype, jnp.floating):
        raise_invalid(TypeError, "dtype", "be a float dtype", str(dtype))

    def init() -> MemoryBankState:
        return MemoryBankState(
            jnp.zeros((size, dim), dtype),
            jnp.zeros(size, int),
            jnp.zeros(size, bool),
        )

    def push(state: MemoryBankState, embeddings: Array, labels: Array) -> Any:
        embeddings, labels = (
            lax.stop_gradient(jnp.asarray(embeddings)),
            jnp.asarray(labels),
        )
        if embeddings.ndim != 2 or embeddings.shape[1] != dim:
            raise_invalid(TypeError, "embeddings", f"have shape [n, {dim}]", embeddings)
        if labels.shape != embeddings.shape[:1]:
            requirement = f"have shape [{len(embeddings)}], as embeddings"
            raise_invalid(TypeError, "labels", requirement, labels)
        if not jnp.issubdtype(labels.dtype, jnp.integer):
            raise_invalid(TypeError, "labels", "be integers", labels)
        rows = MemoryBankState(embeddings, labels, jnp.ones(labels.shape, bool))
        cast = jax.tree.map(lambda row, queue: row.astype(queue.dtype), rows, state)
        return MemoryBankState(*map(_push, state, cast))

    return MemoryBank(init, push)


@public(upcast=False, keep_dtype=True)
def _push(
    queue: Shaped[Array, "size *d"], rows: Shaped[Array, "n *d"]
) -> Shaped[Array, "size *d"]:
    return jnp.concatenate([queue, rows])[-len(queue) :]

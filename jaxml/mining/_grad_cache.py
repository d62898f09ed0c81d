"""The gradient of an in-batch loss whose batch is too large to encode at once."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import PartitionSpec

from jaxml._core.blocks import map_blocks
from jaxml._core.collectives import vary_together
from jaxml._core.contract import raise_invalid
from jaxml._core.public import factory
from jaxml._core.types import Count, PyTree, compute_dtype


@factory
def grad_cache(
    encode: Callable[..., PyTree],
    loss: Callable[[PyTree, PyTree, PyTree], Array],
    chunk: Count,
) -> Callable[..., tuple[Array, PyTree]]:
    """Value and gradient of an in-batch loss, with the batch encoded in chunks.

        value_and_grad(params, batch) = ∂/∂params loss(params, e, batch)
        e = [encode(params, batch[:chunk]), encode(params, batch[chunk:2 chunk]), ...]

    It equals `jax.value_and_grad` on the whole batch, but holds the activations of one
    chunk at a time: the backward pass encodes each chunk again, with the same key. The
    encoder must treat examples independently (no batch statistics).

    Args:
        encode: (params, batch) -> embeddings of each example; with a key, (params,
            batch, key). Several towers return a tuple.
        loss: (params, embeddings, batch) -> a scalar, of the whole batch.
        chunk: The number of examples per chunk; the last one may have fewer.

    Returns:
        A function of (params, batch, *, key=None) -> (value, gradient for params), to
        be compiled with `jax.jit`. `batch` is an array, or a tree of arrays, of
        examples. The key of a chunk is `key` folded with its first example's index.

    Reference:
        Gao et al., Scaling deep contrastive learning batch size under memory limited
        setup, RepL4NLP 2021, https://arxiv.org/abs/2101.06983

    Example:
        >>> step = grad_cache(lambda w, x: x @ w, lambda w, e, x: jnp.sum(e @ e.T), 2)
        >>> step(jnp.ones((1, 1)), jnp.ones((3, 1)))
        (Array(9., dtype=float32), Array([[18.]], dtype=float32))
    """

    def value_and_grad(
        params: PyTree, batch: PyTree, *, key: Array | None = None
    ) -> tuple[Array, PyTree]:
        n = _num_examples(batch)

        def objective(params: PyTree) -> Array:
            # one sum over devices for all chunks, and one rounding of the gradient
            wide = jax.tree.map(_widen, params)
            wide, examples, chunk_key = vary_together((wide, batch, key))

            def encode_chunk(rows: tuple[PyTree, Array]) -> PyTree:
                examples, index = rows
                like_params = jax.tree.map(lambda w, p: w.astype(p.dtype), wide, params)
                if chunk_key is None:
                    return encode(like_params, examples)
                key = jax.random.fold_in(chunk_key, index[0])
                return encode(like_params, examples, key)

            index = jnp.arange(n, dtype=jnp.int32)
            embeddings = map_blocks(encode_chunk, (examples, index), 1, chunk)
            return loss(params, embeddings, batch)

        return jax.value_and_grad(objective)(params)

    return _on_automatic_axes(value_and_grad)


def _on_automatic_axes(value_and_grad: Callable[..., Any]) -> Callable[..., Any]:
    """The function, on a mesh with explicit axes too, where it splits sharded rows."""

    def call(params: PyTree, batch: PyTree, *, key: Array | None = None) -> Any:
        mesh = jax.sharding.get_abstract_mesh()
        if not mesh.explicit_axes:
            return value_and_grad(params, batch, key=key)
        shardings = PartitionSpec(), jax.tree.map(_spec, params)
        automatic: Any = jax.sharding.auto_axes(
            lambda *arguments: value_and_grad(*arguments[:2], key=arguments[2]),
            axes=mesh.explicit_axes,
        )
        return automatic(params, batch, key, out_sharding=shardings)

    return call


def _spec(param: Array) -> PartitionSpec:
    return jax.typeof(param).sharding.spec


def _num_examples(batch: PyTree) -> int:
    """The length of the first axis, which all arrays have in common."""
    leaves = jax.tree.leaves(batch)
    lengths = {jnp.shape(x)[:1] for x in leaves}
    if len(lengths) != 1 or () in lengths:
        requirement = "be arrays with one length along their first axes"
        raise_invalid(TypeError, "batch", requirement, tuple(leaves))
    return len(leaves[0])


def _widen(param: Array) -> Array:
    """A 16-bit parameter in float32, in which gradients of chunks are summed."""
    is_float = jnp.issubdtype(param.dtype, jnp.floating)
    return param.astype(compute_dtype(param.dtype)) if is_float else param

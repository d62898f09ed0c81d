"""The nats it takes to find one's own key among all: `info_nce`, and the N-pair loss.

Row i of the keys is the own one of query i; all others, and those beyond the queries'
number, are its rivals.
"""

import jax.numpy as jnp
from jax import Array

from jaxml._core.blocks import map_blocks_fused_grad
from jaxml._core.masking import apply_mask
from jaxml._core.matmul import logsumexp_matmul, materialized_transpose
from jaxml._core.special.logistic import softplus
from jaxml._core.types import Scalar


def surprise(
    queries: Array,
    keys: Array,
    temperature: Scalar = 1.0,
    where: Array | None = None,
    block: int | None = None,
) -> Array:
    """log(1 + Σⱼ e^(sᵢⱼ - sᵢᵢ)) over j ≠ i, with s = q·k / τ; 0 without the own key."""
    own, index = keys[: len(queries)], jnp.arange(len(queries))
    shared = materialized_transpose(keys), jnp.asarray(temperature, keys.dtype)
    return map_blocks_fused_grad(
        _surprise, (queries, own, index, where), shared, len(keys), block
    )


def _surprise(rows: tuple, shared: tuple) -> Array:
    query, key, index, kept = rows
    columns, temperature = shared
    query = query / temperature
    own = index[:, None] == jnp.arange(columns.shape[1])[None]
    rivals = ~own if kept is None else ~own & kept
    has_own = None if kept is None else jnp.any(own & kept, 1)
    mine = apply_mask(jnp.sum(query * key, 1), has_own)
    return apply_mask(
        softplus(logsumexp_matmul(query, columns, rivals) - mine), has_own
    )

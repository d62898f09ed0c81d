"""Mixtures of experts: losses of the router, which sends each token to k experts.

The event is the tokens of one layer and their experts, the last axis. `axis` names the
axes of the tokens; the axes that remain, such as the layers, have a loss each.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float

from jaxml._core.collectives import sum_shards
from jaxml._core.contract import raise_invalid
from jaxml._core.masking import apply_mask
from jaxml._core.public import public
from jaxml._core.safe import safe_divide
from jaxml._core.softmax import log_softmax
from jaxml._core.types import Axes, AxisName, Count


@public
def load_balance_loss(
    router_logits: Float[Array, "*tokens experts"],
    *,
    top_k: Count,
    axis: Axes = -2,
    where: Bool[Array, "*tokens"] | None = None,
    axis_name: AxisName | None = None,
) -> Float[Array, "*batch"]:
    """How unevenly a router loads its experts: 1 if evenly, E if one has all tokens.

        loss = E Σₑ fₑ Pₑ

    with fₑ the fraction of the routed tokens that expert e receives, which carries no
    gradient, and Pₑ the mean probability of e over the tokens. Without tokens it is 0.

    Args:
        router_logits: Unnormalized scores of the E experts.
        top_k: k, the experts per token. Some libraries return k times this loss.
        axis: The axes of the tokens. Layers are not among them: they would cancel.
        where: The tokens that count.
        axis_name: The mesh axes over which the tokens are sharded, in `jax.shard_map`:
            the fractions and the mean are those of the global batch.

    Raises:
        ValueError: If k is larger than E, or an axis is not one of the tokens.

    Reference:
        Fedus, Zoph and Shazeer, Switch transformers, JMLR 23(120), 2022, equations 4 to
        6, https://arxiv.org/abs/2101.03961

    Example:
        >>> load_balance_loss(jnp.array([[9.0, 0.0], [9.0, 0.0]]), top_k=1)
        Array(1.9997532, dtype=float32)
    """
    num_experts = router_logits.shape[-1]
    if top_k > num_experts:
        raise_invalid(ValueError, "top_k", f"be at most {num_experts}", top_k)
    ndim = router_logits.ndim
    axes = (axis,) if isinstance(axis, int) else axis
    if not all(-ndim <= a < ndim and a % ndim != ndim - 1 for a in axes):
        raise_invalid(ValueError, "axis", "name axes of the tokens", axis)
    axes = tuple(a % ndim for a in axes)
    mask = jnp.ones(router_logits.shape[:-1], bool) if where is None else where
    z = apply_mask(router_logits, mask[..., None])

    def total(x: Array) -> Array:
        x = apply_mask(x, jnp.broadcast_to(mask[..., None], x.shape))
        return sum_shards(jnp.sum(x, axes), axis_name)

    chosen = lax.top_k(lax.stop_gradient(z), top_k)[1]
    slots = (
        jax.nn.one_hot(chosen[..., j], num_experts, dtype=z.dtype) for j in range(top_k)
    )
    counts = sum(map(total, slots))
    probability = total(jnp.exp(log_softmax(z)))
    num_tokens = total(jnp.ones_like(z[..., :1]))
    fractions = safe_divide(counts, top_k * num_tokens)
    return num_experts * jnp.sum(fractions * safe_divide(probability, num_tokens), -1)

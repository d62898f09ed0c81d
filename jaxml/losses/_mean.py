"""The mean over examples: the only reduction."""

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float

from jaxml._core.collectives import max_shards, sum_shards
from jaxml._core.masking import apply_mask
from jaxml._core.public import public
from jaxml._core.safe import inverse_magnitude, multiply_no_nan, safe_divide
from jaxml._core.types import AxisName


@public
def mean(
    values: Float[Array, "*shape"],
    *,
    weights: Float[Array, "*shape"] | None = None,
    where: Bool[Array, "*shape"] | None = None,
    axis_name: AxisName | None = None,
) -> Float[Array, ""]:
    """The weighted mean of the unmasked values.

        mean = Σ w v / Σ w    over the unmasked values v

    It is 0 with gradient 0 if all values are masked or all weights are 0. A masked
    value may be NaN, and a value with weight 0 infinite. But if the loss of a NaN
    target is masked only here, its derivative is still NaN: pass `where` to the loss.

    Args:
        values: Losses, one per example.
        weights: w >= 0, all 1 by default. For class weights, pass
            `weights=class_weights[labels]`.
        where: The values that count, all by default.
        axis_name: The mesh axes over which the values are sharded, in
            `jax.shard_map`: the mean is over all devices, and its gradient too. It
            must not be averaged or divided by the number of devices again.

    Example:
        >>> mean(jnp.array([1.0, 2.0, jnp.nan]), where=jnp.array([True, True, False]))
        Array(1.5, dtype=float32)
    """
    weights = apply_mask(jnp.ones_like(values) if weights is None else weights, where)
    # their common scale does not matter, and could overflow
    largest = lax.stop_gradient(jnp.max(jnp.abs(weights), initial=0.0))
    weights *= inverse_magnitude(max_shards(largest, axis_name))
    weighted = multiply_no_nan(weights, apply_mask(values, where))
    total = sum_shards(jnp.sum(weighted), axis_name)
    return safe_divide(total, sum_shards(jnp.sum(weights), axis_name))

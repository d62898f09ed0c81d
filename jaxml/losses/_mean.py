"""The only reduction."""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jaxml._core.masking import apply_mask
from jaxml._core.public import public
from jaxml._core.safe import multiply_no_nan, safe_divide


@public
def mean(
    values: Float[Array, "*shape"],
    *,
    weights: Float[Array, "*shape"] | None = None,
    where: Bool[Array, "*shape"] | None = None,
) -> Float[Array, ""]:
    """The weighted mean of what is kept.

        mean = Σ w v / Σ w        over the kept

    It is 0 with gradient 0 when nothing is kept or all weights are 0. What is left out
    changes nothing, not even by being NaN, and what has the weight 0 not even by being
    infinite.

    Args:
        values: Losses, one per example.
        weights: w, non-negative; equal weights by default. A weight per class is
            `weights=class_weights[labels]`.
        where: True for what counts; everything by default.

    Example:
        >>> mean(jnp.array([1.0, 2.0, jnp.nan]), where=jnp.array([True, True, False]))
        Array(1.5, dtype=float32)
    """
    weights = apply_mask(jnp.ones_like(values) if weights is None else weights, where)
    return safe_divide(
        jnp.sum(multiply_no_nan(weights, apply_mask(values, where))), jnp.sum(weights)
    )

"""Shadow weights: the parameters averaged over the steps, to evaluate with."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxml._core.contract import raise_invalid, reports_as
from jaxml._core.public import factory
from jaxml._core.safe import safe_divide
from jaxml._core.types import PyTree, UnitInterval
from jaxml.optimizers._per_leaf import (
    Transformation,
    apply_updates,
    check_floats,
    ema,
    increment,
    shares,
    wide,
    widened,
    with_extra_arguments,
)
from jaxml.optimizers._per_leaf import (
    debias as debias_share,
)


class ShadowState(NamedTuple):
    count: Array
    share: Array
    ema: PyTree
    inner_state: Any


@factory
def shadow_weights(
    optimizer: Any, *, decay: UnitInterval = 0.999, debias: bool = True
) -> Transformation:
    """Keeps, beside what `optimizer` does, a moving average of the parameters.

        s ← μ s + (1 - μ) x,  x the parameters after each update;  x̄ = s / (1 - μᵗ)

    s begins at 0, in float32 or wider; `averaged_params` gives x̄, which generalises
    better than the last x and costs no training step. `optax.ema` is something else:
    it averages the updates.

    Args:
        optimizer: Any gradient transformation; its updates are returned unchanged.
        decay: μ in [0, 1): the average spans about 1 / (1 - μ) steps.
        debias: Whether to divide by 1 - μᵗ, what the weights of the mean add up to.

    Raises:
        ValueError: If `decay` is out of its range.
        TypeError: If `update` is not given the parameters.

    Reference:
        Polyak and Juditsky, Acceleration of stochastic approximation by averaging,
        1992, https://doi.org/10.1137/0330046; the corrected form as in Adam.

    Example:
        >>> optimizer, x = shadow_weights(sgd(1.0), decay=0.5), jnp.zeros(1)
        >>> _, state = optimizer.update(jnp.array([-2.0]), optimizer.init(x), x)
        >>> averaged_params(state)
        Array([2.], dtype=float32)
    """
    inner = with_extra_arguments(optimizer)

    def init(params: PyTree) -> ShadowState:
        check_floats("shadow_weights", "params", params)
        zeros = jax.tree.map(lambda x: jnp.zeros_like(_wide(x)), params)
        count, share = jnp.zeros((), jnp.int32), jnp.zeros((), float)
        return ShadowState(count, share, zeros, inner.init(params))

    def update(
        updates: PyTree, state: Any, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, ShadowState]:
        if params is None:
            raise_invalid(TypeError, "params", "be given to update", params)
        updates, inner_state = inner.update(updates, state.inner_state, params, **extra)
        count = increment(state.count)
        share = debias_share(decay, count.astype(float))

        def average(mean: Array, x: Array) -> Array:
            both = jax.tree.map(lambda s: s.astype(mean.real.dtype), shares(decay))
            return ema(both, mean, _wide(x))

        with jax.numpy_dtype_promotion("standard"):  # real numbers, complex arrays
            after = apply_updates(params, updates)
            mean = jax.tree.map(average, state.ema, after)
        share = jnp.where(debias, share, jnp.ones_like(share))
        return updates, ShadowState(count, share, mean, inner_state)

    return Transformation(init, update)


def averaged_params(state: Any, params: PyTree = None) -> PyTree:
    """The average of the parameters that `shadow_weights` keeps.

        x̄ = s / (1 - μᵗ)

    Zeros before the first update.

    Args:
        state: The state of `shadow_weights`, or one that holds it, as a chain's does.
        params: Arrays whose dtypes the average is to have; its own by default.

    Raises:
        ValueError: If `state` holds the state of no `shadow_weights`, or of several.

    Example:
        >>> optimizer, x = shadow_weights(sgd(1.0)), jnp.ones(2, jnp.bfloat16)
        >>> _, state = optimizer.update(jnp.zeros_like(x), optimizer.init(x), x)
        >>> averaged_params(state, x)
        Array([1, 1], dtype=bfloat16)
    """
    leaves = jax.tree.leaves(state, is_leaf=_is_shadow)
    shadows = [leaf for leaf in leaves if _is_shadow(leaf)]
    if len(shadows) != 1:
        rule, found = "hold one state of shadow_weights", f"{len(shadows)} of them"
        with reports_as("averaged_params"):
            raise_invalid(ValueError, "state", rule, found)
    (shadow,) = shadows

    def unbiased(mean: Array) -> Array:
        share = shadow.share.astype(mean.real.dtype)
        return safe_divide(mean, share.astype(mean.dtype))

    mean = jax.tree.map(unbiased, shadow.ema)
    if params is None:
        return mean
    return jax.tree.map(lambda m, x: m.astype(jnp.result_type(x)), mean, params)


def _is_shadow(state: Any) -> bool:
    return isinstance(state, ShadowState)


def _wide(x: Array) -> Array:
    x = jnp.asarray(x)
    return widened(x, wide(x.dtype))

"""Shadow weights: a moving average of the parameters, for evaluation."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxml._core.contract import raise_invalid, reports_as
from jaxml._core.public import factory
from jaxml._core.safe import safe_divide
from jaxml._core.types import DecayRate, PyTree
from jaxml.optimizers._per_leaf import (
    BetaPair,
    Transformation,
    apply_updates,
    beta_pair,
    bias_correction,
    check_floats,
    ema,
    full_like,
    increment,
    real_compute_dtype,
    trained,
    upcast,
    with_extra_args_support,
)


class ShadowWeightsState(NamedTuple):
    count: Array
    bias_correction: Array  # 1 - μᵗ, or 1 without debiasing
    ema: PyTree
    inner_state: Any


@factory
def shadow_weights(
    optimizer: Any, *, decay: DecayRate = 0.999, debias: bool = True
) -> Transformation:
    """Wraps an optimizer and keeps a moving average of the parameters.

        s ← μ s + (1 - μ) x,  x the parameters after each update;  x̄ = s / (1 - μᵗ)

    s starts at 0, in float32 or wider. `averaged_params` returns x̄, which often
    generalizes better than the last x and does not affect training. (`optax.ema`
    averages the updates instead.)

    Args:
        optimizer: Any gradient transformation; its updates are returned unchanged.
        decay: μ in [0, 1): the average covers about 1 / (1 - μ) steps. Or a schedule:
            `lambda t: t / (t + 1)` averages all parameters equally (SWA).
        debias: Whether to divide by 1 - μᵗ, the sum of the average's weights.

    Raises:
        TypeError: If `update` is called without the parameters.

    Reference:
        Polyak and Juditsky, Acceleration of stochastic approximation by averaging,
        1992, https://doi.org/10.1137/0330046; the bias correction is Adam's.

    Example:
        >>> optimizer, x = shadow_weights(sgd(1.0), decay=0.5), jnp.zeros(1)
        >>> _, state = optimizer.update(jnp.array([-2.0]), optimizer.init(x), x)
        >>> averaged_params(state)
        Array([2.], dtype=float32)
    """
    inner = with_extra_args_support(optimizer)

    def init(params: PyTree) -> ShadowWeightsState:
        check_floats("params", params)
        zeros = jax.tree.map(lambda x: full_like(x, 0.0, _upcast(x).dtype), params)
        count, correction = jnp.zeros((), jnp.int32), jnp.zeros((), float)
        return ShadowWeightsState(count, correction, zeros, inner.init(params))

    def update(
        updates: PyTree, state: Any, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, ShadowWeightsState]:
        if params is None:
            raise_invalid(TypeError, "params", "be given to update", params)
        updates, inner_state = inner.update(
            updates, state.inner_state, params, **extra_args
        )
        count = increment(state.count)
        if callable(decay):
            current_decay = jnp.asarray(decay(state.count), float)
            new_weight = (1 - state.bias_correction) * (1 - current_decay)
            correction = state.bias_correction + new_weight
        else:
            current_decay = decay
            correction = bias_correction(decay, count.astype(float))
        correction = jnp.where(debias, correction, jnp.ones_like(correction))

        def average(mean: Array, x: Array) -> Array:
            weights = (w.astype(mean.real.dtype) for w in beta_pair(current_decay))
            return ema(BetaPair(*weights), mean, _upcast(x))

        with jax.numpy_dtype_promotion("standard"):  # real scalars, complex arrays
            new_params = apply_updates(trained(params, state.ema), updates)
            means = jax.tree.map(average, state.ema, new_params)
        return updates, ShadowWeightsState(count, correction, means, inner_state)

    return Transformation(init, update)


@reports_as("averaged_params")
def averaged_params(state: Any, params: PyTree = None) -> PyTree:
    """The average of the parameters that `shadow_weights` keeps.

        x̄ = s / (1 - μᵗ)

    It is 0 before the first update.

    Args:
        state: The state of `shadow_weights`, or one that contains it, such as a
            chain's.
        params: The average takes the dtypes of these; float32 or wider by default.

    Raises:
        ValueError: If `state` does not contain exactly one `shadow_weights` state.

    Example:
        >>> optimizer, x = shadow_weights(sgd(1.0)), jnp.ones(2, jnp.bfloat16)
        >>> _, state = optimizer.update(jnp.zeros_like(x), optimizer.init(x), x)
        >>> averaged_params(state, x)
        Array([1, 1], dtype=bfloat16)
    """
    leaves = jax.tree.leaves(state, is_leaf=_is_shadow_weights_state)
    shadows = [leaf for leaf in leaves if _is_shadow_weights_state(leaf)]
    if len(shadows) != 1:
        requirement = "contain exactly one shadow_weights state"
        raise_invalid(ValueError, "state", requirement, len(shadows))
    (shadow,) = shadows

    def debiased(mean: Array) -> Array:
        correction = shadow.bias_correction.astype(mean.real.dtype)
        return safe_divide(mean, correction.astype(mean.dtype))

    means = jax.tree.map(debiased, shadow.ema)
    if params is None:
        return means
    return jax.tree.map(lambda m, x: m.astype(jnp.result_type(x)), means, params)


def _is_shadow_weights_state(state: Any) -> bool:
    return isinstance(state, ShadowWeightsState)


def _upcast(x: Array) -> Array:
    """x in float32 or wider."""
    x = jnp.asarray(x)
    return upcast(x, real_compute_dtype(x.dtype))

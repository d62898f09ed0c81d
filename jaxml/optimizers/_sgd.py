"""Gradient descent: plain, with momentum, and with Nesterov momentum.

g is the gradient, η the learning rate, u the update that is added to the parameters x.
The state holds b as `trace`.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from jaxml._core.public import factory
from jaxml._core.types import PyTree, Rate, UnitInterval
from jaxml.optimizers._per_leaf import (
    Accumulator,
    Transformation,
    per_leaf_transformation,
)


class SGDState(NamedTuple):
    count: Array


class MomentumState(NamedTuple):
    count: Array
    trace: PyTree


@factory
def sgd(learning_rate: Rate, *, state_dtype: Any = None) -> Transformation:
    """Stochastic gradient descent: a step against the gradient.

        u = -η g

    The examples that the gradient is averaged over make it batch, mini-batch or
    stochastic gradient descent.

    Args:
        learning_rate: η, a number or a schedule.
        state_dtype: Accepted so that all optimizers share this argument; sgd has no
            accumulator.

    Reference:
        Robbins and Monro, A stochastic approximation method, Annals of Mathematical
        Statistics 22(3), 1951, https://doi.org/10.1214/aoms/1177729586

    Example:
        >>> optimizer = sgd(0.5)
        >>> optimizer.update(jnp.array([2.0]), optimizer.init(jnp.zeros(1)))[0]
        Array([-1.], dtype=float32)
    """

    def scalars_at(learning_rate: Array, t: Array) -> dict:
        return {"learning_rate": learning_rate}

    def step(g, *, learning_rate) -> tuple:
        return (-learning_rate * g,)

    return per_leaf_transformation(
        SGDState, (), learning_rate, scalars_at, step, state_dtype
    )


@factory
def momentum(
    learning_rate: Rate,
    *,
    decay: UnitInterval = 0.9,
    dampening: UnitInterval = 0.0,
    state_dtype: Any = None,
) -> Transformation:
    """Gradient descent with heavy-ball momentum, which damps oscillations.

        b ← μ b + (1 - δ) g,  b = g at the first step        u = -η b

    Args:
        learning_rate: η, a number or a schedule.
        decay: μ in [0, 1), the momentum coefficient.
        dampening: δ in [0, 1); gradients after the first are multiplied by 1 - δ.
        state_dtype: The dtype of b; float32 or wider by default.

    Reference:
        Polyak, Some methods of speeding up the convergence of iteration methods, 1964,
        https://doi.org/10.1016/0041-5553%2864%2990137-5; dampening as in PyTorch's SGD.

    Example:
        >>> optimizer = momentum(1.0, decay=0.5)
        >>> state = optimizer.init(jnp.zeros(1))
        >>> _, state = optimizer.update(jnp.ones(1), state)
        >>> optimizer.update(jnp.ones(1), state)[0]
        Array([-1.5], dtype=float32)
    """

    def scalars_at(learning_rate: Array, t: Array) -> dict:
        one_minus_dampening = 1 - jnp.asarray(dampening, t.dtype)
        return {
            "learning_rate": learning_rate,
            "decay": decay,
            "g_weight": jnp.where(t == 1, 1.0, one_minus_dampening),
        }

    def step(g, b, *, learning_rate, decay, g_weight) -> tuple:
        b = decay * b + g_weight * g
        return -learning_rate * b, b

    return per_leaf_transformation(
        MomentumState, (Accumulator(),), learning_rate, scalars_at, step, state_dtype
    )


@factory
def nesterov(
    learning_rate: Rate, *, decay: UnitInterval = 0.9, state_dtype: Any = None
) -> Transformation:
    """Gradient descent with Nesterov momentum: the gradient is taken one step ahead.

        b ← μ b + g        u = -η (g + μ b)

    Nesterov's original form takes the gradient at the look-ahead point y = x - ημb and
    steps by -ηb. In terms of y the step is the one above, for constant η:
    y' - y = -η b' - ημ (b' - b) = -η (g + μ b').

    Args:
        learning_rate: η, a number or a schedule.
        decay: μ in [0, 1), the momentum coefficient.
        state_dtype: The dtype of b; float32 or wider by default.

    Reference:
        Sutskever, Martens, Dahl and Hinton, On the importance of initialization and
        momentum in deep learning, ICML 2013, https://proceedings.mlr.press/v28/sutskever13.html

    Example:
        >>> optimizer = nesterov(1.0, decay=0.5)
        >>> optimizer.update(jnp.ones(1), optimizer.init(jnp.zeros(1)))[0]
        Array([-1.5], dtype=float32)
    """

    def scalars_at(learning_rate: Array, t: Array) -> dict:
        return {"learning_rate": learning_rate, "decay": decay}

    def step(g, b, *, learning_rate, decay) -> tuple:
        b = decay * b + g
        return -learning_rate * (g + decay * b), b

    return per_leaf_transformation(
        MomentumState, (Accumulator(),), learning_rate, scalars_at, step, state_dtype
    )

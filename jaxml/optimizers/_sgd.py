"""Gradient descent, plain and with a memory of its direction.

g is the gradient, η the learning rate, u the update that is added to the parameters x.
"""

from typing import Annotated, Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from jaxml._core.public import factory
from jaxml._core.types import NonNegative, PyTree, Range, Rate, Scalar, UnitInterval
from jaxml.optimizers._per_leaf import (
    Mask,
    Slot,
    Transformation,
    ema,
    shares,
    transformation,
)


class DescentState(NamedTuple):
    count: Array


class MomentumState(NamedTuple):
    count: Array
    trace: PyTree


class LionState(NamedTuple):
    count: Array
    mu: PyTree


@factory
def sgd(learning_rate: Rate, *, state_dtype: Any = None) -> Transformation:
    """Gradient descent: a step against the gradient.

        u = -η g

    Batch, stochastic or mini-batch, by what the gradient is taken over. One rate serves
    all parameters, and near a saddle point the steps become small.

    Args:
        learning_rate: η, a number or a schedule.
        state_dtype: Taken as everywhere, so that one call makes any optimizer; there is
            no accumulator.

    Raises:
        ValueError: If the learning rate is out of its range.

    Reference:
        Robbins and Monro, A stochastic approximation method, Annals of Mathematical
        Statistics 22(3), 1951, https://doi.org/10.1214/aoms/1177729586

    Example:
        >>> optimizer = sgd(0.5)
        >>> optimizer.update(jnp.array([2.0]), optimizer.init(jnp.zeros(1)))[0]
        Array([-1.], dtype=float32)
    """

    def numbers(rate: Array, t: Array) -> tuple:
        return (rate,)

    def step(numbers: tuple, g: Array) -> tuple:
        (rate,) = numbers
        return (-rate * g,)

    return transformation(
        "sgd", DescentState, (), learning_rate, numbers, step, state_dtype
    )


@factory
def momentum(
    learning_rate: Rate,
    *,
    decay: UnitInterval = 0.9,
    dampening: UnitInterval = 0.0,
    state_dtype: Any = None,
) -> Transformation:
    """Gradient descent that keeps part of its last direction, which damps oscillation.

        b ← μ b + (1 - δ) g, at first b = g        u = -η b

    Args:
        learning_rate: η, a number or a schedule.
        decay: μ in [0, 1), the part of the direction that is kept.
        dampening: δ in [0, 1), how much less a new gradient counts.
        state_dtype: The dtype of b; float32 or wider by default.

    Raises:
        ValueError: If a number is out of its range.

    Reference:
        Polyak, Some methods of speeding up the convergence of iteration methods, 1964,
        https://doi.org/10.1016/0041-5553(64)90137-5; dampening as in PyTorch's SGD.

    Example:
        >>> optimizer = momentum(1.0, decay=0.5)
        >>> state = optimizer.init(jnp.zeros(1))
        >>> _, state = optimizer.update(jnp.ones(1), state)
        >>> optimizer.update(jnp.ones(1), state)[0]
        Array([-1.5], dtype=float32)
    """

    def numbers(rate: Array, t: Array) -> tuple:
        return rate, decay, jnp.where(t == 1, 1.0, 1 - jnp.asarray(dampening, t.dtype))

    def step(numbers: tuple, g: Array, b: Array) -> tuple:
        rate, decay, share = numbers
        b = decay * b + share * g
        return -rate * b, b

    return transformation(
        "momentum", MomentumState, (Slot(),), learning_rate, numbers, step, state_dtype
    )


@factory
def nesterov(
    learning_rate: Rate, *, decay: UnitInterval = 0.9, state_dtype: Any = None
) -> Transformation:
    """Momentum that looks ahead: the gradient corrects where momentum is about to go.

        b ← μ b + g        u = -η (g + μ b)

    Nesterov's own form takes the gradient at the point x - ημb ahead and steps by -ηb.
    Written for y = x - ημb, the point that the gradient is taken at, its step is
    y' - y = -η b' - ημ (b' - b) = -η (g + μ b'): this form, at a constant η.

    Args:
        learning_rate: η, a number or a schedule.
        decay: μ in [0, 1), the part of the direction that is kept.
        state_dtype: The dtype of b; float32 or wider by default.

    Raises:
        ValueError: If a number is out of its range.

    Reference:
        Sutskever, Martens, Dahl and Hinton, On the importance of initialization and
        momentum in deep learning, ICML 2013, https://proceedings.mlr.press/v28/sutskever13.html

    Example:
        >>> optimizer = nesterov(1.0, decay=0.5)
        >>> optimizer.update(jnp.ones(1), optimizer.init(jnp.zeros(1)))[0]
        Array([-1.5], dtype=float32)
    """

    def numbers(rate: Array, t: Array) -> tuple:
        return rate, decay

    def step(numbers: tuple, g: Array, b: Array) -> tuple:
        rate, decay = numbers
        b = decay * b + g
        return -rate * (g + decay * b), b

    return transformation(
        "nesterov", MomentumState, (Slot(),), learning_rate, numbers, step, state_dtype
    )


@factory
def lion(
    learning_rate: Rate,
    *,
    b1: UnitInterval = 0.9,
    b2: Annotated[Scalar, Range("be in (0, 1)", lambda x: 0 < x < 1)] = 0.99,
    weight_decay: NonNegative = 0.0,
    mask: Mask | None = None,
    state_dtype: Any = None,
) -> Transformation:
    """Steps of one length in every parameter: the sign of the direction alone.

        u = -η (sign(β₁ m + (1 - β₁) g) + λ x)        m ← β₂ m + (1 - β₂) g

    The gradient counts for more in the step than in the memory. It keeps one array, not
    Adam's two; its rate is to be 3 to 10 times smaller, and its λ as much larger.

    Args:
        learning_rate: η, a number or a schedule.
        b1: β₁ in [0, 1), the decay in the step.
        b2: β₂ in (0, 1), the decay in the memory.
        weight_decay: λ >= 0, multiplied by the learning rate.
        mask: Which parameters decay; all by default.
        state_dtype: The dtype of m; float32 or wider by default.

    Raises:
        ValueError: If a number is out of its range.
        TypeError: If `update` is not given the parameters x.

    Reference:
        Chen et al., Symbolic discovery of optimization algorithms, NeurIPS 2023,
        https://arxiv.org/abs/2302.06675

    Example:
        >>> optimizer, x = lion(0.5), jnp.zeros(2)
        >>> optimizer.update(jnp.array([3.0, -0.1]), optimizer.init(x), x)[0]
        Array([-0.5,  0.5], dtype=float32)
    """

    def numbers(rate: Array, t: Array) -> tuple:
        return rate, weight_decay, shares(b2), shares(b1 / jnp.asarray(b2, float))

    def step(numbers: tuple, g: Array, x: Array, mu: Array) -> tuple:
        rate, weight_decay, b2, ratio = numbers
        mu = ema(b2, mu, g)
        # β₁ m + (1 - β₁) g of the old m is (β₁/β₂) m + (1 - β₁/β₂) g of the new one.
        return -rate * (jnp.sign(ema(ratio, mu, g)) + weight_decay * x), mu

    return transformation(
        "lion",
        LionState,
        (Slot(),),
        learning_rate,
        numbers,
        step,
        state_dtype,
        decayed=True if mask is None else mask,
    )

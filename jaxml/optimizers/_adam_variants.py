"""Adam's mean over the root of another second moment than the mean square.

g is the gradient, η the learning rate, t = 1, 2, ... the step, u the update that is
added to the parameters. |g|² is g² where g is real. As in `adam`,

    m ← β₁ m + (1 - β₁) g           m̂ = m / (1 - β₁ᵗ)
    v ← β₂ v + (1 - β₂) |g|²        v̂ = v / (1 - β₂ᵗ)
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from jaxml._core.public import factory
from jaxml._core.safe import safe_divide
from jaxml._core.types import NonNegative, PyTree, Rate, UnitInterval
from jaxml.optimizers._adam import MEAN_AND_SQUARE, AdamState, corrected
from jaxml.optimizers._per_leaf import (
    Slot,
    Transformation,
    abs_squared,
    debias,
    divide_by_sqrt,
    ema,
    shares,
    transformation,
)


class AmsgradState(NamedTuple):
    count: Array
    mu: PyTree
    nu: PyTree
    nu_max: PyTree


@factory
def amsgrad(
    learning_rate: Rate,
    *,
    b1: UnitInterval = 0.9,
    b2: UnitInterval = 0.999,
    eps: NonNegative = 1e-8,
    state_dtype: Any = None,
) -> Transformation:
    """Adam whose second moment never falls, so that no step grows out of proportion.

        w ← max(w, v)        u = -η m̂ / (√ŵ + ε)    with ŵ = w / (1 - β₂ᵗ)

    Adam forgets a rare large gradient too soon and may diverge on a convex problem.
    The largest v is taken first and corrected then, as in PyTorch: 1 - β₂ᵗ grows, so
    the largest v̂ would be that of the first steps, for good.

    Args:
        learning_rate: η, a number or a schedule.
        b1: β₁ in [0, 1), the decay of the mean.
        b2: β₂ in [0, 1), the decay of the mean square.
        eps: ε >= 0, outside the root, in the units of g.
        state_dtype: The dtype of m, v and w; float32 or wider by default.

    Raises:
        ValueError: If a number is out of its range.

    Reference:
        Reddi, Kale and Kumar, On the convergence of Adam and beyond, ICLR 2018,
        https://arxiv.org/abs/1904.09237

    Example:
        >>> optimizer = amsgrad(0.5)
        >>> optimizer.update(jnp.array([3.0]), optimizer.init(jnp.zeros(1)))[0].round(3)
        Array([-0.5], dtype=float32)
    """

    def numbers(rate: Array, t: Array) -> tuple:
        return corrected(-rate, t, b1, b2, eps)

    def step(numbers: tuple, g: Array, mu: Array, nu: Array, nu_max: Array) -> tuple:
        b1, b2, factor, eps = numbers
        mu = ema(b1, mu, g)
        nu = ema(b2, nu, abs_squared(g))
        nu_max = jnp.maximum(nu_max, nu)
        return divide_by_sqrt(factor * mu, nu_max, eps), mu, nu, nu_max

    slots = (Slot(), Slot(real=True), Slot(real=True))
    return transformation(
        "amsgrad", AmsgradState, slots, learning_rate, numbers, step, state_dtype
    )


@factory
def adamax(
    learning_rate: Rate,
    *,
    b1: UnitInterval = 0.9,
    b2: UnitInterval = 0.999,
    eps: NonNegative = 1e-8,
    state_dtype: Any = None,
) -> Transformation:
    """Adam in the largest norm: divides by the largest gradient of the recent ones.

        v ← max(β₂ v, |g| + ε)        u = -η m̂ / v

    Nothing is squared, so no gradient is too large or too small, and v needs no
    correction.

    Args:
        learning_rate: η, a number or a schedule.
        b1: β₁ in [0, 1), the decay of the mean.
        b2: β₂ in [0, 1), the decay of the largest.
        eps: ε >= 0, in the units of g.
        state_dtype: The dtype of m and v; float32 or wider by default.

    Raises:
        ValueError: If a number is out of its range.

    Reference:
        Kingma and Ba, Adam: a method for stochastic optimization, ICLR 2015,
        https://arxiv.org/abs/1412.6980, section 7.1.

    Example:
        >>> optimizer = adamax(0.5)
        >>> optimizer.update(jnp.array([3.0]), optimizer.init(jnp.zeros(1)))[0].round(3)
        Array([-0.5], dtype=float32)
    """

    def numbers(rate: Array, t: Array) -> tuple:
        return rate / debias(b1, t), shares(b1), b2, eps

    def step(numbers: tuple, g: Array, mu: Array, nu: Array) -> tuple:
        rate, b1, b2, eps = numbers
        mu = ema(b1, mu, g)
        nu = jnp.maximum(b2 * nu, jnp.abs(g) + eps)
        return safe_divide(-rate * mu, nu), mu, nu

    return transformation(
        "adamax", AdamState, MEAN_AND_SQUARE, learning_rate, numbers, step, state_dtype
    )


@factory
def yogi(
    learning_rate: Rate,
    *,
    b1: UnitInterval = 0.9,
    b2: UnitInterval = 0.999,
    eps: NonNegative = 1e-3,
    initial_accumulator_value: NonNegative = 1e-6,
    state_dtype: Any = None,
) -> Transformation:
    """Adam whose second moment moves by no more than the gradient's own square.

        v ← v - (1 - β₂) sign(v - |g|²) |g|²        u = -η m̂ / (√v̂ + ε)

    In Adam v falls fast once the gradients are small, and the steps grow suddenly.

    Args:
        learning_rate: η, a number or a schedule.
        b1: β₁ in [0, 1), the decay of the mean.
        b2: β₂ in [0, 1), 1 - β₂ the part of |g|² that v moves by.
        eps: ε >= 0, outside the root, in the units of g.
        initial_accumulator_value: Where v begins, non-negative; m begins at 0.
        state_dtype: The dtype of m and v; float32 or wider by default.

    Raises:
        ValueError: If a number is out of its range.

    Reference:
        Zaheer et al., Adaptive methods for nonconvex optimization, NeurIPS 2018,
        https://papers.nips.cc/paper/8186-adaptive-methods-for-nonconvex-optimization;
        with Adam's corrections, as in the authors' code.

    Example:
        >>> optimizer = yogi(0.5, eps=0.0, initial_accumulator_value=0.0)
        >>> optimizer.update(jnp.array([3.0]), optimizer.init(jnp.zeros(1)))[0].round(3)
        Array([-0.5], dtype=float32)
    """

    def numbers(rate: Array, t: Array) -> tuple:
        return corrected(-rate, t, b1, b2, eps)

    def step(numbers: tuple, g: Array, mu: Array, nu: Array) -> tuple:
        b1, (_, new), factor, eps = numbers
        mu = ema(b1, mu, g)
        squares = abs_squared(g)
        nu = nu - new * jnp.sign(nu - squares) * squares
        return divide_by_sqrt(factor * mu, nu, eps), mu, nu

    slots = (Slot(), Slot(initial_accumulator_value, real=True))
    return transformation(
        "yogi", AdamState, slots, learning_rate, numbers, step, state_dtype
    )


@factory
def adabelief(
    learning_rate: Rate,
    *,
    b1: UnitInterval = 0.9,
    b2: UnitInterval = 0.999,
    eps: NonNegative = 1e-16,
    eps_root: NonNegative = 1e-16,
    state_dtype: Any = None,
) -> Transformation:
    """Adam that divides by how far gradients stray from their mean, not by their size.

        v ← β₂ v + (1 - β₂) |g - m|² + ε₀        u = -η m̂ / (√v̂ + ε)

    Where the gradients agree with their mean it takes long steps.

    Args:
        learning_rate: η, a number or a schedule.
        b1: β₁ in [0, 1), the decay of the mean.
        b2: β₂ in [0, 1), the decay of the spread.
        eps: ε >= 0, outside the root, in the units of g.
        eps_root: ε₀ >= 0, in the units of g²; the paper has one ε for both.
        state_dtype: The dtype of m and v; float32 or wider by default.

    Raises:
        ValueError: If a number is out of its range.

    Reference:
        Zhuang et al., AdaBelief optimizer: adapting stepsizes by the belief in observed
        gradients, NeurIPS 2020, https://arxiv.org/abs/2010.07468

    Example:
        >>> optimizer = adabelief(0.5, b1=0.5)
        >>> optimizer.update(jnp.array([3.0]), optimizer.init(jnp.zeros(1)))[0].round(3)
        Array([-1.], dtype=float32)
    """

    def numbers(rate: Array, t: Array) -> tuple:
        return eps_root, *corrected(-rate, t, b1, b2, eps)

    def step(numbers: tuple, g: Array, mu: Array, nu: Array) -> tuple:
        eps_root, b1, (kept, new), factor, eps = numbers
        mu = ema(b1, mu, g)
        # Summed in this order, v is written in place; ε₀ last costs XLA a copy of it.
        nu = kept * nu + (new * abs_squared(g - mu) + eps_root)
        return divide_by_sqrt(factor * mu, nu, eps), mu, nu

    return transformation(
        "adabelief",
        AdamState,
        MEAN_AND_SQUARE,
        learning_rate,
        numbers,
        step,
        state_dtype,
    )

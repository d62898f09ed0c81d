"""Adam's momentum with another normalization: AMSGrad, AdaMax, Yogi, AdaBelief, Lion.

g is the gradient, η the learning rate, t = 1, 2, ... the step, u the update that is
added to the parameters x. |g|² is g² where g is real. As in `adam`,

    m ← β₁ m + (1 - β₁) g           m̂ = m / (1 - β₁ᵗ)
    v ← β₂ v + (1 - β₂) |g|²        v̂ = v / (1 - β₂ᵗ)

The state holds m as `mu`, v as `nu` and w as `nu_max`.
"""

from typing import Annotated, Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from jaxml._core.public import factory
from jaxml._core.safe import safe_divide
from jaxml._core.types import NonNegative, PyTree, Range, Rate, Scalar, UnitInterval
from jaxml.optimizers._adam import MU_AND_NU, AdamState, adam_scalars
from jaxml.optimizers._per_leaf import (
    Accumulator,
    Mask,
    Transformation,
    abs_squared,
    beta_pair,
    bias_correction,
    divide_by_sqrt,
    ema,
    per_leaf_transformation,
)


class AMSGradState(NamedTuple):
    count: Array
    mu: PyTree
    nu: PyTree
    nu_max: PyTree


class LionState(NamedTuple):
    count: Array
    mu: PyTree


@factory
def amsgrad(
    learning_rate: Rate,
    *,
    b1: UnitInterval = 0.9,
    b2: UnitInterval = 0.999,
    eps: NonNegative = 1e-8,
    state_dtype: Any = None,
) -> Transformation:
    """Adam with the running maximum of v, so that the step size never recovers.

        w ← max(w, v)        u = -η m̂ / (√ŵ + ε)    with ŵ = w / (1 - β₂ᵗ)

    Adam forgets rare large gradients too fast and may diverge on a convex problem. As
    in PyTorch, the maximum is that of the uncorrected v: 1 - β₂ᵗ grows, so the maximum
    of v̂ would stay at the value of the first steps.

    Args:
        learning_rate: η, a number or a schedule.
        b1: β₁ in [0, 1), the decay rate of m.
        b2: β₂ in [0, 1), the decay rate of v.
        eps: ε >= 0, outside the root, in units of g.
        state_dtype: The dtype of m, v and w; float32 or wider by default.

    Reference:
        Reddi, Kale and Kumar, On the convergence of Adam and beyond, ICLR 2018,
        https://arxiv.org/abs/1904.09237

    Example:
        >>> optimizer = amsgrad(0.5)
        >>> optimizer.update(jnp.array([3.0]), optimizer.init(jnp.zeros(1)))[0].round(3)
        Array([-0.5], dtype=float32)
    """

    def scalars_at(learning_rate: Array, t: Array) -> dict:
        return adam_scalars(-learning_rate, t, b1, b2, eps)

    def step(g, m, v, w, *, b1, b2, scale, eps) -> tuple:
        m = ema(b1, m, g)
        v = ema(b2, v, abs_squared(g))
        w = jnp.maximum(w, v)
        return divide_by_sqrt(scale * m, w, eps), m, v, w

    accumulators = (*MU_AND_NU, Accumulator(is_real=True))
    return per_leaf_transformation(
        AMSGradState, accumulators, learning_rate, scalars_at, step, state_dtype
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
    """Adam with the infinity norm: divides by the decayed maximum of the gradients.

        v ← max(β₂ v, |g| + ε)        u = -η m̂ / v

    Nothing is squared, so no gradient overflows or underflows, and v needs no bias
    correction.

    Args:
        learning_rate: η, a number or a schedule.
        b1: β₁ in [0, 1), the decay rate of m.
        b2: β₂ in [0, 1), the decay rate of the maximum.
        eps: ε >= 0, in units of g.
        state_dtype: The dtype of m and v; float32 or wider by default.

    Reference:
        Kingma and Ba, Adam: a method for stochastic optimization, ICLR 2015,
        https://arxiv.org/abs/1412.6980, section 7.1.

    Example:
        >>> optimizer = adamax(0.5)
        >>> optimizer.update(jnp.array([3.0]), optimizer.init(jnp.zeros(1)))[0].round(3)
        Array([-0.5], dtype=float32)
    """

    def scalars_at(learning_rate: Array, t: Array) -> dict:
        return {
            "b1": beta_pair(b1),
            "b2": b2,
            "scale": learning_rate / bias_correction(b1, t),
            "eps": eps,
        }

    def step(g, m, v, *, b1, b2, scale, eps) -> tuple:
        m = ema(b1, m, g)
        v = jnp.maximum(b2 * v, jnp.abs(g) + eps)
        return safe_divide(-scale * m, v), m, v

    return per_leaf_transformation(
        AdamState, MU_AND_NU, learning_rate, scalars_at, step, state_dtype
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
    """Adam with an additive v: each step changes it by at most (1 - β₂) |g|².

        v ← v - (1 - β₂) sign(v - |g|²) |g|²        u = -η m̂ / (√v̂ + ε)

    In Adam, v falls fast once gradients are small, and the step size jumps.

    Args:
        learning_rate: η, a number or a schedule.
        b1: β₁ in [0, 1), the decay rate of m.
        b2: β₂ in [0, 1); v changes by 1 - β₂ times |g|².
        eps: ε >= 0, outside the root, in units of g.
        initial_accumulator_value: The initial value of v, non-negative.
        state_dtype: The dtype of m and v; float32 or wider by default.

    Reference:
        Zaheer et al., Adaptive methods for nonconvex optimization, NeurIPS 2018,
        https://papers.nips.cc/paper/8186-adaptive-methods-for-nonconvex-optimization;
        with Adam's bias corrections, as in the authors' code.

    Example:
        >>> optimizer = yogi(0.5, eps=0.0, initial_accumulator_value=0.0)
        >>> optimizer.update(jnp.array([3.0]), optimizer.init(jnp.zeros(1)))[0].round(3)
        Array([-0.5], dtype=float32)
    """

    def scalars_at(learning_rate: Array, t: Array) -> dict:
        return adam_scalars(-learning_rate, t, b1, b2, eps)

    def step(g, m, v, *, b1, b2, scale, eps) -> tuple:
        m = ema(b1, m, g)
        g2 = abs_squared(g)
        v = v - b2.one_minus_beta * jnp.sign(v - g2) * g2
        return divide_by_sqrt(scale * m, v, eps), m, v

    nu = Accumulator(initial_accumulator_value, is_real=True)
    return per_leaf_transformation(
        AdamState, (Accumulator(), nu), learning_rate, scalars_at, step, state_dtype
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
    """Adam that divides by the deviation of the gradients from m, not by their size.

        v ← β₂ v + (1 - β₂) |g - m|² + ε₀        u = -η m̂ / (√v̂ + ε)

    Steps are large where gradients agree with their mean.

    Args:
        learning_rate: η, a number or a schedule.
        b1: β₁ in [0, 1), the decay rate of m.
        b2: β₂ in [0, 1), the decay rate of v.
        eps: ε >= 0, outside the root, in units of g.
        eps_root: ε₀ >= 0, in units of g²; the paper uses one ε for both.
        state_dtype: The dtype of m and v; float32 or wider by default.

    Reference:
        Zhuang et al., AdaBelief optimizer: adapting stepsizes by the belief in observed
        gradients, NeurIPS 2020, https://arxiv.org/abs/2010.07468

    Example:
        >>> optimizer = adabelief(0.5, b1=0.5)
        >>> optimizer.update(jnp.array([3.0]), optimizer.init(jnp.zeros(1)))[0].round(3)
        Array([-1.], dtype=float32)
    """

    def scalars_at(learning_rate: Array, t: Array) -> dict:
        return adam_scalars(-learning_rate, t, b1, b2, eps) | {"eps_root": eps_root}

    def step(g, m, v, *, b1, b2, scale, eps, eps_root) -> tuple:
        m = ema(b1, m, g)
        # XLA updates v in place for this order of the sum; adding ε₀ last costs a copy.
        v = b2.beta * v + (b2.one_minus_beta * abs_squared(g - m) + eps_root)
        return divide_by_sqrt(scale * m, v, eps), m, v

    return per_leaf_transformation(
        AdamState, MU_AND_NU, learning_rate, scalars_at, step, state_dtype
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
    """Sign of the interpolated momentum: all parameters move by the same amount.

        u = -η (sign(β₁ m + (1 - β₁) g) + λ x)        m ← β₂ m + (1 - β₂) g

    The step weights g more than m does. Lion keeps one accumulator, Adam two. Use a
    learning rate 3 to 10 times smaller than AdamW's and a λ as many times larger.

    Args:
        learning_rate: η, a number or a schedule.
        b1: β₁ in [0, 1), the weight of m in the step.
        b2: β₂ in (0, 1), the decay rate of m.
        weight_decay: λ >= 0, multiplied by the learning rate.
        mask: Which parameters decay; all by default.
        state_dtype: The dtype of m; float32 or wider by default.

    Raises:
        TypeError: If `update` is called without the parameters x.

    Reference:
        Chen et al., Symbolic discovery of optimization algorithms, NeurIPS 2023,
        https://arxiv.org/abs/2302.06675

    Example:
        >>> optimizer, x = lion(0.5), jnp.zeros(2)
        >>> optimizer.update(jnp.array([3.0, -0.1]), optimizer.init(x), x)[0]
        Array([-0.5,  0.5], dtype=float32)
    """

    def scalars_at(learning_rate: Array, t: Array) -> dict:
        return {
            "learning_rate": learning_rate,
            "b1_over_b2": beta_pair(b1 / jnp.asarray(b2, float)),
            "b2": beta_pair(b2),
            "weight_decay": weight_decay,
        }

    def step(g, x, m, *, learning_rate, b1_over_b2, b2, weight_decay) -> tuple:
        m = ema(b2, m, g)
        # β₁ m + (1 - β₁) g of the old m is (β₁/β₂) m + (1 - β₁/β₂) g of the new one.
        sign = jnp.sign(ema(b1_over_b2, m, g))
        return -learning_rate * (sign + weight_decay * x), m

    return per_leaf_transformation(
        LionState,
        (Accumulator(),),
        learning_rate,
        scalars_at,
        step,
        state_dtype,
        weight_decay_mask=True if mask is None else mask,
    )

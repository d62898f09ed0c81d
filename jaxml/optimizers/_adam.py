"""Adam and its closest variants: AdamW, L2 regularization, NAdam and RAdam.

g is the gradient, η the learning rate, t = 1, 2, ... the step, u the update that is
added to the parameters x. |g|² is g² where g is real. The two moments start at 0 and
their bias is corrected:

    m ← β₁ m + (1 - β₁) g           m̂ = m / (1 - β₁ᵗ)
    v ← β₂ v + (1 - β₂) |g|²        v̂ = v / (1 - β₂ᵗ)

The state holds m as `mu` and v as `nu`. `_adam_variants.py` has the optimizers with
another v, and Lion, which has none.
"""

from typing import Annotated, Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from jaxml._core.public import factory
from jaxml._core.safe import safe_sqrt
from jaxml._core.types import NonNegative, PyTree, Range, Rate, Scalar, UnitInterval
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

MU_AND_NU = (Accumulator(), Accumulator(is_real=True))


class AdamState(NamedTuple):
    count: Array
    mu: PyTree
    nu: PyTree


@factory
def adam(
    learning_rate: Rate,
    *,
    b1: UnitInterval = 0.9,
    b2: UnitInterval = 0.999,
    eps: NonNegative = 1e-8,
    state_dtype: Any = None,
) -> Transformation:
    """Adam: momentum divided by the root mean square of the gradients.

        u = -η m̂ / (√v̂ + ε)

    The update of each parameter is about η or smaller at any scale of the gradients.

    Args:
        learning_rate: η, a number or a schedule.
        b1: β₁ in [0, 1), the decay rate of m.
        b2: β₂ in [0, 1), the decay rate of v.
        eps: ε >= 0, outside the root, in units of g.
        state_dtype: The dtype of m and v; float32 or wider by default.

    Reference:
        Kingma and Ba, Adam: a method for stochastic optimization, ICLR 2015,
        https://arxiv.org/abs/1412.6980

    Example:
        >>> optimizer = adam(0.5)
        >>> optimizer.update(jnp.array([3.0]), optimizer.init(jnp.zeros(1)))[0].round(3)
        Array([-0.5], dtype=float32)
    """

    def scalars_at(learning_rate: Array, t: Array) -> dict:
        return adam_scalars(-learning_rate, t, b1, b2, eps)

    def step(g, m, v, *, b1, b2, scale, eps) -> tuple:
        m = ema(b1, m, g)
        v = ema(b2, v, abs_squared(g))
        return divide_by_sqrt(scale * m, v, eps), m, v

    return per_leaf_transformation(
        AdamState, MU_AND_NU, learning_rate, scalars_at, step, state_dtype
    )


@factory
def adam_l2(
    learning_rate: Rate,
    *,
    b1: UnitInterval = 0.9,
    b2: UnitInterval = 0.999,
    eps: NonNegative = 1e-8,
    l2: NonNegative = 1e-2,
    mask: Mask | None = None,
    state_dtype: Any = None,
) -> Transformation:
    """Adam with L2 regularization: the penalty λ/2 |x|² is part of the gradient.

        g ← g + λ x,  then as Adam

    Like the rest of the gradient, λ x is divided by √v̂, so parameters with large
    gradients decay less. `adamw` decays all parameters at the same rate.

    Args:
        learning_rate: η, a number or a schedule.
        b1: β₁ in [0, 1), the decay rate of m.
        b2: β₂ in [0, 1), the decay rate of v.
        eps: ε >= 0, outside the root, in units of g.
        l2: λ >= 0, the coefficient of the penalty.
        mask: Which parameters are penalized; all by default.
        state_dtype: The dtype of m and v; float32 or wider by default.

    Raises:
        TypeError: If `update` is called without the parameters x.

    Reference:
        Loshchilov and Hutter, Decoupled weight decay regularization, ICLR 2019,
        https://arxiv.org/abs/1711.05101, algorithm 2.

    Example:
        >>> optimizer, x = adam_l2(0.5), jnp.ones(1)
        >>> optimizer.update(jnp.array([0.0]), optimizer.init(x), x)[0].round(3)
        Array([-0.5], dtype=float32)
    """

    def scalars_at(learning_rate: Array, t: Array) -> dict:
        return adam_scalars(-learning_rate, t, b1, b2, eps) | {"l2": l2}

    def step(g, x, m, v, *, b1, b2, scale, eps, l2) -> tuple:
        g = g + l2 * x
        m = ema(b1, m, g)
        v = ema(b2, v, abs_squared(g))
        return divide_by_sqrt(scale * m, v, eps), m, v

    return per_leaf_transformation(
        AdamState,
        MU_AND_NU,
        learning_rate,
        scalars_at,
        step,
        state_dtype,
        weight_decay_mask=True if mask is None else mask,
    )


@factory
def adamw(
    learning_rate: Rate,
    *,
    b1: UnitInterval = 0.9,
    b2: UnitInterval = 0.999,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 1e-2,
    mask: Mask | None = None,
    state_dtype: Any = None,
) -> Transformation:
    """Adam with decoupled weight decay: the decay does not go through the moments.

        u = -η (m̂ / (√v̂ + ε) + λ x)

    All parameters decay at the same rate, whatever their gradients; see `adam_l2`.

    Args:
        learning_rate: η, a number or a schedule.
        b1: β₁ in [0, 1), the decay rate of m.
        b2: β₂ in [0, 1), the decay rate of v.
        eps: ε >= 0, outside the root, in units of g.
        weight_decay: λ >= 0, multiplied by the learning rate.
        mask: Which parameters decay; all by default.
        state_dtype: The dtype of m and v; float32 or wider by default.

    Raises:
        TypeError: If `update` is called without the parameters x.

    Reference:
        Loshchilov and Hutter, Decoupled weight decay regularization, ICLR 2019,
        https://arxiv.org/abs/1711.05101

    Example:
        >>> optimizer, x = adamw(0.5, weight_decay=0.5), jnp.ones(1)
        >>> optimizer.update(jnp.array([0.0]), optimizer.init(x), x)[0]
        Array([-0.25], dtype=float32)
    """

    def scalars_at(learning_rate: Array, t: Array) -> dict:
        return adamw_scalars(learning_rate, t, b1, b2, eps, weight_decay)

    return per_leaf_transformation(
        AdamState,
        MU_AND_NU,
        learning_rate,
        scalars_at,
        adamw_step,
        state_dtype,
        weight_decay_mask=True if mask is None else mask,
    )


def adamw_scalars(
    learning_rate: Array,
    t: Array,
    b1: Scalar,
    b2: Scalar,
    eps: Scalar,
    weight_decay: Scalar,
) -> dict[str, Any]:
    """The scalars of `adamw_step`."""
    scalars = adam_scalars(-learning_rate, t, b1, b2, eps)
    return scalars | {"lr_times_wd": learning_rate * weight_decay}


def adamw_step(g, x, m, v, *, b1, b2, scale, eps, lr_times_wd) -> tuple:
    """The update and the moments of one array."""
    m = ema(b1, m, g)
    v = ema(b2, v, abs_squared(g))
    return divide_by_sqrt(scale * m, v, eps) - lr_times_wd * x, m, v


@factory
def nadam(
    learning_rate: Rate,
    *,
    b1: UnitInterval = 0.9,
    b2: UnitInterval = 0.999,
    eps: NonNegative = 1e-8,
    state_dtype: Any = None,
) -> Transformation:
    """Adam with Nesterov momentum: the current gradient counts once more.

        u = -η m̄ / (√v̂ + ε)    with m̄ = β₁ m / (1 - β₁ᵗ⁺¹) + (1 - β₁) g / (1 - β₁ᵗ)

    β₁ is constant; the paper increases it during training.

    Args:
        learning_rate: η, a number or a schedule.
        b1: β₁ in [0, 1), the decay rate of m.
        b2: β₂ in [0, 1), the decay rate of v.
        eps: ε >= 0, outside the root, in units of g.
        state_dtype: The dtype of m and v; float32 or wider by default.

    Reference:
        Dozat, Incorporating Nesterov momentum into Adam, ICLR workshop 2016,
        https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ

    Example:
        >>> optimizer = nadam(0.5, b1=0.0)
        >>> optimizer.update(jnp.array([3.0]), optimizer.init(jnp.zeros(1)))[0].round(3)
        Array([-0.5], dtype=float32)
    """

    def scalars_at(learning_rate: Array, t: Array) -> dict:
        scalars = adam_scalars(-learning_rate, t, b1, b2, eps)
        scale, (beta, one_minus_beta) = scalars.pop("scale"), scalars["b1"]
        nesterov_factor = beta * bias_correction(b1, t) / bias_correction(b1, t + 1)
        return scalars | {
            "m_scale": scale * nesterov_factor,
            "g_scale": scale * one_minus_beta,
        }

    def step(g, m, v, *, b1, b2, m_scale, g_scale, eps) -> tuple:
        m = ema(b1, m, g)
        v = ema(b2, v, abs_squared(g))
        return divide_by_sqrt(m_scale * m + g_scale * g, v, eps), m, v

    return per_leaf_transformation(
        AdamState, MU_AND_NU, learning_rate, scalars_at, step, state_dtype
    )


@factory
def radam(
    learning_rate: Rate,
    *,
    b1: UnitInterval = 0.9,
    b2: UnitInterval = 0.999,
    eps: NonNegative = 1e-8,
    threshold: Annotated[Scalar, Range("be at least 4", lambda x: x >= 4)] = 5.0,
    state_dtype: Any = None,
) -> Transformation:
    """Rectified Adam: uses v once enough gradients support it, instead of a warmup.

        u = -η r m̂ / (√v̂ + ε)  if ρ > τ,  else  u = -η m̂
        r² = (ρ - 4)(ρ - 2) ρ∞ / ((ρ∞ - 4)(ρ∞ - 2) ρ)
        ρ = ρ∞ - 2t β₂ᵗ / (1 - β₂ᵗ)        ρ∞ = 2 / (1 - β₂) - 1

    ρ is the effective number of gradients in v.

    Args:
        learning_rate: η, a number or a schedule.
        b1: β₁ in [0, 1), the decay rate of m.
        b2: β₂ in [0, 1), the decay rate of v.
        eps: ε >= 0, outside the root, in units of g.
        threshold: τ, clipped below at 4; the paper uses 4, the authors' code 5.
        state_dtype: The dtype of m and v; float32 or wider by default.

    Reference:
        Liu et al., On the variance of the adaptive learning rate and beyond, ICLR 2020,
        https://arxiv.org/abs/1908.03265

    Example:
        >>> optimizer = radam(1.0)
        >>> optimizer.update(jnp.array([3.0]), optimizer.init(jnp.zeros(1)))[0].round()
        Array([-3.], dtype=float32)
    """

    def scalars_at(learning_rate: Array, t: Array) -> dict:
        scalars = adam_scalars(1.0, t, b1, b2, eps)
        rho, rho_inf = _rho_and_rho_inf(t, jnp.asarray(b2, t.dtype))
        is_rectified = rho > jnp.maximum(threshold, 4)
        r2 = jnp.where(is_rectified, _rectifier(rho) / _rectifier(rho_inf), 0.0)
        return scalars | {
            "learning_rate": learning_rate,
            "is_rectified": is_rectified,
            "scale": safe_sqrt(r2) * scalars["scale"],
            "m_scale": 1 / bias_correction(b1, t),
        }

    def step(
        g, m, v, *, learning_rate, b1, b2, scale, eps, is_rectified, m_scale
    ) -> tuple:
        m = ema(b1, m, g)
        v = ema(b2, v, abs_squared(g))
        rectified = divide_by_sqrt(scale * m, v, eps)
        direction = jnp.where(is_rectified, rectified, m_scale * m)
        return -learning_rate * direction, m, v

    return per_leaf_transformation(
        AdamState, MU_AND_NU, learning_rate, scalars_at, step, state_dtype
    )


def _rectifier(rho: Array) -> Array:
    """(ρ - 4)(ρ - 2) / ρ, whose ratio at ρ and ρ∞ is r²."""
    return (rho - 4) * (rho - 2) / rho


def _rho_and_rho_inf(t: Array, b2: Array) -> tuple[Array, Array]:
    """ρ and ρ∞, where ρ avoids the difference of two numbers in the thousands.

    With a = -½ log β₂ they are t + L(a) - t L(ta) and coth a, L(a) = coth a - 1/a.
    """
    a = -jnp.log(b2) / 2
    return t + _langevin(a) - t * _langevin(t * a), (1 + b2) / (1 - b2)


def _langevin(a: Array) -> Array:
    """The Langevin function coth a - 1/a, by its series near 0."""
    a_squared = jnp.square(jnp.minimum(a, 0.3))
    series = 1382 / 638512875
    for coefficient in (2 / 93555, 1 / 4725, 2 / 945, 1 / 45, 1 / 3):
        series = coefficient - a_squared * series
    large_a = jnp.maximum(a, 0.3)
    return jnp.where(a < 0.3, a * series, 1 / jnp.tanh(large_a) - 1 / large_a)


def adam_scalars(
    factor: Scalar, t: Array, b1: Scalar, b2: Scalar, eps: Scalar
) -> dict[str, Any]:
    """The scalars of factor · m̂ / (√v̂ + ε) = scale · m / (√v + eps).

    The bias corrections are part of scale and eps, so that an element costs one root
    and one division.
    """
    sqrt_correction = jnp.sqrt(bias_correction(b2, t))
    return {
        "b1": beta_pair(b1),
        "b2": beta_pair(b2),
        "scale": factor * sqrt_correction / bias_correction(b1, t),
        "eps": sqrt_correction * eps,
    }

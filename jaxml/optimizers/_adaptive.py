"""Adaptive learning rates: each parameter's step is divided by its past gradients.

g is the gradient, η the learning rate, u the update that is added to the parameters.
|g|² is g² where g is real. The state holds a as `sum_of_squares`, m as `mu`, v as `nu`
and b as `trace`; that of Adadelta holds v as `e_g` and w as `e_x`.
"""

from typing import Any, NamedTuple

from jax import Array

from jaxml._core.public import factory
from jaxml._core.safe import safe_divide, safe_sqrt
from jaxml._core.types import NonNegative, PyTree, Rate, UnitInterval
from jaxml.optimizers._per_leaf import (
    Accumulator,
    BetaPair,
    Transformation,
    abs_squared,
    beta_pair,
    divide_by_sqrt,
    ema,
    per_leaf_transformation,
)


class AdagradState(NamedTuple):
    count: Array
    sum_of_squares: PyTree


class AdadeltaState(NamedTuple):
    count: Array
    e_g: PyTree
    e_x: PyTree


class RMSpropState(NamedTuple):
    count: Array
    nu: PyTree
    trace: PyTree | None


class CenteredRMSpropState(NamedTuple):
    count: Array
    mu: PyTree
    nu: PyTree
    trace: PyTree | None


@factory
def adagrad(
    learning_rate: Rate,
    *,
    initial_accumulator_value: NonNegative = 0.0,
    eps: NonNegative = 1e-10,
    state_dtype: Any = None,
) -> Transformation:
    """Divides by the root of the sum of all squared gradients; suits sparse features.

        a ← a + |g|²        u = -η g / (√a + ε)

    The sum only grows, so the effective learning rate decays to 0.

    Args:
        learning_rate: η, a number or a schedule.
        initial_accumulator_value: The initial value of a, non-negative.
        eps: ε >= 0, in units of g.
        state_dtype: The dtype of a; float32 or wider by default.

    Reference:
        Duchi, Hazan and Singer, Adaptive subgradient methods for online learning and
        stochastic optimization, JMLR 12, 2011, https://jmlr.org/papers/v12/duchi11a.html

    Example:
        >>> optimizer = adagrad(1.0)
        >>> optimizer.update(jnp.array([3.0]), optimizer.init(jnp.zeros(1)))[0]
        Array([-1.], dtype=float32)
    """

    def scalars_at(learning_rate: Array, t: Array) -> dict:
        return {"learning_rate": learning_rate, "eps": eps}

    def step(g, a, *, learning_rate, eps) -> tuple:
        a = a + abs_squared(g)
        return divide_by_sqrt(-learning_rate * g, a, eps), a

    accumulators = (Accumulator(initial_accumulator_value, is_real=True),)
    return per_leaf_transformation(
        AdagradState, accumulators, learning_rate, scalars_at, step, state_dtype
    )


@factory
def adadelta(
    learning_rate: Rate = 1.0,
    *,
    decay: UnitInterval = 0.9,
    eps: NonNegative = 1e-6,
    state_dtype: Any = None,
) -> Transformation:
    """Scales the gradient by the ratio of the RMS of past updates to that of gradients.

        v ← ρ v + (1 - ρ) |g|²        Δ = g √(w + ε) / √(v + ε)
        w ← ρ w + (1 - ρ) |Δ|²        u = -η Δ

    Updates have the units of the parameters, so no learning rate has to be tuned. The
    first ones are small, about √ε.

    Args:
        learning_rate: η, a number or a schedule; 1 in the paper.
        decay: ρ in [0, 1).
        eps: ε >= 0, inside both roots; with 0 the parameters never move.
        state_dtype: The dtype of v and w; float32 or wider by default.

    Reference:
        Zeiler, ADADELTA: an adaptive learning rate method, 2012,
        https://arxiv.org/abs/1212.5701

    Example:
        >>> optimizer = adadelta(decay=0.75, eps=16.0)
        >>> optimizer.update(jnp.array([6.0]), optimizer.init(jnp.zeros(1)))[0]
        Array([-4.8], dtype=float32)
    """

    def scalars_at(learning_rate: Array, t: Array) -> dict:
        return {"learning_rate": learning_rate, "decay": beta_pair(decay), "eps": eps}

    def step(g, v, w, *, learning_rate, decay, eps) -> tuple:
        g2 = abs_squared(g)
        v = ema(decay, v, g2)
        w = ema(decay, w, safe_divide((w + eps) * g2, v + eps))
        # (w + ε) / (v + ε) of the old w, from the new w', which is updated in place:
        # (w' + ρ ε) / (ρ (v + ε) + (1 - ρ) |g|²). No term is negative.
        ratio = safe_divide(w + decay.beta * eps, ema(decay, v + eps, g2))
        return -learning_rate * g * safe_sqrt(ratio), v, w

    accumulators = (Accumulator(is_real=True), Accumulator(is_real=True))
    return per_leaf_transformation(
        AdadeltaState, accumulators, learning_rate, scalars_at, step, state_dtype
    )


@factory
def rmsprop(
    learning_rate: Rate,
    *,
    decay: UnitInterval = 0.9,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    momentum: UnitInterval | None = None,
    state_dtype: Any = None,
) -> Transformation:
    """Divides by the root mean square of recent gradients.

        v ← β v + (1 - β) |g|²        d = g / (√(v + ε₀) + ε)
        u = -η d,  or with momentum μ:  b ← μ b + d,  u = -η b

    The mean covers about 1 / (1 - β) steps, so the effective learning rate does not
    decay to 0 as in `adagrad`.

    Args:
        learning_rate: η, a number or a schedule; applied after the momentum.
        decay: β in [0, 1).
        eps: ε >= 0, outside the root, in units of g.
        eps_root: ε₀ >= 0, inside the root, in units of g².
        momentum: μ in [0, 1); None keeps no momentum buffer.
        state_dtype: The dtype of v and b; float32 or wider by default.

    Reference:
        Tieleman and Hinton, Lecture 6.5: RMSProp, Coursera, 2012,
        https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf

    Example:
        >>> optimizer = rmsprop(1.0, decay=0.75)
        >>> optimizer.update(jnp.array([3.0]), optimizer.init(jnp.zeros(1)))[0]
        Array([-2.], dtype=float32)
    """

    def scalars_at(learning_rate: Array, t: Array) -> dict:
        return {
            "learning_rate": learning_rate,
            "decay": beta_pair(decay),
            "eps": eps,
            "eps_root": eps_root,
            "momentum": momentum,
        }

    def step(g, v, *b, learning_rate, decay, eps, eps_root, momentum) -> tuple:
        v = ema(decay, v, abs_squared(g))
        d = divide_by_sqrt(g, v + eps_root, eps)
        d, *b = _apply_momentum(momentum, d, *b)
        return -learning_rate * d, v, *b

    buffer = None if momentum is None else Accumulator()
    accumulators = (Accumulator(is_real=True), buffer)
    return per_leaf_transformation(
        RMSpropState, accumulators, learning_rate, scalars_at, step, state_dtype
    )


@factory
def centered_rmsprop(
    learning_rate: Rate,
    *,
    decay: UnitInterval = 0.9,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    momentum: UnitInterval | None = None,
    state_dtype: Any = None,
) -> Transformation:
    """Divides by the standard deviation of recent gradients.

        m ← β m + (1 - β) g        v ← β v + (1 - β)/β |g - m|²
        u = -η d,  d = g / (√(v + ε₀) + ε),  or with momentum μ:  b ← μ b + d,  u = -η b

    v equals the mean of |g|² minus |m|², without the cancellation; it is never
    negative.

    Args:
        learning_rate: η, a number or a schedule; applied after the momentum.
        decay: β in [0, 1).
        eps: ε >= 0, outside the root, in units of g.
        eps_root: ε₀ >= 0, inside the root, in units of g².
        momentum: μ in [0, 1); None keeps no momentum buffer.
        state_dtype: The dtype of m, v and b; float32 or wider by default.

    Reference:
        Graves, Generating sequences with recurrent neural networks, 2013,
        https://arxiv.org/abs/1308.0850, equations 38 to 45.

    Example:
        >>> optimizer = centered_rmsprop(1.0, decay=0.5)
        >>> optimizer.update(jnp.array([3.0]), optimizer.init(jnp.zeros(1)))[0]
        Array([-2.], dtype=float32)
    """

    def scalars_at(learning_rate: Array, t: Array) -> dict:
        beta, one_minus_beta = beta_pair(decay)
        return {
            "learning_rate": learning_rate,
            "decay": BetaPair(beta, one_minus_beta),
            "deviation_weight": safe_divide(one_minus_beta, beta),
            "eps": eps,
            "eps_root": eps_root,
            "momentum": momentum,
        }

    def step(
        g, m, v, *b, learning_rate, decay, deviation_weight, eps, eps_root, momentum
    ) -> tuple:
        m = ema(decay, m, g)
        v = decay.beta * v + deviation_weight * abs_squared(g - m)
        d = divide_by_sqrt(g, v + eps_root, eps)
        d, *b = _apply_momentum(momentum, d, *b)
        return -learning_rate * d, m, v, *b

    buffer = None if momentum is None else Accumulator()
    accumulators = (Accumulator(), Accumulator(is_real=True), buffer)
    return per_leaf_transformation(
        CenteredRMSpropState, accumulators, learning_rate, scalars_at, step, state_dtype
    )


def _apply_momentum(momentum: Any, d: Array, *buffer: Array) -> tuple[Array, ...]:
    """The direction and the new buffer, both μ b + d; d alone if there is no buffer."""
    if not buffer:
        return (d,)
    (b,) = buffer
    b = momentum * b + d
    return b, b

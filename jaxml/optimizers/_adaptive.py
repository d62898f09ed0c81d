"""Optimizers that give every parameter a rate of its own: its past gradients' size.

g is the gradient, η the learning rate, u the update that is added to the parameters.
|g|² is g² where g is real.
"""

from typing import Any, NamedTuple

from jax import Array

from jaxml._core.public import factory
from jaxml._core.safe import safe_divide, safe_sqrt
from jaxml._core.types import NonNegative, PyTree, Rate, UnitInterval
from jaxml.optimizers._per_leaf import (
    Slot,
    Transformation,
    abs_squared,
    divide_by_sqrt,
    ema,
    shares,
    transformation,
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
    """Divides by the root of all squared gradients so far: rare features learn faster.

        a ← a + |g|²        u = -η g / (√a + ε)

    The sum only grows, so the rate dies out late.

    Args:
        learning_rate: η, a number or a schedule.
        initial_accumulator_value: Where a begins, non-negative.
        eps: ε >= 0, in the units of g.
        state_dtype: The dtype of a; float32 or wider by default.

    Raises:
        ValueError: If a number is out of its range.

    Reference:
        Duchi, Hazan and Singer, Adaptive subgradient methods for online learning and
        stochastic optimization, JMLR 12, 2011, https://jmlr.org/papers/v12/duchi11a.html

    Example:
        >>> optimizer = adagrad(1.0)
        >>> optimizer.update(jnp.array([3.0]), optimizer.init(jnp.zeros(1)))[0]
        Array([-1.], dtype=float32)
    """

    def numbers(rate: Array, t: Array) -> tuple:
        return rate, eps

    def step(numbers: tuple, g: Array, total: Array) -> tuple:
        rate, eps = numbers
        total = total + abs_squared(g)
        return divide_by_sqrt(-rate * g, total, eps), total

    slots = (Slot(initial_accumulator_value, real=True),)
    return transformation(
        "adagrad", AdagradState, slots, learning_rate, numbers, step, state_dtype
    )


@factory
def adadelta(
    learning_rate: Rate = 1.0,
    *,
    decay: UnitInterval = 0.9,
    eps: NonNegative = 1e-6,
    state_dtype: Any = None,
) -> Transformation:
    """Steps in the units of the parameters: the size of past steps over past gradients.

        v ← ρ v + (1 - ρ) |g|²        Δ = g √(w + ε) / √(v + ε)
        w ← ρ w + (1 - ρ) |Δ|²        u = -η Δ

    Its first steps are small, of about √ε: it has no rate to begin with.

    Args:
        learning_rate: η, a number or a schedule; the paper has 1.
        decay: ρ in [0, 1).
        eps: ε >= 0, inside both roots; at 0 nothing ever moves.
        state_dtype: The dtype of v and w; float32 or wider by default.

    Raises:
        ValueError: If a number is out of its range.

    Reference:
        Zeiler, ADADELTA: an adaptive learning rate method, 2012,
        https://arxiv.org/abs/1212.5701

    Example:
        >>> optimizer = adadelta(decay=0.75, eps=16.0)
        >>> optimizer.update(jnp.array([6.0]), optimizer.init(jnp.zeros(1)))[0]
        Array([-4.8], dtype=float32)
    """

    def numbers(rate: Array, t: Array) -> tuple:
        return rate, eps, shares(decay)

    def step(numbers: tuple, g: Array, e_g: Array, e_x: Array) -> tuple:
        rate, eps, decay = numbers
        squares = abs_squared(g)
        e_g = ema(decay, e_g, squares)
        e_x = ema(decay, e_x, safe_divide((e_x + eps) * squares, e_g + eps))
        # Δ from the new w, which is in place: (w' + ρ ε) (v + ε) = (w + ε) (ρ (v + ε)
        # + (1 - ρ) |g|²), a sum of what is positive.
        share = safe_divide(e_x + decay[0] * eps, ema(decay, e_g + eps, squares))
        return -rate * g * safe_sqrt(share), e_g, e_x

    slots = (Slot(real=True), Slot(real=True))
    return transformation(
        "adadelta", AdadeltaState, slots, learning_rate, numbers, step, state_dtype
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
    """Divides by the root mean square of the recent gradients.

        v ← β v + (1 - β) |g|²        d = g / (√(v + ε₀) + ε)
        u = -η d,  or with momentum μ:  b ← μ b + d,  u = -η b

    The mean spans about 1 / (1 - β) steps, so the rate does not die out.

    Args:
        learning_rate: η, a number or a schedule; outside the momentum's buffer.
        decay: β in [0, 1).
        eps: ε >= 0, outside the root, in the units of g.
        eps_root: ε₀ >= 0, inside the root, in the units of g².
        momentum: μ in [0, 1); None keeps no buffer.
        state_dtype: The dtype of v and b; float32 or wider by default.

    Raises:
        ValueError: If a number is out of its range.

    Reference:
        Tieleman and Hinton, Lecture 6.5: RMSProp, Coursera, 2012,
        https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf

    Example:
        >>> optimizer = rmsprop(1.0, decay=0.75)
        >>> optimizer.update(jnp.array([3.0]), optimizer.init(jnp.zeros(1)))[0]
        Array([-2.], dtype=float32)
    """

    def numbers(rate: Array, t: Array) -> tuple:
        return rate, eps, eps_root, shares(decay), momentum

    def step(numbers: tuple, g: Array, nu: Array, *trace: Array) -> tuple:
        rate, eps, eps_root, decay, momentum = numbers
        nu = ema(decay, nu, abs_squared(g))
        direction, trace = _onward(
            momentum, divide_by_sqrt(g, nu + eps_root, eps), trace
        )
        return -rate * direction, nu, *trace

    slots = (Slot(real=True), None if momentum is None else Slot())
    return transformation(
        "rmsprop", RMSpropState, slots, learning_rate, numbers, step, state_dtype
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
    """Divides by the standard deviation of the recent gradients.

        m ← β m + (1 - β) g        v ← β v + (1 - β)/β |g - m|²
        u = -η d,  d = g / (√(v + ε₀) + ε),  or with momentum μ:  b ← μ b + d,  u = -η b

    v is the mean of |g|² less |m|², without the difference: right and never negative.

    Args:
        learning_rate: η, a number or a schedule; outside the momentum's buffer.
        decay: β in [0, 1).
        eps: ε >= 0, outside the root, in the units of g.
        eps_root: ε₀ >= 0, inside the root, in the units of g².
        momentum: μ in [0, 1); None keeps no buffer.
        state_dtype: The dtype of m, v and b; float32 or wider by default.

    Raises:
        ValueError: If a number is out of its range.

    Reference:
        Graves, Generating sequences with recurrent neural networks, 2013,
        https://arxiv.org/abs/1308.0850, equations 38 to 45.

    Example:
        >>> optimizer = centered_rmsprop(1.0, decay=0.5)
        >>> optimizer.update(jnp.array([3.0]), optimizer.init(jnp.zeros(1)))[0]
        Array([-2.], dtype=float32)
    """

    def numbers(rate: Array, t: Array) -> tuple:
        kept, new = shares(decay)
        spread = kept, safe_divide(new, kept)
        return rate, eps, eps_root, (kept, new), spread, momentum

    def step(numbers: tuple, g: Array, mu: Array, nu: Array, *trace: Array) -> tuple:
        rate, eps, eps_root, decay, spread, momentum = numbers
        mu = ema(decay, mu, g)
        nu = ema(spread, nu, abs_squared(g - mu))
        direction, trace = _onward(
            momentum, divide_by_sqrt(g, nu + eps_root, eps), trace
        )
        return -rate * direction, mu, nu, *trace

    slots = (Slot(), Slot(real=True), None if momentum is None else Slot())
    return transformation(
        "centered_rmsprop",
        CenteredRMSpropState,
        slots,
        learning_rate,
        numbers,
        step,
        state_dtype,
    )


def _onward(momentum: Any, direction: Array, trace: tuple) -> tuple[Array, tuple]:
    """b ← μ b + d where there is a buffer b, else d."""
    if not trace:
        return direction, ()
    b = momentum * trace[0] + direction
    return b, (b,)

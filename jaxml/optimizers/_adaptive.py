"""Optimizers that give every parameter a rate of its own, from its past gradients.

g is the gradient, η the learning rate, t = 1, 2, ... the step, u the update that is
added to the parameters. |g|² is g² where g is real.
"""

from typing import Any, NamedTuple

from jax import Array

from jaxml._core.numerics import abs_squared, sqrt
from jaxml._core.types import Scalar, Schedule, Tree
from jaxml.optimizers._base import (
    Mask,
    Slot,
    Transformation,
    check_positive,
    check_unit,
    debias,
    ema,
    shares,
    transformation,
)


class AdagradState(NamedTuple):
    count: Array
    sum_of_squares: Tree


class RMSpropState(NamedTuple):
    count: Array
    nu: Tree
    trace: Tree | None


class AdamState(NamedTuple):
    count: Array
    mu: Tree
    nu: Tree


def adagrad(
    learning_rate: Scalar | Schedule,
    *,
    initial_accumulator: Scalar = 0.0,
    eps: Scalar = 1e-10,
    state_dtype: Any = None,
) -> Transformation:
    """Divides by the root of all squared gradients so far: rare features learn faster.

        a ← a + |g|²        u = -η g / (√a + ε)

    The sum only grows, so the rate dies out late.

    Args:
        learning_rate: η, a number or a schedule.
        initial_accumulator: Where a begins, non-negative.
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
    check_positive(
        "adagrad",
        learning_rate=learning_rate,
        initial_accumulator=initial_accumulator,
        eps=eps,
    )

    def step(numbers: tuple, g: Array, total: Array) -> tuple:
        rate, eps = numbers
        total = total + abs_squared(g)
        return -rate * g / (sqrt(total) + eps), total

    return transformation(
        "adagrad",
        AdagradState,
        learning_rate,
        (Slot(initial_accumulator, real=True),),
        lambda rate, t: (rate, eps),
        step,
        state_dtype=state_dtype,
    )


def rmsprop(
    learning_rate: Scalar | Schedule,
    *,
    decay: Scalar = 0.9,
    eps: Scalar = 1e-8,
    momentum: Scalar | None = None,
    state_dtype: Any = None,
) -> Transformation:
    """Divides by the root mean square of the recent gradients.

        v ← β v + (1 - β) |g|²        d = g / (√v + ε)
        u = -η d,  or with momentum μ:  b ← μ b + d,  u = -η b

    The mean spans about 1 / (1 - β) steps, so the rate does not die out.

    Args:
        learning_rate: η, a number or a schedule; outside the momentum's buffer.
        decay: β in [0, 1).
        eps: ε >= 0, outside the root, in the units of g.
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
    check_positive("rmsprop", learning_rate=learning_rate, eps=eps)
    check_unit("rmsprop", decay=decay, momentum=momentum)

    def step(numbers: tuple, g: Array, nu: Array, *trace: Array) -> tuple:
        rate, eps, decay, momentum = numbers
        nu = ema(decay, nu, abs_squared(g))
        direction = g / (sqrt(nu) + eps)
        if not trace:
            return -rate * direction, nu
        b = momentum * trace[0] + direction
        return -rate * b, nu, b

    return transformation(
        "rmsprop",
        RMSpropState,
        learning_rate,
        (Slot(real=True), None if momentum is None else Slot()),
        lambda rate, t: (rate, eps, shares(decay), momentum),
        step,
        state_dtype=state_dtype,
    )


def adam(
    learning_rate: Scalar | Schedule,
    *,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    state_dtype: Any = None,
) -> Transformation:
    """Momentum over root mean square, both corrected for having begun at 0.

        m ← β₁ m + (1 - β₁) g        v ← β₂ v + (1 - β₂) |g|²
        u = -η m̂ / (√v̂ + ε)    with m̂ = m / (1 - β₁ᵗ),  v̂ = v / (1 - β₂ᵗ)

    A step is about η long at most, whatever the scale of the gradients.

    Args:
        learning_rate: η, a number or a schedule.
        b1: β₁ in [0, 1), the decay of the mean.
        b2: β₂ in [0, 1), the decay of the mean square.
        eps: ε >= 0, outside the root, in the units of g.
        state_dtype: The dtype of m and v; float32 or wider by default.

    Raises:
        ValueError: If a number is out of its range.

    Reference:
        Kingma and Ba, Adam: a method for stochastic optimization, ICLR 2015,
        https://arxiv.org/abs/1412.6980

    Example:
        >>> optimizer = adam(0.5)
        >>> optimizer.update(jnp.array([3.0]), optimizer.init(jnp.zeros(1)))[0]
        Array([-0.5], dtype=float32)
    """
    check_positive("adam", learning_rate=learning_rate, eps=eps)
    check_unit("adam", b1=b1, b2=b2)

    def step(numbers: tuple, g: Array, mu: Array, nu: Array) -> tuple:
        direction, mu, nu = _adam(numbers[1:], g, mu, nu)
        return -numbers[0] * direction, mu, nu

    return transformation(
        "adam",
        AdamState,
        learning_rate,
        (Slot(), Slot(real=True)),
        lambda rate, t: (rate, *_adam_numbers(t, b1, b2, eps)),
        step,
        state_dtype=state_dtype,
    )


def adamw(
    learning_rate: Scalar | Schedule,
    *,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 1e-2,
    mask: Mask | None = None,
    state_dtype: Any = None,
) -> Transformation:
    """Adam that shrinks the parameters beside the gradient, not through it.

        u = -η (m̂ / (√v̂ + ε) + λ x)    with m̂ and v̂ as in `adam`

    L2 regularisation in the gradient would be divided by √v̂ too, and so would shrink
    least the parameters that have the largest gradients.

    Args:
        learning_rate: η, a number or a schedule.
        b1: β₁ in [0, 1), the decay of the mean.
        b2: β₂ in [0, 1), the decay of the mean square.
        eps: ε >= 0, outside the root, in the units of g.
        weight_decay: λ >= 0, multiplied by the learning rate.
        mask: Which parameters decay; all by default.
        state_dtype: The dtype of m and v; float32 or wider by default.

    Raises:
        ValueError: If a number is out of its range.
        TypeError: If `update` is not given the parameters x.

    Reference:
        Loshchilov and Hutter, Decoupled weight decay regularization, ICLR 2019,
        https://arxiv.org/abs/1711.05101
    """
    check_positive(
        "adamw", learning_rate=learning_rate, eps=eps, weight_decay=weight_decay
    )
    check_unit("adamw", b1=b1, b2=b2)

    def step(numbers: tuple, g: Array, x: Array, mu: Array, nu: Array) -> tuple:
        rate, weight_decay, *rest = numbers
        direction, mu, nu = _adam(rest, g, mu, nu)
        return -rate * (direction + weight_decay * x), mu, nu

    return transformation(
        "adamw",
        AdamState,
        learning_rate,
        (Slot(), Slot(real=True)),
        lambda rate, t: (rate, weight_decay, *_adam_numbers(t, b1, b2, eps)),
        step,
        state_dtype=state_dtype,
        decayed=True if mask is None else mask,
    )


def _adam_numbers(t: Array, b1: Scalar, b2: Scalar, eps: Scalar) -> tuple:
    """The scalars of `_adam`: both corrections are folded into a factor and into ε."""
    root = sqrt(debias(b2, t))
    return shares(b1), shares(b2), root / debias(b1, t), root * eps


def _adam(numbers: Any, g: Array, mu: Array, nu: Array) -> tuple[Array, Array, Array]:
    """m̂ / (√v̂ + ε) as factor · m / (√v + ε'), with one root and one division."""
    b1, b2, factor, eps = numbers
    mu = ema(b1, mu, g)
    nu = ema(b2, nu, abs_squared(g))
    return factor * mu / (sqrt(nu) + eps), mu, nu

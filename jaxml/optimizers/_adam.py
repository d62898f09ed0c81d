"""Adam and its kin: a mean of the gradients over the root of a mean of their squares.

g is the gradient, η the learning rate, t = 1, 2, ... the step, u the update that is
added to the parameters x. |g|² is g² where g is real. Both means begin at 0:

    m ← β₁ m + (1 - β₁) g           m̂ = m / (1 - β₁ᵗ)
    v ← β₂ v + (1 - β₂) |g|²        v̂ = v / (1 - β₂ᵗ)

Other second moments than the mean square v stand in `_second_moments.py`.
"""

from typing import Annotated, Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from jaxml._core.public import factory
from jaxml._core.safe import safe_sqrt
from jaxml._core.types import NonNegative, PyTree, Range, Rate, Scalar, UnitInterval
from jaxml.optimizers._per_leaf import (
    Mask,
    Slot,
    Transformation,
    abs_squared,
    debias,
    divide_by_sqrt,
    ema,
    shares,
    transformation,
)

MEAN_AND_SQUARE = (Slot(), Slot(real=True))


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
    """Momentum over root mean square, both corrected for having begun at 0.

        u = -η m̂ / (√v̂ + ε)

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
        >>> optimizer.update(jnp.array([3.0]), optimizer.init(jnp.zeros(1)))[0].round(3)
        Array([-0.5], dtype=float32)
    """

    def numbers(rate: Array, t: Array) -> tuple:
        return corrected(-rate, t, b1, b2, eps)

    def step(numbers: tuple, g: Array, mu: Array, nu: Array) -> tuple:
        b1, b2, factor, eps = numbers
        mu = ema(b1, mu, g)
        nu = ema(b2, nu, abs_squared(g))
        return divide_by_sqrt(factor * mu, nu, eps), mu, nu

    return transformation(
        "adam", AdamState, MEAN_AND_SQUARE, learning_rate, numbers, step, state_dtype
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
    """Adam on the loss with λ/2 |x|² added: the penalty goes through the gradient.

        g ← g + λ x,  then as `adam`

    The pull towards 0 is divided by √v̂ as all of the gradient is, so the parameters
    with the largest gradients shrink least; `adamw` shrinks all alike.

    Args:
        learning_rate: η, a number or a schedule.
        b1: β₁ in [0, 1), the decay of the mean.
        b2: β₂ in [0, 1), the decay of the mean square.
        eps: ε >= 0, outside the root, in the units of g.
        l2: λ >= 0.
        mask: Which parameters are penalised; all by default.
        state_dtype: The dtype of m and v; float32 or wider by default.

    Raises:
        ValueError: If a number is out of its range.
        TypeError: If `update` is not given the parameters x.

    Reference:
        Loshchilov and Hutter, Decoupled weight decay regularization, ICLR 2019,
        https://arxiv.org/abs/1711.05101, algorithm 2.

    Example:
        >>> optimizer, x = adam_l2(0.5), jnp.ones(1)
        >>> optimizer.update(jnp.array([0.0]), optimizer.init(x), x)[0].round(3)
        Array([-0.5], dtype=float32)
    """

    def numbers(rate: Array, t: Array) -> tuple:
        return l2, *corrected(-rate, t, b1, b2, eps)

    def step(numbers: tuple, g: Array, x: Array, mu: Array, nu: Array) -> tuple:
        l2, b1, b2, factor, eps = numbers
        g = g + l2 * x
        mu = ema(b1, mu, g)
        nu = ema(b2, nu, abs_squared(g))
        return divide_by_sqrt(factor * mu, nu, eps), mu, nu

    return transformation(
        "adam_l2",
        AdamState,
        MEAN_AND_SQUARE,
        learning_rate,
        numbers,
        step,
        state_dtype,
        decayed=True if mask is None else mask,
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
    """Adam that shrinks the parameters beside the gradient, not through it.

        u = -η (m̂ / (√v̂ + ε) + λ x)

    All parameters shrink alike, whatever their gradients; compare `adam_l2`.

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

    Example:
        >>> optimizer, x = adamw(0.5, weight_decay=0.5), jnp.ones(1)
        >>> optimizer.update(jnp.array([0.0]), optimizer.init(x), x)[0]
        Array([-0.25], dtype=float32)
    """

    def numbers(rate: Array, t: Array) -> tuple:
        return rate * weight_decay, *corrected(-rate, t, b1, b2, eps)

    def step(numbers: tuple, g: Array, x: Array, mu: Array, nu: Array) -> tuple:
        shrink, b1, b2, factor, eps = numbers
        mu = ema(b1, mu, g)
        nu = ema(b2, nu, abs_squared(g))
        return divide_by_sqrt(factor * mu, nu, eps) - shrink * x, mu, nu

    return transformation(
        "adamw",
        AdamState,
        MEAN_AND_SQUARE,
        learning_rate,
        numbers,
        step,
        state_dtype,
        decayed=True if mask is None else mask,
    )


@factory
def nadam(
    learning_rate: Rate,
    *,
    b1: UnitInterval = 0.9,
    b2: UnitInterval = 0.999,
    eps: NonNegative = 1e-8,
    state_dtype: Any = None,
) -> Transformation:
    """Adam with Nesterov's momentum: the step takes the gradient in once more.

        u = -η m̄ / (√v̂ + ε)    with m̄ = β₁ m / (1 - β₁ᵗ⁺¹) + (1 - β₁) g / (1 - β₁ᵗ)

    β₁ is constant here; the paper lets it rise during training.

    Args:
        learning_rate: η, a number or a schedule.
        b1: β₁ in [0, 1), the decay of the mean.
        b2: β₂ in [0, 1), the decay of the mean square.
        eps: ε >= 0, outside the root, in the units of g.
        state_dtype: The dtype of m and v; float32 or wider by default.

    Raises:
        ValueError: If a number is out of its range.

    Reference:
        Dozat, Incorporating Nesterov momentum into Adam, ICLR workshop 2016,
        https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ

    Example:
        >>> optimizer = nadam(0.5, b1=0.0)
        >>> optimizer.update(jnp.array([3.0]), optimizer.init(jnp.zeros(1)))[0].round(3)
        Array([-0.5], dtype=float32)
    """

    def numbers(rate: Array, t: Array) -> tuple:
        b1_shares, b2_shares, factor, eps_now = corrected(-rate, t, b1, b2, eps)
        kept, new = b1_shares
        ahead = kept * debias(b1, t) / debias(b1, t + 1)
        return b1_shares, b2_shares, (factor * ahead, factor * new), eps_now

    def step(numbers: tuple, g: Array, mu: Array, nu: Array) -> tuple:
        b1, b2, (of_mean, of_gradient), eps = numbers
        mu = ema(b1, mu, g)
        nu = ema(b2, nu, abs_squared(g))
        return divide_by_sqrt(of_mean * mu + of_gradient * g, nu, eps), mu, nu

    return transformation(
        "nadam", AdamState, MEAN_AND_SQUARE, learning_rate, numbers, step, state_dtype
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
    """Adam that trusts v only as far as it has seen enough gradients: its own warm-up.

        u = -η r m̂ / (√v̂ + ε)  where ρ > τ,  else  u = -η m̂
        r² = (ρ - 4)(ρ - 2) ρ∞ / ((ρ∞ - 4)(ρ∞ - 2) ρ)
        ρ = ρ∞ - 2t β₂ᵗ / (1 - β₂ᵗ)        ρ∞ = 2 / (1 - β₂) - 1

    ρ is how many gradients v stands for.

    Args:
        learning_rate: η, a number or a schedule.
        b1: β₁ in [0, 1), the decay of the mean.
        b2: β₂ in [0, 1), the decay of the mean square.
        eps: ε >= 0, outside the root, in the units of g.
        threshold: τ, of which what is below 4 counts as 4: 5 in the authors' code, 4 in
            the paper.
        state_dtype: The dtype of m and v; float32 or wider by default.

    Raises:
        ValueError: If a number is out of its range.

    Reference:
        Liu et al., On the variance of the adaptive learning rate and beyond, ICLR 2020,
        https://arxiv.org/abs/1908.03265

    Example:
        >>> optimizer = radam(1.0)
        >>> optimizer.update(jnp.array([3.0]), optimizer.init(jnp.zeros(1)))[0].round()
        Array([-3.], dtype=float32)
    """

    def numbers(rate: Array, t: Array) -> tuple:
        b1_shares, b2_shares, factor, eps_now = corrected(1.0, t, b1, b2, eps)
        length, longest = _lengths(t, jnp.asarray(b2, t.dtype))
        trusted = length > jnp.maximum(threshold, 4)
        r = safe_sqrt(jnp.where(trusted, _rectifier(length) / _rectifier(longest), 0.0))
        return (
            rate,
            b1_shares,
            b2_shares,
            trusted,
            r * factor,
            1 / debias(b1, t),
            eps_now,
        )

    def step(numbers: tuple, g: Array, mu: Array, nu: Array) -> tuple:
        rate, b1, b2, trusted, factor, plain, eps = numbers
        mu = ema(b1, mu, g)
        nu = ema(b2, nu, abs_squared(g))
        rectified = divide_by_sqrt(factor * mu, nu, eps)
        return -rate * jnp.where(trusted, rectified, plain * mu), mu, nu

    return transformation(
        "radam", AdamState, MEAN_AND_SQUARE, learning_rate, numbers, step, state_dtype
    )


def _rectifier(length: Array) -> Array:
    return (length - 4) * (length - 2) / length


def _lengths(t: Array, b2: Array) -> tuple[Array, Array]:
    """ρ and ρ∞, which differ by thousands where ρ is 5: not formed as a difference.

    With a = -½ log β₂ they are t + L(a) - t L(ta) and coth a, L(a) = coth a - 1/a.
    """
    a = -jnp.log(b2) / 2
    return t + _langevin(a) - t * _langevin(t * a), (1 + b2) / (1 - b2)


def _langevin(a: Array) -> Array:
    """coth a - 1/a, near 0 by its series."""
    square = jnp.square(jnp.minimum(a, 0.3))
    series = 1382 / 638512875
    for term in (2 / 93555, 1 / 4725, 2 / 945, 1 / 45, 1 / 3):
        series = term - square * series
    far = jnp.maximum(a, 0.3)
    return jnp.where(a < 0.3, a * series, 1 / jnp.tanh(far) - 1 / far)


def corrected(
    rate: Scalar, t: Array, b1: Scalar, b2: Scalar, eps: Scalar
) -> tuple[Any, ...]:
    """η m̂ / (√v̂ + ε) = factor · m / (√v + ε'): both means' shares, factor and ε'.

    So an element takes one root and one division, and no correction.
    """
    root = jnp.sqrt(debias(b2, t))
    return shares(b1), shares(b2), rate * root / debias(b1, t), root * eps

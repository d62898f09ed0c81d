"""Sums over one candidate for each other candidate: m² terms per anchor.

A CPU and a TPU compute them in a loop over the candidates. On a GPU, where a launch
takes longer than such a sum, many of them are one fused reduction, which holds no term.
The derivatives are reductions too, over either candidate. XLA would compute terms that
two reductions share once, and hold them; `_copy` gives each reduction its own terms.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxml._core.masking import apply_mask
from jaxml._core.safe import zero_if_inf
from jaxml._core.softmax import logsumexp
from jaxml._core.special.logistic import sigmoid, sigmoid_derivative
from jaxml._core.types import PyTree

GPU_CANDIDATES = 8
"""How many candidates a GPU ranks at a time. Second derivatives hold their terms."""


def _copy(arrays: PyTree, number: int) -> PyTree:
    """A copy of the arrays, which XLA takes for others than those of other numbers."""
    for _ in range(number):
        arrays = lax.optimization_barrier(arrays)
    return arrays


def smooth_one_minus_precision(s: Array, positive: Array, negative: Array) -> Array:
    """Nₚ / (1 + Pₚ + Nₚ) for each candidate p, from the scores s of an anchor: [m].

    Nₚ = Σₙ σ(sₙ - sₚ),    Pₚ = Σᵢ σ(sᵢ - sₚ) over the positives i ≠ p
    """

    def loop(
        formula: Callable, size: int | None, s: Array, positive: Array, negative: Array
    ) -> Array:
        index = jnp.arange(len(s))

        @jax.checkpoint
        def one_candidate(candidate: tuple[Array, Array]) -> Array:
            s_p, p = candidate
            return formula(s, s_p, positive & (index != p), negative)

        return lax.map(one_candidate, (s, index), batch_size=size)

    one_by_one = functools.partial(loop, _one_minus_precision, None)
    fused = functools.partial(loop, _fused_one_minus_precision, GPU_CANDIDATES)
    return lax.platform_dependent(
        s, positive, negative, cpu=one_by_one, tpu=one_by_one, default=fused
    )


def _one_minus_precision(
    s: Array, s_p: Array, positive: Array, negative: Array
) -> Array:
    is_above = sigmoid(s - s_p)
    n_p = jnp.sum(apply_mask(is_above, negative))
    p_p = jnp.sum(apply_mask(is_above, positive))
    return n_p / (1 + p_p + n_p)


_fused_one_minus_precision = jax.custom_jvp(_one_minus_precision)


@_fused_one_minus_precision.defjvp
def _fused_one_minus_precision_jvp(primals: tuple, tangents: tuple) -> tuple:
    """Σₙ aₙ σ'(sₙ - sₚ) (ṡₙ - ṡₚ), with aₙ the derivative by Nₚ or by Pₚ"""
    (s, s_p, positive, negative), (s_dot, s_p_dot, *_) = primals, tangents
    n_p = jnp.sum(apply_mask(sigmoid(_copy(s, 1) - s_p), negative))
    p_p = jnp.sum(apply_mask(sigmoid(_copy(s, 2) - s_p), positive))
    total = 1 + p_p + n_p
    by_n, by_p = (1 + p_p) / total**2, -n_p / total**2
    a = jnp.where(negative, by_n, jnp.where(positive, by_p, 0.0))
    from_s = jnp.sum(a * sigmoid_derivative(_copy(s, 3) - s_p) * s_dot)
    from_s_p = jnp.sum(a * sigmoid_derivative(_copy(s, 4) - s_p)) * s_p_dot
    return n_p / total, from_s - from_s_p


def pairwise_logsumexp(x: Array, y: Array, mask: Array) -> Array:
    """log Σₙ e^(xᵢₙ + yⱼₙ) for each row i of x and j of y, over the n in y's mask.

    The caller masks the rows j that have no such n.
    """

    def one_by_one(x: Array, y: Array, mask: Array) -> Array:
        @jax.checkpoint
        def one_row(row: Array) -> Array:
            return logsumexp(row[None] + y, 1, mask)

        return lax.map(one_row, x)

    return lax.platform_dependent(
        x, y, mask, cpu=one_by_one, tpu=one_by_one, default=_fused_logsumexp
    )


def _fused_logsumexp(x: Array, y: Array, mask: Array) -> Array:
    y = apply_mask(y, mask, -jnp.inf)
    shift = lax.stop_gradient(jnp.max(x[:, None] + y[None], 2, initial=-jnp.inf))
    shift = zero_if_inf(shift)
    return shift + _shifted_logsumexp(x, y, shift)


@jax.custom_jvp
def _shifted_logsumexp(x: Array, y: Array, shift: Array) -> Array:
    """log Σₙ e^(xᵢₙ + yⱼₙ - shiftᵢⱼ), where the shift carries no derivative."""
    total = jnp.sum(jnp.exp(x[:, None] + y[None] - shift[..., None]), 2)
    return jnp.log(jnp.where(total > 0, total, 1.0))


@_shifted_logsumexp.defjvp
def _shifted_logsumexp_jvp(primals: tuple, tangents: tuple) -> tuple:
    """Σₙ pᵢⱼₙ (ẋᵢₙ + ẏⱼₙ), where p is the softmax over n"""
    x_dot, y_dot, _ = tangents
    lse = _shifted_logsumexp(*_copy(primals, 3))

    def p(number: int, primals: tuple) -> Array:
        x, y, shift, lse = _copy(primals, number)
        return jnp.exp(x[:, None] + y[None] - shift[..., None] - lse[..., None])

    @jax.checkpoint
    def from_x(primals: tuple, x_dot: Array) -> Array:
        return jnp.sum(p(1, primals) * x_dot[:, None], 2)

    @jax.checkpoint
    def from_y(primals: tuple, y_dot: Array) -> Array:
        return jnp.sum(p(2, primals) * y_dot[None], 2)

    primals = *primals, lse
    return lse, from_x(primals, x_dot) + from_y(primals, y_dot)

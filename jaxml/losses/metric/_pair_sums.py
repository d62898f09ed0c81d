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
from jaxml._core.softmax import LogSumExp
from jaxml._core.special.logistic import sigmoid, sigmoid_derivative
from jaxml._core.types import PyTree

GPU_CANDIDATES = 8
"""How many candidates a GPU ranks at a time. Second derivatives hold their terms."""
TPU_ROWS = 128
"""How many rows a TPU adds to all others at a time."""


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


def pairwise_logsumexp(x: Array, y: Array, mask: Array) -> LogSumExp:
    """Σₙ e^(xᵢₙ + yⱼₙ) for each row i of x and j of y, over the n in y's mask.

    It has no derivative; `pairwise_softmax_sum` is its tangent.
    """

    def terms(x: Array, y: Array) -> LogSumExp:
        x_max = jnp.max(x + y, -1, initial=-jnp.inf)
        exps = jnp.exp(x + y - zero_if_inf(x_max)[..., None])
        return LogSumExp(x_max, jnp.sum(exps, -1))

    def loop(size: int | None, x: Array, y: Array) -> LogSumExp:
        return lax.map(lambda row: terms(row[None], y), x, batch_size=size)

    def fused(x: Array, y: Array) -> LogSumExp:
        return terms(x[:, None], y[None])

    y = apply_mask(y, mask, -jnp.inf)
    on_cpu, on_tpu = (functools.partial(loop, size) for size in (None, TPU_ROWS))
    return lax.platform_dependent(x, y, cpu=on_cpu, tpu=on_tpu, default=fused)


def pairwise_softmax_sum(
    x: Array,
    y: Array,
    mask: Array,
    x_max: Array,
    log_sum: Array,
    x_dot: Array,
    y_dot: Array,
) -> Array:
    """Σₙ pᵢⱼₙ (ẋᵢₙ + ẏⱼₙ) over the n in y's mask, with p = e^(xᵢₙ + yⱼₙ - Lᵢⱼ).

    L is `x_max` + `log_sum`, given as two terms so that the sum is not rounded.
    """

    @jax.checkpoint
    def weighted_sum(
        x: Array, y: Array, x_max: Array, log_sum: Array, terms: Array
    ) -> Array:
        log_p = x + y - x_max[..., None] - log_sum[..., None]
        return jnp.sum(jnp.exp(log_p) * terms, -1)

    def loop(size: int | None, rows: tuple, y: Array, y_dot: Array) -> Array:
        def one_row(row: tuple) -> Array:
            *of_pairs, x, x_dot = row
            return weighted_sum(x[None], y, *of_pairs, x_dot[None] + y_dot)

        return lax.map(one_row, rows, batch_size=size)

    def fused(rows: tuple, y: Array, y_dot: Array) -> Array:
        *of_pairs, x, x_dot = rows

        def mean(number: int, terms: Array) -> Array:
            arrays = _copy((x[:, None], y[None], *of_pairs), number)
            return weighted_sum(*arrays, terms)

        return mean(1, x_dot[:, None]) + mean(2, y_dot[None])

    arrays = (x_max, log_sum, x, x_dot), apply_mask(y, mask, -jnp.inf), y_dot
    on_cpu, on_tpu = (functools.partial(loop, size) for size in (None, TPU_ROWS))
    return lax.platform_dependent(*arrays, cpu=on_cpu, tpu=on_tpu, default=fused)

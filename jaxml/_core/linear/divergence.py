"""Divergences of the distributions of two linear layers with the same classes.

They are sums of non-negative terms, so no digits cancel where the distributions are
close. The tiles of the logits are computed again in the backward pass.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxml._core.collectives import sum_shards, vary_together
from jaxml._core.linear.running_kl import (
    Outcomes,
    RunningKL,
    Shifts,
    kl_of_shards,
)
from jaxml._core.linear.tiles import (
    ClassTile,
    Head,
    Tiling,
    Transform,
    fold,
    for_platform,
    logits_dtype,
    map_whole_rows,
    pull_back,
)
from jaxml._core.safe import multiply_no_nan
from jaxml._core.softmax import LogSumExp, Normalizer, normalizer_of_shards
from jaxml._core.special.divergence import (
    bregman_term,
    log_mixture_ratio,
    q_minus_p,
)
from jaxml._core.types import AxisName

Heads = tuple[Head, Head]
"""The student's and the teacher's."""

Sums = tuple[Array, ...]
"""Of the terms of a divergence."""


class Divergence(NamedTuple):
    """A divergence by sums of terms, with its derivatives by the logits.

    The functions take outcomes, the sums of the terms (with a second axis), and β.
    """

    sums: Callable[..., tuple[list[Normalizer], tuple[Array, ...]]]
    """(block, axis_name, heads, transform, β) -> the normalizers, and sums of terms."""
    value: Callable[[tuple[Array, ...], Array], Array]
    """Of the sums and β; linear in β."""
    student_derivative: Callable[[Outcomes, tuple[Array, ...], Array], Array]
    teacher_derivative: Callable[[Outcomes, tuple[Array, ...], Array], Array]


def divergence(
    formula: Divergence,
    student: Head,
    teacher: Head,
    transform: Transform,
    beta: Array,
    block: int | None = None,
    axis_name: AxisName | None = None,
) -> Array:
    """The divergence of each row, whose gradient has no part for the teacher.

    There is no forward-mode rule for it; its gradient has both modes.

    Args:
        formula: `KL` or `JS`.
        student: The layer that is trained, and its inputs.
        teacher: The layer with the true distribution, and its inputs.
        transform: Of the logits of both.
        beta: β, which `KL` ignores.
        block: The rows, and the classes, of a tile. By default the platform decides.
        axis_name: The mesh axes over which the classes are sharded.
    """
    heads = student, teacher
    if not len(student.rows.x):
        return jnp.zeros_like(student.rows.x, logits_dtype(heads), shape=0)
    heads, transform = vary_together((heads, transform))
    return _divergence(formula, block, axis_name, heads, transform, beta)


def _divergence_primal(
    formula: Divergence,
    block: int | None,
    axis_name: AxisName | None,
    heads: Heads,
    transform: Transform,
    beta: Array,
) -> Array:
    arguments = formula, block, axis_name, heads, transform, beta
    return _divergence_fwd(*arguments)[0]


def _divergence_fwd(
    formula: Divergence,
    block: int | None,
    axis_name: AxisName | None,
    heads: Heads,
    transform: Transform,
    beta: Array,
) -> tuple:
    normalizers, sums = formula.sums(block, axis_name, heads, transform, beta)
    return formula.value(sums, beta), (heads, transform, beta, normalizers, sums)


def _kl_sums(
    block: int | None,
    axis_name: AxisName | None,
    heads: Heads,
    transform: Transform,
    beta: Array,
) -> tuple[list[Normalizer], tuple[Array]]:
    """In one sweep over the tiles."""
    folded = for_platform(_fold_kl, block, heads, transform)
    normalizers, offset, log_ratio, kl = folded
    normalizers, kl = kl_of_shards(normalizers, offset, log_ratio, kl, axis_name)
    return normalizers, (kl,)


def _fold_kl(
    tiling: Tiling, heads: Heads, transform: Transform
) -> tuple[list[Normalizer], Array, Array, Array]:
    def update(
        total: RunningKL, logits: list[Array], _: None, tile: ClassTile
    ) -> RunningKL:
        is_new = tile.is_new[None]
        new = [jnp.where(is_new, z, -jnp.inf) for z in logits]
        return total.merge(RunningKL.of(new))

    total = fold(tiling, heads, transform, None, RunningKL.empty, update)
    normalizers = [total.student.normalizer(), total.teacher.normalizer()]
    return normalizers, total.offset, total.log_ratio, total.kl


def _js_sums(
    block: int | None,
    axis_name: AxisName | None,
    heads: Heads,
    transform: Transform,
    beta: Array,
) -> tuple[list[Normalizer], tuple[Array, Array]]:
    """The mixture needs both normalizers, which take all logits of a row.

    On an accelerator, all logits of a block of rows fit in memory. On a CPU a block
    would have too few rows for fast products, so a second sweep recomputes the tiles.
    """
    in_two_sweeps = functools.partial(_js_in_two_sweeps, block, axis_name)
    if block:
        normalizers, sums = in_two_sweeps(heads, transform, beta)
    else:
        normalizers, sums = lax.platform_dependent(
            heads,
            transform,
            beta,
            cpu=in_two_sweeps,
            default=functools.partial(_js_of_whole_rows, axis_name),
        )
    return normalizers, sum_shards(sums, axis_name)


def _js_of_whole_rows(
    axis_name: AxisName | None, heads: Heads, transform: Transform, beta: Array
) -> tuple[list[Normalizer], tuple[Array, Array]]:
    def normalizers_and_sums(logits: list[Array]) -> tuple:
        normalizers = [
            normalizer_of_shards(LogSumExp.of(z, 1).normalizer(), axis_name)
            for z in logits
        ]
        outcomes = Outcomes.of(logits, Shifts.of(normalizers))
        from_p, from_q = _js_terms(outcomes, beta)
        return normalizers, (jnp.sum(from_p, 1), jnp.sum(from_q, 1))

    return map_whole_rows(normalizers_and_sums, heads, transform)


def _js_in_two_sweeps(
    block: int | None,
    axis_name: AxisName | None,
    heads: Heads,
    transform: Transform,
    beta: Array,
) -> tuple[list[Normalizer], tuple[Array, Array]]:
    normalizers = [
        normalizer_of_shards(normalizer, axis_name)
        for normalizer in for_platform(_fold_normalizers, block, heads, transform)
    ]
    return normalizers, for_platform(
        _fold_js, block, heads, transform, normalizers, beta
    )


def _fold_normalizers(
    tiling: Tiling, heads: Heads, transform: Transform
) -> list[Normalizer]:
    def init(zeros: Array) -> list[LogSumExp]:
        return [LogSumExp.empty(zeros) for _ in heads]

    def update(
        totals: list[LogSumExp], logits: list[Array], _: None, tile: ClassTile
    ) -> list[LogSumExp]:
        is_new = tile.is_new[None]
        return [
            total.update(jnp.where(is_new, z, -jnp.inf), 1)
            for total, z in zip(totals, logits)
        ]

    totals = fold(tiling, heads, transform, None, init, update)
    return [total.normalizer() for total in totals]


def _fold_js(
    tiling: Tiling,
    heads: Heads,
    transform: Transform,
    normalizers: list[Normalizer],
    beta: Array,
) -> tuple[Array, Array]:
    def update(
        sums: tuple, logits: list[Array], shifts: Shifts, tile: ClassTile
    ) -> tuple[Array, Array]:
        from_p, from_q = _js_terms(Outcomes.of(logits, shifts), beta)
        is_new = tile.is_new[None]
        return (
            sums[0] + jnp.sum(jnp.where(is_new, from_p, 0.0), 1),
            sums[1] + jnp.sum(jnp.where(is_new, from_q, 0.0), 1),
        )

    shifts = Shifts.of(normalizers)
    return fold(tiling, heads, transform, shifts, lambda zeros: (zeros, zeros), update)


def _divergence_bwd(
    formula: Divergence,
    block: int | None,
    axis_name: AxisName | None,
    residuals: tuple,
    ct: Array,
) -> tuple:
    heads, transform, beta, normalizers, sums = residuals
    student_ct, transform_ct = for_platform(
        functools.partial(_pull_back_divergence, formula),
        block,
        heads,
        transform,
        (Shifts.of(normalizers), sums, ct),
        beta,
    )
    # a minimum over m is 0 to first order in m
    _, beta_vjp = jax.vjp(functools.partial(formula.value, sums), beta)
    return (student_ct, None), transform_ct, *beta_vjp(ct)


def _pull_back_divergence(
    formula: Divergence,
    tiling: Tiling,
    heads: Heads,
    transform: Transform,
    row_values: tuple,
    beta: Array,
) -> tuple[Head, Transform]:
    def logits_cts(
        logits: list[Array], row_values: tuple, tile: ClassTile
    ) -> list[Array]:
        shifts, sums, ct = row_values
        outcomes = Outcomes.of(logits, shifts)
        sums = tuple(total[:, None] for total in sums)
        return [
            ct[:, None] * derivative(outcomes, sums, beta)
            for derivative in (formula.student_derivative, formula.teacher_derivative)
        ]

    return pull_back(tiling, heads, transform, row_values, logits_cts)


_divergence = jax.custom_vjp(_divergence_primal, nondiff_argnums=(0, 1, 2))
_divergence.defvjp(_divergence_fwd, _divergence_bwd)


def _kl(sums: Sums, beta: Array) -> Array:
    return sums[0]


def _kl_student_derivative(outcomes: Outcomes, sums: Sums, beta: Array) -> Array:
    """q - p"""
    return q_minus_p(*outcomes)


def _kl_teacher_derivative(outcomes: Outcomes, sums: Sums, beta: Array) -> Array:
    """p (log(p/q) - KL)"""
    return multiply_no_nan(outcomes.p, -outcomes.u - sums[0])


def _js_terms(outcomes: Outcomes, beta: Array) -> tuple[Array, Array]:
    """p log(p/m) - p + m, and the same of q and m."""
    p, q, u = outcomes
    m = beta * p + (1 - beta) * q
    return (
        bregman_term(p, m, log_mixture_ratio(u, beta)),
        bregman_term(q, m, log_mixture_ratio(-u, 1 - beta)),
    )


def _js(sums: Sums, beta: Array) -> Array:
    return multiply_no_nan(beta, sums[0]) + multiply_no_nan(1 - beta, sums[1])


def _js_student_derivative(outcomes: Outcomes, sums: Sums, beta: Array) -> Array:
    """(1 - β) q (log(q/m) - KL(q‖m))"""
    log_ratio = -log_mixture_ratio(-outcomes.u, 1 - beta)
    return (1 - beta) * multiply_no_nan(outcomes.q, log_ratio - sums[1])


def _js_teacher_derivative(outcomes: Outcomes, sums: Sums, beta: Array) -> Array:
    """β p (log(p/m) - KL(p‖m))"""
    log_ratio = -log_mixture_ratio(outcomes.u, beta)
    return beta * multiply_no_nan(outcomes.p, log_ratio - sums[0])


KL = Divergence(_kl_sums, _kl, _kl_student_derivative, _kl_teacher_derivative)
"""KL(p‖q)"""

JS = Divergence(_js_sums, _js, _js_student_derivative, _js_teacher_derivative)
"""β KL(p‖m) + (1 - β) KL(q‖m) with m = β p + (1 - β) q."""

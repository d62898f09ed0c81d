"""Divergences of the distributions of two linear layers with the same classes.

A first sweep over tiles of the logits gives the log-sum-exp of each layer, a second one
the divergence. Its terms are non-negative, so no digits cancel where the distributions
are close. The backward pass computes the tiles a third time.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxml._core.collectives import sum_shards, vary_together
from jaxml._core.linear.tiles import (
    ClassTile,
    Head,
    Tiling,
    Transform,
    fold,
    for_platform,
    logits_dtype,
    pull_back,
)
from jaxml._core.safe import multiply_no_nan, safe_subtract, zero_if_inf
from jaxml._core.softmax import LogSumExp, Normalizer, normalizer_of_shards
from jaxml._core.special.divergence import (
    bregman_term,
    log_mixture_ratio,
    q_minus_p,
)
from jaxml._core.types import AxisName

Heads = tuple[Head, Head]
"""The student's and the teacher's."""


class Outcomes(NamedTuple):
    """Probabilities of a tile of classes, [rows classes]."""

    p: Array
    """The teacher's."""
    q: Array
    """The student's."""
    u: Array
    """log(q/p)"""


class Divergence(NamedTuple):
    """A divergence by sums of terms, with its derivatives by the logits.

    The functions take outcomes, the sums of the terms (with a second axis), and β.
    """

    terms: Callable[[Outcomes, Array], tuple[Array, ...]]
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
    normalizers = [
        normalizer_of_shards(normalizer, axis_name)
        for normalizer in for_platform(_fold_normalizers, block, heads, transform)
    ]
    fold_terms = functools.partial(_fold_terms, formula)
    sums = for_platform(fold_terms, block, heads, transform, normalizers, beta)
    sums = sum_shards(sums, axis_name)
    return formula.value(sums, beta), (heads, transform, beta, normalizers, sums)


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


def _fold_terms(
    formula: Divergence,
    tiling: Tiling,
    heads: Heads,
    transform: Transform,
    normalizers: list[Normalizer],
    beta: Array,
) -> tuple[Array, ...]:
    def update(
        sums: tuple, logits: list[Array], normalizers: list, tile: ClassTile
    ) -> tuple:
        terms = formula.terms(_outcomes(logits, normalizers), beta)
        is_new = tile.is_new[None]
        return tuple(
            total + jnp.sum(jnp.where(is_new, term, 0.0), 1)
            for total, term in zip(sums, terms)
        )

    num_terms = 1 if formula is KL else 2
    return fold(
        tiling,
        heads,
        transform,
        normalizers,
        lambda zeros: (zeros,) * num_terms,
        update,
    )


def _outcomes(logits: list[Array], normalizers: list[Normalizer]) -> Outcomes:
    """The difference of two shifted logits is exact if they are close."""
    (s, log_sum_s), (t, log_sum_t) = (
        (z - zero_if_inf(n.max)[:, None], n.log_sum[:, None])
        for z, n in zip(logits, normalizers)
    )
    u = safe_subtract(s, t) - (log_sum_s - log_sum_t)
    return Outcomes(jnp.exp(t - log_sum_t), jnp.exp(s - log_sum_s), u)


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
        (normalizers, sums, ct),
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
        normalizers, sums, ct = row_values
        outcomes = _outcomes(logits, normalizers)
        sums = tuple(total[:, None] for total in sums)
        return [
            ct[:, None] * derivative(outcomes, sums, beta)
            for derivative in (formula.student_derivative, formula.teacher_derivative)
        ]

    return pull_back(tiling, heads, transform, row_values, logits_cts)


_divergence = jax.custom_vjp(_divergence_primal, nondiff_argnums=(0, 1, 2))
_divergence.defvjp(_divergence_fwd, _divergence_bwd)


def _kl_terms(outcomes: Outcomes, beta: Array) -> tuple[Array]:
    return (bregman_term(*outcomes),)


def _kl(sums: tuple[Array], beta: Array) -> Array:
    return sums[0]


def _kl_student_derivative(
    outcomes: Outcomes, sums: tuple[Array], beta: Array
) -> Array:
    """q - p"""
    return q_minus_p(*outcomes)


def _kl_teacher_derivative(
    outcomes: Outcomes, sums: tuple[Array], beta: Array
) -> Array:
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


def _js(sums: tuple[Array, Array], beta: Array) -> Array:
    return multiply_no_nan(beta, sums[0]) + multiply_no_nan(1 - beta, sums[1])


def _js_student_derivative(
    outcomes: Outcomes, sums: tuple[Array, Array], beta: Array
) -> Array:
    """(1 - β) q (log(q/m) - KL(q‖m))"""
    log_ratio = -log_mixture_ratio(-outcomes.u, 1 - beta)
    return (1 - beta) * multiply_no_nan(outcomes.q, log_ratio - sums[1])


def _js_teacher_derivative(
    outcomes: Outcomes, sums: tuple[Array, Array], beta: Array
) -> Array:
    """β p (log(p/m) - KL(p‖m))"""
    log_ratio = -log_mixture_ratio(outcomes.u, beta)
    return beta * multiply_no_nan(outcomes.p, log_ratio - sums[0])


KL = Divergence(_kl_terms, _kl, _kl_student_derivative, _kl_teacher_derivative)
"""KL(p‖q)"""

JS = Divergence(_js_terms, _js, _js_student_derivative, _js_teacher_derivative)
"""β KL(p‖m) + (1 - β) KL(q‖m) with m = β p + (1 - β) q."""

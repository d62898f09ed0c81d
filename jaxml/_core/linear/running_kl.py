"""The KL divergence of two softmaxes, folded from groups of classes in one sweep.

By the chain rule it is the divergence of the probabilities of the groups, plus the mean
of the divergences within them. All of these are non-negative, so no digits cancel.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxml._core.collectives import max_shards, sum_shards
from jaxml._core.safe import multiply_no_nan, safe_subtract, zero_if_inf
from jaxml._core.softmax import (
    LogSumExp,
    Normalizer,
    log_softmax,
    normalizer_of_shards,
    shard_log_sums,
)
from jaxml._core.special.divergence import bregman_term
from jaxml._core.special.log1p import wide_log1p
from jaxml._core.special.logistic import sigmoid, softplus
from jaxml._core.types import AxisName


class Shifts(NamedTuple):
    """log p = (logit - max) - log_sum in each row. The student comes first."""

    max: tuple[Array, Array]
    """[rows 1], like all arrays here; 0 in place of ±∞."""
    log_sum: tuple[Array, Array]
    log_sum_difference: Array
    """The student's `log_sum` minus the teacher's."""

    @classmethod
    def of(cls, normalizers: Sequence[Normalizer]) -> "Shifts":
        student, teacher = (
            Normalizer(zero_if_inf(n.max)[:, None], n.log_sum[:, None])
            for n in normalizers
        )
        return cls(
            (student.max, teacher.max),
            (student.log_sum, teacher.log_sum),
            student.log_sum - teacher.log_sum,
        )


class Outcomes(NamedTuple):
    """Probabilities of a tile of classes, [rows classes]."""

    p: Array
    """The teacher's."""
    q: Array
    """The student's."""
    u: Array
    """log(q/p)"""

    @classmethod
    def of(cls, logits: Sequence[Array], shifts: Shifts) -> "Outcomes":
        """The difference of two shifted logits is exact if they are close."""
        s, t = (z - z_max for z, z_max in zip(logits, shifts.max))
        q, p = (jnp.exp(z - log_sum) for z, log_sum in zip((s, t), shifts.log_sum))
        return cls(p, q, safe_subtract(s, t) - shifts.log_sum_difference)


class RunningKL(NamedTuple):
    """KL(p‖q) of a group of classes, for each row.

    Δ, the student's log-sum-exp minus the teacher's, is `offset` + `log_ratio`. It is
    more precise than that difference: a large offset of all logits takes no digits, and
    an error of the sums is corrected.
    """

    student: LogSumExp
    teacher: LogSumExp
    offset: Array
    """The student's maximum minus the teacher's in the first tile of the group."""
    log_ratio: Array
    """Δ - offset."""
    kl: Array

    @classmethod
    def empty(cls, like: Array) -> "RunningKL":
        none, zeros = LogSumExp.empty(like), jnp.zeros_like(like)
        return cls(none, none, zeros, zeros, zeros)

    @classmethod
    def of(cls, logits: Sequence[Array]) -> "RunningKL":
        """Of a tile of the student's and the teacher's logits.

        Σ q and Σ p are 1, but for an error of Δ: Σ q - Σ p, which is the sum of
        p log(p/q) - p + q minus the one of p log(p/q), is e^error - 1.
        """
        student_sum, teacher_sum = (LogSumExp.of(z, 1) for z in logits)
        student, teacher = student_sum.normalizer(), teacher_sum.normalizer()
        outcomes = Outcomes.of(logits, Shifts.of((student, teacher)))
        kl = jnp.sum(bregman_term(*outcomes), 1)
        excess = kl + jnp.sum(multiply_no_nan(outcomes.p, outcomes.u), 1)
        excess = jnp.where(jnp.abs(excess) < 0.5, excess, 0.0)
        offset = safe_subtract(student.max, teacher.max)
        log_ratio = student.log_sum - teacher.log_sum + wide_log1p(excess)
        return cls(student_sum, teacher_sum, offset, log_ratio, kl)

    def merge(self, other: "RunningKL") -> "RunningKL":
        """Of the classes of both groups.

        By the chain rule, with p and q the probabilities of this group in the union:

            KL = p log(p/q) + (1 - p) log((1 - p)/(1 - q)) + p KLₛ + (1 - p) KLₒ
        """
        odds_p = self.teacher.log_odds(other.teacher)
        odds_q = self.student.log_odds(other.student)
        d = safe_subtract(self.offset, other.offset)
        d += safe_subtract(self.log_ratio, other.log_ratio)
        u, other_u = _log_ratios(odds_p, odds_q, d)
        p, other_p = sigmoid(odds_p), sigmoid(-odds_p)
        kl = bregman_term(p, sigmoid(odds_q), u) + multiply_no_nan(p, self.kl)
        kl += bregman_term(other_p, sigmoid(-odds_q), other_u)
        kl += multiply_no_nan(other_p, other.kl)

        student = self.student.add(other.student)
        teacher = self.teacher.add(other.teacher)
        large_ratio = safe_subtract(student.log(), teacher.log())
        large_ratio = safe_subtract(large_ratio, self.offset)
        # u = log(q/p) is this group's Δ minus the one of the union
        log_ratio = jnp.where(jnp.abs(d) < 1, self.log_ratio - u, large_ratio)
        merged = RunningKL(student, teacher, self.offset, log_ratio, kl)
        is_first = (self.student.sum == 0) & (self.teacher.sum == 0)
        return jax.tree.map(lambda a, b: jnp.where(is_first, a, b), other, merged)


def _log_ratios(odds_p: Array, odds_q: Array, d: Array) -> tuple[Array, Array]:
    """log(q/p) and log((1 - q)/(1 - p)), from the log-odds of p and of q.

    d is the log-odds of q minus those of p, more precisely than by this difference. If
    it is small, q/p = 1/(p + (1 - p) e⁻ᵈ) is close to 1.
    """
    p, one_minus_p = sigmoid(odds_p), sigmoid(-odds_p)
    is_small = jnp.abs(d) < 1
    d = jnp.where(is_small, d, 0.0)
    u = jnp.where(
        is_small,
        -wide_log1p(one_minus_p * jnp.expm1(-d)),
        softplus(-odds_p) - softplus(-odds_q),
    )
    other_u = jnp.where(
        is_small,
        -wide_log1p(p * jnp.expm1(d)),
        softplus(odds_p) - softplus(odds_q),
    )
    return u, other_u


def kl_of_shards(
    normalizers: Sequence[Normalizer],
    offset: Array,
    log_ratio: Array,
    kl: Array,
    axis_name: AxisName | None,
) -> tuple[list[Normalizer], Array]:
    """The normalizers and the KL divergence of the classes of all devices."""
    if axis_name is None:
        return [*normalizers], kl
    log_q, log_p = (
        log_softmax(shard_log_sums(n, axis_name)[1][..., None], axis_name=axis_name)
        for n in normalizers
    )
    log_q, p = log_q[..., 0], jnp.exp(log_p[..., 0])
    # all Δ relative to their mean, as long as they are close
    log_ratio += safe_subtract(offset, max_shards(offset, axis_name))
    center = sum_shards(multiply_no_nan(p, log_ratio), axis_name)
    d = safe_subtract(log_ratio, center)
    is_small = jnp.abs(d) < 1
    small = jnp.where(is_small, d, 0.0)
    num_large = sum_shards((~is_small).astype(p.dtype), axis_name)
    small_u = small - wide_log1p(sum_shards(p * jnp.expm1(small), axis_name))
    u = jnp.where(num_large == 0, small_u, safe_subtract(log_q, log_p[..., 0]))
    kl = bregman_term(p, jnp.exp(log_q), u) + multiply_no_nan(p, kl)
    merged = [normalizer_of_shards(n, axis_name) for n in normalizers]
    return merged, sum_shards(kl, axis_name)

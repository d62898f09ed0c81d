"""The softmax of a linear layer, without materializing its logits.

All that a softmax loss needs of the logits is a few numbers per row: the one of the
label, the log-sum-exp, the entropy and the mean of the others. They are folded from
tiles of logits, which are computed again in the backward pass.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxml._core.collectives import num_shards, sum_shards, vary_together
from jaxml._core.linear.tiles import (
    ClassTile,
    Head,
    Tiling,
    Transform,
    fold,
    for_platform,
    pull_back,
)
from jaxml._core.safe import multiply_no_nan, zero_if_inf
from jaxml._core.softmax import (
    MIN_LOG_P,
    LogSumExp,
    Normalizer,
    SoftmaxEntropy,
    log_softmax,
    normalizer_of_shards,
    shard_log_sums,
)
from jaxml._core.types import AxisName


class LogitSums(NamedTuple):
    """What a row's loss needs of its logits z, each [n]."""

    label_logit: Array
    """0 for a label of no class."""
    others: Normalizer
    """log Σ eᶻ over all classes but the label."""
    mean: Array
    """Of all logits."""
    other_entropy: Any = None
    """The entropy of the softmax of all classes but the label, if it is asked for."""

    @property
    def other_lse(self) -> Array:
        return self.others.max + self.others.log_sum

    @property
    def label_log_odds(self) -> Array:
        """log p / (1 - p) for the probability p of the label."""
        return (self.label_logit - self.others.max) - self.others.log_sum


def logit_sums(
    head: Head,
    transform: Transform,
    index: Array,
    block: int | None = None,
    axis_name: AxisName | None = None,
    *,
    with_entropy: bool = False,
) -> LogitSums:
    """The sums of the logits of a head.

    There is no forward-mode rule for them; their gradient has both modes.

    Args:
        head: The layer and its inputs.
        transform: Of its logits.
        index: The label of each row, int32; -1 for none, or if another device has it.
        block: The rows, and the classes, of a tile. By default the platform decides.
        axis_name: The mesh axes over which the classes are sharded.
        with_entropy: Whether the entropy is computed.
    """
    if not index.size:
        empty = jnp.zeros_like(index, head.dtype)
        entropy = empty if with_entropy else None
        return LogitSums(empty, Normalizer(empty, empty), empty, entropy)
    arguments = vary_together((head, transform, index))
    sums = _logit_sums(block, with_entropy, *arguments)
    others_max = lax.stop_gradient(sums.others.max)
    others = sums.others._replace(max=others_max)
    return _sum_shards(sums._replace(others=others), axis_name)


def _sum_shards(sums: LogitSums, axis_name: AxisName | None) -> LogitSums:
    if axis_name is None:
        return sums
    label_logit, mean = sum_shards((sums.label_logit, sums.mean), axis_name)
    entropy = sums.other_entropy
    if entropy is not None:  # of the shards, and within each of them
        _, local = shard_log_sums(sums.others, axis_name)
        log_p = log_softmax(local[..., None], axis_name=axis_name)[..., 0]
        information = multiply_no_nan(jnp.exp(log_p), entropy - log_p)
        entropy = sum_shards(information, axis_name)
    others = normalizer_of_shards(sums.others, axis_name)
    return LogitSums(label_logit, others, mean / num_shards(axis_name), entropy)


def _fold_sums(
    tiling: Tiling,
    heads: tuple[Head],
    transform: Transform,
    index: Array,
    *,
    with_entropy: bool,
) -> LogitSums:
    sums_of_exps = SoftmaxEntropy if with_entropy else LogSumExp

    def init(zeros: Array) -> tuple:
        return sums_of_exps.empty(zeros), zeros, zeros

    def update(
        carry: tuple, logits: list[Array], label: Array, tile: ClassTile
    ) -> tuple:
        (others, label_logit, total), (z,) = carry, logits
        is_label, is_new = tile.index[None] == label[:, None], tile.is_new[None]
        others = others.update(jnp.where(is_new & ~is_label, z, -jnp.inf), 1)
        label_logit += jnp.sum(jnp.where(is_new & is_label, z, 0.0), 1)
        return others, label_logit, total + jnp.sum(jnp.where(is_new, z, 0.0), 1)

    others, label_logit, total = fold(tiling, heads, transform, index, init, update)
    mean = total / heads[0].classes.w.shape[1]
    entropy = others.entropy if with_entropy else None
    return LogitSums(label_logit, others.normalizer(), mean, entropy)


def _logit_sums_primal(
    block: int | None,
    with_entropy: bool,
    head: Head,
    transform: Transform,
    index: Array,
) -> LogitSums:
    fold_sums = functools.partial(_fold_sums, with_entropy=with_entropy)
    return for_platform(fold_sums, block, (head,), transform, index)


def _logit_sums_fwd(
    block: int | None,
    with_entropy: bool,
    head: Head,
    transform: Transform,
    index: Array,
) -> tuple:
    # a function with a VJP rule has no JVP, but the tiles can be differentiated again
    sums = _logit_sums_primal(block, with_entropy, head, transform, index)
    return sums, (head, transform, index, sums)


def _logit_sums_bwd(
    block: int | None, with_entropy: bool, residuals: tuple, cts: LogitSums
) -> tuple:
    head, transform, index, sums = residuals
    row_values = index, sums.others, sums.other_entropy, cts
    head_ct, transform_ct = for_platform(
        _pull_back_sums, block, (head,), transform, row_values
    )
    return head_ct, transform_ct, None


def _pull_back_sums(
    tiling: Tiling, heads: tuple[Head], transform: Transform, row_values: tuple
) -> tuple[Head, Transform]:
    num_classes = heads[0].classes.w.shape[1]

    def logits_cts(
        logits: list[Array], row_values: tuple, tile: ClassTile
    ) -> list[Array]:
        (z,) = logits
        columns = jax.tree.map(lambda value: value[:, None], row_values)
        label, (z_max, log_sum), entropy, cts = columns
        is_label = tile.index[None] == label
        log_p = jnp.where(is_label, -jnp.inf, (z - zero_if_inf(z_max)) - log_sum)
        p_ct = cts.others.log_sum
        if entropy is not None:
            surprise = -jnp.maximum(log_p, MIN_LOG_P)  # p = 0 below
            p_ct += cts.other_entropy * (surprise - entropy)
        others_ct = p_ct * jnp.exp(log_p)
        mean_ct = cts.mean / num_classes
        return [jnp.where(is_label, cts.label_logit, others_ct) + mean_ct]

    return pull_back(tiling, heads, transform, row_values, logits_cts)


_logit_sums = jax.custom_vjp(_logit_sums_primal, nondiff_argnums=(0, 1))
_logit_sums.defvjp(_logit_sums_fwd, _logit_sums_bwd)

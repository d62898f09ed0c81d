"""The last linear layer and its loss in one, without materializing the logits.

The event is the classes of one row. The logits are computed tile by tile, folded into a
few numbers per row, and computed again in the backward pass. Only one tile of them
exists at any time. Between the passes only x, W and these numbers are saved.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float, Integer

from jaxml._core.collectives import num_shards
from jaxml._core.linear.softmax import LogitSums, logit_sums
from jaxml._core.linear.tiles import Head, Transform
from jaxml._core.masking import apply_mask
from jaxml._core.public import public
from jaxml._core.safe import multiply_no_nan
from jaxml._core.softmax import mixture_entropy
from jaxml._core.special.logistic import softplus
from jaxml._core.types import (
    AxisName,
    Count,
    Fraction,
    NonNegative,
    Positive,
)
from jaxml.losses._labels import label_index, nan_if_invalid, shard_index


@public(upcast=False, masked=True)
def linear_cross_entropy(
    x: Float[Array, "*batch d"],
    w: Float[Array, "d classes"],
    labels: Integer[Array, "*batch"],
    *,
    bias: Float[Array, "classes"] | None = None,
    label_smoothing: Fraction = 0.0,
    z_loss: NonNegative = 0.0,
    softcap: Positive | None = None,
    block: Count | None = None,
    where: Bool[Array, "*batch"] | None = None,
    axis_name: AxisName | None = None,
) -> Float[Array, "*batch"]:
    """The cross entropy of a linear layer's logits, which are never materialized.

        loss = (1 - ε) s[label] + ε/C Σⱼ sⱼ + ζ lse²    with s = lse - z
        z = c tanh((x W + b) / c),    lse = log Σⱼ exp zⱼ

    The logits are float32, or float64 if x or W is. If x or W has 16 bits, they are
    products of 16-bit factors.

    Args:
        x: The inputs of the last layer.
        w: W, its weights.
        labels: The true classes. An out-of-range label gives NaN for its example.
        bias: b; none by default.
        label_smoothing: ε in [0, 1], the part of the target spread over all classes.
        z_loss: ζ >= 0, the weight of the penalty on lse.
        softcap: c > 0, a soft bound on |z|; none by default.
        block: The rows, and the classes, of a tile. By default the platform decides.
        where: The examples that count; the others have loss 0.
        axis_name: The mesh axes over which w and the bias are sharded by class, in
            `jax.shard_map`. The labels count all classes.

    Reference:
        Wijmans et al., Cut your losses in large-vocabulary language models, ICLR 2025,
        https://arxiv.org/abs/2411.09009

    Example:
        >>> linear_cross_entropy(jnp.ones((2, 3)), jnp.zeros((3, 4)), jnp.array([1, 9]))
        Array([1.3862944,       nan], dtype=float32)
    """
    transform = Transform.of(softcap, 1.0, x.dtype, w.dtype)
    index, sums = _label_sums(x, w, labels, bias, transform, block, axis_name)
    nll = softplus(-sums.label_log_odds)
    lse = jnp.logaddexp(sums.other_lse, sums.label_logit)
    loss = multiply_no_nan(1 - label_smoothing, nll)
    loss += multiply_no_nan(label_smoothing, lse - sums.mean)
    loss += multiply_no_nan(z_loss, lse**2)
    return nan_if_invalid(loss, index).reshape(labels.shape)


class LogProb(NamedTuple):
    """What `linear_log_prob` returns: three numbers per row."""

    log_prob: Float[Array, "*batch"]
    """Of the label, in nats."""
    entropy: Float[Array, "*batch"]
    """Of the distribution of all classes, in nats."""
    lse: Float[Array, "*batch"]
    """The log-sum-exp of the logits."""


@public(upcast=False, masked=True)
def linear_log_prob(
    x: Float[Array, "*batch d"],
    w: Float[Array, "d classes"],
    labels: Integer[Array, "*batch"],
    *,
    temperature: Positive = 1.0,
    bias: Float[Array, "classes"] | None = None,
    softcap: Positive | None = None,
    block: Count | None = None,
    where: Bool[Array, "*batch"] | None = None,
    axis_name: AxisName | None = None,
) -> LogProb:
    """The log-probability of a label and the entropy, from a language model's head.

        log_prob = z[label] - lse,    entropy = lse - Σⱼ pⱼ zⱼ,    lse = log Σⱼ exp zⱼ
        z = c tanh((x W + b) / c) / T,    p = softmax(z)

    All three are differentiable and come from one pass over the tiles of the logits.
    Digits survive where p[label] is near 1: log(1 - 10⁻¹²) is -10⁻¹².

    Args:
        x: The inputs of the last layer.
        w: W, its weights.
        labels: The classes, such as sampled tokens. An out-of-range label gives NaN.
        temperature: T > 0, that of sampling.
        bias: b; none by default.
        softcap: c > 0, a soft bound on the logits; none by default.
        block: The rows, and the classes, of a tile. By default the platform decides.
        where: The rows that count; the others have 0.
        axis_name: The mesh axes over which w and the bias are sharded by class, in
            `jax.shard_map`. The labels count all classes.

    Reference:
        Wijmans et al., Cut your losses in large-vocabulary language models, ICLR 2025,
        https://arxiv.org/abs/2411.09009

    Example:
        >>> x, w, labels = jnp.ones((1, 3)), jnp.zeros((3, 4)), jnp.array([1])
        >>> linear_log_prob(x, w, labels).log_prob
        Array([-1.3862944], dtype=float32)
    """
    transform = Transform.of(softcap, temperature, x.dtype, w.dtype)
    index, sums = _label_sums(
        x, w, labels, bias, transform, block, axis_name, with_entropy=True
    )
    log_odds, other_entropy = sums.label_log_odds, sums.other_entropy
    entropy = mixture_entropy(log_odds, jnp.zeros_like(log_odds), other_entropy)
    lse = jnp.logaddexp(sums.other_lse, sums.label_logit)
    fields = -softplus(-log_odds), entropy, lse
    return LogProb(*(nan_if_invalid(f, index).reshape(labels.shape) for f in fields))


def _label_sums(
    x: Array,
    w: Array,
    labels: Array,
    bias: Array | None,
    transform: Transform,
    block: int | None,
    axis_name: AxisName | None,
    *,
    with_entropy: bool = False,
) -> tuple[Array, LogitSums]:
    """The index of each label, and the sums of the logits of each row."""
    num_classes = w.shape[1]
    index = label_index(labels.reshape(-1), num_classes * num_shards(axis_name))
    local_index = shard_index(index, num_classes, axis_name)
    # a row without a label may hold NaN, which must not reach the gradient of w
    x = apply_mask(lax.collapse(x, 0, x.ndim - 1), index[:, None] >= 0)
    head = Head.of(x, w, bias)
    sums = logit_sums(
        head, transform, local_index, block, axis_name, with_entropy=with_entropy
    )
    return index, sums

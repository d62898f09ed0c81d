"""The last linear layer and its loss in one, without materializing the logits.

The logits are computed tile by tile, folded into three numbers per row, and computed
again in the backward pass. Only one tile of them exists at any time. Between the passes
only x, W and one number per row are saved.
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Integer

from jaxml._core.collectives import num_shards
from jaxml._core.linear_softmax import Classes, Rows, logit_sums
from jaxml._core.masking import apply_mask
from jaxml._core.public import public
from jaxml._core.safe import multiply_no_nan
from jaxml._core.softmax import softmax_nll
from jaxml._core.types import (
    AxisName,
    Count,
    Fraction,
    NonNegative,
    Positive,
    compute_dtype,
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
    dtype = compute_dtype(x.dtype, w.dtype)
    num_classes = w.shape[1]
    index = label_index(labels.reshape(-1), num_classes * num_shards(axis_name))
    local_index = shard_index(index, num_classes, axis_name)
    # a row without a label may hold NaN, which must not reach the gradient of w
    rows = Rows(apply_mask(x.reshape(-1, x.shape[-1]), index[:, None] >= 0))
    cap = None if softcap is None else jnp.asarray(softcap, dtype)
    classes = Classes(w, bias=None if bias is None else bias.astype(dtype))
    label_logit, other_lse, mean = logit_sums(
        rows, classes, local_index, cap, block, axis_name
    )
    nll = softmax_nll(label_logit, other_lse)
    lse = jnp.logaddexp(other_lse, label_logit)
    loss = multiply_no_nan(1 - label_smoothing, nll)
    loss += multiply_no_nan(label_smoothing, lse - mean)
    loss += multiply_no_nan(z_loss, lse**2)
    return nan_if_invalid(loss, index).reshape(labels.shape)

"""Metric learning with proxies: one or several learned vectors per class.

The event is the last axis, an embedding. cosⱼ is its cosine with the j-th proxy. Both
are normalized here; a vector shorter than 10⁻⁶ is divided by 10⁻⁶, so that a zero
vector has cosine 0 and a bounded gradient. An integer label outside [0, classes) gives
NaN for its example alone. The cosines are computed block by block and never all held.
"""

from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Bool, Float, Integer

from jaxml._core.blocks import map_blocks
from jaxml._core.collectives import any_shard, max_shards, num_shards, sum_shards
from jaxml._core.linear.softmax import LogitSums, logit_sums
from jaxml._core.linear.tiles import Classes, Head, Rows, Transform
from jaxml._core.masking import apply_mask
from jaxml._core.matmul import matmul
from jaxml._core.public import public
from jaxml._core.safe import directions, l2_normalize, norm, safe_divide
from jaxml._core.softmax import logsumexp, logsumexp_shards, softmax_nll
from jaxml._core.special.logistic import softplus
from jaxml._core.types import (
    AxisName,
    NonNegative,
    Positive,
    Range,
    Scalar,
    compute_dtype,
)
from jaxml.losses._labels import label_index, label_mask, nan_if_invalid, shard_index


@public(upcast=False, masked=True)
def normalized_softmax_loss(
    embeddings: Float[Array, "*batch d"],
    proxies: Float[Array, "classes d"],
    labels: Integer[Array, "*batch"],
    *,
    temperature: Positive = 0.05,
    where: Bool[Array, "*batch"] | None = None,
    axis_name: AxisName | None = None,
) -> Float[Array, "*batch"]:
    """Softmax cross entropy of the cosines: a classifier that ignores lengths.

        loss = -log(e^(cos[label]/τ) / Σⱼ e^(cosⱼ/τ))

    Args:
        embeddings: Vectors of any length.
        proxies: A vector of any length for each class.
        labels: The true classes.
        temperature: τ > 0. Low values give more weight to the nearest other proxies.
        where: The examples that count; the others have loss 0.
        axis_name: The mesh axes over which the proxies are sharded by class, in
            `jax.shard_map`. The labels count all classes.

    Reference:
        Zhai and Wu, Classification is a strong baseline for deep metric learning, BMVC
        2019, https://arxiv.org/abs/1811.12649

    Example:
        >>> embeddings, proxies = jnp.array([[3.0, 0.0]]), jnp.eye(2)
        >>> normalized_softmax_loss(
        ...     embeddings, proxies, jnp.array([0]), temperature=1.0
        ... )
        Array([0.3132617], dtype=float32)
    """
    scale = 1 / temperature
    index, sums = _cosine_sums(embeddings, proxies, labels, scale, axis_name)
    return nan_if_invalid(softmax_nll(sums.label_logit, sums.other_lse), index)


@public(upcast=False, masked=True)
def cosface_loss(
    embeddings: Float[Array, "*batch d"],
    proxies: Float[Array, "classes d"],
    labels: Integer[Array, "*batch"],
    *,
    margin: NonNegative = 0.35,
    scale: Positive = 64.0,
    where: Bool[Array, "*batch"] | None = None,
    axis_name: AxisName | None = None,
) -> Float[Array, "*batch"]:
    """Softmax cross entropy of the cosines, with a margin on the label's cosine.

        loss = -log(eᶻ / (eᶻ + Σⱼ e^(s cosⱼ)))    with z = s (cos[label] - m)

    over j ≠ label.

    Args:
        embeddings: Vectors of any length.
        proxies: A vector of any length for each class.
        labels: The true classes.
        margin: m >= 0, by which the label's cosine should exceed all others.
        scale: s > 0, the inverse of a temperature.
        where: The examples that count; the others have loss 0.
        axis_name: The mesh axes over which the proxies are sharded by class, in
            `jax.shard_map`. The labels count all classes.

    Reference:
        Wang et al., CosFace: large margin cosine loss for deep face recognition, CVPR
        2018, https://arxiv.org/abs/1801.09414

    Example:
        >>> embeddings, proxies = jnp.array([[1.0, 1.0]]), jnp.eye(2)
        >>> cosface_loss(embeddings, proxies, jnp.array([0]), margin=0.5, scale=10.0)
        Array([5.0067153], dtype=float32)
    """
    index, sums = _cosine_sums(embeddings, proxies, labels, scale, axis_name)
    label_logit = sums.label_logit - scale * margin
    return nan_if_invalid(softmax_nll(label_logit, sums.other_lse), index)


@public(upcast=False, masked=True)
def arcface_loss(
    embeddings: Float[Array, "*batch d"],
    proxies: Float[Array, "classes d"],
    labels: Integer[Array, "*batch"],
    *,
    margin: Annotated[Scalar, Range("be in [0, π]", lambda m: 0 <= m <= np.pi)] = 0.5,
    scale: Positive = 64.0,
    where: Bool[Array, "*batch"] | None = None,
    axis_name: AxisName | None = None,
) -> Float[Array, "*batch"]:
    """Softmax cross entropy of the cosines, with a margin on the label's angle θ.

        loss = -log(eᶻ / (eᶻ + Σⱼ e^(s cosⱼ)))    with z = s cos(θ + m)

    over j ≠ label. For θ > π - m, where cos(θ + m) would increase again, z is
    s (cos θ - m sin m), as in the authors' code. sin θ is ‖x - y‖ ‖x + y‖ / 2, which is
    accurate where cos θ is 1 or -1, and has derivative 0 there.

    Args:
        embeddings: Vectors of any length.
        proxies: A vector of any length for each class.
        labels: The true classes.
        margin: m in [0, π], in radians.
        scale: s > 0, the inverse of a temperature.
        where: The examples that count; the others have loss 0.
        axis_name: The mesh axes over which the proxies are sharded by class, in
            `jax.shard_map`. The labels count all classes.

    Reference:
        Deng et al., ArcFace: additive angular margin loss for deep face recognition,
        CVPR 2019, https://arxiv.org/abs/1801.07698

    Example:
        >>> embeddings, labels = jnp.array([[1.0, 0.0]]), jnp.array([0])
        >>> arcface_loss(embeddings, jnp.eye(2), labels, margin=jnp.pi / 2, scale=1.0)
        Array([0.6931472], dtype=float32)
    """
    index, sums = _cosine_sums(embeddings, proxies, labels, scale, axis_name)
    dtype = sums.other_lse.dtype
    x = _unit(embeddings, dtype)
    label_proxies = _unit(_take_proxy(index, proxies, axis_name), dtype)
    cos_theta = jnp.sum(x * label_proxies, -1)
    sin_theta = _sine(x, label_proxies)
    cos_theta_plus_m = cos_theta * jnp.cos(margin) - sin_theta * jnp.sin(margin)
    linear_extension = cos_theta - margin * jnp.sin(margin)
    label_cosine = jnp.where(
        cos_theta < -jnp.cos(margin), linear_extension, cos_theta_plus_m
    )
    return nan_if_invalid(softmax_nll(scale * label_cosine, sums.other_lse), index)


def _unit(x: Array, dtype: Any) -> Array:
    """The rows with length 1; a zero row of float16 has derivative 0, not 10⁶."""
    unit = l2_normalize(x.astype(dtype))
    return (
        apply_mask(unit, jnp.any(x != 0, -1)[..., None])
        if x.dtype == jnp.float16
        else unit
    )


def _sine(x: Array, y: Array) -> Array:
    """sin θ of two unit vectors; 1 if one is a zero vector, whose cosine is 0."""
    any_zero = jnp.all(x == 0, -1) | jnp.all(y == 0, -1)
    return jnp.where(any_zero, 1.0, norm(x - y) * norm(x + y) / 2)


@public(upcast=False, masked=True)
def proxy_nca_loss(
    embeddings: Float[Array, "*batch d"],
    proxies: Float[Array, "classes d"],
    labels: Integer[Array, "*batch"],
    *,
    where: Bool[Array, "*batch"] | None = None,
    axis_name: AxisName | None = None,
) -> Float[Array, "*batch"]:
    """Neighborhood component analysis with the proxies as the neighbors.

        loss = -log(e^(-d²[label]) / Σⱼ e^(-d²ⱼ))    over j ≠ label

    with d² = 2 - 2 cos, the squared distance of the unit vectors. The label is not in
    the denominator, so that the loss may be negative; with it, this would be
    `normalized_softmax_loss` at temperature ½. With a single class the loss is 0.

    Args:
        embeddings: Vectors of any length.
        proxies: A vector of any length for each class.
        labels: The true classes.
        where: The examples that count; the others have loss 0.
        axis_name: The mesh axes over which the proxies are sharded by class, in
            `jax.shard_map`. The labels count all classes.

    Reference:
        Movshovitz-Attias et al., No fuss distance metric learning using proxies, ICCV
        2017, https://arxiv.org/abs/1703.07464

    Example:
        >>> proxy_nca_loss(jnp.array([[3.0, 0.0]]), jnp.eye(2), jnp.array([0]))
        Array([-2.], dtype=float32)
    """
    index, sums = _cosine_sums(embeddings, proxies, labels, 2.0, axis_name)
    has_others = len(proxies) * num_shards(axis_name) > 1
    loss = jnp.where(has_others, sums.other_lse - sums.label_logit, 0.0)
    return nan_if_invalid(loss, index)


@public(upcast=False)
def proxy_anchor_loss(
    embeddings: Float[Array, "n d"],
    proxies: Float[Array, "classes d"],
    labels: Integer[Array, "n"],
    *,
    margin: Scalar = 0.1,
    alpha: Positive = 32.0,
    where: Bool[Array, "n"] | None = None,
    axis_name: AxisName | None = None,
) -> Float[Array, ""]:
    """Every proxy against the batch: attracts its class and repels all other classes.

        loss = Σᵨ log(1 + Σₚ e^(-α (cos - δ))) / P + Σᵨ log(1 + Σₙ e^(α (cos + δ))) / C

    over the proxies ρ, where p runs over the embeddings of its class and n over all
    others. P is the number of classes in the batch, C the number of all classes. The
    event is the whole batch: the loss is one number.

    Args:
        embeddings: Vectors of any length.
        proxies: A vector of any length for each class.
        labels: The true classes. An unmasked label out of range makes the loss NaN.
        margin: δ. Cosines should be above δ for positives, below -δ for negatives.
        alpha: α > 0, the scale.
        where: The embeddings that take part.
        axis_name: The mesh axes over which the embeddings and labels are sharded, in
            `jax.shard_map`. Each device has all proxies.

    Reference:
        Kim et al., Proxy anchor loss for deep metric learning, CVPR 2020,
        https://arxiv.org/abs/2003.13911

    Example:
        >>> proxy_anchor_loss(jnp.eye(2), jnp.eye(2), jnp.array([0, 1]), margin=0.0)
        Array(0.6931472, dtype=float32)
    """
    num_classes = len(proxies)
    mask = jnp.ones(labels.shape, bool) if where is None else where
    index = jnp.where(mask, label_index(labels, num_classes), -1)
    is_present = jnp.zeros(num_classes, compute_dtype(embeddings.dtype))
    is_present = is_present.at[index].set(1.0, mode="drop", wrap_negative_indices=False)
    is_present = max_shards(is_present, axis_name)
    positive_weights = safe_divide(is_present, jnp.sum(is_present))  # 1/P
    x, inverse_norm = directions(apply_mask(embeddings, mask[:, None]))
    x = x.astype(inverse_norm.dtype)

    def attract_and_repel(block: tuple[Array, ...]) -> tuple[Array, Array]:
        proxies, proxy_scale, class_ids = block
        cosines = proxy_scale[:, None] * inverse_norm[None] * matmul(proxies, x.T)
        is_positive = index[None] == class_ids[:, None]
        is_negative = ~is_positive & mask[None]
        positive_lse = logsumexp(-alpha * (cosines - margin), mask=is_positive)
        negative_lse = logsumexp(alpha * (cosines + margin), mask=is_negative)
        return positive_lse, negative_lse

    class_ids = jnp.arange(num_classes, dtype=index.dtype)
    rows = *directions(proxies), class_ids
    lse = jnp.stack(map_blocks(attract_and_repel, rows, 4 * len(labels)), -1)
    positive_loss, negative_loss = softplus(logsumexp_shards(lse, axis_name)).T
    loss = jnp.sum(positive_weights * positive_loss) + jnp.mean(negative_loss)
    is_invalid = any_shard(jnp.any(mask != (index >= 0)), axis_name)
    return jnp.where(is_invalid, jnp.nan, loss)


@public(upcast=False, masked=True)
def soft_triple_loss(
    embeddings: Float[Array, "*batch d"],
    centers: Float[Array, "classes k d"],
    labels: Integer[Array, "*batch"],
    *,
    margin: NonNegative = 0.01,
    gamma: Positive = 0.1,
    scale: Positive = 20.0,
    where: Bool[Array, "*batch"] | None = None,
    axis_name: AxisName | None = None,
) -> Float[Array, "*batch"]:
    """Softmax cross entropy of the similarities to classes with several centers each.

        loss = -log(eᶻ / (eᶻ + Σⱼ e^(λ sⱼ)))    with z = λ (s[label] - δ), j ≠ label
        sⱼ = Σₖ softmax(cosⱼ/γ)ₖ cosⱼₖ

    where cosⱼₖ is the cosine of the embedding and the k-th center of class j.

    Args:
        embeddings: Vectors of any length.
        centers: k vectors of any length for each class.
        labels: The true classes.
        margin: δ >= 0, by which the label's similarity should exceed all others.
        gamma: γ > 0. Low values make the nearest center represent its class.
        scale: λ > 0, the inverse of a temperature.
        where: The examples that count; the others have loss 0.
        axis_name: The mesh axes over which the centers are sharded by class, in
            `jax.shard_map`. The labels count all classes.

    Reference:
        Qian et al., SoftTriple loss: deep metric learning without triplet sampling,
        ICCV 2019, https://arxiv.org/abs/1909.05235

    Example:
        >>> embeddings, centers = jnp.array([[2.0, 0.0]]), jnp.eye(2)[:, None]
        >>> soft_triple_loss(embeddings, centers, jnp.array([0]), margin=1.0)
        Array([0.6931472], dtype=float32)
    """
    num_classes, k, _ = centers.shape
    index = label_index(labels, num_classes * num_shards(axis_name)).reshape(-1)
    local_index = shard_index(index, num_classes, axis_name)
    embeddings = lax.collapse(embeddings, 0, embeddings.ndim - 1)
    embeddings = apply_mask(embeddings, index[:, None] >= 0)
    x, inverse_norm = directions(embeddings)
    w, center_scale = directions(lax.collapse(centers, 0, 2))
    w = w.astype(center_scale.dtype)  # its gradient is a sum over blocks

    def block_sums(rows: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        x, inverse_norm, index = rows
        cosines = inverse_norm[:, None] * center_scale[None] * matmul(x, w.T)
        cosines = cosines.reshape(len(x), num_classes, k)
        logits = scale * _soft_assignment(cosines, gamma)
        is_label = label_mask(index, logits)
        label_logit = jnp.sum(apply_mask(logits, is_label), 1)
        return label_logit, logsumexp(logits, mask=~is_label)

    rows = x, inverse_norm, local_index
    label_logit, other_lse = map_blocks(block_sums, rows, 4 * num_classes * k)
    label_logit = sum_shards(label_logit, axis_name) - scale * margin
    nll = softmax_nll(label_logit, logsumexp_shards(other_lse, axis_name))
    return nan_if_invalid(nll, index).reshape(labels.shape)


def _soft_assignment(cosines: Array, gamma: Scalar) -> Array:
    """The mean cosine of a class's centers, weighted by softmax(cos/γ)."""
    return jnp.sum(jax.nn.softmax(cosines / gamma) * cosines, -1)


def _take_proxy(index: Array, proxies: Array, axis_name: AxisName | None) -> Array:
    """The proxy of the label, 0 if the label is out of range."""
    if not len(proxies):
        return jnp.zeros((*index.shape, proxies.shape[1]), proxies.dtype)
    local_index = shard_index(index, len(proxies), axis_name)
    local_proxy = proxies.at[local_index].get(
        mode="fill", fill_value=0.0, wrap_negative_indices=False
    )
    return sum_shards(local_proxy, axis_name)


def _cosine_sums(
    embeddings: Array,
    proxies: Array,
    labels: Array,
    scale: Scalar,
    axis_name: AxisName | None,
) -> tuple[Array, LogitSums]:
    """The index of each label, and the sums of the logits s cosⱼ of each embedding."""
    index = label_index(labels, len(proxies) * num_shards(axis_name))
    local_index = shard_index(index, len(proxies), axis_name)
    # a row without a label may hold NaN, which must not reach the proxies
    embeddings = apply_mask(embeddings, index[..., None] >= 0)
    x, inverse_norm = directions(lax.collapse(embeddings, 0, embeddings.ndim - 1))
    w, class_scale = directions(proxies)
    head = Head(Rows(x, scale * inverse_norm), Classes(w.T, class_scale))
    local_index = local_index.reshape(-1)
    sums = logit_sums(head, Transform(), local_index, axis_name=axis_name)
    return index, jax.tree.map(lambda values: values.reshape(index.shape), sums)

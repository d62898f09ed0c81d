"""Proxies: a row against one learned vector, or a few, for each class.

The event is the last axis, a row. cosⱼ is the cosine of it and the j-th proxy; both
are normalised here, what is shorter than 10⁻⁶ by 10⁻⁶, so that 0 has cosine 0 and a
bounded gradient. An integer label outside [0, classes) gives NaN for its example alone.
Cosines are made a block of rows at a time and never all held.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Integer

from jaxml._core.blocks import map_blocks
from jaxml._core.masking import apply_mask
from jaxml._core.matmul import logsumexp_matmul, materialized_transpose, matmul
from jaxml._core.public import public
from jaxml._core.safe import l2_normalize, norm, safe_divide
from jaxml._core.softmax import logsumexp
from jaxml._core.special.logistic import softplus
from jaxml._core.types import Scalar
from jaxml.losses._labels import label_index, nan_if_invalid


@public
def normalized_softmax_loss(
    embeddings: Float[Array, "*batch d"],
    proxies: Float[Array, "classes d"],
    labels: Integer[Array, "*batch"],
    *,
    temperature: Scalar = 0.05,
) -> Float[Array, "*batch"]:
    """Cross entropy of cosines: a classifier that sees directions alone.

        loss = -log(e^(cos[label]/τ) / Σⱼ e^(cosⱼ/τ))

    Args:
        embeddings: Rows of any length.
        proxies: A vector of any length for each class.
        labels: The true classes.
        temperature: τ > 0; the lower, the more the nearest rivals count.

    Reference:
        Zhai and Wu, Classification is a strong baseline for deep metric learning, BMVC
        2019, https://arxiv.org/abs/1811.12649

    Example:
        >>> rows, proxies = jnp.array([[3.0, 0.0]]), jnp.eye(2)
        >>> normalized_softmax_loss(rows, proxies, jnp.array([0]), temperature=1.0)
        Array([0.3132617], dtype=float32)
    """
    rows, proxies = l2_normalize(embeddings), l2_normalize(proxies)
    own = jnp.sum(rows * _at(labels, proxies), -1)
    return _cross_entropy(own, rows, proxies, labels, 1 / temperature)


@public
def cosface_loss(
    embeddings: Float[Array, "*batch d"],
    proxies: Float[Array, "classes d"],
    labels: Integer[Array, "*batch"],
    *,
    margin: Scalar = 0.35,
    scale: Scalar = 64.0,
) -> Float[Array, "*batch"]:
    """Cross entropy of cosines, the label's lessened by a margin.

        loss = -log(eᵒ / (eᵒ + Σⱼ e^(s cosⱼ)))    with o = s (cos[label] - m)

    over j ≠ label.

    Args:
        embeddings: Rows of any length.
        proxies: A vector of any length for each class.
        labels: The true classes.
        margin: m >= 0, by which the label's cosine should beat all others.
        scale: s > 0, the inverse of a temperature.

    Reference:
        Wang et al., CosFace: large margin cosine loss for deep face recognition, CVPR
        2018, https://arxiv.org/abs/1801.09414

    Example:
        >>> rows, proxies = jnp.array([[1.0, 1.0]]), jnp.eye(2)
        >>> cosface_loss(rows, proxies, jnp.array([0]), margin=0.5, scale=10.0)
        Array([5.0067153], dtype=float32)
    """
    rows, proxies = l2_normalize(embeddings), l2_normalize(proxies)
    own = jnp.sum(rows * _at(labels, proxies), -1) - margin
    return _cross_entropy(own, rows, proxies, labels, scale)


@public
def arcface_loss(
    embeddings: Float[Array, "*batch d"],
    proxies: Float[Array, "classes d"],
    labels: Integer[Array, "*batch"],
    *,
    margin: Scalar = 0.5,
    scale: Scalar = 64.0,
) -> Float[Array, "*batch"]:
    """Cross entropy of cosines, the label's angle θ widened by a margin.

        loss = -log(eᵒ / (eᵒ + Σⱼ e^(s cosⱼ)))    with o = s cos(θ + m)

    over j ≠ label. Past θ = π - m, where cos(θ + m) would rise again and pull the row
    the wrong way round, o is s (cos θ - m sin m), as in the authors' code. sin θ is
    half of ‖x - y‖ ‖x + y‖, right and with derivative 0 where cos θ is 1 or -1.

    Args:
        embeddings: Rows of any length.
        proxies: A vector of any length for each class.
        labels: The true classes.
        margin: m in [0, π], in radians.
        scale: s > 0, the inverse of a temperature.

    Reference:
        Deng et al., ArcFace: additive angular margin loss for deep face recognition,
        CVPR 2019, https://arxiv.org/abs/1801.07698

    Example:
        >>> rows, proxies = jnp.array([[1.0, 0.0]]), jnp.eye(2)
        >>> arcface_loss(rows, proxies, jnp.array([0]), margin=jnp.pi / 2, scale=1.0)
        Array([0.6931472], dtype=float32)
    """
    rows, proxies = l2_normalize(embeddings), l2_normalize(proxies)
    own = _at(labels, proxies)
    cosine, sine = jnp.sum(rows * own, -1), _sine(rows, own)
    widened = cosine * jnp.cos(margin) - sine * jnp.sin(margin)
    beyond = cosine - margin * jnp.sin(margin)
    own = jnp.where(cosine < -jnp.cos(margin), beyond, widened)
    return _cross_entropy(own, rows, proxies, labels, scale)


@public
def proxy_nca_loss(
    embeddings: Float[Array, "*batch d"],
    proxies: Float[Array, "classes d"],
    labels: Integer[Array, "*batch"],
) -> Float[Array, "*batch"]:
    """How much nearer the label's proxy is than all the others together.

        loss = -log(e^(-d²[label]) / Σⱼ e^(-d²ⱼ))    over j ≠ label

    with d² = 2 - 2 cos, the squared distance at length 1. The label is not among the j,
    so the loss may be negative; with a softmax over all classes it would be the
    normalised softmax loss at temperature ½. A single class costs 0.

    Args:
        embeddings: Rows of any length.
        proxies: A vector of any length for each class.
        labels: The true classes.

    Reference:
        Movshovitz-Attias et al., No fuss distance metric learning using proxies, ICCV
        2017, https://arxiv.org/abs/1703.07464

    Example:
        >>> proxy_nca_loss(jnp.array([[3.0, 0.0]]), jnp.eye(2), jnp.array([0]))
        Array([-2.], dtype=float32)
    """
    rows, proxies = l2_normalize(embeddings), l2_normalize(proxies)
    own = 2 * jnp.sum(rows * _at(labels, proxies), -1)
    rivals = _rivals(rows, labels, _log_sum(proxies, 2.0), len(proxies))
    loss = jnp.where(len(proxies) > 1, rivals - own, 0.0)
    return nan_if_invalid(loss, label_index(labels, len(proxies)))


@public
def proxy_anchor_loss(
    embeddings: Float[Array, "n d"],
    proxies: Float[Array, "classes d"],
    labels: Integer[Array, "n"],
    *,
    margin: Scalar = 0.1,
    alpha: Scalar = 32.0,
    where: Bool[Array, "n"] | None = None,
) -> Float[Array, ""]:
    """Each proxy against the rows of the batch: pulls its own, pushes the others.

        loss = Σᵨ log(1 + Σₚ e^(-α (cos - δ))) / P + Σᵨ log(1 + Σₙ e^(α (cos + δ))) / C

    over the proxies ρ, p the rows of its class, n the others, P the number of classes
    in the batch and C of all. The whole batch is the event, and the loss one number.

    Args:
        embeddings: Rows of any length.
        proxies: A vector of any length for each class.
        labels: The true classes; one of what is kept that is no class gives NaN.
        margin: δ, by which cosines should lie beyond 0, on both sides.
        alpha: α > 0, the scale.
        where: The rows that take part.

    Reference:
        Kim et al., Proxy anchor loss for deep metric learning, CVPR 2020,
        https://arxiv.org/abs/2003.13911

    Example:
        >>> proxy_anchor_loss(jnp.eye(2), jnp.eye(2), jnp.array([0, 1]), margin=0.0)
        Array(0.6931472, dtype=float32)
    """
    count = len(proxies)
    kept = jnp.ones(labels.shape, bool) if where is None else where
    own = jnp.where(kept, label_index(labels, count), -1)
    every = jnp.arange(count, dtype=own.dtype)
    present = jnp.zeros(count, embeddings.dtype)
    present = present.at[_beyond(own, count)].set(1.0, mode="drop")
    of_present = safe_divide(present, jnp.sum(present))
    rows = l2_normalize(apply_mask(embeddings, kept[:, None])).T

    def pull_and_push(tile: tuple[Array, Array, Array]) -> Array:
        proxies, classes, share = tile
        cosines, same = matmul(proxies, rows), own[None] == classes[:, None]
        pull = logsumexp(-alpha * (cosines - margin), mask=same)
        push = logsumexp(alpha * (cosines + margin), mask=~same & kept[None])
        return share * softplus(pull) + softplus(push) / count

    each = map_blocks(
        pull_and_push, (l2_normalize(proxies), every, of_present), 4 * len(labels)
    )
    return jnp.where(jnp.all(kept == (own >= 0)), jnp.sum(each), jnp.nan)


@public
def soft_triple_loss(
    embeddings: Float[Array, "*batch d"],
    centers: Float[Array, "classes k d"],
    labels: Integer[Array, "*batch"],
    *,
    margin: Scalar = 0.01,
    gamma: Scalar = 0.1,
    scale: Scalar = 20.0,
) -> Float[Array, "*batch"]:
    """Cross entropy of similarities to classes that have several centers each.

        loss = -log(eᵒ / (eᵒ + Σⱼ e^(λ sⱼ)))    with o = λ (s[label] - δ), j ≠ label
        sⱼ = Σₖ softmax(cosⱼ/γ)ₖ cosⱼₖ

    where cosⱼₖ is the cosine of the row and the k-th centre of class j.

    Args:
        embeddings: Rows of any length.
        centers: k vectors of any length for each class.
        labels: The true classes.
        margin: δ >= 0, by which the label's similarity should beat all others.
        gamma: γ > 0; the lower, the more the nearest centre stands for its class.
        scale: λ > 0, the inverse of a temperature.

    Reference:
        Qian et al., SoftTriple loss: deep metric learning without triplet sampling,
        ICCV 2019, https://arxiv.org/abs/1909.05235

    Example:
        >>> rows, centers = jnp.array([[2.0, 0.0]]), jnp.eye(2)[:, None]
        >>> soft_triple_loss(rows, centers, jnp.array([0]), margin=1.0)
        Array([0.6931472], dtype=float32)
    """
    rows, centers = l2_normalize(embeddings), l2_normalize(centers)
    own = jnp.sum(rows[..., None, :] * _at(labels, centers), -1)
    own = scale * (_softly_nearest(own, gamma) - margin)
    classes, k, d = centers.shape
    columns = centers.reshape(-1, d).T

    def log_sum(rows: Array, others: Array) -> Array:
        cosines = matmul(rows, columns).reshape(-1, classes, k)
        return logsumexp(scale * _softly_nearest(cosines, gamma), mask=others)

    rivals = _rivals(rows, labels, log_sum, classes, k * classes)
    return nan_if_invalid(softplus(rivals - own), label_index(labels, classes))


def _softly_nearest(cosines: Array, gamma: Scalar) -> Array:
    """The cosines of the last axis, averaged with the weights of a softmax."""
    return jnp.sum(jax.nn.softmax(cosines / gamma) * cosines, -1)


def _sine(x: Array, y: Array) -> Array:
    """sin θ of two rows of length 1; a row of zeros has the cosine 0, so the sine 1."""
    nothing = jnp.all(x == 0, -1) | jnp.all(y == 0, -1)
    return jnp.where(nothing, 1.0, norm(x - y) * norm(x + y) / 2)


def _at(labels: Array, proxies: Array) -> Array:
    """What belongs to the label, 0 where it is not a class."""
    index = _beyond(label_index(labels, len(proxies)), len(proxies))
    return jnp.take(proxies, index, 0, mode="fill", fill_value=0.0)


def _beyond(index: Array, classes: int) -> Array:
    """The index; for what is no class one beyond the last, since -1 is the last."""
    return jnp.where(index < 0, classes, index)


def _cross_entropy(
    own: Array, rows: Array, proxies: Array, labels: Array, scale: Scalar
) -> Array:
    """log(1 + Σⱼ e^(s cosⱼ - s own)) over j ≠ label"""
    rivals = _rivals(rows, labels, _log_sum(proxies, scale), len(proxies))
    return nan_if_invalid(
        softplus(rivals - scale * own), label_index(labels, len(proxies))
    )


def _log_sum(proxies: Array, scale: Scalar) -> Callable[[Array, Array], Array]:
    """log Σⱼ e^(s cosⱼ) of rows, over those classes j that count."""
    columns = materialized_transpose(proxies)
    return lambda rows, where: logsumexp_matmul(scale * rows, columns, where)


def _rivals(
    rows: Array,
    labels: Array,
    log_sum: Callable[[Array, Array], Array],
    classes: int,
    columns: int | None = None,
) -> Array:
    """`log_sum` of the rows and of all j ≠ label, -∞ for a single class."""
    every = jnp.arange(classes, dtype=jnp.int32)

    def of_block(tile: tuple[Array, Array]) -> Array:
        rows, own = tile
        others = own[:, None] != every[None]
        return log_sum(rows, others)

    tiles = rows.reshape(-1, rows.shape[-1]), label_index(labels.reshape(-1), classes)
    return map_blocks(of_block, tiles, 4 * (columns or classes)).reshape(labels.shape)

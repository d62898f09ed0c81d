"""All pairs of a batch by their similarity: one value for each anchor.

Similarity is the dot product of rows as they are given: `activations.l2_normalize`
makes it a cosine. Row i is an anchor; its positives are the other rows with its label,
its negatives those with another. With `references` and `reference_labels` the
candidates are a memory bank's rows instead. `where` says which pairs may take part,
`block` how many anchors are worked on at a time. An anchor with nothing to compare
gives 0.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float, Integer

from jaxml._core.blocks import map_blocks
from jaxml._core.contract import raise_invalid
from jaxml._core.masking import apply_mask
from jaxml._core.public import public
from jaxml._core.safe import multiply_no_nan
from jaxml._core.softmax import log_softmax, logsumexp
from jaxml._core.special.logistic import sigmoid, softplus
from jaxml._core.types import Count, Scalar
from jaxml.losses.metric._contrastive import surprise
from jaxml.losses.metric._per_anchor import (
    Batch,
    check_pairs,
    counted,
    dot,
    mean_over,
    per_anchor,
)


@public
def in_batch(
    row_loss: Callable[[Array, Array], Array],
    queries: Float[Array, "n d"],
    keys: Float[Array, "m d"],
    *,
    where: Bool[Array, "n m"] | None = None,
    block: Count | None = None,
) -> Float[Array, "n"]:
    """One's own formula of one query against all keys, lifted to a batch of queries.

        lossᵢ = row_loss(s, i)    with sⱼ = qᵢ·kⱼ

    No more than a block of the similarities exists at any time, in the derivative too.
    A pair that `where` leaves out has similarity -∞.

    Args:
        row_loss: A formula of [m] similarities and of the query's index. Compiled once
            for each function object: define it once. Arrays that it needs besides it
            may close over where an outer `jax.jit` traces them.
        queries: q.
        keys: k.
        block: How many queries are worked on at a time.

    Reference:
        Cheng et al., Breaking the memory barrier: near infinite batch size scaling for
        contrastive loss, CVPR 2025, https://arxiv.org/abs/2410.17243

    Example:
        >>> x = jnp.eye(3)
        >>> in_batch(lambda s, i: jax.nn.logsumexp(s) - s[i], x, 10 * x)
        Array([9.059906e-05, 9.059906e-05, 9.059906e-05], dtype=float32)
    """
    check_pairs(queries, keys, where)
    queries, keys = counted(queries, where, 1), counted(keys, where, 0)
    similarities = dot(keys)

    def tile(rows: tuple) -> Array:
        query, index, kept = rows
        return jax.vmap(row_loss)(
            apply_mask(similarities(query), kept, -jnp.inf), index
        )

    rows = queries, jnp.arange(len(queries)), where
    return map_blocks(tile, rows, len(keys), block)


@public
def info_nce(
    queries: Float[Array, "n d"],
    keys: Float[Array, "m d"],
    *,
    temperature: Scalar = 0.1,
    where: Bool[Array, "n m"] | None = None,
    block: Count | None = None,
) -> Float[Array, "n"]:
    """The cross entropy of finding a query's own key among all keys.

        lossᵢ = -log(e^sᵢᵢ / Σⱼ e^sᵢⱼ)    with s = q·k / τ

    Keys beyond the queries' number are negatives of every query. The gradient is made
    with the value: of a mean each similarity is made once, of unlike weights twice.

    Args:
        queries: q.
        keys: k, of which row i is the positive of query i.
        temperature: τ > 0, in the units of the similarity.
        where: The pairs that take part; a query without its own key gives 0.
        block: How many queries are worked on at a time.

    Raises:
        TypeError: There are fewer keys than queries.

    Reference:
        van den Oord, Li and Vinyals, Representation learning with contrastive
        predictive coding, 2018, https://arxiv.org/abs/1807.03748

    Example:
        >>> info_nce(jnp.eye(3), jnp.eye(3))
        Array([9.079578e-05, 9.079578e-05, 9.079578e-05], dtype=float32)
    """
    check_pairs(queries, keys, where)
    if len(keys) < len(queries):
        raise_invalid(TypeError, "keys", "be at least as many as queries", keys)
    queries, keys = counted(queries, where, 1), counted(keys, where, 0)
    return surprise(queries, keys, temperature, where, block)


@public
def nt_xent(
    embeddings: Float[Array, "n d"],
    labels: Integer[Array, "n"],
    *,
    temperature: Scalar = 0.07,
    references: Float[Array, "m d"] | None = None,
    reference_labels: Integer[Array, "m"] | None = None,
    where: Bool[Array, "n _"] | None = None,
    block: Count | None = None,
) -> Float[Array, "n"]:
    """The cross entropy of finding each positive among all negatives.

        loss = mean over p of -log(e^sₚ / (e^sₚ + Σₙ e^sₙ))    with s = a·x / τ

    Other positives stand in no denominator; in `supcon_loss` they do.

    Args:
        embeddings: Anchors a, usually of length 1.
        labels: Their classes, any integers.
        temperature: τ > 0, in the units of the similarity.

    Reference:
        Chen et al., A simple framework for contrastive learning of visual
        representations, ICML 2020, https://arxiv.org/abs/2002.05709

    Example:
        >>> x = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> nt_xent(x, jnp.array([7, 7, 8]), temperature=0.5)
        Array([0.126928, 0.126928, 0.      ], dtype=float32)
    """

    def formula(s: Array, positive: Array, negative: Array) -> Array:
        s = s / temperature
        return mean_over(softplus(logsumexp(s, 0, negative) - s), positive)

    batch = Batch(embeddings, labels, references, reference_labels, where)
    return per_anchor(batch, block, dot, formula)


@public
def supcon_loss(
    embeddings: Float[Array, "n d"],
    labels: Integer[Array, "n"],
    *,
    temperature: Scalar = 0.1,
    references: Float[Array, "m d"] | None = None,
    reference_labels: Integer[Array, "m"] | None = None,
    where: Bool[Array, "n _"] | None = None,
    block: Count | None = None,
) -> Float[Array, "n"]:
    """The cross entropy of finding each positive among all candidates.

        loss = mean over p of -log(e^sₚ / Σₓ e^sₓ)    with s = a·x / τ

    The sum is over all positives and negatives: the paper's L_out.

    Args:
        embeddings: Anchors a, usually of length 1.
        labels: Their classes, any integers.
        temperature: τ > 0, in the units of the similarity.

    Reference:
        Khosla et al., Supervised contrastive learning, NeurIPS 2020,
        https://arxiv.org/abs/2004.11362

    Example:
        >>> x = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> supcon_loss(x, jnp.array([7, 7, 8]), temperature=0.5)
        Array([0.126928, 0.126928, 0.      ], dtype=float32)
    """

    def formula(s: Array, positive: Array, negative: Array) -> Array:
        log_p = log_softmax(s / temperature, 0, positive | negative)
        return mean_over(-log_p, positive)

    batch = Batch(embeddings, labels, references, reference_labels, where)
    return per_anchor(batch, block, dot, formula)


@public
def multi_similarity_loss(
    embeddings: Float[Array, "n d"],
    labels: Integer[Array, "n"],
    *,
    alpha: Scalar = 2.0,
    beta: Scalar = 50.0,
    base: Scalar = 0.5,
    references: Float[Array, "m d"] | None = None,
    reference_labels: Integer[Array, "m"] | None = None,
    where: Bool[Array, "n _"] | None = None,
    block: Count | None = None,
) -> Float[Array, "n"]:
    """Positives less similar, and negatives more similar, than a base, softly.

        loss = log(1 + Σₚ e^(-α (sₚ - λ)))/α + log(1 + Σₙ e^(β (sₙ - λ)))/β

    `mining.multi_similarity_pairs` gives the paper's `where`.

    Args:
        embeddings: Anchors, usually of length 1.
        labels: Their classes, any integers.
        alpha: α > 0, how sharply positives count.
        beta: β > 0, how sharply negatives count.
        base: λ, the similarity that divides them.

    Reference:
        Wang et al., Multi-similarity loss with general pair weighting for deep metric
        learning, CVPR 2019, https://arxiv.org/abs/1904.06627

    Example:
        >>> x = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> multi_similarity_loss(x, jnp.array([7, 7, 8]))
        Array([1.5663084e-01, 1.5663084e-01, 5.5551803e-13], dtype=float32)
    """

    def formula(s: Array, positive: Array, negative: Array) -> Array:
        near = softplus(logsumexp(-alpha * (s - base), 0, positive)) / alpha
        far = softplus(logsumexp(beta * (s - base), 0, negative)) / beta
        return near + far

    batch = Batch(embeddings, labels, references, reference_labels, where)
    return per_anchor(batch, block, dot, formula)


@public
def circle_loss(
    embeddings: Float[Array, "n d"],
    labels: Integer[Array, "n"],
    *,
    margin: Scalar = 0.4,
    gamma: Scalar = 80.0,
    references: Float[Array, "m d"] | None = None,
    reference_labels: Integer[Array, "m"] | None = None,
    where: Bool[Array, "n _"] | None = None,
    block: Count | None = None,
) -> Float[Array, "n"]:
    """Every similarity weighted by how far it is from where it should be.

        loss = log(1 + Σₙ e^(γ αₙ (sₙ - m)) · Σₚ e^(-γ αₚ (sₚ - 1 + m)))
        αₙ = max(0, sₙ + m),    αₚ = max(0, 1 + m - sₚ)

    The weights α carry no derivative, as in the paper.

    Args:
        embeddings: Anchors, of length 1.
        labels: Their classes, any integers.
        margin: m, the relaxation, in [0, 1].
        gamma: γ > 0, the scale.

    Reference:
        Sun et al., Circle loss: a unified perspective of pair similarity optimization,
        CVPR 2020, https://arxiv.org/abs/2002.10857

    Example:
        >>> x = jnp.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
        >>> circle_loss(x, jnp.array([7, 7, 8]))
        Array([2.7607655e-06, 3.8400002e+01, 0.0000000e+00], dtype=float32)
    """

    def formula(s: Array, positive: Array, negative: Array) -> Array:
        fixed = lax.stop_gradient(s)
        of_negative = multiply_no_nan(jax.nn.relu(fixed + margin), s - margin)
        of_positive = multiply_no_nan(jax.nn.relu(1 + margin - fixed), 1 - margin - s)
        near = logsumexp(gamma * of_positive, 0, positive)
        return softplus(logsumexp(gamma * of_negative, 0, negative) + near)

    batch = Batch(embeddings, labels, references, reference_labels, where)
    return per_anchor(batch, block, dot, formula)


@public
def smooth_ap_loss(
    embeddings: Float[Array, "n d"],
    labels: Integer[Array, "n"],
    *,
    temperature: Scalar = 0.01,
    references: Float[Array, "m d"] | None = None,
    reference_labels: Integer[Array, "m"] | None = None,
    where: Bool[Array, "n _"] | None = None,
    block: Count | None = None,
) -> Float[Array, "n"]:
    """What a smoothed average precision, of retrieving the positives, lacks to 1.

        loss = mean over p of Nₚ / (1 + Pₚ + Nₚ)
        Nₚ = Σₙ σ((sₙ - sₚ)/τ),    Pₚ = Σ σ((sᵢ - sₚ)/τ) over the other positives i

    Each positive is ranked among all candidates, which takes m² operations an anchor.

    Args:
        embeddings: Anchors, usually of length 1.
        labels: Their classes, any integers.
        temperature: τ > 0, the similarity over which a rank changes.

    Reference:
        Brown et al., Smooth-AP: smoothing the path towards large-scale image retrieval,
        ECCV 2020, https://arxiv.org/abs/2007.12163

    Example:
        >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
        >>> smooth_ap_loss(x, jnp.array([7, 7, 8]))
        Array([0.5, 0.5, 0. ], dtype=float32)
    """

    def formula(s: Array, positive: Array, negative: Array) -> Array:
        index = jnp.arange(len(s))

        @jax.checkpoint
        def lack(own: tuple) -> Array:
            score, i = own
            ahead = sigmoid((s - score) / temperature)
            wrong = jnp.sum(apply_mask(ahead, negative))
            right = jnp.sum(apply_mask(ahead, positive & (index != i)))
            return wrong / (1 + right + wrong)

        return mean_over(lax.map(lack, (s, index)), positive)

    batch = Batch(embeddings, labels, references, reference_labels, where)
    return per_anchor(batch, block, dot, formula)

"""All pairs of a batch by their distance: one value for each anchor.

d is the Euclidean distance, with derivative 0 where it is 0, as at a kink. Row i is an
anchor; its positives are the other rows with its label, its negatives those with
another. With `references` and `reference_labels` the candidates are a memory bank's
rows instead. `where` says which pairs may take part, `block` how many anchors are
worked on at a time. An anchor with nothing to compare gives 0.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float, Integer

from jaxml._core.blocks import map_blocks
from jaxml._core.masking import apply_mask
from jaxml._core.matmul import matmul
from jaxml._core.public import public
from jaxml._core.safe import safe_sqrt
from jaxml._core.softmax import logsumexp
from jaxml._core.special.logistic import softplus
from jaxml._core.types import Count, Scalar
from jaxml.losses.metric._per_anchor import (
    Batch,
    check_pairs,
    counted,
    dot,
    euclidean,
    mean_over,
    per_anchor,
    per_block,
    squared_euclidean,
)


@public
def batch_contrastive_loss(
    embeddings: Float[Array, "n d"],
    labels: Integer[Array, "n"],
    *,
    margin: Scalar = 1.0,
    references: Float[Array, "m d"] | None = None,
    reference_labels: Integer[Array, "m"] | None = None,
    where: Bool[Array, "n _"] | None = None,
    block: Count | None = None,
) -> Float[Array, "n"]:
    """Positives drawn together, negatives pushed away: every pair, from both its ends.

        loss = mean over x of d² for a positive x, max(0, m - d)² for a negative

    Args:
        embeddings: Anchors.
        labels: Their classes, any integers.
        margin: m > 0, in the units of d.

    Reference:
        Hadsell, Chopra and LeCun, Dimensionality reduction by learning an invariant
        mapping, CVPR 2006, https://doi.org/10.1109/CVPR.2006.100

    Example:
        >>> x = jnp.array([[0.0], [0.5], [1.0]])
        >>> batch_contrastive_loss(x, jnp.array([7, 7, 8]))
        Array([0.125, 0.25 , 0.125], dtype=float32)
    """

    def formula(squares: Array, positive: Array, negative: Array) -> Array:
        short = jax.nn.relu(margin - safe_sqrt(squares))
        pairs = jnp.where(positive, squares, jnp.square(short))
        return mean_over(pairs, positive | negative)

    batch = Batch(embeddings, labels, references, reference_labels, where)
    return per_anchor(batch, block, squared_euclidean, formula)


@public
def margin_loss(
    embeddings: Float[Array, "n d"],
    labels: Integer[Array, "n"],
    *,
    margin: Scalar = 0.2,
    beta: Scalar = 1.2,
    references: Float[Array, "m d"] | None = None,
    reference_labels: Integer[Array, "m"] | None = None,
    where: Bool[Array, "n _"] | None = None,
    block: Count | None = None,
) -> Float[Array, "n"]:
    """Positives nearer, and negatives farther, than a boundary, each by a margin.

        loss = mean over x of max(0, m + d - β) for a positive x, max(0, m + β - d) else

    β may be learned: it is a number like any other.

    Args:
        embeddings: Anchors.
        labels: Their classes, any integers.
        margin: m >= 0, in the units of d.
        beta: β, the distance that divides positives from negatives.

    Reference:
        Wu et al., Sampling matters in deep embedding learning, ICCV 2017,
        https://arxiv.org/abs/1706.07567

    Example:
        >>> x = jnp.array([[0.0], [1.5], [1.0]])
        >>> margin_loss(x, jnp.array([7, 7, 8]), margin=0.25, beta=1.25)
        Array([0.5 , 0.75, 0.75], dtype=float32)
    """

    batch = Batch(embeddings, labels, references, reference_labels, where)

    def formula(d: Array, positive: Array, negative: Array) -> Array:
        beyond = jnp.where(positive, d - beta, beta - d)
        return mean_over(jax.nn.relu(margin + beyond), positive | negative)

    return per_anchor(batch, block, euclidean, formula)


@public
def lifted_structure_loss(
    embeddings: Float[Array, "n d"],
    labels: Integer[Array, "n"],
    *,
    margin: Scalar = 1.0,
    references: Float[Array, "m d"] | None = None,
    reference_labels: Integer[Array, "m"] | None = None,
    where: Bool[Array, "n _"] | None = None,
    block: Count | None = None,
) -> Float[Array, "n"]:
    """Every positive against all negatives of both of its ends, softly.

        loss = mean over p of ½ max(0, dₚ + log(Σ e^(m - d(a,n)) + Σ e^(m - d(p,n))))²

    The first sum is over the anchor's negatives, the second over the positive's. Of a
    memory bank those rows take part that `where` keeps for any anchor.

    Args:
        embeddings: Anchors.
        labels: Their classes, any integers.
        margin: m, in the units of d.

    Reference:
        Song et al., Deep metric learning via lifted structured feature embedding,
        CVPR 2016, https://arxiv.org/abs/1511.06452

    Example:
        >>> x = jnp.array([[0.0], [0.5], [1.0]])
        >>> lifted_structure_loss(x, jnp.array([7, 7, 8]))
        Array([1.0864515, 1.0864515, 0.       ], dtype=float32)
    """

    batch = Batch(embeddings, labels, references, reference_labels, where)
    check_pairs(embeddings, batch.candidates, where)
    bank = Batch(counted(batch.candidates, where, 0), batch.candidate_labels)
    of_bank = None if references is None or where is None else jnp.any(where, 0)

    def pull(d: Array, positive: Array, negative: Array) -> Array:
        return logsumexp(margin - d, 0, negative)

    def pull_of_bank(d: Array, positive: Array, negative: Array) -> Array:
        return pull(d, positive, apply_mask(negative, of_bank, False))

    others = batch if references is None else bank
    of_positive = per_anchor(others, block, euclidean, pull_of_bank)

    def formula(d: Array, positive: Array, negative: Array) -> Array:
        own = jnp.full_like(d, pull(d, positive, negative))
        rivals = logsumexp(jnp.stack([own, of_positive]), 0)
        return mean_over(jnp.square(jax.nn.relu(d + rivals)) / 2, positive)

    return per_anchor(batch, block, euclidean, formula)


@public
def angular_loss(
    embeddings: Float[Array, "n d"],
    labels: Integer[Array, "n"],
    *,
    angle: Scalar = 0.7,
    references: Float[Array, "m d"] | None = None,
    reference_labels: Integer[Array, "m"] | None = None,
    where: Bool[Array, "n _"] | None = None,
    block: Count | None = None,
) -> Float[Array, "n"]:
    """The angle under which a negative sees the pair of anchor and positive, bounded.

        loss = mean over p of log(1 + Σₙ e^f),    f = 4 t² (a + p)·n - 2 (1 + t²) a·p

    with t = tan α. The sums over all pairs are a product of exponentials; rows so long
    that it would underflow are summed in pairs, which takes far longer; so do all under
    `jax.vmap`, as in a sweep over α.

    Args:
        embeddings: Anchors, usually of length 1.
        labels: Their classes, any integers.
        angle: α in (0, π/2), in radians.

    Reference:
        Wang et al., Deep metric learning with angular loss, ICCV 2017,
        https://arxiv.org/abs/1708.01682

    Example:
        >>> x = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> angular_loss(x, jnp.array([7, 7, 8]))
        Array([0.03222365, 0.03222365, 0.        ], dtype=float32)
    """

    batch = Batch(embeddings, labels, references, reference_labels, where)
    check_pairs(embeddings, batch.candidates, where)
    candidates = counted(batch.candidates, where, 0)
    similarities = dot(candidates)
    labels_of = batch.candidate_labels
    squared = jnp.square(jnp.tan(jnp.asarray(angle)))

    def formula(s: Array, positive: Array, negative: Array) -> Array:
        def against(rows: tuple) -> Array:
            candidate, label, own, taken = rows
            other = label[:, None] != labels_of[None]
            ends = 4 * squared * similarities(candidate), 4 * squared * s
            rivals = _log_sums(*ends, other, negative, taken)
            return softplus(rivals - 2 * (1 + squared) * own)

        rows = candidates, labels_of, s.T, positive.T
        values = map_blocks(against, rows, 4 * len(candidates), block)
        return jax.vmap(mean_over)(values.T, positive)

    return per_block(batch, block, dot, formula)


def _log_sums(x: Array, y: Array, of_x: Array, of_y: Array, asked: Array) -> Array:
    """log Σₙ e^(xᵢₙ + yⱼₙ) of each row i of x and j of y, over what both keep.

    It is a product of exponentials, each beside the largest of its row. Where one that
    is asked for comes out too small to have all its digits, all are summed in pairs,
    over what y's row keeps.
    """
    (shares, top), (shares_y, top_y) = _shares(x, of_x), _shares(y, of_y)
    total = matmul(shares, shares_y.T)
    some = jnp.any(of_y, 1)[None]
    lost = total < jnp.finfo(total.dtype).eps ** 2

    def product() -> Array:
        return jnp.log(jnp.where(lost, 1.0, total)) + top[:, None] + top_y[None]

    @jax.checkpoint
    def pairwise(row: Array) -> Array:
        return logsumexp(row[None] + y, 1, of_y)

    short = jnp.any(lost & asked & some)
    sums = lax.cond(short, lambda: lax.map(pairwise, x), product)
    return apply_mask(sums, some, -jnp.inf)


def _shares(x: Array, kept: Array) -> tuple[Array, Array]:
    """e^(x - max x) over what is kept of each row, 0 elsewhere; and the maxima.

    A compiler that joins the product in x to the difference rounds once where the
    maximum was rounded twice: of large x something above 0 is left.
    """
    top = lax.stop_gradient(jnp.max(apply_mask(x, kept, -jnp.inf), 1))
    top = apply_mask(top, jnp.any(kept, 1))
    below = apply_mask(x - top[:, None], kept, -jnp.inf)
    return jnp.exp(below - lax.stop_gradient(jnp.maximum(below, 0))), top


@public
def nca_loss(
    embeddings: Float[Array, "n d"],
    labels: Integer[Array, "n"],
    *,
    references: Float[Array, "m d"] | None = None,
    reference_labels: Integer[Array, "m"] | None = None,
    where: Bool[Array, "n _"] | None = None,
    block: Count | None = None,
) -> Float[Array, "n"]:
    """How unlikely a random neighbour, drawn by distance, has the anchor's class.

        loss = -log(Σₚ e^-d²ₚ / Σₓ e^-d²ₓ)

    with d the Euclidean distance.

    Args:
        embeddings: Anchors.
        labels: Their classes, any integers.

    Reference:
        Goldberger et al., Neighbourhood components analysis, NeurIPS 2004,
        https://papers.nips.cc/paper/2566-neighbourhood-components-analysis

    Example:
        >>> x = jnp.array([[0.0], [1.0], [2.0]])
        >>> nca_loss(x, jnp.array([7, 7, 8]))
        Array([0.04858735, 0.6931472 , 0.        ], dtype=float32)
    """

    def formula(squares: Array, positive: Array, negative: Array) -> Array:
        near = logsumexp(-squares, 0, positive)
        near = apply_mask(near, jnp.any(positive), jnp.inf)
        return softplus(logsumexp(-squares, 0, negative) - near)

    batch = Batch(embeddings, labels, references, reference_labels, where)
    return per_anchor(batch, block, squared_euclidean, formula)

"""Two views of the same things, row i of one and row i of the other: a pair.

The contrastive losses compare every row with all rows of the other view, a block of
rows at a time; those of redundancy compare features, and the batch is their event.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jaxml._core.blocks import map_blocks, scan_blocks
from jaxml._core.contract import raise_invalid
from jaxml._core.matmul import matmul
from jaxml._core.public import public
from jaxml._core.safe import multiply_no_nan, safe_divide, safe_sqrt, zero_if_inf
from jaxml._core.softmax import LogSumExp, logsumexp
from jaxml._core.special.logistic import softplus
from jaxml._core.types import Count, Scalar


@public
def clip_loss(
    a: Float[Array, "n d"],
    b: Float[Array, "n d"],
    *,
    temperature: Scalar = 0.07,
    block: Count | None = None,
) -> Float[Array, "n"]:
    """The cross entropy of finding the pair, from either side.

        lossᵢ = -½ log(e^sᵢᵢ / Σⱼ e^sᵢⱼ) - ½ log(e^sᵢᵢ / Σⱼ e^sⱼᵢ)    with s = a·b / τ

    Args:
        a: Rows of one view, usually of length 1.
        b: Rows of the other.
        temperature: τ > 0, in the units of the similarity.
        block: How many rows are worked on at a time.

    Reference:
        Radford et al., Learning transferable visual models from natural language
        supervision, ICML 2021, https://arxiv.org/abs/2103.00020

    Example:
        >>> clip_loss(jnp.eye(3), jnp.eye(3), temperature=0.1)
        Array([9.079578e-05, 9.079578e-05, 9.079578e-05], dtype=float32)
    """
    scaled = a / temperature
    own = jnp.sum(scaled * b, 1)
    along, across = _rivals(block, scaled, b)
    return (softplus(along - own) + softplus(across - own)) / 2


def _fold(block: int | None, a: Array, b: Array) -> tuple[Array, Array]:
    """log Σ e^(aᵢ·bⱼ) over j ≠ i, for each row i and for each column i."""
    transposed, index = b.T, jnp.arange(len(a))

    def fold(carry: LogSumExp, rows: tuple) -> tuple:
        row, own = rows
        s = jnp.where(own[:, None] == index[None], -jnp.inf, matmul(row, transposed))
        return carry.update(s, 0), logsumexp(s, 1)

    nothing = LogSumExp.empty(jnp.zeros(len(b), a.dtype))
    across, along = scan_blocks(fold, nothing, (a, index), len(b), block)
    return along, across.log()


def _forward(block: int | None, a: Array, b: Array) -> tuple:
    along, across = _fold(block, a, b)  # may be differentiated again
    return (along, across), (a, b, along, across)


def _backward(block: int | None, kept: tuple, cotangents: tuple) -> tuple:
    """The tiles once more: each pair hands on its shares of both sums."""
    a, b, along, across = kept
    for_along, for_across = cotangents
    transposed, index = b.T, jnp.arange(len(a))

    def fold(db: Array, rows: tuple) -> tuple:
        row, own, along, for_along = rows
        s = jnp.where(own[:, None] == index[None], -jnp.inf, matmul(row, transposed))
        share = for_along[:, None] * jnp.exp(s - zero_if_inf(along)[:, None])
        share += for_across[None] * jnp.exp(s - zero_if_inf(across)[None])
        return db + matmul(row.T, share), matmul(share, b)

    rows = a, index, along, for_along
    db, da = scan_blocks(fold, jnp.zeros_like(transposed), rows, len(b), block)
    return da, db.T


_rivals = jax.custom_vjp(_fold, nondiff_argnums=(0,))
_rivals.defvjp(_forward, _backward)


@public
def siglip_loss(
    a: Float[Array, "n d"],
    b: Float[Array, "n d"],
    *,
    scale: Scalar,
    bias: Scalar,
    block: Count | None = None,
) -> Float[Array, "n"]:
    """Each pair a yes or no of its own: no sum over the batch in a denominator.

        lossᵢ = Σⱼ log(1 + e^(-zᵢⱼ (t aᵢ·bⱼ + β)))    with zᵢⱼ = 1 for i = j, else -1

    Args:
        a: Rows of one view, usually of length 1.
        b: Rows of the other.
        scale: t > 0, learned; the paper begins at 10.
        bias: β, learned; the paper begins at -10, since most pairs do not match.
        block: How many rows are worked on at a time.

    Reference:
        Zhai et al., Sigmoid loss for language image pre-training, ICCV 2023,
        https://arxiv.org/abs/2303.15343

    Example:
        >>> siglip_loss(jnp.eye(3), jnp.eye(3), scale=10.0, bias=-5.0)
        Array([0.02014605, 0.02014605, 0.02014605], dtype=float32)
    """
    transposed, index = b.T, jnp.arange(len(a))

    def tile(rows: tuple) -> Array:
        row, own = rows
        logits = scale * matmul(row, transposed) + bias
        match = own[:, None] == index[None]
        return jnp.sum(softplus(jnp.where(match, -logits, logits)), 1)

    return map_blocks(tile, (a, index), 4 * len(b), block)


@public
def vicreg_loss(
    a: Float[Array, "n d"],
    b: Float[Array, "n d"],
    *,
    invariance_weight: Scalar = 25.0,
    variance_weight: Scalar = 25.0,
    covariance_weight: Scalar = 1.0,
) -> Float[Array, ""]:
    """Pairs alike, features spread, and no two features telling the same.

        loss = λ mean (a - b)² + μ [v(a) + v(b)] + ν [c(a) + c(b)]
        v(x) = 1/d Σⱼ max(0, 1 - √(var xⱼ + 10⁻⁴)),    c(x) = 1/d Σᵢ≠ⱼ cov(xᵢ, xⱼ)²

    Variances are those of a sample, over n - 1; the batch is the event.

    Args:
        a: Rows of one view, at least two.
        b: Rows of the other.
        invariance_weight: λ >= 0, the weight of the mean squared distance.
        variance_weight: μ >= 0, the weight of the hinge on each standard deviation.
        covariance_weight: ν >= 0, the weight of what features have in common.

    Raises:
        TypeError: There is only one row.

    Reference:
        Bardes, Ponce and LeCun, VICReg, ICLR 2022, Algorithm 1,
        https://arxiv.org/abs/2105.04906

    Example:
        >>> x = jnp.array([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
        >>> vicreg_loss(x, x + 0.5)
        Array(6.25, dtype=float32)
    """
    _check_rows(a)
    spread = _narrowness(a) + _narrowness(b)
    redundancy = _redundancy(a) + _redundancy(b)
    alike = jnp.mean(jnp.square(a - b))
    return (
        multiply_no_nan(invariance_weight, alike)
        + multiply_no_nan(variance_weight, spread)
        + multiply_no_nan(covariance_weight, redundancy)
    )


def _narrowness(x: Array) -> Array:
    return jnp.mean(jax.nn.relu(1 - jnp.sqrt(jnp.var(x, 0, ddof=1) + 1e-4)))


def _redundancy(x: Array) -> Array:
    centred = x - jnp.mean(x, 0)[None]
    scaled = centred / (len(x) - 1)
    return jnp.mean(_products(scaled, centred, _squared_between))


def _squared_between(c: Array, own: Array) -> Array:
    return jnp.where(own, 0, jnp.square(c))


@public
def barlow_twins_loss(
    a: Float[Array, "n d"],
    b: Float[Array, "n d"],
    *,
    off_diagonal_weight: Scalar = 5e-3,
) -> Float[Array, ""]:
    """Each feature at one with itself in the other view, and with no other feature.

        loss = Σᵢ (1 - Cᵢᵢ)² + λ Σᵢ≠ⱼ Cᵢⱼ²

    with C the correlations of a's features and b's. A feature that does not vary
    correlates with none; the batch is the event.

    Args:
        a: Rows of one view, at least two.
        b: Rows of the other.
        off_diagonal_weight: λ >= 0, of the correlations that should be 0.

    Raises:
        TypeError: There is only one row.

    Reference:
        Zbontar et al., Barlow Twins, ICML 2021, https://arxiv.org/abs/2103.03230

    Example:
        >>> x = jnp.array([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
        >>> barlow_twins_loss(x, -x)
        Array(8., dtype=float32)
    """
    _check_rows(a)

    def cost(c: Array, own: Array) -> Array:
        return jnp.where(own, jnp.square(1 - c), off_diagonal_weight * jnp.square(c))

    return jnp.sum(_products(_standard(a) / len(a), _standard(b), cost))


def _standard(x: Array) -> Array:
    centred = x - jnp.mean(x, 0)[None]
    return safe_divide(centred, safe_sqrt(jnp.mean(jnp.square(centred), 0))[None])


def _products(a: Array, b: Array, cost: Callable[[Array, Array], Array]) -> Array:
    """Σⱼ cost(aᵢ·bⱼ, i = j) of each feature i, a block of features at a time."""
    index = jnp.arange(a.shape[1])

    def tile(features: tuple) -> Array:
        feature, own = features
        return jnp.sum(cost(matmul(feature, b), own[:, None] == index[None]), 1)

    return map_blocks(tile, (a.T, index), 2 * a.shape[1])


def _check_rows(a: Array) -> None:
    if len(a) < 2:
        raise_invalid(TypeError, "a", "have at least two rows", a)

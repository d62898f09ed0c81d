"""Two views of the same things, row i of one and row i of the other: a pair.

The contrastive losses compare every row with all rows of the other view, a block of
rows at a time; those of redundancy compare features, and the batch is their event.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jaxml._core.blocks import over_rows, scan_rows
from jaxml._core.checks import check_count, refuse
from jaxml._core.compiled import compiled
from jaxml._core.matmul import matmul
from jaxml._core.numerics import (
    add_exponentials,
    finite,
    log_of_sum,
    logsumexp,
    safe_divide,
    sqrt,
    times,
)
from jaxml._core.special.logistic import softplus
from jaxml._core.types import Scalar


@compiled(static=("block",))
def clip_loss(
    a: Float[Array, "n d"],
    b: Float[Array, "n d"],
    *,
    temperature: Scalar = 0.07,
    block: int | None = None,
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
    check_count("clip_loss", block=block)
    scaled = a / temperature
    own = jnp.sum(scaled * b, 1)
    along, across = _rivals(block, scaled, b)
    return (softplus(along - own) + softplus(across - own)) / 2


def _fold(block: int | None, a: Array, b: Array) -> tuple[Array, Array]:
    """log Σ e^(aᵢ·bⱼ) over j ≠ i, for each row i and for each column i."""
    transposed, index = b.T, jnp.arange(len(a))

    def fold(carry: tuple[Array, Array], rows: tuple) -> tuple:
        row, own = rows
        s = jnp.where(own[:, None] == index[None], -jnp.inf, matmul(row, transposed))
        return add_exponentials(*carry, s, 0), logsumexp(s, 1)

    nothing = jnp.full(len(b), -jnp.inf, a.dtype), jnp.zeros(len(b), a.dtype)
    across, along = scan_rows(fold, nothing, (a, index), len(b), block)
    return along, log_of_sum(*across)


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
        share = for_along[:, None] * jnp.exp(s - finite(along)[:, None])
        share += for_across[None] * jnp.exp(s - finite(across)[None])
        return db + matmul(row.T, share), matmul(share, b)

    rows = a, index, along, for_along
    db, da = scan_rows(fold, jnp.zeros_like(transposed), rows, len(b), block)
    return da, db.T


_rivals = jax.custom_vjp(_fold, nondiff_argnums=(0,))
_rivals.defvjp(_forward, _backward)


@compiled(static=("block",))
def siglip_loss(
    a: Float[Array, "n d"],
    b: Float[Array, "n d"],
    *,
    scale: Scalar,
    bias: Scalar,
    block: int | None = None,
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
    check_count("siglip_loss", block=block)
    transposed, index = b.T, jnp.arange(len(a))

    def tile(rows: tuple) -> Array:
        row, own = rows
        logits = scale * matmul(row, transposed) + bias
        match = own[:, None] == index[None]
        return jnp.sum(softplus(jnp.where(match, -logits, logits)), 1)

    return over_rows(tile, (a, index), 4 * len(b), block)


@compiled()
def vicreg_loss(
    a: Float[Array, "n d"],
    b: Float[Array, "n d"],
    *,
    invariance: Scalar = 25.0,
    variance: Scalar = 25.0,
    covariance: Scalar = 1.0,
) -> Float[Array, ""]:
    """Pairs alike, features spread, and no two features telling the same.

        loss = λ mean (a - b)² + μ [v(a) + v(b)] + ν [c(a) + c(b)]
        v(x) = 1/d Σⱼ max(0, 1 - √(var xⱼ + 10⁻⁴)),    c(x) = 1/d Σᵢ≠ⱼ cov(xᵢ, xⱼ)²

    Variances are those of a sample, over n - 1; the batch is the event.

    Args:
        a: Rows of one view, at least two.
        b: Rows of the other.
        invariance: λ >= 0, the weight of the mean squared distance.
        variance: μ >= 0, the weight of what each feature lacks to a deviation of 1.
        covariance: ν >= 0, the weight of what features have in common.

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
    _check_rows("vicreg_loss", a)
    spread = _narrowness(a) + _narrowness(b)
    redundancy = _redundancy(a) + _redundancy(b)
    alike = jnp.mean(jnp.square(a - b))
    return (
        times(invariance, alike)
        + times(variance, spread)
        + times(covariance, redundancy)
    )


def _narrowness(x: Array) -> Array:
    return jnp.mean(jax.nn.relu(1 - jnp.sqrt(jnp.var(x, 0, ddof=1) + 1e-4)))


def _redundancy(x: Array) -> Array:
    centred = x - jnp.mean(x, 0)[None]
    scaled = centred / (len(x) - 1)
    return jnp.mean(_products(scaled, centred, _squared_between))


def _squared_between(c: Array, own: Array) -> Array:
    return jnp.where(own, 0, jnp.square(c))


@compiled()
def barlow_twins_loss(
    a: Float[Array, "n d"], b: Float[Array, "n d"], *, weight: Scalar = 5e-3
) -> Float[Array, ""]:
    """Each feature at one with itself in the other view, and with no other feature.

        loss = Σᵢ (1 - Cᵢᵢ)² + λ Σᵢ≠ⱼ Cᵢⱼ²

    with C the correlations of a's features and b's. A feature that does not vary
    correlates with none; the batch is the event.

    Args:
        a: Rows of one view, at least two.
        b: Rows of the other.
        weight: λ >= 0, of the correlations that should be 0.

    Raises:
        TypeError: There is only one row.

    Reference:
        Zbontar et al., Barlow Twins, ICML 2021, https://arxiv.org/abs/2103.03230

    Example:
        >>> x = jnp.array([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
        >>> barlow_twins_loss(x, -x)
        Array(8., dtype=float32)
    """
    _check_rows("barlow_twins_loss", a)

    def cost(c: Array, own: Array) -> Array:
        return jnp.where(own, jnp.square(1 - c), weight * jnp.square(c))

    return jnp.sum(_products(_standard(a) / len(a), _standard(b), cost))


def _standard(x: Array) -> Array:
    centred = x - jnp.mean(x, 0)[None]
    return safe_divide(centred, sqrt(jnp.mean(jnp.square(centred), 0))[None])


def _products(a: Array, b: Array, cost: Callable[[Array, Array], Array]) -> Array:
    """Σⱼ cost(aᵢ·bⱼ, i = j) of each feature i, a block of features at a time."""
    index = jnp.arange(a.shape[1])

    def tile(features: tuple) -> Array:
        feature, own = features
        return jnp.sum(cost(matmul(feature, b), own[:, None] == index[None]), 1)

    return over_rows(tile, (a.T, index), 2 * a.shape[1])


def _check_rows(function: str, a: Array) -> None:
    if len(a) < 2:
        refuse(TypeError, function, "a", "have at least two rows", a)

"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner.

As in `_muon.py`, a leaf of more than two axes is a stack of matrices in its last two,
matrices of one shape are computed at once, and leaves with fewer axes get `adamw`.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_batching import sequential_vmap

from jaxml._core.collectives import vary_together
from jaxml._core.matmul import matmul
from jaxml._core.public import factory
from jaxml._core.qr import q_factor
from jaxml._core.types import Count, NonNegative, PyTree, Rate, UnitInterval
from jaxml.optimizers._adam import adamw_scalars
from jaxml.optimizers._muon import (
    MOMENTS,
    for_matrices_only,
    matrix_transformation,
    on_stacks,
)
from jaxml.optimizers._per_leaf import (
    BetaPair,
    Mask,
    Transformation,
    abs_squared,
    check_state_dtype,
    complex_like,
    divide_by_sqrt,
    ema,
    init_accumulator,
    real_compute_dtype,
    upcast,
)

MAX_EIGH_DIM = 256
"""XLA:TPU takes minutes to compile `eigh` for more rows than these."""

NUM_ITERATIONS = 32, 1, 0
"""Power iterations on a TPU: for the first basis, for a new one, to keep the old."""


class Side(NamedTuple):
    """Of the rows or of the columns of a matrix; None if they are too many."""

    covariance: Array  # L or R
    basis: Array  # its eigenvectors, as columns


class SOAPState(NamedTuple):
    count: Array
    mu: PyTree
    nu: PyTree  # of matrices in the eigenbasis
    sides: PyTree  # (rows, columns) for each matrix, a `MaskedNode` for other leaves


@factory
def soap(
    learning_rate: Rate,
    *,
    b1: UnitInterval = 0.95,
    b2: UnitInterval = 0.95,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    precondition_every: Count = 10,
    max_dim: Count = 10_000,
    mask: Mask | None = None,
    state_dtype: Any = None,
) -> Transformation:
    """Adam in the eigenbasis of Shampoo's preconditioner, for matrices.

        L ← β₂ L + (1 - β₂) G Gᵀ        R ← β₂ R + (1 - β₂) Gᵀ G        for G [m n]
        v of Qₗᵀ G Qᵣ        u = -η (Qₗ [Qₗᵀ m̂ Qᵣ / (√v̂ + ε)] Qᵣᵀ + λ x)

    The columns of Qₗ and Qᵣ are the eigenvectors of L and R: at the first step, whose
    update is 0, by `eigh` (on a TPU 32 power iterations), then every few steps by one
    power iteration. They are constants in derivatives. Other leaves get `adamw`.

    Args:
        learning_rate: η, a number or a schedule.
        b1: β₁ in [0, 1), the decay rate of m.
        b2: β₂ in [0, 1), the decay rate of v, L and R.
        eps: ε >= 0, outside the root, in units of G.
        weight_decay: λ >= 0, multiplied by the learning rate.
        precondition_every: The number of steps between new bases.
        max_dim: The length above which an axis has no basis.
        mask: Which parameters decay; all by default.
        state_dtype: The dtype of m and v; float32 or wider by default.

    Reference:
        Vyas et al., SOAP: improving and stabilizing Shampoo using Adam, 2024,
        https://arxiv.org/abs/2409.11321, algorithm 3

    Example:
        >>> optimizer, g = soap(0.5), jnp.diag(jnp.array([3.0, 1.0]))
        >>> _, state = optimizer.update(g, optimizer.init(g), g)
        >>> optimizer.update(g, state, g)[0].round(3)
        Array([[-0.5,  0. ],
               [ 0. , -0.5]], dtype=float32)
    """

    def scalars_at(learning_rate: Array, t: Array) -> tuple[dict, dict]:
        adamw = functools.partial(
            adamw_scalars,
            learning_rate,
            b1=b1,
            b2=b2,
            eps=eps,
            weight_decay=weight_decay,
        )
        is_first = t == 1
        scalars = adamw(jnp.maximum(t - 1, 1))
        covariance = scalars["b2"]
        scalars |= {name: jnp.where(is_first, 0, scalars[name]) for name in SKIPPED}
        is_due = (t - 1) % precondition_every == 0
        return scalars | {
            "b1": at_rest(scalars["b1"], is_first),
            "b2": at_rest(scalars["b2"], is_first),
            "covariance": covariance,
            "basis": jnp.where(is_first, 0, jnp.where(is_due, 1, 2)),
        }, adamw(t)

    def matrix_step(scalars: dict, rows: list[tuple]) -> list[tuple]:
        g, x, m, v, sides = ([*column] for column in zip(*rows))
        m = [_average(scalars, *pair) for pair in zip(g, m)]
        arrays, results = [*zip(g, m, v, sides)], [*zip(g, v, sides)]
        stepped = on_stacks(_step_in_eigenbasis, scalars, arrays, results)
        directions, v, sides = zip(*stepped)
        updates = [_decay(scalars, *row) for row in zip(g, x, directions)]
        return [*zip(updates, m, v, sides)]

    check_state_dtype(state_dtype)
    return matrix_transformation(
        SOAPState,
        (
            *(
                functools.partial(init_accumulator, accumulator=a, dtype=state_dtype)
                for a in MOMENTS
            ),
            for_matrices_only(functools.partial(_init_sides, max_dim=max_dim)),
        ),
        learning_rate,
        scalars_at,
        matrix_step,
        mask,
    )


@jax.jit
def _average(scalars: dict, g: Array, m: Array) -> Array:
    """m ← β₁ m + (1 - β₁) g."""
    dtype = real_compute_dtype(g.dtype, m.dtype)
    b1 = BetaPair(*(weight.astype(dtype) for weight in scalars["b1"]))
    return ema(b1, upcast(m, dtype), upcast(g, dtype)).astype(m.dtype)


@jax.jit
def _decay(scalars: dict, g: Array, x: Array, direction: Array) -> Array:
    """u, from the direction of Adam."""
    dtype = real_compute_dtype(direction.dtype)
    lr_times_wd = scalars["lr_times_wd"].astype(dtype)
    return (direction - lr_times_wd * upcast(x, dtype)).astype(g.dtype)


SKIPPED = "scale", "lr_times_wd"
"""The scalars that are 0 at the first step, which only makes the bases."""


def at_rest(weights: BetaPair, is_first: Array) -> BetaPair:
    """The weights of an average that does not change at the first step."""
    beta, one_minus_beta = weights
    return BetaPair(
        jnp.where(is_first, 1, beta), jnp.where(is_first, 0, one_minus_beta)
    )


def _init_sides(x: Array, max_dim: int) -> tuple[Side | None, Side | None]:
    *batch, m, n = jnp.shape(x)
    dtype = complex_like(x, real_compute_dtype(jnp.result_type(x)))

    def side(length: int) -> Side | None:
        if length > max_dim:
            return None
        zeros = [jnp.zeros((*batch, length, length), dtype) for _ in Side._fields]
        return Side(*vary_together((*zeros, x))[:2])

    return side(m), side(n)


def _step_in_eigenbasis(
    scalars: dict, g: Array, m: Array, v: Array, sides: tuple[Side | None, Side | None]
) -> tuple[Array, Array, tuple]:
    """The direction of one matrix, and what changes in its state."""
    dtype, v_dtype = real_compute_dtype(g.dtype, m.dtype, v.dtype), v.dtype
    scalars = {
        name: jax.tree.map(lambda s: s.astype(dtype), scalar)
        if name != "basis"
        else scalar
        for name, scalar in scalars.items()
    }
    g, m, v = (upcast(array, dtype) for array in (g, m, v))
    rows, columns = sides
    left, right = (side and side.basis for side in sides)

    v = ema(scalars["b2"], v, abs_squared(_rotate(g, left, right)))
    step = divide_by_sqrt(scalars["scale"] * _rotate(m, left, right), v, scalars["eps"])
    direction = _rotate(step, _adjoint(left), _adjoint(right))

    due = functools.partial(_refresh, scalars["basis"], scalars["covariance"])
    rows, order = due(rows, g)
    v = v if order is None else v[order]
    columns, order = due(columns, g.conj().T)
    v = v if order is None else v[:, order]
    return direction, v.astype(v_dtype), (rows, columns)


def _rotate(x: Array, left: Array | None, right: Array | None) -> Array:
    """Qₗᵀ x Qᵣ, where a basis that is None is the identity."""
    x = x if left is None else matmul(left.conj().T, x)
    return x if right is None else matmul(x, right)


def _adjoint(basis: Array | None) -> Array | None:
    return None if basis is None else basis.conj().T


def _refresh(
    index: Array, weights: BetaPair, side: Side | None, g: Array
) -> tuple[Side | None, Array | None]:
    """The side after this gradient, and the new order of its eigenvectors."""
    if side is None:
        return None, None
    covariance, basis = side
    covariance = ema(weights, covariance, matmul(g, g.conj().T))
    is_long = len(covariance) > MAX_EIGH_DIM
    basis, order = lax.platform_dependent(
        index,
        *lax.stop_gradient((covariance, basis)),
        tpu=_next_basis_on_tpu if is_long else _next_basis,
        default=_next_basis,
    )
    return Side(covariance, basis), order


def _next_basis(index: Array, covariance: Array, basis: Array) -> tuple[Array, Array]:
    """The basis, in the order of decreasing eigenvalues, and how it was reordered."""
    branches = _eigenvectors, _power_iteration, _keep
    result = lax.switch(index, branches, covariance, basis)
    return vary_together((*result, covariance))[:2]


@sequential_vmap  # one large matrix keeps a TPU busy, and all would fill its memory
def _next_basis_on_tpu(
    index: Array, covariance: Array, basis: Array
) -> tuple[Array, Array]:
    """`_next_basis` by power iterations alone."""
    is_first = index == 0
    basis = jnp.where(is_first, jnp.eye(len(basis), dtype=basis.dtype), basis)

    def iterate(_: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        basis, order = state
        basis, new_order = _power_iteration(covariance, basis)
        return basis, order[new_order]

    start = vary_together((basis, jnp.arange(len(basis)), covariance))[:2]
    return lax.fori_loop(0, jnp.array(NUM_ITERATIONS)[index], iterate, start)


def _eigenvectors(covariance: Array, _: Array) -> tuple[Array, Array]:
    """There is nothing to reorder yet."""
    basis = jnp.linalg.eigh(covariance)[1][:, ::-1]
    return basis, jnp.arange(len(basis))


def _power_iteration(covariance: Array, basis: Array) -> tuple[Array, Array]:
    """One step of orthogonal iteration, in the order of decreasing eigenvalues."""
    product = matmul(covariance, basis)
    eigenvalues = jnp.sum((basis.conj() * product).real, 0)
    order = jnp.argsort(-eigenvalues)
    return q_factor(product[:, order]), order


def _keep(_: Array, basis: Array) -> tuple[Array, Array]:
    return basis, jnp.arange(len(basis))

"""Muon: momentum that is orthogonalized, matrix by matrix.

A leaf of two axes is a matrix, one of more axes a stack of matrices in its last two.
Matrices of one shape are stacked into one array, so that the program grows with the
number of shapes instead of the number of leaves. Leaves with fewer axes get `adamw`.

g is the gradient, η the learning rate, u the update that is added to the parameters x.
"""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxml._core.public import factory
from jaxml._core.safe import norm, safe_divide
from jaxml._core.sharding import spec, with_automatic_axes
from jaxml._core.types import (
    Count,
    NonNegative,
    PyTree,
    Rate,
    Scalar,
    Schedule,
    UnitInterval,
)
from jaxml.optimizers._adam import adamw_scalars, adamw_step
from jaxml.optimizers._per_leaf import (
    Accumulator,
    Mask,
    MaskedNode,
    Transformation,
    check_state_dtype,
    init_accumulator,
    jit_leaf_step,
    real_compute_dtype,
    transformation_of_rows,
    upcast,
)

NEWTON_SCHULZ = 3.4445, -4.7750, 2.0315
"""Jordan's a, b and c: the steepest at 0 that end near 1, between about 0.7 and 1.2."""
RMS = 0.2
"""That of an update at learning rate 1, as is typical of AdamW."""
MAX_STACK = 2**25
"""Elements of a stack, at most, so that temporaries do not grow with the model."""


class MuonState(NamedTuple):
    count: Array
    mu: PyTree  # b for matrices, m of AdamW for the other leaves
    nu: PyTree  # v of AdamW; a `MaskedNode` for each matrix


@factory
def muon(
    learning_rate: Rate,
    *,
    decay: UnitInterval = 0.95,
    nesterov: bool = True,
    steps: Count = 5,
    weight_decay: NonNegative = 0.0,
    mask: Mask | None = None,
    state_dtype: Any = None,
) -> Transformation:
    """Momentum with singular values set near 1, for matrices; `adamw` for the rest.

        b ← μ b + g        u = -η (0.2 √max(m, n) NS(g + μ b) + λ x)    for x [m n]
        NS(X): X ← X / ‖X‖, then k times X ← a X + (b A + c A²) X,  A = XXᵀ

    The root gives u the RMS that is typical of AdamW, so that one η fits all leaves;
    Jordan's √max(1, n/m) is this root times √(1/m). Leaves of fewer than two axes get
    `adamw`; embeddings and the output layer should, by `optax.partition`. Axes before
    the last two are batch axes: reshape to [heads, d, k] for a step per head. Products
    have JAX's default precision.

    Args:
        learning_rate: η, a number or a schedule.
        decay: μ in [0, 1), the momentum coefficient.
        nesterov: Whether NS takes g + μ b, or b.
        steps: k, the number of Newton-Schulz iterations.
        weight_decay: λ >= 0, multiplied by the learning rate.
        mask: Which parameters decay; all by default.
        state_dtype: The dtype of the accumulators; float32 or wider by default.

    Reference:
        Jordan et al., Muon, 2024, https://kellerjordan.github.io/posts/muon; the root:
        Liu et al., Muon is scalable for LLM training, https://arxiv.org/abs/2502.16982

    Example:
        >>> optimizer, g = muon(1.0), jnp.diag(jnp.array([3.0, 1.0]))
        >>> optimizer.update(g, optimizer.init(g), g)[0].round(1)
        Array([[-0.2, -0. ],
               [-0. , -0.3]], dtype=float32)
    """

    def scalars_at(learning_rate: Array, t: Array) -> tuple[dict, dict]:
        scalars = {
            "learning_rate": learning_rate,
            "decay": jnp.asarray(decay, t.dtype),
            "lr_times_wd": learning_rate * weight_decay,
        }
        rest = adamw_scalars(learning_rate, t, 0.9, 0.999, 1e-8, weight_decay)
        return scalars, rest

    def orthogonal(scalars: dict, g: Array, b: Array) -> Array:
        dtype = real_compute_dtype(g.dtype, b.dtype)
        decay, g, b = (upcast(a, dtype) for a in (scalars["decay"], g, b))
        return newton_schulz(g + decay * b if nesterov else b, steps)

    def matrix_step(scalars: dict, rows: list[tuple]) -> list[tuple]:
        g, x, b, nu = ([*column] for column in zip(*rows))
        b = [_accumulate(scalars, *pair) for pair in zip(g, b)]
        directions = on_stacks(orthogonal, scalars, [*zip(g, b)], b)
        updates = [_scale(scalars, *row) for row in zip(directions, g, x)]
        return [*zip(updates, b, nu)]

    init_nu = for_vectors_only(lambda x: init_accumulator(x, MOMENTS[1], state_dtype))
    check_state_dtype(state_dtype)
    return matrix_transformation(
        MuonState,
        (lambda x: init_accumulator(x, MOMENTS[0], state_dtype), init_nu),
        learning_rate,
        scalars_at,
        matrix_step,
        mask,
    )


@jax.jit
def _accumulate(scalars: dict, g: Array, b: Array) -> Array:
    """b ← μ b + g."""
    dtype = real_compute_dtype(g.dtype, b.dtype)
    b_next = scalars["decay"].astype(dtype) * upcast(b, dtype) + upcast(g, dtype)
    return b_next.astype(b.dtype)


@jax.jit
def _scale(scalars: dict, orthogonal: Array, g: Array, x: Array) -> Array:
    """u, from the orthogonal matrix."""
    dtype = real_compute_dtype(orthogonal.dtype)
    rate = RMS * math.sqrt(max(g.shape[-2:])) * scalars["learning_rate"]
    decayed = scalars["lr_times_wd"].astype(dtype) * upcast(x, dtype)
    return (-rate.astype(dtype) * orthogonal - decayed).astype(g.dtype)


def newton_schulz(x: Array, steps: int) -> Array:
    """About UVᵀ of the singular value decomposition x = USVᵀ, by Newton-Schulz.

    The scale of x does not matter, and 0 remains 0.
    """
    if x.shape[0] > x.shape[1]:
        return newton_schulz(x.T, steps).T
    a, b, c = NEWTON_SCHULZ
    length = norm(jnp.abs(x) if jnp.iscomplexobj(x) else x, (0, 1))
    x = safe_divide(x, length.astype(x.dtype))

    def iterate(x: Array, _: None) -> tuple[Array, None]:
        gram = x @ x.conj().T
        return a * x + (b * gram + c * (gram @ gram)) @ x, None

    return lax.scan(iterate, x, length=steps)[0]


# Optimizers of matrices

MOMENTS = Accumulator(), Accumulator(is_real=True)


def for_vectors_only(init: Callable[[Array], Any]) -> Callable[[Array], Any]:
    """The initial value of a field that matrices do not have."""
    return lambda x: MaskedNode() if is_matrix(x) else init(x)


def for_matrices_only(init: Callable[[Array], Any]) -> Callable[[Array], Any]:
    return lambda x: init(x) if is_matrix(x) else MaskedNode()


def is_matrix(x: Array) -> bool:
    return jnp.ndim(x) >= 2


def matrix_transformation(
    state_type: Callable[..., Any],
    init_fields: tuple[Callable[[Array], Any], ...],
    learning_rate: Scalar | Schedule,
    scalars_at: Callable[[Array, Array], tuple[dict, dict]],
    matrix_step: Callable[[dict, list[tuple]], list[tuple]],
    mask: Mask | None,
) -> Transformation:
    """The optimizer with this step for matrices, and AdamW for other leaves.

    Args:
        state_type: A NamedTuple of the count and the fields; the first two are m and v
            for leaves that are not matrices.
        init_fields: Parameter -> initial value, for each field.
        learning_rate: A number, or a schedule of the count.
        scalars_at: (learning_rate, t) -> those of `matrix_step` and of `adamw_step`.
        matrix_step: The rows (g, x, *fields) of all matrices -> (update, *fields).
        mask: Which parameters decay; the step sees x = 0 for the others.
    """
    vector_step = jit_leaf_step(adamw_step, 2)

    def vector_row(
        scalars: dict, g: Array, x: Array, m: Array, v: Array, *others: Any
    ) -> tuple:
        return *vector_step(scalars, g, x, m, v), *others

    def step_rows(scalars: tuple[dict, dict], rows: list[tuple]) -> list[tuple]:
        of_matrices, of_vectors = scalars
        matrices = [row for row in rows if is_matrix(row[0])]
        with jax.numpy_dtype_promotion("standard"):  # real scalars, complex arrays
            stepped = iter(matrix_step(of_matrices, matrices) if matrices else [])
        return [
            next(stepped) if is_matrix(row[0]) else vector_row(of_vectors, *row)
            for row in rows
        ]

    init_trees = (functools.partial(jax.tree.map, init) for init in init_fields)
    return transformation_of_rows(
        state_type,
        tuple(init_trees),
        learning_rate,
        scalars_at,
        step_rows,
        True if mask is None else mask,
    )


def on_stacks(
    function: Callable[..., Any],
    scalars: dict[str, Array],
    rows: Sequence[tuple],
    likes: Sequence[PyTree],
) -> list[PyTree]:
    """function(scalars, *row) for every row, once for all rows of the same shapes.

    Args:
        function: A function of scalars and matrices.
        scalars: The same for all rows.
        rows: Tuples of stacks of matrices, with the same leading axes.
        likes: For each row, arrays with the shapes and shardings of its results.
    """
    results: list[Any] = [None] * len(rows)
    for indices in _groups(rows):
        group = [rows[i] for i in indices], [likes[i] for i in indices]
        stepped = _on_stack(function, scalars, *group)
        for i, result in zip(indices, stepped, strict=True):
            results[i] = result
    return results


def _groups(rows: Sequence[tuple]) -> Iterator[list[int]]:
    """The indices of rows that make one stack."""
    by_shape: dict[Any, list[list[int]]] = {}
    for i, row in enumerate(rows):
        shapes = [(leaf.shape[-2:], leaf.dtype) for leaf in jax.tree.leaves(row)]
        stacks = by_shape.setdefault((jax.tree.structure(row), *shapes), [[]])
        size = sum(rows[j][0].size for j in (*stacks[-1], i))
        if stacks[-1] and size > MAX_STACK:
            stacks.append([])
        stacks[-1].append(i)
    for stacks in by_shape.values():
        yield from stacks


def _on_stack(
    function: Callable[..., Any],
    scalars: dict[str, Array],
    rows: list[tuple],
    likes: list[PyTree],
) -> list[PyTree]:
    """`on_stacks`, for rows of the same shapes."""

    def call(scalars: dict[str, Array], rows: list[tuple]) -> list[PyTree]:
        step = functools.partial(function, scalars)
        flat = [jax.tree.map(_flatten_batch, row) for row in rows]
        stack = jax.tree.map(lambda *parts: jnp.concatenate(parts), *flat)
        lengths = [len(row[0]) for row in flat]
        batch_size = MAX_STACK // max(1, math.prod(stack[0].shape[1:])) + 1
        if sum(lengths) <= batch_size:
            result = jax.vmap(step)(*stack)
        else:
            result = lax.map(lambda row: step(*row), stack, batch_size=batch_size)
        ends = [sum(lengths[:i]) for i in range(1, len(lengths))]
        parts = jax.tree.map(lambda leaf: jnp.split(leaf, ends), result)
        return [
            jax.tree.map(
                lambda leaf, part, i=i: part[i].reshape(leaf.shape), like, parts
            )
            for i, like in enumerate(likes)
        ]

    specs = jax.tree.map(spec, likes)
    return with_automatic_axes(call, scalars, rows, out_specs=specs)


def _flatten_batch(x: Array) -> Array:
    """Stacks of matrices as one stack: [*batch m n] -> [n m n]."""
    return lax.collapse(x, 0, x.ndim - 2)

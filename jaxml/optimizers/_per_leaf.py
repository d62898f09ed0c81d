"""What all optimizers share: the pair of functions, the count, the dtypes, the rate.

An optimizer is written as the step of ONE array, from its paper; `transformation` lifts
it to trees. Arithmetic and accumulators are float32 or wider, updates have the
gradients' dtype, and every number is an argument of the compiled step: none takes a
parameter's dtype.

XLA makes one kernel of each array that a step returns, and writes it in place. A step
that reads an old accumulator after its new value is there costs a copy, so the update
is written from the new accumulators alone.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jaxml._core.contract import raise_invalid
from jaxml._core.special.partials import with_partials
from jaxml._core.types import PyTree, Scalar, Schedule, compute_dtype

Transformation = optax.GradientTransformationExtraArgs
with_extra_arguments = optax.with_extra_args_support
apply_updates = optax.apply_updates

Mask = PyTree | Callable[[PyTree], PyTree]
"""Booleans beside the parameters, for whole branches if need be, or what makes them."""


class Slot(NamedTuple):
    """An accumulator that an optimizer keeps beside each parameter."""

    start: Scalar = 0.0
    real: bool = False  # as |g|² is, where g is complex


def transformation(
    name: str,
    state_type: Callable[..., Any],
    slots: tuple[Slot | None, ...],
    learning_rate: Scalar | Schedule,
    numbers: Callable[[Array, Array], tuple[Any, ...]],
    step: Callable[..., tuple[Array, ...]],
    state_dtype: Any = None,
    *,
    decayed: Mask | None = None,
) -> Transformation:
    """The optimizer with this step.

    Args:
        name: For messages.
        state_type: A NamedTuple of the count and one field for each slot.
        slots: What is kept beside each parameter; None for a field that stays None.
        learning_rate: A number, or a schedule of the count.
        numbers: (rate, t) -> the scalars that `step` takes, at step t = 1, 2, ...
        step: (numbers, g, [x,] *slots) -> (update, *slots), all of one array. It takes
            the parameter x, or 0 where it is not to decay, if `decayed` is given.
        state_dtype: The dtype of the slots; float32 or wider by default.
        decayed: Which parameters decay.
    """
    if state_dtype is not None and not _is_float(state_dtype):
        found = str(getattr(state_dtype, "__name__", state_dtype))
        raise_invalid(TypeError, "state_dtype", "be a float dtype", found)
    kept = [slot for slot in slots if slot is not None]
    # One trace serves all arrays of a shape, and nothing but traced numbers enters it.
    leaf_step = jax.jit(lambda scalars, *row: _run(step, scalars, row, len(kept)))

    def init(params: PyTree) -> Any:
        check_floats(name, "params", params)
        trees = [_fill(params, slot, state_dtype) if slot else None for slot in slots]
        return state_type(jnp.zeros((), jnp.int32), *trees)

    def update(
        updates: PyTree, state: Any, params: PyTree = None, **extra: Any
    ) -> tuple:
        del extra  # the interface hands every member of a chain everything
        check_floats(name, "updates", updates)
        count = increment(state.count)
        rate = rate_at(name, learning_rate, state.count)
        with jax.numpy_dtype_promotion("standard"):  # the user's numbers have any dtype
            scalars = numbers(rate, count.astype(float))

        leaves, structure = jax.tree.flatten(updates)
        trees = [tree for tree in state[1:] if tree is not None]
        if decayed is not None:
            trees = [_where_decayed(name, params, decayed), *trees]
        rows = zip(leaves, *map(structure.flatten_up_to, trees), strict=True)
        updated = [leaf_step(scalars, *row) for row in rows]

        columns = zip(*updated, strict=True) if updated else [()] * (1 + len(kept))
        steps, *moved = [structure.unflatten(column) for column in columns]
        for i in [i for i, slot in enumerate(slots) if slot is None]:
            moved.insert(i, None)
        return steps, state_type(count, *moved)

    return Transformation(init, update)


def increment(count: Array) -> Array:
    """The next count, which stays at the largest integer."""
    return jnp.asarray(optax.safe_increment(count))


def shares(decay: Scalar) -> tuple[Array, Array]:
    """What a moving average keeps and what it takes in: (β, 1 - β)."""
    kept = jnp.asarray(decay, float)
    return kept, 1 - kept


def ema(shares: tuple[Array, Array], mean: Array, x: Array) -> Array:
    """The exponential moving average β m + (1 - β) x, of about the last 1 / (1 - β)."""
    kept, new = shares
    return kept * mean + new * x


def debias(decay: Scalar, t: Array) -> Array:
    """1 - decayᵗ: the share of a moving average, begun at 0, that t values make up."""
    return one_minus_pow(jnp.asarray(decay, t.dtype), t)


def check_floats(name: str, argument: str, tree: PyTree) -> None:
    """Raises a TypeError for the first array that has no derivative."""
    for path, leaf in jax.tree.leaves_with_path(tree):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
            where = f"{argument}{jax.tree_util.keystr(path)}"
            raise_invalid(TypeError, where, "be a float or complex array", leaf)


def wide(*dtypes: Any) -> Any:
    """The real dtype, float32 or wider, in which arrays of these are worked on."""
    return compute_dtype(*(jnp.finfo(dtype).dtype for dtype in dtypes))


def widened(leaf: Array, real: Any) -> Array:
    """The array in this real dtype, or in the complex one that is made of it."""
    return leaf.astype(_complex(real) if jnp.iscomplexobj(leaf) else real)


def rate_at(name: str, learning_rate: Scalar | Schedule, count: Array) -> Array:
    rate = learning_rate(count) if callable(learning_rate) else learning_rate
    try:
        number = jnp.asarray(rate)
    except (TypeError, ValueError):
        number = None
    if number is None or number.shape or not jnp.isrealobj(number):
        rule = "be a number or a schedule that returns one"
        raise_invalid(TypeError, "learning_rate", rule, rate)
    return number.astype(float)


def _run(step: Callable, scalars: tuple, row: tuple, kept: int) -> tuple[Array, ...]:
    """The step of one array, in one dtype throughout, with its results rounded back."""
    real = wide(*(leaf.dtype for leaf in row))
    scalars = jax.tree.map(lambda number: jnp.asarray(number, real), scalars)
    with jax.numpy_dtype_promotion("standard"):  # real numbers times complex arrays
        results = step(scalars, *(widened(leaf, real) for leaf in row))
    dtypes = [row[0].dtype, *(leaf.dtype for leaf in row[len(row) - kept :])]
    return tuple(r.astype(dtype) for r, dtype in zip(results, dtypes, strict=True))


def _fill(params: PyTree, slot: Slot, dtype: Any) -> PyTree:
    def fill(leaf: Array) -> Array:
        real = dtype or wide(jnp.result_type(leaf))
        complex_too = jnp.iscomplexobj(leaf) and not slot.real
        return jnp.full_like(leaf, slot.start, _complex(real) if complex_too else real)

    return jax.tree.map(fill, params)


def _complex(real: Any) -> Any:
    return jnp.complex128 if real == jnp.float64 else jnp.complex64


def _where_decayed(name: str, params: PyTree, decayed: Mask) -> PyTree:
    if params is None:
        rule = "be given to update, for weight decay"
        raise_invalid(TypeError, "params", rule, params)
    mask = decayed(params) if callable(decayed) else decayed
    none = jax.tree.map(jnp.zeros_like, params)
    return jax.tree.map(lambda keep, p, zero: p if keep else zero, mask, params, none)


def _is_float(dtype: Any) -> bool:
    try:
        return jnp.issubdtype(dtype, jnp.floating)
    except TypeError:  # no dtype at all
        return False


@jax.custom_jvp
def divide_by_sqrt(x: Array, y: Array, eps: Array) -> Array:
    """x / (√y + ε) for y >= 0.

    At y = 0, ∂/∂y is 0, and ∂/∂x is 1/ε, or 1 if ε = 0. The value avoids a `where`,
    which would double the compile time of a large tree: it is compiled per leaf.
    """
    return x / (jnp.sqrt(jnp.maximum(y, jnp.finfo(y.dtype).tiny)) + eps)


@divide_by_sqrt.defjvp
def divide_by_sqrt_jvp(primals: tuple, tangents: tuple) -> tuple:
    def differentiable(x: Array, y: Array, eps: Array) -> Array:
        tiny = jnp.finfo(y.dtype).tiny  # XLA flushes smaller numbers to 0
        y_min = jnp.where(eps > 0, tiny, 1.0).astype(y.dtype)
        return x / (jnp.sqrt(jnp.where(y < tiny, y_min, y)) + eps)

    return divide_by_sqrt(*primals), jax.jvp(differentiable, primals, tangents)[1]


@with_partials(
    lambda b, t: -t * b ** (t - 1),
    lambda b, t: -(b**t) * jnp.log(b),
)
def one_minus_pow(b: Array, t: Array) -> Array:
    """1 - bᵗ for b in [0, 1), without cancellation."""
    return -jnp.expm1(t * jnp.log(b))


def abs_squared(x: Array) -> Array:
    """|x|², which is real for complex x too."""
    return jnp.square(x.real) + jnp.square(x.imag) if jnp.iscomplexobj(x) else x * x

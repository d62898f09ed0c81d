"""Per-leaf optimizers: the step of one array, lifted to trees of parameters.

An optimizer is written as the step of ONE array, as in its paper, and
`per_leaf_transformation` makes optax's (init, update) of it. Arithmetic and
accumulators are float32 or wider; updates have the dtype of the gradients.
Hyperparameters are traced arguments of the step, cast to the dtype of its arithmetic.

XLA:CPU compiles one kernel per output and updates accumulators in place. A step that
still needs an old accumulator after updating it costs a copy, so every update is
computed from the new accumulators alone.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import optax
from jax import Array

from jaxml._core.contract import raise_invalid
from jaxml._core.special.partials import with_partials
from jaxml._core.types import PyTree, Scalar, Schedule, compute_dtype

Transformation = optax.GradientTransformationExtraArgs
with_extra_args_support = optax.with_extra_args_support
apply_updates = optax.apply_updates
MaskedNode = optax.MaskedNode
"""In a tree of the state, for a parameter without this accumulator."""

Mask = PyTree | Callable[[PyTree], PyTree]
"""Booleans, as a prefix of the parameters' tree, or a function that returns them."""


class Accumulator(NamedTuple):
    """An array that an optimizer keeps for each parameter, of the same shape."""

    init_value: Scalar = 0.0
    is_real: bool = False  # for complex parameters too, as |g|² is


def per_leaf_transformation(
    state_type: Callable[..., Any],
    accumulators: tuple[Accumulator | None, ...],
    learning_rate: Scalar | Schedule,
    scalars_at: Callable[[Array, Array], dict[str, Any]],
    step: Callable[..., tuple[Array, ...]],
    state_dtype: Any = None,
    *,
    weight_decay_mask: Mask | None = None,
) -> Transformation:
    """The optimizer with this step.

    Args:
        state_type: A NamedTuple of the count and one field for each accumulator.
        accumulators: One for each field; None for a field that is always None.
        learning_rate: A number, or a schedule of the count.
        scalars_at: (learning_rate, t) -> the keyword arguments of `step`, t = 1, 2, ...
        step: (g, [x,] *accumulators, **scalars) -> (update, *accumulators), for one
            array. It takes the parameter x if there is a `weight_decay_mask`.
        state_dtype: The dtype of the accumulators; float32 or wider by default.
        weight_decay_mask: Which parameters decay; `step` sees x = 0 for the others.
    """
    check_state_dtype(state_dtype)
    num_accumulators = sum(a is not None for a in accumulators)
    # Leaves of one shape share one trace, since all hyperparameters are arguments.
    leaf_step = jit_leaf_step(step, num_accumulators)

    def step_rows(scalars: dict[str, Any], rows: list[tuple]) -> list[tuple]:
        return [leaf_step(scalars, *row) for row in rows]

    init_fields = tuple(
        a and functools.partial(init_accumulator, accumulator=a, dtype=state_dtype)
        for a in accumulators
    )
    return transformation_of_rows(
        state_type, init_fields, learning_rate, scalars_at, step_rows, weight_decay_mask
    )


def transformation_of_rows(
    state_type: Callable[..., Any],
    init_fields: tuple[Callable[[PyTree], PyTree] | None, ...],
    learning_rate: Scalar | Schedule,
    scalars_at: Callable[[Array, Array], Any],
    step_rows: Callable[[Any, list[tuple]], list[tuple]],
    weight_decay_mask: Mask | None = None,
) -> Transformation:
    """The optimizer with this step of all arrays together.

    Args:
        state_type: A NamedTuple of the count and the fields.
        init_fields: Parameters -> their trees of a field, or None if it is always None.
        learning_rate: A number, or a schedule of the count.
        scalars_at: (learning_rate, t) -> the hyperparameters at t = 1, 2, ...
        step_rows: Hyperparameters and a row (g, [x,] *fields) for each gradient that is
            not None -> a row (update, *fields) for each.
        weight_decay_mask: Which parameters decay; x is 0 in the rows of the others.
    """

    def init(params: PyTree) -> Any:
        check_floats("params", params)
        fields = [init_field and init_field(params) for init_field in init_fields]
        return state_type(jnp.zeros((), jnp.int32), *fields)

    def update(
        updates: PyTree, state: Any, params: PyTree = None, **extra_args: Any
    ) -> tuple:
        del extra_args  # for other members of a chain
        check_floats("updates", updates)
        count = increment(state.count)
        rate = learning_rate_at(learning_rate, state.count)
        with jax.numpy_dtype_promotion("standard"):  # hyperparameters have any dtype
            scalars = scalars_at(rate, count.astype(float))

        leaves, structure = jax.tree.flatten(updates, is_leaf=is_none)
        trees = [tree for tree in state[1:] if tree is not None]
        num_fields = len(trees)
        if weight_decay_mask is not None:
            trees = [zero_unmasked(params, weight_decay_mask, updates), *trees]
        columns = [leaves, *map(structure.flatten_up_to, trees)]
        rows = list(zip(*columns, strict=True))
        stepped = iter(step_rows(scalars, [row for row in rows if row[0] is not None]))
        new_rows = [
            (None, *row[len(row) - num_fields :])  # no gradient, no step
            if row[0] is None
            else next(stepped)
            for row in rows
        ]
        new_columns = zip(*new_rows) if rows else [()] * (1 + num_fields)
        new_updates, *new_trees = map(structure.unflatten, new_columns)
        remaining = iter(new_trees)
        fields = [None if old is None else next(remaining) for old in state[1:]]
        return new_updates, state_type(count, *fields)

    return Transformation(init, update)


def is_none(x: Any) -> bool:
    """Whether x stands for the gradient of a parameter that is not trained."""
    return x is None


def jit_leaf_step(
    step: Callable[..., tuple[Array, ...]], num_accumulators: int
) -> Callable[..., tuple[Array, ...]]:
    """(scalars, *arrays) -> the results of a step, of which leaves share the trace."""
    return jax.jit(functools.partial(_leaf_step, step, num_accumulators))


def _leaf_step(
    step: Callable[..., tuple[Array, ...]],
    num_accumulators: int,
    scalars: dict[str, Any],
    *arrays: Array,
) -> tuple[Array, ...]:
    """The step of one array in one dtype, with every result rounded back to its own."""
    dtype = real_compute_dtype(*(x.dtype for x in arrays))
    scalars = jax.tree.map(lambda s: jnp.asarray(s, dtype), scalars)
    with jax.numpy_dtype_promotion("standard"):  # real scalars times complex arrays
        results = step(*(upcast(x, dtype) for x in arrays), **scalars)
    accumulators = arrays[len(arrays) - num_accumulators :]
    dtypes = [x.dtype for x in (arrays[0], *accumulators)]
    return tuple(r.astype(d) for r, d in zip(results, dtypes, strict=True))


def init_accumulator(params: PyTree, accumulator: Accumulator, dtype: Any) -> PyTree:
    def full(leaf: Array) -> Array:
        real_dtype = dtype or real_compute_dtype(jnp.result_type(leaf))
        is_complex = jnp.iscomplexobj(leaf) and not accumulator.is_real
        leaf_dtype = _complex_dtype(real_dtype) if is_complex else real_dtype
        return full_like(leaf, accumulator.init_value, leaf_dtype)

    return jax.tree.map(full, params)


def full_like(x: Array, value: Scalar, dtype: Any) -> Array:
    """An array that is sharded like x, under `jax.jit` too."""
    full = jnp.full_like(x, value, dtype)
    if not isinstance(x, jax.core.Tracer):
        return full
    # XLA would replicate a constant; what depends on x is sharded like it
    return jnp.where(x == x, full, jnp.full_like(full, jnp.nan))


def trained(params: PyTree, updates: PyTree) -> PyTree:
    """The parameters with a gradient, None for the others, which may be anything."""
    return jax.tree.map(
        lambda g, x: None if g is None else x, updates, params, is_leaf=is_none
    )


def zero_unmasked(params: PyTree, mask: Mask, updates: PyTree) -> PyTree:
    """The parameters that decay, and 0 for the others."""
    if params is None:
        requirement = "be given to update, for weight decay"
        raise_invalid(TypeError, "params", requirement, params)
    params = trained(params, updates)
    # a module may be callable, but is a tree of booleans
    if callable(mask) and jax.tree_util.all_leaves([mask]):
        mask = mask(params)
    zeros = jax.tree.map(jnp.zeros_like, params)
    return jax.tree.map(lambda m, x, zero: x if m else zero, mask, params, zeros)


# Hyperparameters


def increment(count: Array) -> Array:
    """The next count, which saturates at the largest integer."""
    return jnp.asarray(optax.safe_increment(count))


def learning_rate_at(learning_rate: Scalar | Schedule, count: Array) -> Array:
    """The learning rate at this count, in the default float dtype."""
    value = learning_rate(count) if callable(learning_rate) else learning_rate
    try:
        rate = jnp.asarray(value)
    except (TypeError, ValueError):
        rate = None
    if rate is None or rate.shape or not jnp.isrealobj(rate):
        requirement = "be a number or a schedule that returns one"
        raise_invalid(TypeError, "learning_rate", requirement, value)
    return rate.astype(float)


class BetaPair(NamedTuple):
    """The weights β and 1 - β of a moving average."""

    beta: Array
    one_minus_beta: Array


def beta_pair(beta: Scalar) -> BetaPair:
    """β and 1 - β in the default float dtype."""
    beta = jnp.asarray(beta, float)
    return BetaPair(beta, 1 - beta)


def ema(weights: BetaPair, mean: Array, x: Array) -> Array:
    """The exponential moving average β m + (1 - β) x, over about 1 / (1 - β) values."""
    beta, one_minus_beta = weights
    return beta * mean + one_minus_beta * x


def bias_correction(beta: Scalar, t: Array) -> Array:
    """1 - βᵗ, the divisor that corrects the bias of an `ema` started at 0."""
    return one_minus_pow(jnp.asarray(beta, t.dtype), t)


# Dtypes


def check_floats(argument: str, tree: PyTree) -> None:
    """Raises a TypeError for the first leaf that is not a float or complex array."""
    for path, leaf in jax.tree.leaves_with_path(tree):
        if not _is_inexact(leaf):
            leaf_name = f"{argument}{jax.tree_util.keystr(path)}"
            raise_invalid(TypeError, leaf_name, "be a float or complex array", leaf)


def _is_inexact(leaf: Any) -> bool:
    try:
        return jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)
    except TypeError:  # no array at all
        return False


def real_compute_dtype(*dtypes: Any) -> Any:
    """The real dtype, float32 or wider, for arithmetic on arrays of these dtypes."""
    return compute_dtype(*(jnp.finfo(dtype).dtype for dtype in dtypes))


def upcast(x: Array, real_dtype: Any) -> Array:
    """x in this real dtype, or in the complex dtype of its precision."""
    return x.astype(complex_like(x, real_dtype))


def complex_like(x: Array, real_dtype: Any) -> Any:
    """The real dtype, or the complex one of its precision if x is complex."""
    return _complex_dtype(real_dtype) if jnp.iscomplexobj(x) else real_dtype


def _complex_dtype(real_dtype: Any) -> Any:
    return jnp.complex128 if real_dtype == jnp.float64 else jnp.complex64


def check_state_dtype(dtype: Any) -> None:
    """Raises a TypeError unless the dtype is None or a float dtype."""
    if dtype is not None and not _is_float_dtype(dtype):
        value = str(getattr(dtype, "__name__", dtype))
        raise_invalid(TypeError, "state_dtype", "be a float dtype", value)


def _is_float_dtype(dtype: Any) -> bool:
    try:
        return jnp.issubdtype(dtype, jnp.floating)
    except TypeError:  # not a dtype at all
        return False


# Arithmetic


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


def _one_minus_pow_db(b: Array, t: Array) -> Array:
    return -t * b ** (t - 1)


def _one_minus_pow_dt(b: Array, t: Array) -> Array:
    return -(b**t) * jnp.log(b)


@with_partials(_one_minus_pow_db, _one_minus_pow_dt)
def one_minus_pow(b: Array, t: Array) -> Array:
    """1 - bᵗ for b in [0, 1), without cancellation."""
    return -jnp.expm1(t * jnp.log(b))


def abs_squared(x: Array) -> Array:
    """|x|², which is real for complex x too."""
    return jnp.square(x.real) + jnp.square(x.imag) if jnp.iscomplexobj(x) else x * x

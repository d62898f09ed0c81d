"""What the user defines: one model and its data. Nothing here knows of a batch axis."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxml._core.contract import raise_invalid
from jaxml._core.types import PyTree

Point = Mapping[str, Any]
"""The settings of one model: traced hyperparameters, and functions by column."""


class Task(NamedTuple):
    """One model and its data.

    Args:
        init: (key, point) -> params.
        loss: (params, batch, point) -> the scalar to minimize. If it also names `key`,
            it gets a random key of the step by keyword, for dropout. If it names
            `state`, it gets the state and returns (scalar, new state).
        metrics: (params, data, point) -> scalars to report, by name.
        train: A tree of arrays, examples first; batches are drawn from it. A plan needs
            only their `jax.ShapeDtypeStruct`, and a run the arrays.
        valid: A tree like `train`, for the metrics that select models.
        outputs: (params, point) -> arrays to record after training, by name.
        state: (key, point) -> what changes without a gradient, such as the running
            statistics of batch normalization; `metrics` and `outputs` get it by keyword
            if they name `state`.
        sequential: Whether a CPU computes the models of a group one after another, and
            not side by side: faster for models that alone fill the cache of a core.
    """

    init: Callable[[Array, Point], PyTree]
    loss: Callable[..., Any]
    metrics: Callable[..., dict[str, Array]]
    train: PyTree
    valid: PyTree
    outputs: Callable[..., dict[str, Array]] | None = None
    state: Callable[[Array, Point], PyTree] | None = None
    sequential: bool = False


def call_with(function: Callable[..., Any], *arguments: Any, **optional: Any) -> Any:
    """Calls a function with those of the optional arguments that it names."""
    signature = inspect.signature(function)
    free = signature.parameters.keys() - signature.bind_partial(*arguments).arguments
    named = {name: value for name, value in optional.items() if name in free}
    return function(*arguments, **named)


def check_scalars(function: str, values: Any) -> Any:
    """The values that a function of the task returned, if they are scalars by name."""
    if not isinstance(values, Mapping):
        raise_invalid(TypeError, function, "return scalars by name", values)
    for name, value in values.items():
        if jax.tree.structure(value) != jax.tree.structure(0) or jnp.shape(value):
            what = "a scalar" if len(values) == 1 else f"a scalar as {name!r}"
            raise_invalid(TypeError, function, f"return {what}", value)
    return values


def check_task(task: Task) -> None:
    """Raises unless the task consists of functions, and of examples."""
    for name in ("init", "loss", "metrics"):
        function = getattr(task, name)
        if not callable(function):
            raise_invalid(TypeError, f"task.{name}", "be a function", function)
    for name in ("train", "valid"):
        _check_examples(f"task.{name}", getattr(task, name))


def _check_examples(name: str, data: PyTree) -> None:
    """Raises unless the leaves are arrays with one length along their first axes."""
    first = ""
    lengths = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(data):
        leaf_name = f"{name}{jax.tree_util.keystr(path)}"
        dtype = getattr(leaf, "dtype", np.dtype(object))
        if not np.can_cast(dtype, complex) or not jnp.ndim(leaf):
            requirement = "be an array of numbers or booleans, examples first"
            raise_invalid(TypeError, leaf_name, requirement, leaf)
        first = first or leaf_name
        lengths[leaf_name] = len(leaf)
        if len(leaf) != lengths[first]:
            requirement = f"have {lengths[first]} examples, as {first}"
            raise_invalid(TypeError, leaf_name, requirement, leaf)

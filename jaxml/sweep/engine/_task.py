"""What the user defines: one model and its data. Nothing here knows of a batch axis."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jax import Array

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
        train: A tree of arrays, examples first; batches are drawn from it.
        valid: A tree like `train`, for the metrics that select models.
        outputs: (params, point) -> arrays to record after training, by name.
        state: (key, point) -> what changes without a gradient, such as the running
            statistics of batch normalization; `metrics` and `outputs` get it by keyword
            if they name `state`.
    """

    init: Callable[[Array, Point], PyTree]
    loss: Callable[..., Any]
    metrics: Callable[..., dict[str, Array]]
    train: PyTree
    valid: PyTree
    outputs: Callable[..., dict[str, Array]] | None = None
    state: Callable[[Array, Point], PyTree] | None = None


def call_with(function: Callable[..., Any], *arguments: Any, **optional: Any) -> Any:
    """Calls a function with those of the optional arguments that it names."""
    signature = inspect.signature(function)
    free = signature.parameters.keys() - signature.bind_partial(*arguments).arguments
    named = {name: value for name, value in optional.items() if name in free}
    return function(*arguments, **named)

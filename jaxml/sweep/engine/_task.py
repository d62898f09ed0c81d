"""What the user defines: one model and its data. Nothing here knows of a batch axis."""

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
        loss: (params, batch, point) -> the scalar to minimize.
        metrics: (params, data, point) -> scalars to report, by name.
        train: A tree of arrays, examples first; batches are drawn from it.
        valid: A tree like `train`, for the metrics that select models.
        outputs: (params, point) -> arrays to record after training, by name.
    """

    init: Callable[[Array, Point], PyTree]
    loss: Callable[[PyTree, PyTree, Point], Array]
    metrics: Callable[[PyTree, PyTree, Point], dict[str, Array]]
    train: PyTree
    valid: PyTree
    outputs: Callable[[PyTree, Point], dict[str, Array]] | None = None

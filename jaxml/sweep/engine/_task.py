"""What a user says of one model; nothing here has a batch of models in mind."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jax import Array

from jaxml._core.types import Tree

Point = Mapping[str, Any]
"""The settings of one model: traced numbers, and functions chosen by name."""


class Task(NamedTuple):
    """One model and its data.

    Args:
        init: (key, point) -> params.
        loss: (params, batch, point) -> the number that training makes small.
        metrics: (params, data, point) -> numbers to report, by name.
        train: A tree of arrays, examples first, of which batches are drawn.
        valid: A tree like it, for the metrics that choose between models.
        outputs: (params, point) -> arrays by name, to look at when training is over.
    """

    init: Callable[[Array, Point], Tree]
    loss: Callable[[Tree, Tree, Point], Array]
    metrics: Callable[[Tree, Tree, Point], dict[str, Array]]
    train: Tree
    valid: Tree
    outputs: Callable[[Tree, Point], dict[str, Array]] | None = None

"""Checks of points: columns of numbers, seeds, and names of functions."""

import difflib
import inspect
from collections.abc import Iterable, Mapping

import numpy as np

from jaxml._core.contract import InvalidArgumentError, raise_invalid
from jaxml.sweep._search_space import Points
from jaxml.sweep.engine._blocks import NamedFunctions
from jaxml.sweep.engine._task import Task


def as_columns(points: Points) -> Points:
    """The points as columns of arrays."""
    if not isinstance(points, Mapping):
        raise_invalid(TypeError, "points", "be columns by name", points)
    return {name: np.asarray(column) for name, column in points.items()}


def validate_columns(points: Points, known: Iterable[str]) -> None:
    """Raises unless the points have the known columns and no other."""
    known = list(known)
    for column in known:
        if column not in points:
            requirement = f"have a column {column!r}"
            raise_invalid(ValueError, "points", requirement, tuple(points))
    for column in points:
        if column not in known:
            requirement = f"have the columns of the plan alone, {', '.join(known)}"
            raise_invalid(ValueError, "points", requirement, column)


def check_state(task: Task) -> None:
    """Raises unless the task has a state if and only if its loss takes one."""
    parameter = inspect.signature(task.loss).parameters.get("state")
    if task.state and parameter is None:
        requirement = "take a state by keyword and return (loss, new state)"
        raise_invalid(TypeError, "task.loss", requirement, task.loss)
    if not task.state and parameter and parameter.default is parameter.empty:
        requirement = "be given, because task.loss takes a state"
        raise_invalid(TypeError, "task.state", requirement, task.state)


def encode_names(
    points: Points, functions: Mapping[str, NamedFunctions]
) -> dict[str, np.ndarray]:
    """The index of each name among the functions of its column."""
    for column in [*functions, "seed"]:
        if column not in points:
            requirement = f"have a column {column!r}"
            raise_invalid(ValueError, "points", requirement, tuple(points))
    if len({len(column) for column in points.values()}) != 1 or not len(points["seed"]):
        lengths = {name: len(column) for name, column in points.items()}
        described = ", ".join(f"{name}: {n}" for name, n in lengths.items())
        message = f"points must be equally long columns, got {{{described}}}."
        raise InvalidArgumentError(ValueError, message)
    branch_indices = {}
    for column, known in functions.items():
        names = list(known)
        for name in set(points[column].tolist()) - set(names):
            similar = difflib.get_close_matches(str(name), names, n=3, cutoff=0.0)
            requirement = f"name one of {', '.join(similar)}"
            raise_invalid(ValueError, f"points[{column!r}]", requirement, name)
        index = {name: i for i, name in enumerate(names)}
        branch_indices[column] = np.array([index[n] for n in points[column]], np.int32)
    for column, values in points.items():
        values = np.asarray(values)
        if column not in branch_indices and not np.can_cast(values.dtype, float):
            requirement = "be numbers, or a column of choices or selections"
            value = values[0].item()
            raise_invalid(ValueError, f"points[{column!r}]", requirement, value)
    seeds = np.asarray(points["seed"])
    for seed in (seeds.min(), seeds.max()):
        if seeds.dtype.kind not in "iu" or not 0 <= seed < 2**32:
            requirement = "be whole numbers in [0, 2³²)"
            raise_invalid(ValueError, "points['seed']", requirement, seed.item())
    return branch_indices

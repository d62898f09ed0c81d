"""The names of the axes of a row's arrays."""

import inspect
import typing
from collections.abc import Iterator

import numpy as np

from cases import Case

Names = list[list[str]]
"""The names of the axes of each array, as in the signature."""


def axis_names(case: Case, arrays: tuple[np.ndarray, ...]) -> Names:
    """`*batch` stands for batch0, batch1, ..."""
    parameters = inspect.signature(case.function).parameters.values()
    dimensions = [d for d in map(_dimensions, parameters) if d is not None]
    names = [list(_expand(d, np.ndim(a))) for d, a in zip(dimensions, arrays)]
    if [len(row) for row in names] == [np.ndim(array) for array in arrays]:
        return names
    # the signature of an adapter differs
    return [[f"axis{k - np.ndim(a)}" for k in range(np.ndim(a))] for a in arrays]


def _dimensions(parameter: inspect.Parameter) -> list[str] | None:
    members = [parameter.annotation, *typing.get_args(parameter.annotation)]
    return next((m.dim_str.split() for m in members if hasattr(m, "dim_str")), None)


def _expand(names: list[str], ndim: int) -> Iterator[str]:
    for name in names:
        if name.startswith("*"):
            yield from (f"{name[1:]}{k}" for k in range(ndim - len(names) + 1))
        else:
            yield name

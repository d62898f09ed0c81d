"""The arrays of a row of the table, long enough to be divided among eight devices."""

import inspect
import typing
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from cases import Case
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

DEVICES = 8
Names = list[list[str]]
"""The names of the axes of each array, as in the signature."""


def make_mesh(shape: tuple[int, ...], axis_type: AxisType = AxisType.Auto) -> Mesh:
    axes = ("data", "model")[: len(shape)]
    return jax.make_mesh(shape, axes, axis_types=(axis_type,) * len(shape))


def long_arrays(
    case: Case, samples: list[tuple[np.ndarray, ...]]
) -> tuple[list[Array], Names]:
    """Eight samples, concatenated along the first axis and repeated along the last."""
    names = axis_names(case, samples[0])
    first, last = names[0][0], names[0][-1]
    shapes = [np.shape(array) for array in samples[0]]
    size = {n: k for shape, row in zip(shapes, names) for k, n in zip(shape, row)}
    has_references = case.name.startswith("mining.") and names[-1][0] == "m"
    rows = {first} if has_references or ["n", "m"] in names else {first, "m"}
    repeated = {last, "classes"} | (set() if has_references else {"m"})
    repeats = {n: DEVICES if n in repeated - rows else 1 for n in size}

    def lengthen(i: int) -> Array:
        parts = [sample[i] for sample in samples]
        array = np.concatenate(parts) if names[i][0] in rows else parts[0]
        is_label = "classes" in size and jnp.issubdtype(array.dtype, jnp.integer)
        if is_label:  # labels of all classes
            array = array * (DEVICES - 1) % (DEVICES * size["classes"])
        return jnp.asarray(np.tile(array, [repeats[name] for name in names[i]]))

    return [lengthen(i) for i in range(len(names))], names


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


def specs_of(names: Names, **mesh_axes: str | None) -> tuple[PartitionSpec, ...]:
    """The sharding of each array, from the mesh axis of each axis so named.

    `first` and `last` are the first and the last axis of the first array.
    """
    first, last = mesh_axes.pop("first", None), mesh_axes.pop("last", None)
    by_name = {names[0][-1]: last, names[0][0]: first} | mesh_axes
    return tuple(PartitionSpec(*map(by_name.get, row)) for row in names)


def place(
    arrays: list[Array], specs: tuple[PartitionSpec, ...], mesh: Mesh
) -> list[Array]:
    """The arrays on the devices of a mesh."""
    return [
        jax.device_put(array, NamedSharding(mesh, spec))
        for array, spec in zip(arrays, specs, strict=True)
    ]

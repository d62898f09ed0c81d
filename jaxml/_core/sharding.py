"""Formulas on the mesh of `jax.set_mesh`.

On a mesh with explicit axes, the type of an array includes its sharding. A formula runs
with automatic axes, so that XLA chooses the shardings inside. The sharding of its
result follows from the names of the axes in the signature.

A formula of all pairs of rows runs as inside `jax.shard_map`, with the rows sharded
over the first mesh axis: XLA alone would sum the gradients of all devices in each step
of a loop over blocks of rows.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
from jax import Array
from jax.sharding import PartitionSpec

from jaxml._core.contract import Contract
from jaxml._core.types import AxisName

Formula = Callable[[dict[str, Any], AxisName | None], Any]
"""A function of the traced arguments, and of the mesh axes that shard its event."""

Spec = list[Any]
"""For each axis of an array, the mesh axes over which it is sharded."""


def on_mesh(
    contract: Contract,
    formula: Formula,
    arguments: dict[str, Any],
    axis_name: AxisName | None,
    axis: Any,
    shards_rows: bool,
) -> Any:
    """formula(arguments, axis_name), on the mesh that the compiler knows.

    Args:
        contract: The signature that names the axes of the arguments and the result.
        formula: The formula.
        arguments: The traced arguments by name.
        axis_name: The mesh axes of an enclosing `jax.shard_map` that shard the event.
        axis: The argument `axis` of the function, if it has one.
        shards_rows: Whether the formula is one of all pairs of rows.
    """

    def on_automatic_axes(arguments: dict[str, Any]) -> Any:
        if shards_rows and axis_name is None:
            return _on_shards_of_rows(contract, formula, arguments)
        return formula(arguments, axis_name)

    mesh = jax.sharding.get_abstract_mesh()
    if not mesh.explicit_axes:
        return on_automatic_axes(arguments)

    automatic: Any = jax.sharding.auto_axes(on_automatic_axes, axes=mesh.explicit_axes)
    result = jax.eval_shape(
        functools.partial(automatic, out_sharding=PartitionSpec()), arguments
    )

    def spec(array: Any) -> PartitionSpec:
        names = _result_spec(contract, arguments, axis, array.ndim)
        return _valid_spec(names, array.shape, mesh.shape)

    return automatic(arguments, out_sharding=jax.tree.map(spec, result))


def _on_shards_of_rows(
    contract: Contract, formula: Formula, arguments: dict[str, Any]
) -> Any:
    """The formula on each device's rows, if the first mesh axis can divide them."""
    mesh = jax.sharding.get_abstract_mesh()
    first, *_ = *mesh.axis_names, None
    names = [n for n, p in contract.parameters.items() if p.dimensions]
    rows = [len(arguments[n]) for n in names if arguments[n] is not None]
    # row i of one array belongs to row i of another, but for a memory bank
    is_aligned = len(set(rows)) == 1 or arguments.get("references") is not None
    is_sharded = (
        first in mesh.auto_axes
        and not mesh.manual_axes
        and mesh.shape[first] > 1
        and is_aligned
        and all(n and n % mesh.shape[first] == 0 for n in rows)
    )
    if not is_sharded:
        return formula(arguments, None)
    specs = {
        n: PartitionSpec(first) if n in names else PartitionSpec() for n in arguments
    }
    return jax.shard_map(
        lambda arguments: formula(arguments, first),
        in_specs=(specs,),
        out_specs=PartitionSpec(first),
        axis_names={first},
    )(arguments)


def with_automatic_axes(
    function: Callable[..., Any], *arguments: Any, out_specs: Any
) -> Any:
    """function(*arguments), on a mesh with explicit axes too.

    The results there are sharded as `out_specs` says.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if not mesh.explicit_axes:
        return function(*arguments)
    automatic: Any = jax.sharding.auto_axes(function, axes=mesh.explicit_axes)
    return automatic(*arguments, out_sharding=out_specs)


def spec(x: Array) -> PartitionSpec:
    """The mesh axes over which x is sharded, as far as its type says."""
    return jax.typeof(x).sharding.spec


def _result_spec(
    contract: Contract, arguments: dict[str, Any], axis: Any, ndim: int
) -> Spec:
    """Each axis of the result is sharded as the first axis of an argument so named."""
    known: dict[str, Spec] = {}
    event_spec: Spec = []
    for name, value in arguments.items():
        names = contract.parameters[name].dimensions.split()
        if names and value is not None:
            spec = _spec(value)
            by_name = _by_name(names, spec)
            known = {n: s for n, s in by_name.items() if any(s)} | known
            event_spec = spec if names[0].startswith("*") else event_spec
    names = contract.result_dimensions.split()
    starred_ndim = ndim - sum(not name.startswith("*") for name in names)
    result: Spec = []
    for name in names:
        default = _batch_spec(event_spec, axis, starred_ndim)
        default = default if name.startswith("*") else [None]
        result += known.get(name, default)
    return result


def _spec(x: Array) -> Spec:
    spec = jax.typeof(x).sharding.spec
    return [*spec, *(None for _ in range(x.ndim - len(spec)))]


def _by_name(names: list[str], spec: Spec) -> dict[str, Spec]:
    """The sharding of each named axis; a name with a star stands for several."""
    result = {}
    remaining = spec
    for i, name in enumerate(names):
        num_after = len(names) - i - 1
        length = len(remaining) - num_after if name.startswith("*") else 1
        result[name], remaining = remaining[:length], remaining[length:]
    return result


def _batch_spec(spec: Spec, axis: Any, ndim: int) -> Spec:
    """The axes that a reduction over `axis` leaves: those before the first of them."""
    if ndim == len(spec):  # nothing is reduced
        return spec
    axes = (axis,) if isinstance(axis, int) else axis or ()
    first = min((a % len(spec) for a in axes), default=0)
    return [*spec[:first], *(None for _ in range(ndim))][:ndim]


def _valid_spec(spec: Spec, shape: tuple[int, ...], mesh_shape: Any) -> PartitionSpec:
    """The spec, with each mesh axis at most once, and only where it divides an axis."""
    used: set[str] = set()
    result = []
    for entry, length in zip(spec, shape, strict=True):
        names = entry if isinstance(entry, tuple) else (entry,) if entry else ()
        size = math.prod(mesh_shape[name] for name in names)
        keep = names and not used & set(names) and length % size == 0
        result.append(entry if keep else None)
        used |= set(names) if keep else set()
    return PartitionSpec(*result)

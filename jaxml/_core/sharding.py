"""Meshes with explicit axes, on which the type of an array includes its sharding.

A formula runs with automatic axes, so that XLA chooses the shardings inside. The
sharding of its result follows from the names of the axes in the signature.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
from jax import Array
from jax.sharding import PartitionSpec

from jaxml._core.contract import Contract

Spec = list[Any]
"""For each axis of an array, the mesh axes over which it is sharded."""


def on_automatic_axes(
    contract: Contract,
    formula: Callable[[dict[str, Any]], Any],
    arguments: dict[str, Any],
    axis: Any,
) -> Any:
    """formula(arguments), on a mesh with explicit axes too.

    Args:
        contract: The signature that names the axes of the arguments and the result.
        formula: A function of the traced arguments.
        arguments: The traced arguments by name.
        axis: The argument `axis` of the function, if it has one.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if not mesh.explicit_axes:
        return formula(arguments)

    automatic: Any = jax.sharding.auto_axes(formula, axes=mesh.explicit_axes)
    result = jax.eval_shape(
        functools.partial(automatic, out_sharding=PartitionSpec()), arguments
    )
    spec = _result_spec(contract, arguments, axis, result.ndim)
    spec = _valid_spec(spec, result.shape, mesh.shape)
    return automatic(arguments, out_sharding=spec)


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

"""Communication inside `jax.shard_map`, over the mesh axes that `axis_name` names.

Every function is the identity, or its local form, if `axis_name` is None.

JAX distinguishes values that vary over a mesh axis from replicated ones. A sum over the
axis is replicated, and its derivative is not summed again. So the gradient of a mean
over all devices has no factor of their number.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import PartitionSpec

from jaxml._core.contract import raise_invalid
from jaxml._core.types import AxisName, PyTree, compute_dtype


def vary_together(arrays: PyTree, axis_name: AxisName | None = None) -> PyTree:
    """The arrays, all of them varying over each mesh axis over which one of them does.

    JAX refuses a loop or a derivative rule that turns a replicated value into a varying
    one. The gradient of a replicated argument is the sum over the devices. The axes of
    `axis_name` are left out: what is replicated over them may be part of the result.
    """
    leaves, treedef = jax.tree.flatten(arrays)
    all_axes = frozenset().union(*map(varying_axes, leaves))
    all_axes -= {axis_name} if isinstance(axis_name, str) else {*(axis_name or ())}

    def vary(leaf: Any) -> Any:
        missing = tuple(all_axes - varying_axes(leaf))
        return lax.pcast(leaf, missing, to="varying") if missing else leaf

    return treedef.unflatten(map(vary, leaves))


def vary(x: Array, axis_name: AxisName | None) -> Array:
    """x, varying over the mesh axes: gradients are those of each device alone."""
    axes = {axis_name} if isinstance(axis_name, str) else {*(axis_name or ())}
    missing = tuple(axes - varying_axes(x))
    return lax.pcast(x, missing, to="varying") if missing else x


def varying_axes(leaf: Any) -> frozenset:
    """The mesh axes over which an array varies inside `jax.shard_map`."""
    manual = getattr(jax.typeof(leaf), "manual_axis_type", None)
    return manual.varying if manual else frozenset()


def check_bound(axis_name: AxisName | None) -> None:
    """Raises a ValueError for a mesh axis that no `jax.shard_map` binds."""
    try:
        num_shards(axis_name)
    except NameError:
        requirement = "name mesh axes of an enclosing jax.shard_map"
        raise_invalid(ValueError, "axis_name", requirement, axis_name)


def num_shards(axis_name: AxisName | None) -> int:
    """The number of devices over which the axis is sharded."""
    return 1 if axis_name is None else lax.axis_size(axis_name)


def first_index(length: int, axis_name: AxisName | None) -> Array | int:
    """The global index of the first of this device's `length` entries."""
    return 0 if axis_name is None else length * lax.axis_index(axis_name)


def sum_shards(x: PyTree, axis_name: AxisName | None) -> PyTree:
    """The sum over the devices, of an array or of a tree of arrays."""
    return x if axis_name is None else lax.psum(x, axis_name)


def max_shards(x: Array, axis_name: AxisName | None) -> Array:
    """The maximum over the devices, which carries no derivative."""
    return x if axis_name is None else lax.pmax(lax.stop_gradient(x), axis_name)


def any_shard(mask: Array, axis_name: AxisName | None) -> Array:
    """Whether the mask is True on any device."""
    return (
        mask if axis_name is None else sum_shards(mask.astype(jnp.int32), axis_name) > 0
    )


def local_rows(x: Array, axis_name: AxisName | None) -> Array:
    """This device's part of the rows of all devices."""
    if axis_name is None:
        return x
    length = len(x) // num_shards(axis_name)
    return lax.dynamic_slice_in_dim(x, first_index(length, axis_name), length)


def gather_rows(x: Array, axis_name: AxisName | None) -> Array:
    """The rows of all devices.

    16-bit rows travel as they are and arrive in float32, in which their cotangents are
    summed. Without `axis_name`, the compiler gathers them, once, if it knows of a mesh.
    """
    if axis_name is not None:
        return _gather_rows(x, axis_name)
    return (
        lax.with_sharding_constraint(x, PartitionSpec()) if num_row_shards() > 1 else x
    )


def num_row_shards() -> int:
    """Over how many devices the compiler divides rows, on the mesh of `jax.set_mesh`.

    They are taken to be sharded over the first axis. It is 1 without a mesh.
    """
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.axis_sizes[0] if mesh.auto_axes[:1] == mesh.axis_names[:1] != () else 1


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _gather_rows(x: Array, axis_name: AxisName) -> Array:
    gathered = lax.all_gather(x, axis_name, tiled=True)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return gathered
    return gathered.astype(compute_dtype(x.dtype))


@_gather_rows.defjvp
def _gather_rows_jvp(axis_name: AxisName, primals: tuple, tangents: tuple) -> tuple:
    (x,), (x_dot,) = primals, tangents
    y = _gather_rows(x, axis_name)
    return y, lax.all_gather(x_dot.astype(y.dtype), axis_name, tiled=True)

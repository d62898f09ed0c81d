"""Communication inside `jax.shard_map`, over the mesh axes that `axis_name` names.

Every function is the identity, or its local form, if `axis_name` is None.

JAX distinguishes values that vary over a mesh axis from replicated ones. A sum over the
axis is replicated, and its derivative is not summed again. So the gradient of a mean
over all devices has no factor of their number.
"""

import functools
from collections.abc import Callable
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
    all_axes -= _mesh_axes(axis_name)

    def vary(leaf: Any) -> Any:
        missing = tuple(all_axes - varying_axes(leaf))
        return lax.pcast(leaf, missing, to="varying") if missing else leaf

    return treedef.unflatten(map(vary, leaves))


def vary(x: Array, axis_name: AxisName | None) -> Array:
    """x, varying over the mesh axes: gradients are those of each device alone."""
    missing = tuple(_mesh_axes(axis_name) - varying_axes(x))
    return lax.pcast(x, missing, to="varying") if missing else x


def _mesh_axes(axis_name: AxisName | None) -> set[str]:
    return {axis_name} if isinstance(axis_name, str) else {*(axis_name or ())}


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


def stack_shards(x: PyTree, axis_name: AxisName) -> PyTree:
    """The arrays of all devices along a new first axis; a sum, so replicated."""
    size, index = num_shards(axis_name), lax.axis_index(axis_name)

    def place(leaf: Array) -> Array:
        return jnp.zeros((size, *leaf.shape), leaf.dtype).at[index].set(leaf)

    return sum_shards(jax.tree.map(place, x), axis_name)


def mean_shards(x: Array, axis_name: AxisName | None) -> Array:
    """The mean over the devices: marks values that are equal on all as replicated."""
    return x if axis_name is None else lax.pmean(x, axis_name)


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
    return replicate(x) if axis_name is None else _gather_rows(x, axis_name)


def replicate(x: Array) -> Array:
    """The whole array on each device, if the compiler knows of a mesh."""
    if num_row_shards() == 1:
        return x
    return lax.with_sharding_constraint(x, PartitionSpec())


def num_row_shards() -> int:
    """Over how many devices the compiler divides rows, on the mesh of `jax.set_mesh`.

    They are taken to be sharded over the first axis. It is 1 without a mesh.
    """
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.axis_sizes[0] if mesh.auto_axes[:1] == mesh.axis_names[:1] != () else 1


def may_shard_classes() -> bool:
    """Whether the mesh of `jax.set_mesh` has another axis than the first to divide."""
    mesh = jax.sharding.get_abstract_mesh()
    return any(mesh.shape[axis] > 1 for axis in mesh.auto_axes[1:])


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


def check_ring(ring: bool, axis_name: AxisName | None) -> None:
    """Raises a ValueError for a ring of no mesh axes."""
    if ring and axis_name is None:
        raise_invalid(ValueError, "ring", "be False without axis_name", ring)


def fold_ring(
    step: Callable[[PyTree, PyTree, PyTree, Array | int], tuple[PyTree, PyTree]],
    row_totals: PyTree,
    column_totals: PyTree,
    shard: PyTree,
    axis_name: AxisName | None,
) -> tuple[PyTree, PyTree]:
    """The totals over all pairs of this device's rows with the rows of all devices.

    Every device passes a shard on while it uses it, so that it holds two at a time. The
    derivative would save all of them: it takes a rule that folds the ring again.

    Args:
        step: (row totals, column totals, shard, index of the shard's first row) ->
            both totals with the pairs of the shard added.
        row_totals: The totals of this device's rows, which stay.
        column_totals: The totals of the shard's rows, which travel with them and are
            back on their own device in the end.
        shard: This device's rows, an array or a tree of them. They come first.
        axis_name: The mesh axes that form the ring.
    """
    if axis_name is None:
        return step(row_totals, column_totals, shard, 0)
    size, length = num_shards(axis_name), len(jax.tree.leaves(shard)[0])
    to_next = [(i, (i + 1) % size) for i in range(size)]

    def pass_on(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda x: lax.ppermute(x, axis_name, to_next), tree)

    def rotate(state: tuple, count: Array) -> tuple[tuple, None]:
        row_totals, column_totals, shard = state
        next_shard = pass_on(shard)
        first = length * ((lax.axis_index(axis_name) - count) % size)
        row_totals, column_totals = step(row_totals, column_totals, shard, first)
        return (row_totals, pass_on(column_totals), next_shard), None

    init = vary_together((row_totals, column_totals, shard))
    counts = jnp.arange(size, dtype=jnp.int32)
    (row_totals, column_totals, _), _ = lax.scan(rotate, init, counts)
    return row_totals, column_totals

"""Exchange between the processes of a sweep, whose numbers of devices may differ."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxml._core.types import PyTree


def allgather(tree: PyTree) -> list[PyTree]:
    """The arrays of every process, which have the same shapes and dtypes in all.

    They travel as one array of bytes, in which no dtype is rounded, between the first
    devices of the processes.
    """
    leaves, structure = jax.tree.flatten(jax.tree.map(_contiguous, tree))
    if jax.process_count() == 1:
        return [structure.unflatten(leaves)]
    first_devices: dict[int, Any] = {}
    for device in jax.devices():
        first_devices.setdefault(device.process_index, device)
    mesh = Mesh([first_devices[i] for i in sorted(first_devices)], ("process",))
    local = np.concatenate(
        [np.atleast_1d(x).view(np.uint8).reshape(-1) for x in leaves]
    )
    rows = NamedSharding(mesh, P("process"))
    of_all = jax.make_array_from_process_local_data(rows, local[None])
    gather = jax.jit(_identity, out_shardings=NamedSharding(mesh, P()))
    with jax.set_mesh(mesh):
        by_process = np.asarray(gather(of_all).addressable_data(0))
    ends = np.cumsum([x.nbytes for x in leaves])[:-1]

    def unpack(row: np.ndarray) -> PyTree:
        parts = zip(np.split(row, ends), leaves)
        arrays = [part.view(x.dtype).reshape(x.shape) for part, x in parts]
        return structure.unflatten(arrays)

    return list(map(unpack, by_process))


def _identity(x: jax.Array) -> jax.Array:  # one function, so that it compiles once
    return x


def _contiguous(x: Any) -> np.ndarray:
    return np.asarray(x, order="C")

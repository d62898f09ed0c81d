"""What a function needs to know of the mesh that it runs on, inside `jax.shard_map`."""

import jax
from jax import lax

from jaxml._core.types import PyTree


def vary_together(arrays: PyTree) -> PyTree:
    """The arrays, all of them varying over each mesh axis over which one of them does.

    JAX distinguishes values that vary over a mesh axis from replicated ones, and
    refuses a loop or a derivative rule that turns one into the other. The gradient of
    what was replicated is the sum over the mesh.
    """
    leaves, treedef = jax.tree.flatten(arrays)
    varying = [_varying_axes(leaf) for leaf in leaves]
    axes = frozenset().union(*varying)
    return treedef.unflatten(
        lax.pcast(leaf, tuple(axes - own), to="varying") if axes - own else leaf
        for leaf, own in zip(leaves, varying)
    )


def _varying_axes(leaf: object) -> frozenset:
    manual = getattr(jax.typeof(leaf), "manual_axis_type", None)
    return manual.varying if manual else frozenset()

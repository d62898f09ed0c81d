"""The types of values inside `jax.shard_map`."""

from typing import Any

import jax
from jax import lax

from jaxml._core.types import PyTree


def vary_together(arrays: PyTree) -> PyTree:
    """The arrays, all of them varying over each mesh axis over which one of them does.

    JAX distinguishes values that vary over a mesh axis from replicated values, and
    refuses a loop or a derivative rule that turns one into the other. The gradient of
    a replicated argument is the sum over the devices.
    """
    leaves, treedef = jax.tree.flatten(arrays)
    all_axes = frozenset().union(*map(_varying_axes, leaves))

    def vary(leaf: Any) -> Any:
        missing = tuple(all_axes - _varying_axes(leaf))
        return lax.pcast(leaf, missing, to="varying") if missing else leaf

    return treedef.unflatten(map(vary, leaves))


def _varying_axes(leaf: Any) -> frozenset:
    """The mesh axes over which an array varies inside `jax.shard_map`."""
    manual = getattr(jax.typeof(leaf), "manual_axis_type", None)
    return manual.varying if manual else frozenset()

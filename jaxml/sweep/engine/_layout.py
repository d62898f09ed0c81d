"""Assigns models to blocks [optimizers groups lanes].

A group is one vmap, with one model in each lane. Its models have equal group keys: they
share their optimizer and, unless blocks are wide, every function of a choice.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxml._core.types import PyTree

MIN_WIDTH = 16  # a multiple of every SIMD width: a lane does not change a model's bits
GROUPS_PER_BLOCK = 8  # over all optimizers: enough to amortize the call of a program
CACHE_BYTES = 3 * 2**18  # of one core; the states of a group fit in it
WIDE_MODELS = 2**13  # of a wide block: their kernels take longer than to launch them
WIDE_BYTES = 2**33  # of all devices, unless the user says how many
WIDE_EVALUATION_BYTES = 2**28  # of the arrays as large as the data

BranchIndices = Mapping[str, np.ndarray]


def has_wide_blocks(devices: Sequence[Any]) -> bool:
    """Whether blocks are wide: on accelerators."""
    return devices[0].platform != "cpu"


def vmap_width(bytes_per_model: int, group_keys: np.ndarray) -> int:
    """Number of lanes: as many as fit in the cache, or as one group key has models."""
    largest = np.unique(group_keys, return_counts=True)[1].max()
    width = MIN_WIDTH
    while width < largest and 2 * width * bytes_per_model <= CACHE_BYTES:
        width *= 2
    return width


def wide_width(group_keys: np.ndarray, num_devices: int, max_width: int) -> int:
    """Number of lanes: the models of a group key, in equal parts of at most so many."""
    largest = np.unique(group_keys, return_counts=True)[1].max()
    num_models = -(-largest // num_devices)
    num_parts = -(-num_models // max_width)
    return int(MIN_WIDTH * -(-num_models // (MIN_WIDTH * num_parts)))


def groups_per_block(
    max_groups: int, group_keys: np.ndarray, width: int, num_devices: int
) -> int:
    """Number of groups of one optimizer in a block, so small that no device is idle."""
    counts = np.unique(group_keys, return_counts=True)[1]
    num_groups = sum(-(-count // width) for count in counts)
    return min(max(1, max_groups), -(-num_groups // num_devices))


def models_evaluated_at_once(data: PyTree, is_wide: bool) -> int:
    """Number of models, of a group or of a wide block, that are evaluated at once."""
    if not is_wide:
        return MIN_WIDTH
    num_bytes = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(data))
    return max(MIN_WIDTH, WIDE_EVALUATION_BYTES // max(1, num_bytes))


def assign_blocks(
    optimizer_indices: np.ndarray,
    group_keys: np.ndarray,
    shape: tuple[int, int, int],
    num_devices: int,
) -> np.ndarray:
    """The model in each lane, [blocks optimizers groups lanes]; -1 is an empty lane.

    The number of blocks is a multiple of the number of devices, and the groups are
    dealt to the blocks in turn.
    """
    num_optimizers, depth, width = shape
    groups_by_optimizer = [
        _split_into_groups(optimizer_indices == o, group_keys, width)
        for o in range(num_optimizers)
    ]
    num_blocks = -(-max(map(len, groups_by_optimizer)) // depth)
    num_blocks = num_devices * -(-num_blocks // num_devices)
    blocks = np.full((num_blocks, *shape), -1)
    offset = 0
    for o, groups in enumerate(groups_by_optimizer):
        for i, group in enumerate(groups):
            block = (offset + i) % num_blocks
            blocks[block, o, i // num_blocks, : len(group)] = group
        offset += len(groups)
    return blocks


def encode_group_keys(
    branch_indices: BranchIndices, columns: Sequence[str]
) -> np.ndarray:
    """One integer for each combination of the values of these columns."""
    table = np.stack([branch_indices[name] for name in columns], axis=1)
    return np.unique(table, axis=0, return_inverse=True)[1].reshape(-1)


def _split_into_groups(
    mask: np.ndarray, group_keys: np.ndarray, width: int
) -> list[np.ndarray]:
    """The models in the mask, cut into groups of one key and at most `width` models."""
    groups = []
    for key in np.unique(group_keys[mask]):
        model_ids = np.flatnonzero(mask & (group_keys == key))
        groups += [model_ids[i : i + width] for i in range(0, len(model_ids), width)]
    return groups

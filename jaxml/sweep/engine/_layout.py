"""Where a member is trained: groups of lanes, which share all branches, in blocks."""

from collections.abc import Mapping, Sequence

import numpy as np

LANES = 16  # whole vectors: the bits of a member do not depend on its place
GROUPS = 8  # of a block at least, so that a call of a program is worth its while
CACHE = 3 * 2**18  # bytes that a core keeps near; the members of a group fit in

Codes = Mapping[str, np.ndarray]


def lanes(bytes_of_member: int, keys: np.ndarray) -> int:
    """How many members a group has: as many as fit in the cache, or as there are."""
    most = np.unique(keys, return_counts=True)[1].max()
    width = LANES
    while width < most and 2 * width * bytes_of_member <= CACHE:
        width *= 2
    return width


def groups(optimizers: int, keys: np.ndarray, width: int, devices: int) -> int:
    """How many groups of one optimizer a block has: enough, and no idle device."""
    total = sum(-(-count // width) for count in np.unique(keys, return_counts=True)[1])
    return min(max(1, GROUPS // optimizers), -(-total // devices))


def arrange(
    optimizers: np.ndarray,
    keys: np.ndarray,
    shape: tuple[int, int, int],
    devices: int,
) -> np.ndarray:
    """The members of blocks, [blocks optimizers groups lanes]; -1 is an empty lane.

    Blocks hold as many groups as one another, and there are as many for each device.
    """
    count, depth, width = shape
    queues = [_groups(optimizers == o, keys, width) for o in range(count)]
    needed = -(-max(map(len, queues)) // depth)
    blocks = devices * -(-needed // devices)
    members = np.full((blocks, *shape), -1)
    first = 0
    for o, queue in enumerate(queues):
        for i, group in enumerate(queue):
            members[(first + i) % blocks, o, i // blocks, : len(group)] = group
        first += len(queue)
    return members


def key(codes: Codes, columns: Sequence[str]) -> np.ndarray:
    """One integer for each combination of the values of these columns."""
    table = np.stack([codes[name] for name in columns], axis=1)
    return np.unique(table, axis=0, return_inverse=True)[1].reshape(-1)


def _groups(own: np.ndarray, keys: np.ndarray, width: int) -> list[np.ndarray]:
    groups = []
    for key in np.unique(keys[own]):
        members = np.flatnonzero(own & (keys == key))
        groups += [members[i : i + width] for i in range(0, len(members), width)]
    return groups

"""Search spaces as data: a dict of equally long arrays, one entry for each model."""

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np


def grid(**axes: Iterable[Any]) -> dict[str, np.ndarray]:
    """Every combination of the values of all axes.

    Args:
        **axes: The values of each setting: names, numbers, or the integers `seed`.

    Returns:
        A column for each axis; the last one varies fastest.

    Example:
        >>> grid(optimizer=["sgd", "adam"], learning_rate=[0.1, 0.01])["optimizer"]
        array(['sgd', 'sgd', 'adam', 'adam'], dtype='<U4')
    """
    rows = list(itertools.product(*axes.values()))
    return {name: np.array(column) for name, column in zip(axes, zip(*rows))}

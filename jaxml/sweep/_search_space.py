"""Search spaces as data: a dict of equally long arrays, one entry for each model."""

import itertools
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxml._core.checks import check_positive, refuse

Points = Mapping[str, np.ndarray]


class Interval(NamedTuple):
    """Numbers between two, to draw from; evenly, or evenly in their logarithms."""

    low: float
    high: float
    logarithmic: bool

    def at(self, share: Any) -> np.ndarray:
        """The number at a share in [0, 1] of the way from low to high."""
        if self.logarithmic:
            return self.low * (self.high / self.low) ** np.asarray(share)
        return self.low + (self.high - self.low) * np.asarray(share)


def linear(low: float, high: float, count: int | None = None) -> Any:
    """Numbers at equal distances for a grid; without a count, what `random` draws from.

    Args:
        low: The first.
        high: The last.
        count: How many.

    Example:
        >>> linear(0.0, 1.0, 3)
        array([0. , 0.5, 1. ])
    """
    return _spread(Interval(low, high, logarithmic=False), count)


def log(low: float, high: float, count: int | None = None) -> Any:
    """Numbers in equal ratios for a grid; without a count, what `random` draws from.

    Args:
        low: The first, above 0.
        high: The last, above 0.
        count: How many.

    Raises:
        ValueError: If a number is not above 0.

    Example:
        >>> log(0.01, 1.0, 3)
        array([0.01, 0.1 , 1.  ])
    """
    check_positive("log", low=low, high=high)
    return _spread(Interval(low, high, logarithmic=True), count)


def choice(*values: Any) -> tuple[Any, ...]:
    """Values to take all of, in a grid, or to draw from, in `random`.

    Args:
        *values: Names or numbers.

    Example:
        >>> choice("sgd", "adam")
        ('sgd', 'adam')
    """
    return values


def grid(**axes: Iterable[Any]) -> dict[str, np.ndarray]:
    """Every combination of the values of all axes.

    Args:
        **axes: The values of each setting: names, numbers, or the integers `seed`.

    Returns:
        A column for each axis; the last one varies fastest.

    Raises:
        TypeError: If an axis is one value, or an interval, which has no number of them.
        ValueError: If an axis has no value.

    Example:
        >>> grid(optimizer=["sgd", "adam"], learning_rate=[0.1, 0.01])["optimizer"]
        array(['sgd', 'sgd', 'adam', 'adam'], dtype='<U4')
    """
    for name, values in axes.items():
        if isinstance(values, Interval) or not _are_values(values):
            rule = "be several values, as [0.1, 0.2] or log(low, high, count)"
            refuse(TypeError, "grid", name, rule, values)
    lists = {name: [*values] for name, values in axes.items()}
    for name, values in lists.items():
        if not values:
            refuse(ValueError, "grid", name, "have at least one value", ())
    rows = list(itertools.product(*lists.values()))
    return {name: np.array(column) for name, column in zip(axes, zip(*rows))}


def random(count: int, seed: int, /, **axes: Any) -> dict[str, np.ndarray]:
    """Settings drawn at random, each axis on its own.

    Args:
        count: How many.
        seed: The same seed draws the same settings.
        **axes: An interval of `linear` or `log`, or values of which each is as likely.

    Raises:
        TypeError: If an axis is one value.

    Example:
        >>> space = random(3, 0, optimizer=choice("sgd", "adam"), rate=log(1e-3, 1.0))
        >>> bool((space["rate"] > 1e-3).all())
        True
    """
    for name, axis in axes.items():
        if not _are_values(axis):
            rule = "be several values, as [0.1, 0.2], or an interval, as log(low, high)"
            refuse(TypeError, "random", name, rule, axis)
    rng = np.random.default_rng(seed)
    return {
        name: axis.at(rng.random(count))
        if isinstance(axis, Interval)
        else np.asarray(axis)[rng.integers(len(axis), size=count)]
        for name, axis in axes.items()
    }


def product(*spaces: Points) -> dict[str, np.ndarray]:
    """Every point of one space with every point of the others.

    Args:
        *spaces: Columns by name; no two have one in common.

    Raises:
        ValueError: If two have one in common.

    Example:
        >>> drawn = random(2, 0, rate=log(1e-3, 1.0))
        >>> len(product(drawn, grid(seed=range(5)))["rate"])
        10
    """
    names = [name for space in spaces for name in space]
    for name in names:
        if names.count(name) > 1:
            refuse(ValueError, "product", "spaces", "have no column in common", name)
    lengths = [range(len(next(iter(space.values())))) for space in spaces]
    rows = np.array(list(itertools.product(*lengths))).T
    return {
        name: np.asarray(column)[row]
        for row, space in zip(rows, spaces)
        for name, column in space.items()
    }


def concat(*spaces: Points) -> dict[str, np.ndarray]:
    """The points of all spaces; a number that a space does not have is NaN there.

    Args:
        *spaces: Columns by name.

    Raises:
        ValueError: If a space lacks a column of names: there is no NaN among them.

    Example:
        >>> tuned = grid(optimizer=["adam"], b1=[0.9, 0.95])
        >>> concat(tuned, grid(optimizer=["sgd"]))["b1"]
        array([0.9 , 0.95,  nan])
    """
    names = dict.fromkeys(itertools.chain(*spaces))
    for name in names:
        of_name = [np.asarray(space[name]) for space in spaces if name in space]
        if len(of_name) < len(spaces) and any(c.dtype.kind in "US" for c in of_name):
            rule = "be in all spaces, for it is no number"
            refuse(ValueError, "concat", name, rule, of_name[0][0].item())
    return {
        name: np.concatenate(
            [
                np.asarray(space[name])
                if name in space
                else np.full(len(next(iter(space.values()))), np.nan)
                for space in spaces
            ]
        )
        for name in names
    }


def _spread(interval: Interval, count: int | None) -> Any:
    return interval if count is None else interval.at(np.linspace(0, 1, count))


def _are_values(axis: Any) -> bool:
    return isinstance(axis, Iterable) and not isinstance(axis, str)

"""Search spaces as data: a dict of columns of equal length, one entry per model."""

import itertools
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import qmc

from jaxml._core.contract import raise_invalid
from jaxml._core.public import checked
from jaxml._core.types import Count, Positive, Scalar

Points = Mapping[str, np.ndarray]


class Interval(NamedTuple):
    """An interval to sample from, uniformly or log-uniformly."""

    low: float
    high: float
    log_scale: bool

    def interpolate(self, fraction: Any) -> np.ndarray:
        """The value at a fraction in [0, 1] of the way from low to high."""
        if self.log_scale:
            return self.low * (self.high / self.low) ** np.asarray(fraction)
        return self.low + (self.high - self.low) * np.asarray(fraction)


@checked
def linear(low: Scalar, high: Scalar, count: Count | None = None) -> Any:
    """Evenly spaced values for `grid`; without a count, an interval for `random`.

    Args:
        low: The first value.
        high: The last value.
        count: Number of values.

    Example:
        >>> linear(0.0, 1.0, 3)
        array([0. , 0.5, 1. ])
    """
    return _space_evenly(Interval(float(low), float(high), log_scale=False), count)


@checked
def log(low: Positive, high: Positive, count: Count | None = None) -> Any:
    """Log-spaced values for `grid`; without a count, a log interval for `random`.

    Args:
        low: The first value, above 0.
        high: The last value, above 0.
        count: Number of values.

    Raises:
        ValueError: If `low` or `high` is not above 0.

    Example:
        >>> log(0.01, 1.0, 3)
        array([0.01, 0.1 , 1.  ])
    """
    return _space_evenly(Interval(float(low), float(high), log_scale=True), count)


@checked
def grid(**axes: Iterable[Any]) -> dict[str, np.ndarray]:
    """Every combination of the values of all axes.

    Args:
        **axes: The values of each setting: names, numbers, or integers for `seed`.

    Returns:
        A column for each axis; the last axis varies fastest.

    Raises:
        TypeError: If an axis is a single value, or an interval.
        ValueError: If an axis has no value.

    Example:
        >>> grid(optimizer=["sgd", "adam"], learning_rate=[0.1, 0.01])["optimizer"]
        array(['sgd', 'sgd', 'adam', 'adam'], dtype='<U4')
    """
    for name, values in axes.items():
        if isinstance(values, Interval) or not _has_values(values):
            requirement = "be several values, as [0.1, 0.2] or log(low, high, count)"
            raise_invalid(TypeError, name, requirement, values)
    lists = {name: [*values] for name, values in axes.items()}
    for name, values in lists.items():
        if not values:
            raise_invalid(ValueError, name, "have at least one value", ())
    rows = list(itertools.product(*lists.values()))
    return {name: np.array(column) for name, column in zip(axes, zip(*rows))}


@checked
def random(count: Count, seed: int, /, **axes: Any) -> dict[str, np.ndarray]:
    """Settings sampled by a scrambled Sobol sequence, more evenly than at random.

    Every setting is distributed uniformly over its axis, and they fill the space of all
    axes together; the first 2ᵏ settings fill it best. Fewer settings are the first of
    more, with one seed.

    Args:
        count: Number of settings.
        seed: Seed of the scrambling.
        **axes: An interval from `linear` or `log`, or equally likely values.

    Raises:
        TypeError: If an axis is a single value.

    Reference:
        Owen, Scrambling Sobol' and Niederreiter-Xing points, Journal of Complexity
        1998, https://doi.org/10.1006/jcom.1998.0487

    Example:
        >>> space = random(3, 0, optimizer=["sgd", "adam"], rate=log(1e-3, 1.0))
        >>> bool((space["rate"] > 1e-3).all())
        True
    """
    for name, axis in axes.items():
        if not _has_values(axis):
            requirement = (
                "be several values, as [0.1, 0.2], or an interval, as log(low, high)"
            )
            raise_invalid(TypeError, name, requirement, axis)
    if not axes:
        return {}
    sequence = qmc.Sobol(len(axes), rng=np.random.default_rng(seed))
    fractions = sequence.random_base2(int(np.ceil(np.log2(count))))[:count]
    return {
        name: axis.interpolate(fraction)
        if isinstance(axis, Interval)
        else np.asarray(axis)[(fraction * len(axis)).astype(int)]
        for (name, axis), fraction in zip(axes.items(), fractions.T)
    }


@checked
def product(*spaces: Points) -> dict[str, np.ndarray]:
    """Every combination of a point of each space.

    Args:
        *spaces: Columns by name; no two spaces share a name.

    Raises:
        ValueError: If two spaces share a name.

    Example:
        >>> rates = random(2, 0, rate=log(1e-3, 1.0))
        >>> len(product(rates, grid(seed=range(5)))["rate"])
        10
    """
    names = [name for space in spaces for name in space]
    for name in names:
        if names.count(name) > 1:
            raise_invalid(ValueError, "spaces", "have no column in common", name)
    ranges = [range(len(next(iter(space.values())))) for space in spaces]
    indices = np.array(list(itertools.product(*ranges))).T
    return {
        name: np.asarray(column)[index]
        for index, space in zip(indices, spaces)
        for name, column in space.items()
    }


@checked
def concat(*spaces: Points) -> dict[str, np.ndarray]:
    """The points of all spaces; a number that is missing from a space becomes NaN.

    Args:
        *spaces: Columns by name.

    Raises:
        ValueError: If a column of names is missing from a space.

    Example:
        >>> tuned = grid(optimizer=["adam"], b1=[0.9, 0.95])
        >>> concat(tuned, grid(optimizer=["sgd"]))["b1"]
        array([0.9 , 0.95,  nan])
    """
    names = dict.fromkeys(itertools.chain(*spaces))
    for name in names:
        columns = [np.asarray(space[name]) for space in spaces if name in space]
        if len(columns) < len(spaces) and any(c.dtype.kind in "US" for c in columns):
            requirement = "be in all spaces, for it is no number"
            raise_invalid(ValueError, name, requirement, columns[0][0].item())
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


def _space_evenly(interval: Interval, count: int | None) -> Any:
    if count is None:
        return interval
    return interval.interpolate(np.linspace(0, 1, count))


def _has_values(axis: Any) -> bool:
    return isinstance(axis, Iterable) and not isinstance(axis, str)

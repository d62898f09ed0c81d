"""Leaderboards: which settings came out best."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from jaxml._core.checks import refuse
from jaxml.sweep._record import Record


class Row(NamedTuple):
    """One setting: its points but for the seed, and a metric over the seeds."""

    settings: dict[str, Any]
    mean: float
    low: float
    high: float
    seeds: int
    diverged: int
    members: np.ndarray  # where its models stand in the record


def leaderboard(
    record: Record,
    metric: str,
    *,
    higher_is_better: bool = True,
    by: Sequence[str] = (),
) -> list[Row]:
    """The settings, best first: the mean of a metric over seeds, with a 95 % interval.

    The interval is Student's, mean ± t s/√n over the n seeds. A setting of which a
    model diverged stands behind all others, one of which a model was stopped behind
    those that ran to the end.

    Args:
        record: Of a run.
        metric: A column of `record.final`.
        higher_is_better: Whether a higher metric is better.
        by: Only the best setting of each combination of these columns; all by default.

    Example:
        >>> points = {"optimizer": np.array(["sgd", "adam"]), "seed": np.array([0, 0])}
        >>> points["learning_rate"] = np.array([0.1, 0.1])
        >>> final = {"valid_accuracy": np.array([0.9, 0.95])}
        >>> record = Record(points, np.array(["ok", "ok"]), final, np.array([1]), {})
        >>> [row.settings["optimizer"] for row in leaderboard(record, "valid_accuracy")]
        ['adam', 'sgd']
    """
    check_columns("leaderboard", record, metric=[metric], by=by)
    names, groups = settings(record)
    troubles = trouble(record)

    def place(row: Row) -> tuple[int, float]:
        mean = -row.mean if higher_is_better else row.mean
        return troubles[row.members].max(), np.inf if np.isnan(mean) else mean

    rows = [
        _row(record, dict(zip(names, setting)), np.array(members), metric)
        for setting, members in groups.items()
    ]
    rows.sort(key=place)
    return firsts(rows, by or names)


def firsts(rows: list[Row], by: Sequence[str]) -> list[Row]:
    """The first row of each combination of these columns."""
    first: dict[tuple, Row] = {}
    for row in rows:
        first.setdefault(tuple(row.settings[name] for name in by), row)
    return list(first.values())


def _row(record: Record, settings: dict, members: np.ndarray, metric: str) -> Row:
    diverged = record.status[members] == "diverged"
    values = record.final[metric][members].astype(float)
    values = values[~diverged & ~np.isnan(values)]
    n = len(values)
    mean = values.mean() if n else np.nan
    reach = np.nan
    if n > 1:
        reach = stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n)
    failed = int(diverged.sum())
    return Row(settings, mean, mean - reach, mean + reach, n, failed, members)


def settings(record: Record) -> tuple[list[str], dict[tuple, list[int]]]:
    """The columns of a setting, and the members of each that is not unfinished.

    A number that a model does not have, NaN in the points, is None.
    """
    names = [name for name in record.points if name != "seed"]
    columns = [
        [None if value != value else value for value in record.points[name].tolist()]
        for name in names
    ]
    groups: dict[tuple, list[int]] = {}
    for i in np.flatnonzero(record.status != "unfinished").tolist():
        groups.setdefault(tuple(column[i] for column in columns), []).append(i)
    return names, groups


def trouble(record: Record) -> np.ndarray:
    """How each model ended: 0 as it should, 1 stopped early, 2 diverged."""
    return np.where(record.status == "diverged", 2, record.status == "stopped")


def check_columns(
    function: str, record: Record, *, metric: Iterable[str] = (), by: Iterable[str] = ()
) -> None:
    """Refuses a record without a finished model, and columns that it does not have."""
    if np.all(record.status == "unfinished"):
        refuse(ValueError, function, "record", "have a finished model", "none")
    for argument, columns, names in (
        ("metric", record.final, metric),
        ("by", record.points, by),
    ):
        for name in names:
            if name not in columns:
                known = f"name one of {', '.join(columns)}"
                refuse(ValueError, function, argument, known, name)

"""What a record says: arrays in, tables out."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

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
    record: Record, metric: str, *, largest: bool = True, by: Sequence[str] = ()
) -> list[Row]:
    """The settings, best first: the mean of a metric over seeds, with a 95 % interval.

    The interval is Student's, mean ± t s/√n over the n seeds. A setting of which a
    model diverged stands behind all others.

    Args:
        record: Of a run.
        metric: A column of `record.final`.
        largest: Whether a larger metric is better.
        by: Only the best setting of each combination of these columns; all by default.

    Example:
        >>> points = {"optimizer": np.array(["sgd", "adam"]), "seed": np.array([0, 0])}
        >>> points["learning_rate"] = np.array([0.1, 0.1])
        >>> final = {"valid_accuracy": np.array([0.9, 0.95])}
        >>> record = Record(points, np.array(["ok", "ok"]), final, np.array([1]), {})
        >>> [row.settings["optimizer"] for row in leaderboard(record, "valid_accuracy")]
        ['adam', 'sgd']
    """
    names = [name for name in record.points if name != "seed"]
    finished = np.flatnonzero(record.status != "unfinished")
    groups: dict[tuple, list[int]] = {}
    for i in finished:
        setting = tuple(record.points[name][i].item() for name in names)
        groups.setdefault(setting, []).append(int(i))

    rows = [
        _row(record, dict(zip(names, setting)), np.array(members), metric)
        for setting, members in groups.items()
    ]
    rows.sort(key=lambda row: (row.diverged > 0, -row.mean if largest else row.mean))
    best: dict[tuple, Row] = {}
    for row in rows:
        best.setdefault(tuple(row.settings[name] for name in by or names), row)
    return list(best.values())


def _row(record: Record, settings: dict, members: np.ndarray, metric: str) -> Row:
    ok = members[record.status[members] == "ok"]
    values = record.final[metric][ok].astype(float)
    mean = values.mean() if len(ok) else np.nan
    if len(ok) > 1:
        reach = stats.t.ppf(0.975, len(ok) - 1) * values.std(ddof=1) / np.sqrt(len(ok))
    else:
        reach = np.nan
    diverged = len(members) - len(ok)
    return Row(settings, mean, mean - reach, mean + reach, len(ok), diverged, members)

"""Leaderboards: every configuration with its metric over the seeds, best first.

A configuration is a point without its seed. Its models differ only in the seed.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from jaxml._core.contract import raise_invalid
from jaxml._core.public import checked
from jaxml.sweep._record import Record


class Row(NamedTuple):
    """One configuration, with the mean of a metric over its seeds.

    Args:
        settings: The configuration, by column.
        mean: Over the seeds that did not diverge.
        low: The lower end of the 95 % interval; NaN for fewer than two seeds.
        high: The upper end.
        seeds: The number of seeds in the mean.
        diverged: The number of models that diverged.
        model_ids: The indices of the configuration's models in the record.
    """

    settings: dict[str, Any]
    mean: float
    low: float
    high: float
    seeds: int
    diverged: int
    model_ids: np.ndarray


@checked
def leaderboard(
    record: Record,
    metric: str,
    *,
    higher_is_better: bool = True,
    by: Sequence[str] = (),
) -> list[Row]:
    """The mean of a metric over seeds, with a 95 % interval, of every configuration.

        mean ± t s / √n

    n is the number of seeds, s their standard deviation, and t the 0.975 quantile of
    Student's distribution with n - 1 degrees of freedom. The best mean comes first.
    Configurations with a model that was stopped early rank below those that ran to
    the end, and configurations with a diverged model rank last.

    Args:
        record: The record of a run.
        metric: A column of `record.final`.
        higher_is_better: Whether a higher metric is better.
        by: Columns; only the best configuration of each combination of their values
            is returned. By default all are.

    Example:
        >>> points = grid(optimizer=["sgd", "adam"], learning_rate=[0.1], seed=[0])
        >>> final = {"valid_accuracy": np.array([0.9, 0.95])}
        >>> record = Record(points, np.array(["ok", "ok"]), final, np.array([1]), {})
        >>> [row.settings["optimizer"] for row in leaderboard(record, "valid_accuracy")]
        ['adam', 'sgd']
    """
    check_columns(record, metric=[metric], by=by)
    columns, configs = group_by_config(record)
    failures = failure_rank(record)

    def sort_key(row: Row) -> tuple[int, float]:
        mean = -row.mean if higher_is_better else row.mean
        return failures[row.model_ids].max(), np.inf if np.isnan(mean) else mean

    rows = [
        _row(record, dict(zip(columns, config)), np.array(model_ids), metric)
        for config, model_ids in configs.items()
    ]
    rows.sort(key=sort_key)
    return best_per_group(rows, by or columns)


def best_per_group(rows: list[Row], by: Sequence[str]) -> list[Row]:
    """The first row of each combination of these columns."""
    best: dict[tuple, Row] = {}
    for row in rows:
        best.setdefault(tuple(row.settings[name] for name in by), row)
    return list(best.values())


def _row(record: Record, settings: dict, model_ids: np.ndarray, metric: str) -> Row:
    diverged = record.status[model_ids] == "diverged"
    values = record.final[metric][model_ids].astype(float)
    values = values[~diverged & ~np.isnan(values)]
    n = len(values)
    mean = values.mean() if n else np.nan
    half_width = np.nan
    if n > 1:
        half_width = stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n)
    low, high = mean - half_width, mean + half_width
    return Row(settings, mean, low, high, n, int(diverged.sum()), model_ids)


def group_by_config(record: Record) -> tuple[list[str], dict[tuple, list[int]]]:
    """The columns of a configuration, and the indices of its models.

    Unfinished models are left out. A setting that a model does not have is NaN in the
    points, and None here.
    """
    columns = [name for name in record.points if name != "seed"]
    settings = [
        [None if value != value else value for value in record.points[name].tolist()]
        for name in columns
    ]
    configs: dict[tuple, list[int]] = {}
    for i in np.flatnonzero(record.status != "unfinished").tolist():
        configs.setdefault(tuple(column[i] for column in settings), []).append(i)
    return columns, configs


def failure_rank(record: Record) -> np.ndarray:
    """0 for models that ran to the end, 1 if stopped early, 2 if diverged."""
    return np.where(record.status == "diverged", 2, record.status == "stopped")


def check_columns(
    record: Record, *, metric: Iterable[str] = (), by: Iterable[str] = ()
) -> None:
    """Raises unless a model is finished and the record has these columns."""
    if np.all(record.status == "unfinished"):
        raise_invalid(ValueError, "record", "have a finished model", "none")
    for argument, columns, names in (
        ("metric", record.final, metric),
        ("by", record.points, by),
    ):
        for name in names:
            if name not in columns:
                requirement = f"name one of {', '.join(columns)}"
                raise_invalid(ValueError, argument, requirement, name)

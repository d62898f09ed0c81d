"""Several tasks at once: ranks, and how fast each gets where the others got."""

from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from jaxml._core.checks import refuse
from jaxml.sweep._record import Record
from jaxml.sweep.analysis._comparison import Standing, split, standings
from jaxml.sweep.analysis._leaderboard import check_columns
from jaxml.sweep.analysis._statistics import (
    Estimate,
    mean_over_strata,
    performance_profile,
    tied_with_best,
)

_GOALS = (0.25, 0.5, 0.75)  # of the competitors reach the target at the end


class Ranks(NamedTuple):
    """Places among the competitors, 1 the best, means over seeds.

    Args:
        names: The competitors, best first.
        tasks: The tasks that have a seed which all competitors finished.
        places: [names tasks].
        overall: For each competitor, the mean over tasks.
        tied: [names], whether nothing says that it is behind the first.
    """

    names: list[Any]
    tasks: list[Any]
    places: np.ndarray
    overall: list[Estimate]
    tied: np.ndarray


def ranks(
    record: Record,
    metric: str,
    *,
    by: str = "optimizer",
    tuned_on: str | None = None,
    higher_is_better: bool = True,
) -> Ranks:
    """The place of each competitor on each task, tuned on each, and over all tasks.

    Places are taken among the models of one task and seed, equal ones share theirs;
    their mean needs no common scale of the tasks. The interval over all tasks is
    Student's: tasks are what they are, seeds vary.

    Args:
        record: Of a run; its column `task`, if there is one, tells the tasks apart.
        metric: A column of `record.final`.
        by: The column whose values are compared.
        tuned_on: The column that chooses the setting; the metric itself by default.
        higher_is_better: Whether a higher number is better.

    Reference:
        Demšar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR
        2006, https://jmlr.org/papers/v7/demsar06a.html

    Example:
        >>> points = {"optimizer": np.array(["sgd", "adam"]), "seed": np.array([0, 0])}
        >>> final = {"valid_accuracy": np.array([0.9, 0.95])}
        >>> record = Record(points, np.array(["ok", "ok"]), final, np.array([1]), {})
        >>> ranks(record, "valid_accuracy").names
        ['adam', 'sgd']
    """
    check_columns("ranks", record, metric=[metric, tuned_on or metric], by=[by])
    places = {}
    names = list(dict.fromkeys(record.points[by].tolist()))
    for task, part in by_task(record).items():
        board = standings(
            part, metric, by=by, tuned_on=tuned_on, higher_is_better=higher_is_better
        )
        table = _by_seed(board, names)
        if table.size:
            places[task] = stats.rankdata(-table if higher_is_better else table, axis=0)
    if not places:
        rule = f"have a seed that every {by} finished"
        refuse(ValueError, "ranks", "record", rule, "none")

    most = max(table.shape[1] for table in places.values())
    stacked = np.full((len(names), len(places), most), np.nan)
    for i, table in enumerate(places.values()):
        stacked[:, i, : table.shape[1]] = table
    overall = [mean_over_strata(row) for row in stacked]
    order = np.argsort([estimate.value for estimate in overall], kind="stable")
    return Ranks(
        [names[i] for i in order],
        list(places),
        np.nanmean(stacked, axis=2)[order],
        [overall[i] for i in order],
        tied_with_best(-stacked[order], best=0),
    )


class Profiles(NamedTuple):
    """How often each competitor needs at most so many times the fewest steps.

    Args:
        names: The competitors, the largest area under the profile first.
        ratios: From 1 up.
        shares: [names ratios], of the problems.
        problems: How many there are.
    """

    names: list[Any]
    ratios: np.ndarray
    shares: np.ndarray
    problems: int


def profiles(
    record: Record,
    metric: str,
    *,
    by: str = "optimizer",
    higher_is_better: bool = True,
    highest: float = 4.0,
) -> Profiles:
    """Performance profiles: how fast each competitor gets where others got at all.

    A problem is a task, a seed and one of three targets, which a quarter, half and
    three quarters of the competitors' medians at the end fall short of. Its cost is the
    first step of the curve that reaches the target, so it is as fine as the
    curves are; who never does has no cost. Settings are those of `standings`.

    Args:
        record: Of a run; its column `task`, if there is one, tells the tasks apart.
        metric: A column of `record.final` and of `record.curves`.
        by: The column whose values are compared.
        higher_is_better: Whether a higher metric is better.
        highest: The largest ratio to the fewest steps.

    Reference:
        Dolan and Moré, "Benchmarking optimization software with performance profiles",
        Mathematical Programming 2002, https://arxiv.org/abs/cs/0102001

    Example:
        >>> points = {"optimizer": np.array(["sgd", "adam"]), "seed": np.array([0, 0])}
        >>> curves = {"valid_accuracy": np.array([[0.2, 0.5], [0.5, 0.5]])}
        >>> final = {"valid_accuracy": np.array([0.5, 0.5])}
        >>> ended = np.array(["ok", "ok"])
        >>> record = Record(points, ended, final, np.array([10, 20]), curves)
        >>> profiles(record, "valid_accuracy").shares[:, 0]
        array([1., 0.])
    """
    check_columns("profiles", record, metric=[metric], by=[by])
    names = list(dict.fromkeys(record.points[by].tolist()))
    sign = 1 if higher_is_better else -1
    costs = []
    for part in by_task(record).values():
        board = standings(part, metric, by=by, higher_is_better=higher_is_better)
        ends = [sign * own.median.value for own in board]
        targets = np.quantile(ends, _GOALS, method="lower")
        targets = targets[np.isfinite(targets)]
        steps = _steps_to(part, sign * part.curves[metric], targets)
        costs += [
            _by_seed([own._replace(scores=_at(steps[i], own)) for own in board], names)
            for i in range(len(targets))
        ]
    table = np.concatenate([np.empty((len(names), 0)), *costs], axis=1)
    if not table.size:
        rule = f"have a seed that every {by} finished"
        refuse(ValueError, "profiles", "record", rule, "none")
    lowest = table.min(axis=0)
    exact = table[:, np.isfinite(lowest)] / lowest[np.isfinite(lowest)]
    ratios = np.unique([1.0, *exact[exact <= highest], highest])
    shares = performance_profile(table, ratios)
    areas = np.sum(shares[:, :-1] * np.diff(ratios), axis=1)
    order = np.argsort(-areas, kind="stable")
    return Profiles([names[i] for i in order], ratios, shares[order], table.shape[1])


def by_task(record: Record) -> dict[Any, Record]:
    """The record of each task of which a model is finished; "" where there is one."""
    parts = split(record) if "task" in record.points else {"": record}
    return {t: part for t, part in parts.items() if np.any(part.status != "unfinished")}


def _by_seed(board: list[Standing], names: list[Any]) -> np.ndarray:
    """[names seeds], of the seeds that every competitor finished."""
    scores = {own.name: own.scores for own in board}
    each = [scores.get(name, {}) for name in names]
    seeds = sorted(set.intersection(*(set(own) for own in each)))
    return np.array([[own[seed] for seed in seeds] for own in each])


def _at(steps: np.ndarray, own: Standing) -> dict[int, float]:
    return {seed: float(steps[member]) for seed, member in own.members.items()}


def _steps_to(record: Record, curves: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """[targets models], the first step that reaches it; inf if none does."""
    reached = curves >= targets[:, None, None]
    reached &= (record.status != "diverged")[:, None]
    first = record.steps[np.argmax(reached, axis=-1)]
    return np.where(reached.any(axis=-1), first, np.inf)

"""Comparison of methods over several tasks: ranks and performance profiles."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from jaxml._core.contract import raise_invalid
from jaxml._core.public import checked
from jaxml.sweep._record import Record
from jaxml.sweep.analysis._comparison import split, standings
from jaxml.sweep.analysis._leaderboard import check_columns
from jaxml.sweep.analysis._statistics import (
    Estimate,
    performance_profile,
    stratified_mean,
    tied_with_best,
)

TARGET_QUANTILES = (0.25, 0.5, 0.75)  # of the methods' median scores on a task


class Ranks(NamedTuple):
    """The mean rank of every method, 1 the best.

    Args:
        names: The methods, best first.
        tasks: The tasks with at least one seed that every method finished.
        task_ranks: [names tasks], the mean rank over the seeds of a task.
        overall: For each method, the mean of its task ranks.
        tied: [names], whether it is not significantly worse than the first method.
    """

    names: list[Any]
    tasks: list[Any]
    task_ranks: np.ndarray
    overall: list[Estimate]
    tied: np.ndarray


@checked
def ranks(
    record: Record,
    metric: str,
    *,
    by: str = "optimizer",
    tuned_on: str | None = None,
    higher_is_better: bool = True,
) -> Ranks:
    """The mean rank of every method on each task and over all tasks, best first.

    Every method is tuned on each task, as in `standings`, and ranked among the methods
    on each seed; equal scores share their mean rank. Ranks need no common scale of the
    tasks. The 95 % intervals are Student's and take the tasks as fixed: only the seeds
    vary.

    Args:
        record: The record of a run; the column `task`, if any, separates the tasks.
        metric: A column of `record.final`.
        by: The column whose values are compared.
        tuned_on: The column that selects the configuration; the metric by default.
        higher_is_better: Whether a higher number is better.

    Reference:
        Demšar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR
        2006, https://jmlr.org/papers/v7/demsar06a.html

    Example:
        >>> points = grid(optimizer=["sgd", "adam"], seed=[0])
        >>> final = {"valid_accuracy": np.array([0.9, 0.95])}
        >>> record = Record(points, np.array(["ok", "ok"]), final, np.array([1]), {})
        >>> ranks(record, "valid_accuracy").names
        ['adam', 'sgd']
    """
    check_columns(record, metric=[metric, tuned_on or metric], by=[by])
    names = list(dict.fromkeys(record.points[by].tolist()))
    options: dict[str, Any] = {"by": by, "higher_is_better": higher_is_better}
    seed_ranks = {}
    for task, part in split_tasks(record).items():
        results = standings(part, metric, tuned_on=tuned_on, **options)
        scores = _paired_table({s.name: s.scores for s in results}, names)
        if scores.size:
            costs = -scores if higher_is_better else scores
            seed_ranks[task] = stats.rankdata(costs, axis=0)
    if not seed_ranks:
        requirement = f"have a seed that every {by} finished"
        raise_invalid(ValueError, "record", requirement, "none")

    num_seeds = max(table.shape[1] for table in seed_ranks.values())
    stacked = np.full((len(names), len(seed_ranks), num_seeds), np.nan)
    for i, table in enumerate(seed_ranks.values()):
        stacked[:, i, : table.shape[1]] = table
    overall = [stratified_mean(row) for row in stacked]
    order = np.argsort([estimate.value for estimate in overall], kind="stable")
    return Ranks(
        [names[i] for i in order],
        list(seed_ranks),
        np.nanmean(stacked, axis=2)[order],
        [overall[i] for i in order],
        tied_with_best(-stacked[order], best=0),
    )


class Profiles(NamedTuple):
    """The performance profile of every method.

    Args:
        names: The methods; the one with the largest area under its profile first.
        ratios: Numbers of steps, as multiples of the fewest steps of any method.
        fractions: [names ratios], the fraction of problems solved within each ratio.
        problems: The number of problems.
    """

    names: list[Any]
    ratios: np.ndarray
    fractions: np.ndarray
    problems: int


@checked
def profiles(
    record: Record,
    metric: str,
    *,
    by: str = "optimizer",
    higher_is_better: bool = True,
    max_ratio: float = 4.0,
) -> Profiles:
    """How many steps each method needs to reach a target, relative to the fastest.

    A problem is a task, a seed and a target; the three targets of a task are the
    quartiles of the methods' median scores. The cost of a problem is the first step at
    which the curve reaches the target, at the resolution of the curves; a run that
    never reaches the target has infinite cost. Configurations are those of `standings`.

    Args:
        record: The record of a run; the column `task`, if any, separates the tasks.
        metric: A column of `record.final` and of `record.curves`.
        by: The column whose values are compared.
        higher_is_better: Whether a higher metric is better.
        max_ratio: The highest ratio to the fewest steps.

    Reference:
        Dolan and Moré, "Benchmarking optimization software with performance profiles",
        Mathematical Programming 2002, https://arxiv.org/abs/cs/0102001

    Example:
        >>> points = grid(optimizer=["sgd", "adam"], seed=[0])
        >>> final = {"valid_accuracy": np.array([0.5, 0.5])}
        >>> curves = {"valid_accuracy": np.array([[0.2, 0.5], [0.5, 0.5]])}
        >>> steps, status = np.array([10, 20]), np.array(["ok", "ok"])
        >>> record = Record(points, status, final, steps, curves)
        >>> profiles(record, "valid_accuracy").fractions[:, 0]
        array([1., 0.])
    """
    check_columns(record, metric=[metric], by=[by])
    names = list(dict.fromkeys(record.points[by].tolist()))
    sign = 1 if higher_is_better else -1
    tables = [np.empty((len(names), 0))]
    for part in split_tasks(record).values():
        results = standings(part, metric, by=by, higher_is_better=higher_is_better)
        medians = [sign * s.median.value for s in results]
        targets = np.quantile(medians, TARGET_QUANTILES, method="lower")
        targets = targets[np.isfinite(targets)]
        for steps in _steps_to_targets(part, sign * part.curves[metric], targets):
            steps_by_seed = {
                s.name: {seed: steps[i] for seed, i in s.model_ids.items()}
                for s in results
            }
            tables += [_paired_table(steps_by_seed, names)]
    costs = np.concatenate(tables, axis=1)
    if not costs.size:
        requirement = f"have a seed that every {by} finished"
        raise_invalid(ValueError, "record", requirement, "none")

    lowest = costs.min(axis=0)
    solved = np.isfinite(lowest)
    breakpoints = costs[:, solved] / lowest[solved]
    ratios = np.unique([1.0, *breakpoints[breakpoints <= max_ratio], max_ratio])
    fractions = performance_profile(costs, ratios)
    areas = np.sum(fractions[:, :-1] * np.diff(ratios), axis=1)
    order = np.argsort(-areas, kind="stable")
    return Profiles([names[i] for i in order], ratios, fractions[order], costs.shape[1])


def split_tasks(record: Record) -> dict[Any, Record]:
    """The record of each task with a finished model; "" without a column `task`."""
    parts = split(record) if "task" in record.points else {"": record}
    return {t: part for t, part in parts.items() if np.any(part.status != "unfinished")}


def _paired_table(
    values: Mapping[Any, Mapping[int, float]], names: list[Any]
) -> np.ndarray:
    """[names seeds], for the seeds that every method finished."""
    seeds = set.intersection(*(set(values.get(name, {})) for name in names))
    return np.array([[values[name][seed] for seed in sorted(seeds)] for name in names])


def _steps_to_targets(
    record: Record, curves: np.ndarray, targets: np.ndarray
) -> np.ndarray:
    """[targets models], the first step that reaches the target, or inf."""
    is_reached = curves >= targets[:, None, None]
    is_reached &= (record.status != "diverged")[:, None]
    first = record.steps[np.argmax(is_reached, axis=-1)]
    return np.where(is_reached.any(axis=-1), first, np.inf)

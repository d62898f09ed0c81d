"""Standings: the values of a column, each tuned, held against each other by seed."""

from typing import Any, NamedTuple

import numpy as np

from jaxml._core.checks import refuse
from jaxml.sweep._record import Record
from jaxml.sweep.analysis._leaderboard import check_columns, settings, trouble
from jaxml.sweep.analysis._statistics import (
    Estimate,
    interquartile_mean,
    median,
    probability_of_improvement,
    tied_with_best,
)


class Standing(NamedTuple):
    """One value of the compared column: what it reaches when it is tuned.

    Args:
        name: The value.
        settings: The setting that is best over all seeds.
        scores: The metric by seed; the worst infinity where the model diverged.
        members: Where the models of these scores stand in the record, by seed.
        median: Of the scores.
        interquartile_mean: Of the scores.
        improvement: How probable it is that the first of all is better on a seed.
        tied: Whether nothing says that it is worse than the first.
        diverged: How many of the members diverged.
    """

    name: Any
    settings: dict[str, Any]
    scores: dict[int, float]
    members: dict[int, int]
    median: Estimate
    interquartile_mean: Estimate
    improvement: Estimate
    tied: bool
    diverged: int


def standings(
    record: Record,
    metric: str,
    *,
    by: str = "optimizer",
    tuned_on: str | None = None,
    higher_is_better: bool = True,
) -> list[Standing]:
    """The values of a column, each at its best setting, best first.

    The score of a seed is that of the setting with the best mean over the other half of
    the seeds, every second one: none chooses the setting that it judges, so that tuning
    brings no luck into the scores. The intervals cover in 95 % from ten seeds on; five
    seeds and many equal settings bring that down to 90 %. A setting of which a model
    diverged is chosen last. The order is that of the interquartile means, but behind
    all others stand those whose models diverged.

    Args:
        record: Of a run of one task.
        metric: A column of `record.final`.
        by: The column whose values are compared.
        tuned_on: The column of `record.final` that chooses the setting; the metric
            itself by default.
        higher_is_better: Whether a higher number is better.

    Example:
        >>> points = {"optimizer": np.array(["sgd", "adam"]), "seed": np.array([0, 0])}
        >>> final = {"valid_accuracy": np.array([0.9, 0.95])}
        >>> record = Record(points, np.array(["ok", "ok"]), final, np.array([1]), {})
        >>> [standing.name for standing in standings(record, "valid_accuracy")]
        ['adam', 'sgd']
    """
    chooser = tuned_on or metric
    check_columns("standings", record, metric=[metric, chooser], by=[by])
    tasks = set(record.points.get("task", np.zeros(1)).tolist())
    if len(tasks) > 1:
        rule = "be of one task, as `split` gives them"
        refuse(ValueError, "standings", "record", rule, f"{len(tasks)} tasks")
    sign = 1 if higher_is_better else -1
    scores, troubles = _scores(record, metric, sign), trouble(record)

    names, groups = settings(record)
    rivals: dict[Any, list[list[int]]] = {}
    for setting, members in groups.items():
        rivals.setdefault(setting[names.index(by)], []).append(members)
    chooses = _scores(record, chooser, sign)
    tuned = {
        name: _tuned(own, record.points["seed"], chooses, troubles)
        for name, own in rivals.items()
    }

    def place(name: Any) -> tuple[int, float]:
        judged = list(tuned[name][1].values())
        return troubles[judged].max(), -interquartile_mean(scores[judged]).value

    order = sorted(tuned, key=place)
    seeds = sorted({seed for _, judged in tuned.values() for seed in judged})
    table = np.full((len(order), len(seeds)), np.nan)
    for row, name in zip(table, order):
        for seed, member in tuned[name][1].items():
            row[seeds.index(seed)] = scores[member]
    board = []
    for name, row, tied in zip(order, table, tied_with_best(table, best=0)):
        member, judged = tuned[name]
        values = row[~np.isnan(row)]
        board += [
            Standing(
                name,
                settings={n: record.points[n][member].item() for n in names},
                scores={seed: sign * float(scores[i]) for seed, i in judged.items()},
                members=judged,
                median=_signed(median(values), sign),
                interquartile_mean=_signed(interquartile_mean(values), sign),
                improvement=_improvement(table[0], row),
                tied=bool(tied),
                diverged=int(np.sum(troubles[[*judged.values()]] == 2)),
            )
        ]
    return board


def split(record: Record, column: str = "task") -> dict[Any, Record]:
    """The models of each value of a column, such as each task, as a record.

    Args:
        record: Of a run.
        column: Of `record.points`.

    Example:
        >>> points = {"task": np.array(["iris", "wine"]), "seed": np.array([0, 0])}
        >>> final = {"valid_accuracy": np.array([0.9, 0.95])}
        >>> record = Record(points, np.array(["ok", "ok"]), final, np.array([1]), {})
        >>> split(record)["wine"].final["valid_accuracy"]
        array([0.95])
    """
    check_columns("split", record, by=[column])
    own = record.points[column]
    return {name: _kept(record, own == name) for name in dict.fromkeys(own.tolist())}


def _kept(record: Record, members: np.ndarray) -> Record:
    def of(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: column[members] for name, column in columns.items()}

    return record._replace(
        points=of(record.points),
        status=record.status[members],
        final=of(record.final),
        curves=of(record.curves),
        outputs=of(record.outputs),
        params=of(record.params),
    )


def _scores(record: Record, metric: str, sign: int) -> np.ndarray:
    """The metric, larger for better; -inf where the model diverged."""
    values = sign * record.final[metric].astype(float)
    return np.where(np.isnan(values) | (record.status == "diverged"), -np.inf, values)


def _tuned(
    groups: list[list[int]], seeds: np.ndarray, scores: np.ndarray, troubles: np.ndarray
) -> tuple[int, dict[int, int]]:
    """A member of the best setting, and for each seed the model that is judged."""
    own = np.unique(seeds[np.concatenate(groups)])
    table = np.full((len(groups), len(own)), -1)
    for row, members in zip(table, groups):
        row[np.searchsorted(own, seeds[members])] = members
    worst = np.where(table >= 0, troubles[table], 0).max(axis=1)
    judged = {}
    for place, seed in enumerate(own.tolist()):
        there = np.flatnonzero(table[:, place] >= 0)
        others = table[there, 1 - place % 2 :: 2]
        choosing = others if np.any(others >= 0) else table[there]
        first = there[_best(choosing, scores, worst[there])]
        judged[seed] = int(table[first, place])
    return int(table[_best(table, scores, worst)].max()), judged


def _best(table: np.ndarray, scores: np.ndarray, worst: np.ndarray) -> int:
    """The row of members with the best mean; those in trouble stand behind."""
    finite = (table >= 0) & np.isfinite(scores[table])
    total = np.where(finite, scores[table], 0).sum(axis=1)
    mean = total / np.maximum(finite.sum(axis=1), 1)
    mean = np.where(finite.any(axis=1), mean, -np.inf)
    return int(np.lexsort((-mean, worst))[0])


def _improvement(first: np.ndarray, other: np.ndarray) -> Estimate:
    both = ~np.isnan(first) & ~np.isnan(other)
    if not both.any():
        return Estimate(np.nan, np.nan, np.nan)
    return probability_of_improvement(first[both], other[both])


def _signed(estimate: Estimate, sign: int) -> Estimate:
    value, low, high = estimate
    return estimate if sign > 0 else Estimate(-value, -high, -low)

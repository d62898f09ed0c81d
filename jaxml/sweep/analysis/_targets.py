"""Time to a target, in steps, and the score of AlgoPerf over several tasks."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxml._core.contract import raise_invalid
from jaxml._core.public import checked
from jaxml._core.types import Positive
from jaxml.sweep._record import Record
from jaxml.sweep.analysis._leaderboard import check_columns
from jaxml.sweep.analysis._statistics import performance_profile


class Target(NamedTuple):
    """A value of a metric that a model is to reach.

    Args:
        metric: A column of `record.curves`.
        value: The value.
        higher_is_better: Whether a higher metric is better.

    Example:
        >>> curves = {"valid_accuracy": np.array([[0.5, 0.9], [0.5, 0.6]])}
        >>> status, steps = np.array(["ok", "ok"]), np.array([10, 20])
        >>> record = Record({}, status, {}, steps, curves)
        >>> Target("valid_accuracy", 0.8).steps(record)
        array([20., inf])
    """

    metric: str
    value: float
    higher_is_better: bool = True

    def steps(self, record: Record) -> np.ndarray:
        """The first recorded step at which each model reaches it, or inf."""
        if self.metric not in record.curves:
            requirement = f"name one of {', '.join(record.curves)}"
            message = f"Target: metric must {requirement}, got {self.metric!r}."
            raise ValueError(message)
        curve = record.curves[self.metric]
        reached = curve >= self.value if self.higher_is_better else curve <= self.value
        reached &= (record.status != "diverged")[:, None]
        first = np.asarray(record.steps)[np.argmax(reached, axis=1)]
        return np.where(reached.any(axis=1), first, np.inf)


class TargetScore(NamedTuple):
    """How fast a method reaches the targets.

    Args:
        name: The method.
        steps: By task, the median over seeds of the steps of the fastest setting.
        score: The score of AlgoPerf, from 0 to 1.
    """

    name: Any
    steps: dict[Any, float]
    score: float


@checked
def target_scores(
    record: Record,
    targets: Target | Mapping[Any, Target],
    *,
    by: str = "optimizer",
    max_ratio: Positive = 4.0,
) -> list[TargetScore]:
    """The score of AlgoPerf of every method, best first: how fast it reaches targets.

        score = 1 / (R - 1) · ∫₁ᴿ ρ(τ) dτ

    ρ(τ) is the fraction of tasks on which the method needs at most τ times the steps
    of the fastest method, and R is `max_ratio`. A seed is a study, and a setting is a
    trial: the steps on a task are the median over seeds of the fewest steps of any
    setting. A model that never reaches the target needs infinitely many.

    Args:
        record: The record of a run; the column `task`, if any, separates the tasks.
        targets: The target, or that of each task.
        by: The column whose values are compared.
        max_ratio: R > 1.

    Reference:
        Dahl et al., Benchmarking neural network training algorithms, 2023,
        https://arxiv.org/abs/2306.07179

    Example:
        >>> points = grid(optimizer=["sgd", "adam"], seed=[0])
        >>> curves = {"valid_accuracy": np.array([[0.2, 0.8], [0.8, 0.9]])}
        >>> record = Record(
        ...     points, np.array(["ok"] * 2), {}, np.array([10, 20]), curves
        ... )
        >>> scores = target_scores(record, Target("valid_accuracy", 0.8))
        >>> [(s.name, s.steps[""], round(s.score, 2)) for s in scores]
        [('adam', 10.0, 1.0), ('sgd', 20.0, 0.67)]
    """
    check_columns(record, metric=[], by=[by])
    if not max_ratio > 1:
        raise_invalid(ValueError, "max_ratio", "be above 1", max_ratio)
    methods = record.points[by]
    names = list(dict.fromkeys(methods.tolist()))
    tasks = record.points.get("task", np.full(len(methods), ""))
    by_task = {}
    for task in dict.fromkeys(tasks.tolist()):
        target = targets if isinstance(targets, Target) else targets.get(task)
        if target is None:
            raise_invalid(ValueError, "targets", f"have a target for {task!r}", None)
        steps = target.steps(record)
        in_task = (tasks == task) & (record.status != "unfinished")
        by_task[task] = [
            _median_of_fastest(
                record.points["seed"], steps, in_task & (methods == name)
            )
            for name in names
        ]
    ratios = np.linspace(1, max_ratio, 1001)
    costs = np.stack([*by_task.values()], axis=1)
    fractions = performance_profile(costs, ratios)
    areas = np.trapezoid(fractions, ratios, axis=1) / (max_ratio - 1)
    scores = [
        TargetScore(
            name, {task: float(s[i]) for task, s in by_task.items()}, float(areas[i])
        )
        for i, name in enumerate(names)
    ]
    return sorted(scores, key=lambda s: (-s.score, min(s.steps.values())))


def _median_of_fastest(seeds: np.ndarray, steps: np.ndarray, mask: np.ndarray) -> float:
    """The median over the seeds of the fewest steps of any model in the mask."""
    fastest = [steps[mask & (seeds == s)].min() for s in np.unique(seeds[mask])]
    with np.errstate(invalid="ignore"):  # the mean of two infinities
        median = float(np.median(fastest)) if fastest else np.inf
    return np.inf if np.isnan(median) else median

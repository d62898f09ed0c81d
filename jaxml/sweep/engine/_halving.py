"""Successive halving and Hyperband: at each rung only the best models train on."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxml._core.contract import check_number, reports_as
from jaxml._core.types import Range

AT_LEAST_ONE = Range("be at least 1", lambda n: n >= 1)
ABOVE_ONE = Range("be above 1", lambda x: x > 1)


class SuccessiveHalving(NamedTuple):
    """Stops all but the best 1/η of the models at each rung.

    Args:
        metric: The name of the curve that ranks the models.
        reduction_factor: η > 1.
        rungs: Number of halvings, at steps T/η, T/η², ... of T.
        higher_is_better: Whether a higher metric is better.

    Reference:
        Jamieson and Talwalkar, Non-stochastic best arm identification and
        hyperparameter optimization, AISTATS 2016, https://arxiv.org/abs/1502.07943

    Example:
        >>> halving = SuccessiveHalving("valid_accuracy", reduction_factor=3.0, rungs=2)
        >>> halving.rung_indices(np.arange(10, 100, 10))
        [1, 3]
    """

    metric: str
    reduction_factor: float = 2.0
    rungs: int = 2
    higher_is_better: bool = True

    def check(self) -> None:
        """Raises a ValueError if a hyperparameter is out of its range."""
        with reports_as("SuccessiveHalving"):
            check_number("reduction_factor", self.reduction_factor, ABOVE_ONE)
            check_number("rungs", self.rungs, AT_LEAST_ONE)

    def rung_indices(self, steps: np.ndarray) -> list[int]:
        """The indices of the evaluations, at these steps, after which models stop."""
        return _rung_indices(steps, self.reduction_factor, self.rungs)

    def groups(self, steps: np.ndarray, num_models: int) -> dict[int, list[np.ndarray]]:
        """The models that compete at each rung: all of them."""
        all_models = np.arange(num_models)
        return {rung: [all_models] for rung in self.rung_indices(steps)}


class Hyperband(NamedTuple):
    """Brackets of successive halving, from none of the halvings to all of them.

    Bracket s = 0, ..., S-1 holds a part of the models that is proportional to
    ηˢ / (s + 1), and halves it s times; so each bracket takes about the same time. Many
    halvings save the most time, and few are right about models that start slowly. The
    models are dealt to the brackets in one random order.

    Args:
        metric: The name of the curve that ranks the models.
        reduction_factor: η > 1.
        brackets: S, the number of brackets.
        higher_is_better: Whether a higher metric is better.

    Reference:
        Li et al., Hyperband: A novel bandit-based approach to hyperparameter
        optimization, JMLR 2018, https://arxiv.org/abs/1603.06560

    Example:
        >>> hyperband = Hyperband("valid_accuracy", reduction_factor=3.0, brackets=3)
        >>> [len(bracket) for bracket in hyperband.bracket_models(33)]
        [6, 9, 18]
    """

    metric: str
    reduction_factor: float = 3.0
    brackets: int = 3
    higher_is_better: bool = True

    def check(self) -> None:
        """Raises a ValueError if a hyperparameter is out of its range."""
        with reports_as("Hyperband"):
            check_number("reduction_factor", self.reduction_factor, ABOVE_ONE)
            check_number("brackets", self.brackets, AT_LEAST_ONE)

    def bracket_models(self, num_models: int) -> list[np.ndarray]:
        """The models of each bracket."""
        s = np.arange(self.brackets)
        sizes = self.reduction_factor**s / (s + 1.0)
        ends = np.round(num_models * np.cumsum(sizes) / sizes.sum()).astype(int)
        order = np.random.default_rng(0).permutation(num_models)
        return [np.sort(part) for part in np.split(order, ends[:-1])]

    def groups(self, steps: np.ndarray, num_models: int) -> dict[int, list[np.ndarray]]:
        """The models that compete at each rung: those of each bracket that halves."""
        groups: dict[int, list[np.ndarray]] = {}
        for s, models in enumerate(self.bracket_models(num_models)):
            for rung in _rung_indices(steps, self.reduction_factor, s):
                groups.setdefault(rung, []).append(models)
        return dict(sorted(groups.items()))


def survivors(
    halving: SuccessiveHalving | Hyperband,
    model_ids: np.ndarray,
    groups: Sequence[np.ndarray],
    values: np.ndarray,
) -> np.ndarray:
    """The models without all but the best 1/η, at least one, of those in each group.

    A value that is not finite ranks last.
    """
    losses = -values if halving.higher_is_better else values
    losses = np.where(np.isfinite(losses), losses, np.inf)
    is_stopped = np.zeros(len(values), bool)
    for group in groups:
        ids = group[np.isin(group, model_ids)]
        order = np.argsort(losses[ids], kind="stable")
        count = max(1, int(np.ceil(len(ids) / halving.reduction_factor)))
        is_stopped[ids[order[count:]]] = True
    return model_ids[~is_stopped[model_ids]]


def _rung_indices(steps: np.ndarray, factor: float, rungs: int) -> list[int]:
    """The indices of the steps nearest to T/η, T/η², ... of T, without the last."""
    at = steps[-1] / factor ** np.arange(rungs, 0, -1)
    nearest = {int(np.argmin(np.abs(steps - step))) for step in at}
    return sorted(nearest - {len(steps) - 1})

"""Population-based training: bad models copy good ones, and vary their settings."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxml._core.contract import check_number, reports_as
from jaxml._core.types import Range
from jaxml.sweep._record import Columns

EXPLOITED = 0.2  # the fraction of a population that copies, and that is copied


def truncation_selection(rng: np.random.Generator, scores: np.ndarray) -> np.ndarray:
    """Each of the worst fifth copies one of the best fifth; the others go on.

    Args:
        rng: A random number generator.
        scores: [models], higher is better; -inf for a model that diverged.

    Returns:
        The index of the model whose weights each model takes, its own or another.

    Example:
        >>> scores = np.array([0.9, 0.1, 0.5, 0.6, 0.7])
        >>> truncation_selection(np.random.default_rng(0), scores)
        array([0, 0, 2, 3, 4])
    """
    order = np.argsort(-scores, kind="stable")
    count = int(EXPLOITED * len(scores))
    sources = np.arange(len(scores))
    sources[order[len(scores) - count :]] = rng.choice(order[:count], count)
    return sources


class PopulationBasedTraining(NamedTuple):
    """Every few evaluations, bad models copy the weights of good ones, and explore.

    A population is the models of one optimizer and the same choices. Between chunks of
    steps, `exploit` says whose weights, optimizer state and numbers each model takes,
    and `explore` varies the numbers of the models that took those of another.

    Args:
        metric: The name of the curve that ranks the models.
        explore: (rng, columns of numbers of the models that copied) -> new columns.
        every: Number of evaluations between two copies.
        exploit: (rng, scores) -> the index of the source of each model.
        seed: Seed of the random numbers.
        higher_is_better: Whether a higher metric is better.

    Reference:
        Jaderberg et al., Population based training of neural networks, 2017,
        https://arxiv.org/abs/1711.09846

    Example:
        >>> def explore(rng, columns):
        ...     rates = columns["rate"]
        ...     return {"rate": rates * rng.choice([0.8, 1.25], len(rates))}
        >>> PopulationBasedTraining("valid_accuracy", explore).every
        1
    """

    metric: str
    explore: Callable[[np.random.Generator, Columns], Columns]
    every: int = 1
    exploit: Callable[[np.random.Generator, np.ndarray], np.ndarray] = (
        truncation_selection
    )
    seed: int = 0
    higher_is_better: bool = True

    def check(self) -> None:
        """Raises a ValueError if a hyperparameter is out of its range."""
        with reports_as("PopulationBasedTraining"):
            at_least_one = Range("be at least 1", lambda n: n >= 1)
            check_number("every", self.every, at_least_one)

    def rung_indices(self, steps: np.ndarray) -> list[int]:
        """The indices of the evaluations after which models copy others."""
        return [*range(self.every - 1, len(steps) - 1, self.every)]

    def evolve(
        self, numbers: Columns, populations: np.ndarray, values: np.ndarray, rung: int
    ) -> tuple[Columns, np.ndarray]:
        """The numbers after a rung, and the model that each copies, itself or another.

        Args:
            numbers: The hyperparameters, one column each.
            populations: Models with equal integers compete.
            values: The metric of each model.
            rung: The index of the evaluation.
        """
        rng = np.random.default_rng((self.seed, rung))
        scores = values if self.higher_is_better else -values
        scores = np.where(np.isfinite(scores), scores, -np.inf)
        sources = np.arange(len(values))
        for population in np.unique(populations):
            ids = np.flatnonzero(populations == population)
            sources[ids] = ids[self.exploit(rng, scores[ids])]
        copied = np.flatnonzero(sources != np.arange(len(values)))
        numbers = {name: column[sources] for name, column in numbers.items()}
        explored = self.explore(
            rng, {n: column[copied] for n, column in numbers.items()}
        )
        for name, column in explored.items():
            if name not in numbers:
                message = "PopulationBasedTraining: explore must return columns of"
                raise ValueError(f"{message} {', '.join(numbers)}, got {name!r}.")
            numbers[name] = np.asarray(numbers[name], float)
            numbers[name][copied] = column
        return numbers, sources

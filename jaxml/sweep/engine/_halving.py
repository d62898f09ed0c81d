"""Successive halving: at some steps only the best models go on."""

from typing import NamedTuple

import jax
import numpy as np

from jaxml._core.checks import check_count, check_range
from jaxml.sweep.engine._train import State


class Halving(NamedTuple):
    """At each rung the best 1/η of the models that are left go on.

    Args:
        metric: A column of the curves, on which models are judged.
        eta: η > 1.
        rungs: How often models are stopped, at least once, at steps that fall by η as
            one looks back from the end.
        higher_is_better: Whether a higher metric is better.

    Reference:
        Jamieson and Talwalkar, Non-stochastic best arm identification and
        hyperparameter optimization, AISTATS 2016, https://arxiv.org/abs/1502.07943

    Example:
        >>> Halving("valid_accuracy", eta=3.0, rungs=2).stops(np.arange(10, 100, 10))
        [1, 3]
    """

    metric: str
    eta: float = 2.0
    rungs: int = 2
    higher_is_better: bool = True

    def check(self) -> None:
        """Raises a ValueError for a number out of its range."""
        check_range("Halving", "eta", self.eta, "be above 1", lambda eta: eta > 1)
        check_count("Halving", rungs=self.rungs)

    def stops(self, steps: np.ndarray) -> list[int]:
        """The evaluations after which models are stopped, of those at these steps."""
        wished = steps[-1] / self.eta ** np.arange(self.rungs, 0, -1)
        nearest = {int(np.argmin(np.abs(steps - wish))) for wish in wished}
        return sorted(nearest - {len(steps) - 1})

    def best(
        self, members: np.ndarray, curves: dict[str, np.ndarray], at: int
    ) -> np.ndarray:
        """The best 1/η of the members, at least one; what is not finite is worst."""
        values = curves[self.metric][members, at]
        score = np.where(
            np.isfinite(values), values, -np.inf if self.higher_is_better else np.inf
        )
        order = np.argsort(-score if self.higher_is_better else score, kind="stable")
        return np.sort(members[order[: max(1, int(np.ceil(len(members) / self.eta)))]])


class States:
    """The states of members that may go on, wherever they will be trained."""

    def __init__(self) -> None:
        self.places: dict[int, tuple] = {}
        self.states: list[State] = []

    def keep(self, members: np.ndarray, state: State) -> None:
        """Takes the states of [devices optimizers groups lanes] members."""
        first = sum(len(kept.lived) for kept in self.states)
        for place in zip(*np.nonzero(members >= 0)):
            device, *rest = map(int, place)
            self.places[int(members[place])] = (first + device, *rest)
        self.states.append(jax.tree.map(np.asarray, state))

    def recalled(self, members: np.ndarray, start: State) -> State:
        """The kept states of these members, or, if none is kept, how they start."""
        if not self.states:
            return start
        if len(self.states) > 1:  # joined once, whatever is recalled after
            self.states = [jax.tree.map(lambda *x: np.concatenate(x), *self.states)]
        (whole,) = self.states
        anyone = next(iter(self.places.values()))
        at = np.array([self.places.get(int(i), anyone) for i in members.flat])
        device, own, group, lane = at.T.reshape(4, *members.shape)
        memories = tuple(
            jax.tree.map(lambda x, o=o: x[device[:, o], group[:, o], lane[:, o]], tree)
            for o, tree in enumerate(whole.memories)
        )
        params, lived = jax.tree.map(
            lambda x: x[device, own, group, lane], (whole.params, whole.lived)
        )
        return State(params, memories, lived)

"""Successive halving: at each rung only the best models train on."""

from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxml._core.contract import check_number, reports_as
from jaxml._core.types import Range
from jaxml.sweep.engine._train import TrainState


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
        at_least_one = Range("be at least 1", lambda n: n >= 1)
        above_one = Range("be above 1", lambda x: x > 1)
        with reports_as("SuccessiveHalving"):
            check_number("reduction_factor", self.reduction_factor, above_one)
            check_number("rungs", self.rungs, at_least_one)

    def rung_indices(self, steps: np.ndarray) -> list[int]:
        """The indices of the evaluations, at these steps, after which models stop."""
        rungs = steps[-1] / self.reduction_factor ** np.arange(self.rungs, 0, -1)
        nearest = {int(np.argmin(np.abs(steps - rung))) for rung in rungs}
        return sorted(nearest - {len(steps) - 1})

    def survivors(
        self, model_ids: np.ndarray, curves: dict[str, np.ndarray], rung: int
    ) -> np.ndarray:
        """The best 1/η of the models, at least one; a non-finite metric ranks last."""
        values = curves[self.metric][model_ids, rung]
        score = np.where(
            np.isfinite(values), values, -np.inf if self.higher_is_better else np.inf
        )
        order = np.argsort(-score if self.higher_is_better else score, kind="stable")
        count = max(1, int(np.ceil(len(model_ids) / self.reduction_factor)))
        return np.sort(model_ids[order[:count]])


class StateStore:
    """The states at a rung, from which the survivors train on in other blocks."""

    def __init__(self) -> None:
        self.lanes: dict[int, tuple] = {}  # model id -> device, optimizer, group, lane
        self.states: list[TrainState] = []

    def add(self, model_ids: np.ndarray, state: TrainState) -> None:
        """Stores the states of [devices optimizers groups lanes] models."""
        offset = sum(len(stored.finite_steps) for stored in self.states)
        for lane in zip(*np.nonzero(model_ids >= 0)):
            device, *rest = map(int, lane)
            self.lanes[int(model_ids[lane])] = (offset + device, *rest)
        self.states.append(jax.tree.map(np.asarray, state))

    def allgather(self, num_models: int) -> None:
        """Adds the states of the other processes, each of which stores as many."""
        lanes = np.full((num_models, 4), -1, np.int32)
        lanes[list(self.lanes)] = list(self.lanes.values())
        local_states = jax.tree.map(lambda *x: np.concatenate(x), *self.states)
        num_devices = len(local_states.finite_steps)
        all_lanes, states = multihost_utils.process_allgather((lanes, local_states))
        for process, lanes in enumerate(np.asarray(all_lanes)):
            for i in np.flatnonzero(lanes[:, 0] >= 0):
                device, *rest = map(int, lanes[i])
                self.lanes[int(i)] = (process * num_devices + device, *rest)
        self.states = [jax.tree.map(lambda x: np.concatenate(np.asarray(x)), states)]

    def gather(self, model_ids: np.ndarray, init_state: TrainState) -> TrainState:
        """The stored states of these models; `init_state` if the store is empty."""
        if not self.states:
            return init_state
        if len(self.states) > 1:  # concatenate once, not at every call
            self.states = [jax.tree.map(lambda *x: np.concatenate(x), *self.states)]
        (stored,) = self.states
        filler = next(iter(self.lanes.values()))  # for empty lanes
        lanes = np.array([self.lanes.get(int(i), filler) for i in model_ids.flat])
        device, optimizer, group, lane = lanes.T.reshape(4, *model_ids.shape)
        opt_states = tuple(
            jax.tree.map(lambda x, o=o: x[device[:, o], group[:, o], lane[:, o]], tree)
            for o, tree in enumerate(stored.opt_states)
        )
        params, finite_steps, model_state = jax.tree.map(
            lambda x: x[device, optimizer, group, lane],
            (stored.params, stored.finite_steps, stored.model_state),
        )
        return TrainState(params, opt_states, finite_steps, model_state)

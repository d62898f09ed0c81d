"""The states of all models between chunks of steps, at a rung of a search."""

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxml.sweep.engine._blocks import TrainState


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

    def copy(self, sources: np.ndarray) -> None:
        """Gives every model the state of its source."""
        lanes = self.lanes
        self.lanes = {i: lanes[int(source)] for i, source in enumerate(sources)}

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

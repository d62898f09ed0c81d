"""The states of all models between chunks of steps, at a rung of a search."""

import jax
import numpy as np

from jaxml.sweep.engine._blocks import TrainState
from jaxml.sweep.engine._processes import allgather


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
        """Adds the states of the other processes."""
        lanes = np.full((num_models, 4), -1, np.int32)
        for i, lane in self.lanes.items():
            lanes[i] = lane
        local_states = jax.tree.map(lambda *x: np.concatenate(x), *self.states)
        length = int(max(allgather(np.array(len(local_states.finite_steps)))))
        padded = jax.tree.map(
            lambda x: np.resize(x, (length, *x.shape[1:])), local_states
        )
        self.states = []
        for process, (of_process, states) in enumerate(allgather((lanes, padded))):
            self.states.append(states)
            for i in np.flatnonzero(of_process[:, 0] >= 0):
                device, *rest = map(int, of_process[i])
                self.lanes[int(i)] = (process * length + device, *rest)

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

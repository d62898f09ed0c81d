"""Blocks [optimizers groups lanes] of models, and how a function runs on all of them.

On a CPU, groups run one after another, so that the models in training fit in a core's
cache. The models of a group share their optimizer and every function of a choice: the
index of a `lax.switch` is a scalar, and one branch runs instead of all.

On an accelerator a block is wide: all of its models run side by side in few kernels. A
branch would be a decision of the host, and its other models would wait. So every model
computes all functions of a choice, and selects one.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxml._core.types import PyTree
from jaxml.sweep.engine._task import Task

NamedFunctions = Mapping[str, Callable[..., Any]]


class ConfigBlock(NamedTuple):
    """The settings of the models of a block."""

    hyperparams: dict[str, Any]  # [optimizers groups lanes]
    seeds: Any  # [optimizers groups lanes]
    lane_index: dict[str, Any]  # [optimizers groups lanes]: functions that differ
    group_index: dict[str, Any]  # [optimizers groups]: functions of a whole group
    active: Any  # [optimizers groups]; False if the group is empty


class TrainState(NamedTuple):
    """The parameters and optimizer states of the models of a block."""

    params: PyTree  # [optimizers groups lanes ...]
    opt_states: tuple[PyTree, ...]  # one for each optimizer, [groups lanes ...]
    finite_steps: Array  # [optimizers groups lanes]: steps before a non-finite loss
    model_state: PyTree  # [optimizers groups lanes ...]; None if the task has none


class StaticSpec(NamedTuple):
    """Everything that is compiled in."""

    task: Task
    optimizers: NamedFunctions
    choices: Mapping[str, NamedFunctions]
    selections: Mapping[str, NamedFunctions]
    batch_size: int | None
    shared_batches: bool
    is_wide: bool
    chunk_steps: int  # of the longest chunk

    @property
    def group_functions(self) -> Mapping[str, NamedFunctions]:
        """The functions, by column, that are the same for a whole group."""
        return {} if self.is_wide else self.choices

    @property
    def models_at_once(self) -> int | None:
        """Of a group, in the functions of the task; None for all of them."""
        return 1 if self.task.sequential and not self.is_wide else None


def random_key(seed: Array) -> Array:
    """A key whose numbers under `jax.vmap` are those of the seed alone.

    JAX's "rbg" generator, which a user may have made the default, is not like that.
    """
    return jax.random.key(seed, impl="threefry2x32")


def index(tree: PyTree, i: int) -> PyTree:
    return jax.tree.map(lambda x: x[i], tree)


def take_optimizer(state: TrainState, o: int) -> TrainState:
    """The state of the models of one optimizer."""
    models = index(state._replace(opt_states=()), o)
    return models._replace(opt_states=(state.opt_states[o],))


def stack_optimizers(states: Sequence[TrainState]) -> TrainState:
    """The inverse: the states of all optimizers as one."""
    opt_states = tuple(s for state in states for s in state.opt_states)
    others = [state._replace(opt_states=()) for state in states]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *others)
    return stacked._replace(opt_states=opt_states)


def map_lanes(
    function: Callable[..., Any],
    spec: StaticSpec,
    configs: ConfigBlock,
    *trees: PyTree,
    at_once: int | None = None,
) -> Any:
    """`function(point, seed, *trees)` of every model of a group, at its own point.

    All models at once, or so many of them: a data set is larger than a batch.
    """
    choices = {name: _remat(functions) for name, functions in spec.choices.items()}
    functions = {**choices, **spec.selections}
    of_group = {
        name: partial(_switch, functions[name], i)
        for name, i in configs.group_index.items()
    }

    def one_lane(lane: tuple) -> Any:
        hyperparams, lane_index, seed, *trees = lane
        of_lane = {
            name: partial(_switch, functions[name], i) for name, i in lane_index.items()
        }
        return function({**hyperparams, **of_group, **of_lane}, seed, *trees)

    lanes = configs.hyperparams, configs.lane_index, configs.seeds, *trees
    if at_once is None or at_once >= len(configs.seeds):
        return jax.vmap(one_lane)(lanes)
    return jax.lax.map(one_lane, lanes, batch_size=None if at_once == 1 else at_once)


def map_models(
    function: Callable[..., Any],
    spec: StaticSpec,
    configs: ConfigBlock,
    *trees: PyTree,
    at_once: int | None = None,
) -> Any:
    """`map_lanes` of a block, whose empty groups give zeros if it is not wide."""
    of_group = partial(map_lanes, function, spec, at_once=at_once)
    shape = configs.seeds.shape
    if spec.is_wide:  # one group of all models
        configs, trees = jax.tree.map(
            lambda x: x.reshape(-1, *x.shape[3:]), (configs._replace(active=()), trees)
        )
        results = of_group(configs, *trees)
        return jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), results)

    def one_group(group: tuple) -> Any:
        zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(of_group, *group))
        return jax.lax.cond(group[0].active, of_group, lambda *_: zeros, *group)

    groups = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), (configs, *trees))
    results = jax.lax.map(one_group, groups)
    return jax.tree.map(lambda x: x.reshape(*shape[:2], *x.shape[1:]), results)


def _remat(functions: NamedFunctions) -> NamedFunctions:
    """The functions, whose gradients save their inputs alone."""
    return {n: jax.checkpoint(f, prevent_cse=False) for n, f in functions.items()}


def _switch(functions: NamedFunctions, i: Array, *arguments: Any) -> Any:
    return jax.lax.switch(i, [*functions.values()], *arguments)

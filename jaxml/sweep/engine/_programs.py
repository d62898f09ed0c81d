"""The compiled programs: init, a chunk of training steps, and evaluation.

A program runs one block [optimizers groups lanes] of models on each device, and devices
exchange nothing.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh, PartitionSpec

from jaxml._core.types import PyTree
from jaxml.sweep.engine._blocks import (
    ConfigBlock,
    StaticSpec,
    TrainState,
    index,
    map_lanes,
    map_models,
    random_key,
    stack_optimizers,
    take_optimizer,
)
from jaxml.sweep.engine._layout import models_evaluated_at_once
from jaxml.sweep.engine._task import Point, call_with, check_scalars
from jaxml.sweep.engine._train import train_block


class Programs(NamedTuple):
    """Programs over blocks, with a leading axis of devices."""

    init: Any  # configs -> state
    advance: Any  # state, configs, data, first, last -> state, mean loss
    on_train: Any  # state, configs, data -> metrics
    on_valid: Any  # the same for the validation data
    outputs: Any  # state, configs -> outputs; None if the task has none


def make_programs(spec: StaticSpec, mesh: Mesh) -> Programs:
    """The jitted programs of one block on each device of the mesh."""
    sharded, replicated = PartitionSpec("devices"), PartitionSpec()
    specs = (sharded, sharded, replicated, replicated, replicated)

    def program(
        function: Callable[..., Any], specs: tuple, donate: tuple[int, ...] = ()
    ) -> Callable[..., Any]:
        return _shard_over_devices(partial(function, spec), mesh, specs, donate)

    evaluation = program(_evaluate, specs[:3])
    return Programs(
        init=program(_init, specs[1:2]),
        advance=program(_advance, specs, donate=(0,)),
        on_train=evaluation,
        on_valid=evaluation,
        outputs=program(_outputs, specs[:2]) if spec.task.outputs else None,
    )


def _init(spec: StaticSpec, configs: ConfigBlock) -> TrainState:
    task = spec.task

    def init_model(point: Point, seed: Array) -> tuple[PyTree, PyTree]:
        key = jax.random.fold_in(random_key(seed), 0)
        state = task.state(key, point) if task.state else None
        return task.init(key, point), state

    def init_opt(optimizer: Callable, point: Point, _: Array, params: PyTree) -> PyTree:
        return optimizer(point).init(params)

    params, model_state = map_models(init_model, spec, configs)
    opt_states = []
    for o, optimizer in enumerate(spec.optimizers.values()):
        init_group = partial(map_lanes, partial(init_opt, optimizer), spec)
        opt_states.append(jax.vmap(init_group)(index(configs, o), index(params, o)))
    finite_steps = jnp.zeros(configs.seeds.shape, jnp.int32)
    return TrainState(params, tuple(opt_states), finite_steps, model_state)


def _advance(
    spec: StaticSpec,
    state: TrainState,
    configs: ConfigBlock,
    data: PyTree,
    first: Array,
    last: Array,
) -> tuple[TrainState, Array]:
    """The state after steps first, ..., last - 1, and the mean loss over them."""
    optimizers = [*spec.optimizers.values()]
    train = partial(train_block, spec, optimizers, data, first, last)
    if not spec.is_wide:
        train = partial(_train_groups, spec, data, first, last)
    state, loss_sum = train(configs, state)
    return state, loss_sum / jnp.asarray(last - first, jnp.float32)


def _train_groups(
    spec: StaticSpec,
    data: PyTree,
    first: Array,
    last: Array,
    configs: ConfigBlock,
    state: TrainState,
) -> tuple[TrainState, Array]:
    """`train_block` for one group of each optimizer after another."""
    results = []
    for o, optimizer in enumerate(spec.optimizers.values()):
        train = partial(train_block, spec, [optimizer], data, first, last)
        groups = index(configs, o), take_optimizer(state, o)
        results.append(jax.lax.map(lambda group, f=train: f(*group), groups))
    states, loss_sums = zip(*results)
    return stack_optimizers(states), jnp.stack(loss_sums)


def _evaluate(
    spec: StaticSpec, state: TrainState, configs: ConfigBlock, data: PyTree
) -> dict[str, Array]:
    def metrics(
        point: Point, _: Array, params: PyTree, model_state: PyTree
    ) -> dict[str, Array]:
        values = call_with(spec.task.metrics, params, data, point, state=model_state)
        return check_scalars("task.metrics", values)

    at_once = spec.models_at_once or models_evaluated_at_once(data, spec.is_wide)
    trees = state.params, state.model_state
    return map_models(metrics, spec, configs, *trees, at_once=at_once)


def _outputs(
    spec: StaticSpec, state: TrainState, configs: ConfigBlock
) -> dict[str, Array]:
    def model_outputs(
        point: Point, _: Array, params: PyTree, model_state: PyTree
    ) -> dict[str, Array]:
        outputs = spec.task.outputs or (lambda *_: {})
        return call_with(outputs, params, point, state=model_state)

    at_once = models_evaluated_at_once(spec.task.valid, spec.is_wide)
    trees = state.params, state.model_state
    return map_models(model_outputs, spec, configs, *trees, at_once=at_once)


def _shard_over_devices(
    function: Callable[..., Any], mesh: Mesh, specs: tuple, donate: tuple[int, ...] = ()
) -> Callable[..., Any]:
    """`function` of one block, as a program that runs it on every device at once."""
    sharded = specs[0]

    def local(*arguments: Any) -> Any:
        blocks = [
            index(argument, 0) if spec == sharded else argument
            for argument, spec in zip(arguments, specs)
        ]
        return jax.tree.map(lambda x: x[None], function(*blocks))

    mapped = jax.shard_map(
        local, mesh=mesh, in_specs=specs, out_specs=sharded, check_vma=False
    )
    return jax.jit(mapped, donate_argnums=donate)

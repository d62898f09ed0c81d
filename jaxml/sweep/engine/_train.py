"""The compiled programs: init, a chunk of training steps, and evaluation.

A program runs one block [optimizers groups lanes] of models on each device, and devices
exchange nothing. The models of a group share their optimizer and every function of a
choice, so the index of a `lax.switch` is a scalar and one branch runs instead of all.
Groups run one after another, so that the models in training fit in a core's cache. An
empty group costs nothing.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh, PartitionSpec

from jaxml._core.types import PyTree
from jaxml.sweep.engine._layout import MIN_WIDTH
from jaxml.sweep.engine._task import Point, Task, call_with, check_scalars

NamedFunctions = Mapping[str, Callable[..., Any]]


class ConfigBlock(NamedTuple):
    """The settings of the models of a block."""

    hyperparams: dict[str, Any]  # [optimizers groups lanes]
    seeds: Any  # [optimizers groups lanes]
    select_index: dict[str, Any]  # [optimizers groups lanes], by selection
    switch_index: dict[str, Any]  # [optimizers groups], by choice
    active: Any  # [optimizers groups]; False if the group is empty


class TrainState(NamedTuple):
    """The parameters and optimizer states of the models of a block."""

    params: PyTree  # [optimizers groups lanes ...]
    opt_states: tuple[PyTree, ...]  # one for each optimizer, [groups lanes ...]
    finite_steps: Array  # [optimizers groups lanes]: steps before a non-finite loss
    model_state: PyTree  # [optimizers groups lanes ...]; None if the task has none


class Programs(NamedTuple):
    """Programs over blocks, with a leading axis of devices."""

    init: Any  # configs -> state
    advance: Any  # state, configs, data, first, last -> state, mean loss
    on_train: Any  # state, configs, data -> metrics
    on_valid: Any  # the same for the validation data
    outputs: Any  # state, configs -> outputs; None if the task has none


class StaticSpec(NamedTuple):
    """Everything that is compiled in."""

    task: Task
    optimizers: NamedFunctions
    choices: Mapping[str, NamedFunctions]
    selections: Mapping[str, NamedFunctions]
    batch_size: int | None
    shared_batches: bool


def random_key(seed: Array) -> Array:
    """A key whose numbers under `jax.vmap` are those of the seed alone.

    JAX's "rbg" generator, which a user may have made the default, is not like that.
    """
    return jax.random.key(seed, impl="threefry2x32")


def make_programs(spec: StaticSpec, mesh: Mesh) -> Programs:
    """The jitted programs of one block on each device of the mesh."""
    task, optimizers = spec.task, [*spec.optimizers.values()]

    def init(configs: ConfigBlock) -> TrainState:
        def init_model(point: Point, seed: Array) -> tuple[PyTree, PyTree]:
            key = jax.random.fold_in(random_key(seed), 0)
            state = task.state(key, point) if task.state else None
            return task.init(key, point), state

        def init_opt(
            optimizer: Callable, point: Point, _: Array, params: PyTree
        ) -> PyTree:
            return optimizer(point).init(params)

        params, model_state = _map_groups(_vmap_group(init_model, spec), configs)
        opt_states = []
        for o, optimizer in enumerate(optimizers):
            init_group = _vmap_group(partial(init_opt, optimizer), spec)
            groups = _index(configs, o), _index(params, o)
            opt_states.append(jax.vmap(init_group)(*groups))
        finite_steps = jnp.zeros(configs.seeds.shape, jnp.int32)
        return TrainState(params, tuple(opt_states), finite_steps, model_state)

    def advance(
        state: TrainState, configs: ConfigBlock, data: PyTree, first: Array, last: Array
    ) -> tuple[TrainState, Array]:
        """The state after steps first, ..., last - 1, and the mean loss over them."""
        results = []
        for o, optimizer in enumerate(optimizers):
            train = partial(_train_group, spec, optimizer, data, first, last)
            groups = (
                _index(configs, o),
                _index(state.params, o),
                state.opt_states[o],
                _index(state.model_state, o),
                state.finite_steps[o],
            )
            results.append(jax.lax.map(lambda group, f=train: f(*group), groups))
        params, opt_states, model_state, finite_steps, loss_sum = zip(*results)
        params, model_state, finite_steps, loss_sum = jax.tree.map(
            lambda *x: jnp.stack(x),
            *zip(params, model_state, finite_steps, loss_sum),
        )
        mean_loss = loss_sum / jnp.asarray(last - first, jnp.float32)
        return TrainState(params, opt_states, finite_steps, model_state), mean_loss

    def evaluate(
        state: TrainState, configs: ConfigBlock, data: PyTree
    ) -> dict[str, Array]:
        def metrics(
            point: Point, _: Array, params: PyTree, model_state: PyTree
        ) -> dict[str, Array]:
            values = call_with(task.metrics, params, data, point, state=model_state)
            return check_scalars("task.metrics", values)

        group_metrics = _vmap_group(metrics, spec, MIN_WIDTH)
        return _map_groups(group_metrics, configs, state.params, state.model_state)

    def outputs(state: TrainState, configs: ConfigBlock) -> dict[str, Array]:
        def model_outputs(
            point: Point, _: Array, params: PyTree, model_state: PyTree
        ) -> dict[str, Array]:
            if not task.outputs:
                return {}
            return call_with(task.outputs, params, point, state=model_state)

        group_outputs = _vmap_group(model_outputs, spec, MIN_WIDTH)
        return _map_groups(group_outputs, configs, state.params, state.model_state)

    sharded, replicated = PartitionSpec("devices"), PartitionSpec()
    specs = (sharded, sharded, replicated, replicated, replicated)
    evaluation = _shard_over_devices(evaluate, mesh, specs[:3])
    return Programs(
        init=_shard_over_devices(init, mesh, specs[1:2]),
        advance=_shard_over_devices(advance, mesh, specs, donate=(0,)),
        on_train=evaluation,
        on_valid=evaluation,
        outputs=_shard_over_devices(outputs, mesh, specs[:2]) if task.outputs else None,
    )


def _train_group(
    spec: StaticSpec,
    optimizer: Callable[..., Any],
    data: PyTree,
    first: Array,
    last: Array,
    configs: ConfigBlock,
    params: PyTree,
    opt_state: PyTree,
    model_state: PyTree,
    finite_steps: Array,
) -> tuple[PyTree, PyTree, PyTree, Array, Array]:
    """A group after steps first, ..., last - 1, and the sum of its losses over them."""
    model = params, opt_state, model_state
    one_model = jax.eval_shape(partial(_index, i=0), model)

    def body_fun(step: Array, carry: tuple) -> tuple:
        draw_batch = partial(_draw_batch, data, step=step, size=spec.batch_size)
        shared_batch = draw_batch(configs.seeds[0]) if spec.shared_batches else None

        def train_step(
            point: Point,
            seed: Array,
            flat: PyTree,
            finite_steps: Array,
            loss_sum: Array,
        ) -> tuple:
            params, opt_state, model_state = _unflatten(flat, one_model)
            batch = shared_batch if spec.shared_batches else draw_batch(seed)
            objective = _objective(spec.task, batch, point, seed, step, model_state)

            def value_fn(params: PyTree) -> Array:
                return objective(params)[0]

            value_and_grad = jax.value_and_grad(objective, has_aux=True)
            (loss, new_state), grads = value_and_grad(params)
            # Without the barrier XLA removes this reshape to a row.
            flat_grads = jax.tree.map(jax.lax.optimization_barrier, _flatten(grads))
            grads = _unflatten(flat_grads, grads)
            opt = optax.with_extra_args_support(optimizer(point))
            extra = {"value": loss, "grad": grads, "value_fn": value_fn}
            updates, opt_state = opt.update(grads, opt_state, params, **extra)
            is_finite = (finite_steps == step) & jnp.isfinite(loss)

            def apply_update(x: Array, u: Array) -> Array:
                return jnp.where(is_finite, x + u.astype(x.dtype), x)

            flat_params = jax.tree.map(
                apply_update, _flatten(params), _flatten(updates)
            )
            flat_state = jax.tree.map(
                partial(jnp.where, is_finite), _flatten(new_state), flat[2]
            )
            return (
                (flat_params, _flatten(opt_state), flat_state),
                finite_steps + is_finite.astype(finite_steps.dtype),
                loss_sum + loss.astype(loss_sum.dtype),
            )

        return _vmap_group(train_step, spec)(configs, *carry)

    flat = jax.vmap(_flatten)(model)
    start = flat, finite_steps, jnp.zeros(finite_steps.shape, jnp.float32)
    last = jnp.where(configs.active, last, first)
    flat, finite_steps, loss_sum = jax.lax.fori_loop(first, last, body_fun, start)
    params, opt_state, model_state = _unflatten(flat, model)
    return params, opt_state, model_state, finite_steps, loss_sum


def _objective(
    task: Task, batch: PyTree, point: Point, seed: Array, step: Array, state: PyTree
) -> Callable[[PyTree], tuple[Array, PyTree]]:
    """params -> the loss of the batch, and the new state in the dtypes of the state."""
    key = jax.random.fold_in(jax.random.fold_in(random_key(seed), 2), step)

    def objective(params: PyTree) -> tuple[Array, PyTree]:
        result = call_with(task.loss, params, batch, point, key=key, state=state)
        loss, new_state = result if task.state else (result, None)
        check_scalars("task.loss", {"loss": loss})
        return loss, jax.tree.map(_as_dtype_of, state, new_state)

    return objective


def _as_dtype_of(like: Array, x: Any) -> Array:
    return jnp.asarray(x, like.dtype)


# The training loop carries every leaf of a model flattened: XLA:CPU vectorizes only the
# last axis, and a short one not at all.
def _flatten(tree: PyTree) -> PyTree:
    return jax.tree.map(jnp.ravel, tree)


def _unflatten(flat: PyTree, like: PyTree) -> PyTree:
    return jax.tree.map(lambda row, x: row.reshape(x.shape), flat, like)


def _vmap_group(
    function: Callable[..., Any], spec: StaticSpec, batch_size: int | None = None
) -> Callable[..., Any]:
    """`function(point, seed, *trees)` of every model of a group, at its own point.

    All models at once, or `batch_size` of them: a data set is larger than a batch.
    """

    def map_lanes(configs: ConfigBlock, *trees: PyTree) -> Any:
        switched = {
            name: _remat_switch(functions, configs.switch_index[name])
            for name, functions in spec.choices.items()
        }

        def one_lane(lane: tuple) -> Any:
            hyperparams, select_index, seed, *trees = lane
            selected = {
                name: partial(_switch, functions, select_index[name])
                for name, functions in spec.selections.items()
            }
            return function({**hyperparams, **switched, **selected}, seed, *trees)

        lanes = configs.hyperparams, configs.select_index, configs.seeds, *trees
        width = len(configs.seeds)
        return jax.lax.map(one_lane, lanes, batch_size=batch_size or width)

    return map_lanes


def _map_groups(
    function: Callable[..., Any], configs: ConfigBlock, *trees: PyTree
) -> Any:
    """`function` of one group after another; zeros for an empty group."""
    shape = configs.active.shape
    groups = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), (configs, *trees))

    def one_group(group: tuple) -> Any:
        shapes = jax.eval_shape(function, *group)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return jax.lax.cond(group[0].active, function, lambda *_: zeros, *group)

    results = jax.lax.map(one_group, groups)
    return jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), results)


def _remat_switch(functions: NamedFunctions, index: Array) -> Callable[..., Any]:
    """The function with this index; its gradient saves the input alone."""
    remat = {n: jax.checkpoint(f, prevent_cse=False) for n, f in functions.items()}
    return partial(_switch, remat, index)


def _switch(functions: NamedFunctions, index: Array, *arguments: Any) -> Any:
    return jax.lax.switch(index, [*functions.values()], *arguments)


def _draw_batch(data: PyTree, seed: Array, *, step: Array, size: int | None) -> PyTree:
    """Examples drawn with replacement; they depend on the seed and the step alone."""
    if size is None:
        return data
    key = jax.random.fold_in(jax.random.fold_in(random_key(seed), 1), step)
    num_examples = jax.tree.leaves(data)[0].shape[0]
    indices = jax.random.randint(key, (size,), 0, num_examples)
    return jax.tree.map(lambda x: x[indices], data)


def _index(tree: PyTree, i: int) -> PyTree:
    return jax.tree.map(lambda x: x[i], tree)


def _shard_over_devices(
    function: Callable[..., Any], mesh: Mesh, specs: tuple, donate: tuple[int, ...] = ()
) -> Callable[..., Any]:
    """`function` of one block, as a program that runs it on every device at once."""
    sharded = specs[0]

    def local(*arguments: Any) -> Any:
        blocks = [
            _index(argument, 0) if spec == sharded else argument
            for argument, spec in zip(arguments, specs)
        ]
        return jax.tree.map(lambda x: x[None], function(*blocks))

    mapped = jax.shard_map(
        local, mesh=mesh, in_specs=specs, out_specs=sharded, check_vma=False
    )
    return jax.jit(mapped, donate_argnums=donate)

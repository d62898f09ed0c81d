"""Lays out a sweep, compiles its programs and counts their memory, before it runs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxml._core.contract import raise_invalid
from jaxml._core.public import checked
from jaxml._core.types import Count, PyTree
from jaxml.sweep._record import Record
from jaxml.sweep._search_space import Points
from jaxml.sweep.engine import _layout
from jaxml.sweep.engine._blocks import (
    ConfigBlock,
    NamedFunctions,
    StaticSpec,
    TrainState,
)
from jaxml.sweep.engine._compilation import compile_once
from jaxml.sweep.engine._halving import Hyperband, SuccessiveHalving
from jaxml.sweep.engine._population import PopulationBasedTraining
from jaxml.sweep.engine._processes import allgather
from jaxml.sweep.engine._programs import Programs, make_programs
from jaxml.sweep.engine._task import Task, check_task
from jaxml.sweep.engine._validation import (
    as_columns,
    check_state,
    encode_names,
    validate_columns,
)


class Plan(NamedTuple):
    """The models of a sweep and their compiled programs; `print` shows the size.

    Args:
        spec: The functions and sizes that are compiled in.
        points: The settings, one column each.
        branch_indices: For each column of names, the index of the named function.
        group_keys: Models with equal keys may share a group.
        steps: The steps after which curves are recorded.
        shape: Optimizers, groups and lanes of a block.
        devices: Each trains one block at a time.
        device_counts: How many devices each process has.
        halving: When the worse models stop, if they do.
        programs: Compiled for one block on each device.
        bytes: Memory on all devices together: the data, the states, and the temporaries
            of the largest program.
        population: When bad models copy good ones, if they do.
        number_dtypes: Of the columns of hyperparameters, as compiled.
    """

    spec: StaticSpec
    points: Points
    branch_indices: dict[str, np.ndarray]
    group_keys: np.ndarray
    steps: np.ndarray
    shape: tuple[int, int, int]
    devices: tuple[Any, ...]
    device_counts: tuple[int, ...]
    halving: SuccessiveHalving | Hyperband | None
    programs: Programs
    bytes: int
    population: PopulationBasedTraining | None
    number_dtypes: dict[str, Any]

    @property
    def num_models(self) -> int:
        """Number of models, one for each point."""
        return len(self.group_keys)

    @property
    def number_columns(self) -> list[str]:
        """The columns of hyperparameters."""
        return list(self.number_dtypes)

    @checked
    def evaluate(
        self,
        points: Mapping[str, Any],
        *,
        keep_params: bool = False,
        callback: Callable[[float, Record], None] | None = None,
    ) -> Record:
        """Trains one model for each new point, with the programs of this plan.

        It compiles nothing, takes any number of points, and gives each the bits that it
        has in any other run. A search asks it for scores, batch by batch.

        Args:
            points: The columns of the plan, with any numbers and seeds, and with names
                that the plan has compiled.
            keep_params: As in `run`.
            callback: As in `run`.

        Raises:
            ValueError: If a column is missing or new, or a name is not compiled.
        """
        # `_run` needs this class.
        from jaxml.sweep.engine._run import run

        columns = as_columns(points)
        validate_columns(columns, self.points)
        functions = {
            "optimizer": self.spec.optimizers,
            **self.spec.choices,
            **self.spec.selections,
        }
        branch_indices = encode_names(columns, functions)
        group_keys = _group_keys(self.spec, columns, branch_indices)
        new = self._replace(
            points=columns, branch_indices=branch_indices, group_keys=group_keys
        )
        return run(new, keep_params=keep_params, callback=callback)

    def blocks(self, model_ids: np.ndarray | None = None) -> np.ndarray:
        """The model in each lane, [blocks optimizers groups lanes]; -1 if empty."""
        ids = np.arange(self.num_models) if model_ids is None else model_ids
        positions = _layout.assign_blocks(
            self.branch_indices["optimizer"][ids],
            self.group_keys[ids],
            self.shape,
            sum(self.device_counts),
        )
        return np.where(positions < 0, -1, ids[positions])

    def gather_configs(self, model_ids: np.ndarray) -> ConfigBlock:
        """The settings of these models; an empty lane repeats its group's first."""
        first = np.maximum(model_ids[..., :1], 0)
        ids = np.where(model_ids < 0, first, model_ids)
        hyperparams = {
            name: np.asarray(self.points[name], dtype)[ids]
            for name, dtype in self.number_dtypes.items()
        }
        index, of_groups = self.branch_indices, self.spec.group_functions
        of_lanes = {*self.spec.choices, *self.spec.selections}.difference(of_groups)
        return ConfigBlock(
            hyperparams,
            np.asarray(self.points["seed"], np.uint32)[ids],
            {name: index[name][ids] for name in of_lanes},
            {name: index[name][first[..., 0]] for name in of_groups},
            model_ids[..., 0] >= 0,
        )

    def __str__(self) -> str:
        blocks = len(self.blocks())
        optimizers, groups, lanes = self.shape
        programs = len({id(program) for program in self.programs if program})
        return (
            f"{self.num_models:,} models in {blocks:,} blocks of {optimizers} "
            f"optimizers x {groups} groups x {lanes} lanes, on {len(self.devices)} "
            f"devices: {programs} programs, {self.bytes / 2**20:,.1f} MiB."
        )


def _number_dtype(column: np.ndarray) -> Any:
    """float32, or int32 for step counts so large that float32 rounds them."""
    is_exact = np.array_equal(column.astype(np.float32).astype(np.float64), column)
    if column.dtype.kind in "iu" and not is_exact and np.abs(column).max() < 2**31:
        return np.int32
    return np.float32


@checked
def plan(
    task: Task,
    points: Points,
    *,
    optimizers: NamedFunctions,
    choices: Mapping[str, NamedFunctions] | None = None,
    selections: Mapping[str, NamedFunctions] | None = None,
    steps: Count,
    batch_size: Count | None = 64,
    shared_batches: bool = False,
    num_evals: Count = 10,
    halving: SuccessiveHalving | Hyperband | None = None,
    population: PopulationBasedTraining | None = None,
    devices: Sequence[Any] | None = None,
    memory: Count | None = None,
) -> Plan:
    """Lays out one model for each point, and compiles the programs that train them.

    Args:
        task: One model and its data.
        points: Columns of equal length: names under `optimizer` and under the columns
            of `choices` and `selections`, integers under `seed`, numbers elsewhere.
        optimizers: By name, point -> an optax transformation. Its `update` also gets
            `value`, `grad` and `value_fn`.
        choices: By column and name, functions that the task calls as `point[column]`.
        selections: The same for functions so cheap that every model computes all.
        steps: Number of training steps.
        batch_size: Examples per step, drawn with replacement; None takes all.
        shared_batches: Whether models with one seed share their batches, to save time.
        num_evals: Number of points of the curves, at equal distances.
        halving: Stops the worse models early.
        population: Lets bad models copy good ones; not with `halving`.
        devices: All local devices by default.
        memory: Bytes that may be used on all devices of all processes together.

    Raises:
        ValueError: If points or sizes are invalid, or `memory` is too small.

    Example:
        >>> loss = lambda x, data, point: jnp.mean((x - data) ** 2)
        >>> ones, init = jnp.ones(8), lambda key, point: jnp.zeros(())
        >>> task = Task(init, loss, lambda *_: {}, ones, ones)
        >>> points = grid(optimizer=["sgd"], rate=[0.1, 0.2], seed=[0])
        >>> sgd = lambda point: jaxml.optimizers.sgd(point["rate"])
        >>> plan(task, points, optimizers={"sgd": sgd}, steps=3).num_models
        2
    """
    for search in filter(None, (halving, population)):
        search.check()
    if halving and population:
        raise_invalid(ValueError, "population", "be None with halving", population)
    check_task(task)
    check_state(task)
    choices, selections = choices or {}, selections or {}
    points = as_columns(points)
    branch_indices = encode_names(
        points, {"optimizer": optimizers, **choices, **selections}
    )
    devices = tuple(jax.local_devices() if devices is None else devices)
    mesh = Mesh(np.array(devices), ("devices",))
    task = _place_data(task, mesh)
    eval_steps = np.linspace(0, steps, min(num_evals, steps) + 1).round()
    spec = StaticSpec(
        task,
        optimizers,
        choices,
        selections,
        batch_size,
        shared_batches,
        _layout.has_wide_blocks(devices),
        int(np.diff(eval_steps).max()),
    )
    group_keys = _group_keys(spec, points, branch_indices)

    uncompiled = Plan(
        spec,
        points,
        branch_indices,
        group_keys,
        eval_steps[1:].astype(np.int32),
        (len(optimizers), 1, 1),
        devices,
        tuple(int(count) for count in allgather(np.array(len(devices)))),
        halving,
        make_programs(spec, mesh),
        0,
        population,
        {
            name: _number_dtype(column)
            for name, column in points.items()
            if name not in branch_indices and name != "seed"
        },
    )
    with jax.set_mesh(mesh):  # instead of the user's own mesh
        return _compile_within(memory, uncompiled)


def _group_keys(
    spec: StaticSpec, points: Points, branch_indices: dict[str, np.ndarray]
) -> np.ndarray:
    """Equal for models that may share a group."""
    seeds = {"seed": np.asarray(points["seed"])}
    columns = [
        "optimizer",
        *spec.group_functions,
        *(seeds if spec.shared_batches else ()),
    ]
    return _layout.encode_group_keys(branch_indices | seeds, columns)


def _place_data(task: Task, mesh: Mesh) -> Task:
    """The task with its data on every device, wherever the user has placed them.

    Shapes alone are enough to compile, for devices that this machine does not have.
    """
    replicated = NamedSharding(mesh, PartitionSpec())

    def place(x: Any) -> Any:
        if isinstance(x, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated)
        return jax.device_put(x, replicated)

    train, valid = jax.tree.map(place, (task.train, task.valid))
    return task._replace(train=train, valid=valid)


def _compile_within(memory: int | None, uncompiled: Plan) -> Plan:
    """The compiled plan with the widest groups that fit in the memory."""
    num_devices, keys = sum(uncompiled.device_counts), uncompiled.group_keys
    is_wide, num_optimizers = uncompiled.spec.is_wide, uncompiled.shape[0]
    if is_wide:
        max_width = max(_layout.MIN_WIDTH, _layout.WIDE_MODELS // num_optimizers)
        width = _layout.wide_width(keys, num_devices, max_width)
        max_groups = max_width // width
        limit = memory / num_devices if memory else _layout.WIDE_BYTES
    else:
        width = _layout.vmap_width(_bytes_per_model(uncompiled), keys)
        max_groups = _layout.GROUPS_PER_BLOCK // num_optimizers
        limit = memory / num_devices if memory else np.inf
    while True:
        groups = _layout.groups_per_block(max_groups, keys, width, num_devices)
        shape = num_optimizers, groups, width
        compiled = _compile(uncompiled._replace(shape=shape))
        _check_metrics(compiled)
        bytes_per_device = compiled.bytes / len(compiled.devices)
        if bytes_per_device <= limit:
            return compiled
        if width == _layout.MIN_WIDTH:
            if memory is None:
                return compiled
            requirement = f"be at least {bytes_per_device * num_devices:.0f} bytes"
            raise_invalid(ValueError, "memory", requirement, memory)
        fitting = int(width * limit / bytes_per_device)
        fitting -= fitting % _layout.MIN_WIDTH
        width = max(_layout.MIN_WIDTH, fitting)


def _bytes_per_model(uncompiled: Plan) -> int:
    """Bytes of the parameters, their gradients and the largest optimizer state."""
    state = _abstract_block(uncompiled)[0]
    num_models = int(np.prod(uncompiled.shape)) * len(uncompiled.devices)
    params = _num_bytes((state.params, state.model_state))
    opt_state = len(state.opt_states) * max(map(_num_bytes, state.opt_states))
    return (2 * params + opt_state) // num_models


def _num_bytes(tree: PyTree) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _abstract_block(uncompiled: Plan) -> tuple[TrainState, ConfigBlock]:
    """The shapes of the state of a block on each device, and a block of settings."""
    blocks = uncompiled.blocks()[: len(uncompiled.devices)]
    configs = uncompiled.gather_configs(blocks)
    return jax.eval_shape(uncompiled.programs.init, configs), configs


def _compile(uncompiled: Plan) -> Plan:
    """The plan with compiled programs, and the bytes that they use."""
    task, programs = uncompiled.spec.task, uncompiled.programs
    state, configs = _abstract_block(uncompiled)
    init = compile_once(programs.init.lower(configs), uncompiled.devices)
    state = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        state,
        init.output_shardings,
    )
    step = np.int32(0)
    arguments = {
        "advance": (state, configs, task.train, step, step),
        "on_train": (state, configs, task.train),
        "on_valid": (state, configs, task.valid),
        "outputs": (state, configs),
    }
    compiled = programs._replace(
        init=init,
        **{
            name: compile_once(program.lower(*arguments[name]), uncompiled.devices)
            for name, program in programs._asdict().items()
            if name in arguments and program
        },
    )
    if jax.tree.map(jax.typeof, task.train) == jax.tree.map(jax.typeof, task.valid):
        compiled = compiled._replace(on_valid=compiled.on_train)
    states, data = _num_bytes((state, configs)), _num_bytes((task.train, task.valid))
    temp_bytes = max(
        init.memory_analysis().temp_size_in_bytes,  # its results count as states
        *(_temp_bytes(program) for program in compiled[1:] if program),
    )
    total = states + len(uncompiled.devices) * (data + temp_bytes)
    return uncompiled._replace(programs=compiled, bytes=int(total))


def _temp_bytes(program: Any) -> int:
    """Bytes on one device, of temporaries and of results that reuse no argument."""
    memory = program.memory_analysis()
    result_bytes = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return memory.temp_size_in_bytes + result_bytes


def _check_metrics(compiled: Plan) -> None:
    tree = compiled.programs.on_valid.out_tree
    metrics = jax.tree.unflatten(tree, range(tree.num_leaves))
    curves = ["train_loss", *(f"valid_{name}" for name in metrics)]
    for argument in ("halving", "population"):
        search = getattr(compiled, argument)
        if search and search.metric not in curves:
            requirement = f"name one of {', '.join(curves)}"
            raise_invalid(ValueError, f"{argument}.metric", requirement, search.metric)

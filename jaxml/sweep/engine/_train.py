"""What is compiled: init, a chunk of steps and an evaluation, for blocks of members.

A block is [optimizers groups lanes] of members. The members of a group share their
optimizer and every chosen function, so that a choice stays a branch and is never
computed both ways, and they are few enough to stay in a core's cache while they train:
groups go one after another, and an empty one costs nothing. Nothing is exchanged
between devices.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh, PartitionSpec

from jaxml._core.types import Tree
from jaxml.sweep.engine._layout import LANES
from jaxml.sweep.engine._task import Point, Task

Functions = Mapping[str, Callable[..., Any]]


class Block(NamedTuple):
    """The settings of the members of a block."""

    numbers: dict[str, Any]  # [optimizers groups lanes]
    seeds: Any  # [optimizers groups lanes]
    selected: dict[str, Any]  # [optimizers groups lanes]: which function of a selection
    chosen: dict[str, Any]  # [optimizers groups]: which function of a choice
    active: Any  # [optimizers groups]: False where a group is empty


class State(NamedTuple):
    params: Tree  # [optimizers groups lanes ...]
    memories: tuple[Tree, ...]  # of each optimizer, [groups lanes ...]
    lived: Array  # [optimizers groups lanes]: steps until the loss was not finite


class Programs(NamedTuple):
    """Each takes a block on each device, with an axis of devices before all others."""

    init: Any  # block -> state
    advance: Any  # state, block, data, first, last -> state, mean loss
    on_train: Any  # state, block, data -> metrics
    on_valid: Any  # the same, of the data for validation
    outputs: Any  # state, block -> outputs; None of a task without


class Design(NamedTuple):
    """All that is compiled in, and not a number."""

    task: Task
    optimizers: Functions
    choices: Mapping[str, Functions]
    selections: Mapping[str, Functions]
    batch_size: int | None
    shared_batches: bool


def compile_programs(design: Design, mesh: Mesh) -> Programs:
    """The programs of a block on each device of the mesh."""
    task, optimizers = design.task, [*design.optimizers.values()]

    def init(block: Block) -> State:
        def params_of(point: Point, seed: Array) -> Tree:
            return task.init(jax.random.fold_in(jax.random.key(seed), 0), point)

        params = _each_group(_each_lane(params_of, design), block)

        def memory_of(optimizer: Callable, point: Point, _: Array, x: Tree) -> Tree:
            return optimizer(point).init(x)

        memories = []
        for o, optimizer in enumerate(optimizers):
            start = _each_lane(partial(memory_of, optimizer), design)
            memories.append(jax.vmap(start)(_at(block, o), _at(params, o)))
        return State(params, tuple(memories), jnp.zeros(block.seeds.shape, jnp.int32))

    def advance(
        state: State, block: Block, data: Tree, first: Array, last: Array
    ) -> tuple[State, Array]:
        """The state after the steps first, ..., last - 1, and their mean loss."""
        after = []
        for o, optimizer in enumerate(optimizers):
            train = partial(_train, design, optimizer, data, first, last)
            before = _at(block, o), _at(state.params, o), state.memories[o]
            after.append(
                jax.lax.map(lambda g, f=train: f(*g), (*before, state.lived[o]))
            )
        params, memories, lived, total = zip(*after)
        params = jax.tree.map(lambda *x: jnp.stack(x), *params)
        mean = jnp.stack(total) / jnp.asarray(last - first, jnp.float32)
        return State(params, memories, jnp.stack(lived)), mean

    def evaluate(state: State, block: Block, data: Tree) -> dict[str, Array]:
        def metrics(point: Point, _: Array, params: Tree) -> dict[str, Array]:
            return task.metrics(params, data, point)

        return _each_group(_each_lane(metrics, design, LANES), block, state.params)

    def outputs(state: State, block: Block) -> dict[str, Array]:
        def shown(point: Point, _: Array, params: Tree) -> dict[str, Array]:
            return task.outputs(params, point) if task.outputs else {}

        return _each_group(_each_lane(shown, design, LANES), block, state.params)

    own, shared = PartitionSpec("devices"), PartitionSpec()
    specs = (own, own, shared, shared, shared)
    evaluation = _on_each_device(evaluate, mesh, specs[:3])
    return Programs(
        init=_on_each_device(init, mesh, specs[1:2]),
        advance=_on_each_device(advance, mesh, specs, donate=(0,)),
        on_train=evaluation,
        on_valid=evaluation,
        outputs=_on_each_device(outputs, mesh, specs[:2]) if task.outputs else None,
    )


def _train(
    design: Design,
    optimizer: Callable[..., Any],
    data: Tree,
    first: Array,
    last: Array,
    group: Block,
    params: Tree,
    memory: Tree,
    lived: Array,
) -> tuple[Tree, Tree, Array, Array]:
    """A group after its steps, and the sum of its losses over them.

    From step to step every array of a member is handed on as a row: XLA:CPU makes
    vectors of the last axis alone, and a short one is taken number by number.
    """
    before = params, memory

    def step(number: Array, carry: tuple) -> tuple:
        draw = partial(_batch, data, step=number, size=design.batch_size)
        shared = draw(group.seeds[0]) if design.shared_batches else None

        def move(
            point: Point, seed: Array, rows: Tree, lived: Array, total: Array
        ) -> tuple:
            batch = shared if design.shared_batches else draw(seed)
            x, memory = jax.tree.map(lambda r, x: r.reshape(x.shape[1:]), rows, before)

            def value_fn(x: Tree) -> Array:
                return design.task.loss(x, batch, point)

            loss, g = jax.value_and_grad(value_fn)(x)
            g = jax.tree.map(lambda g: _in_a_row(g).reshape(g.shape), g)
            own = optax.with_extra_args_support(optimizer(point))
            given = {"value": loss, "grad": g, "value_fn": value_fn}
            updates, memory = own.update(g, memory, x, **given)
            alive = (lived == number) & jnp.isfinite(loss)

            def moved(x: Array, u: Array) -> Array:
                x, u = x.ravel(), u.astype(x.dtype).ravel()
                return jnp.where(alive, x + u, x)

            return (
                (jax.tree.map(moved, x, updates), jax.tree.map(jnp.ravel, memory)),
                lived + alive.astype(lived.dtype),
                total + loss.astype(total.dtype),
            )

        return _each_lane(move, design)(group, *carry)

    rows = jax.tree.map(jax.vmap(jnp.ravel), before)
    start = rows, lived, jnp.zeros(lived.shape, jnp.float32)
    last = jnp.where(group.active, last, first)
    rows, lived, total = jax.lax.fori_loop(first, last, step, start)
    after = jax.tree.map(lambda row, x: row.reshape(x.shape), rows, before)
    return *after, lived, total


def _in_a_row(x: Array) -> Array:
    """x as one row, as a step of its own: or XLA would take the rows' form back."""
    return jax.lax.optimization_barrier(x.ravel())


def _each_lane(
    function: Callable[..., Any], design: Design, at_once: int | None = None
) -> Callable[..., Any]:
    """`function(point, seed, *trees)` of every member of a group, at its own point.

    All of them at once, or so many: whole data sets are larger than batches.
    """

    def group(block: Block, *trees: Tree) -> Any:
        chosen = {
            name: _branch(functions, block.chosen[name])
            for name, functions in design.choices.items()
        }

        def lane(settings: tuple) -> Any:
            numbers, selected, seed, *own = settings
            point = numbers | chosen
            for name, functions in design.selections.items():
                point[name] = partial(_switch, functions, selected[name])
            return function(point, seed, *own)

        every = block.numbers, block.selected, block.seeds, *trees
        return jax.lax.map(lane, every, batch_size=at_once or len(block.seeds))

    return group


def _each_group(function: Callable[..., Any], block: Block, *trees: Tree) -> Any:
    """`function` of one group after another, zeros for an empty one."""
    groups = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), (block, *trees))

    def one(group: tuple) -> Any:
        shapes = jax.eval_shape(function, *group)
        nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return jax.lax.cond(group[0].active, function, lambda *_: nothing, *group)

    shape = block.active.shape
    return jax.tree.map(
        lambda x: x.reshape(*shape, *x.shape[1:]), jax.lax.map(one, groups)
    )


def _branch(functions: Functions, code: Array) -> Callable[..., Any]:
    """The function with this code; its gradient keeps the input and runs it again."""
    again = {n: jax.checkpoint(f, prevent_cse=False) for n, f in functions.items()}
    return partial(_switch, again, code)


def _switch(functions: Functions, code: Array, *arguments: Any) -> Any:
    return jax.lax.switch(code, [*functions.values()], *arguments)


def _batch(data: Tree, seed: Array, *, step: Array, size: int | None) -> Tree:
    """Examples drawn with replacement, from the seed and the step alone."""
    if size is None:
        return data
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 1), step)
    count = jax.tree.leaves(data)[0].shape[0]
    rows = jax.random.randint(key, (size,), 0, count)
    return jax.tree.map(lambda x: x[rows], data)


def _at(tree: Tree, place: int) -> Tree:
    return jax.tree.map(lambda x: x[place], tree)


def _on_each_device(
    function: Callable[..., Any], mesh: Mesh, specs: tuple, donate: tuple[int, ...] = ()
) -> Callable[..., Any]:
    """`function` of one block, as a program that runs it on every device at once."""
    own = specs[0]

    def local(*arguments: Any) -> Any:
        blocks = [
            _at(argument, 0) if spec == own else argument
            for argument, spec in zip(arguments, specs)
        ]
        return jax.tree.map(lambda x: x[None], function(*blocks))

    mapped = jax.shard_map(
        local, mesh=mesh, in_specs=specs, out_specs=own, check_vma=False
    )
    return jax.jit(mapped, donate_argnums=donate)

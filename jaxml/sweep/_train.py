"""What is compiled: init, a chunk of steps and an evaluation, for one block of members.

A block is a fixed number of members that share every chosen function but the optimizer,
so that a choice stays a branch and is never computed both ways. Forward and backward
are batched over the block; each optimizer updates a static slice of it. Every device
has a block of its own, and nothing is exchanged between them.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh, PartitionSpec

from jaxml._core.types import Tree
from jaxml.sweep._task import Point, Task

MEMBERS = 64  # of a block, if few optimizers share it: they fit a core's cache
LANES = 16  # a slice of whole vectors: its members' bits do not depend on their place

Functions = Mapping[str, Callable[..., Any]]


class Block(NamedTuple):
    """The settings of the members of one block on each device, devices first."""

    numbers: dict[str, Any]  # [devices members]
    seeds: Any  # [devices members]
    codes: dict[str, Any]  # [devices]: which function of each choice


class State(NamedTuple):
    params: Tree
    memories: tuple[Tree, ...]  # of each optimizer, for its slice


class Programs(NamedTuple):
    init: Callable[[Block], State]
    advance: Callable[..., tuple[State, Array]]
    evaluate: Callable[[State, Block, Tree], dict[str, Array]]
    outputs: Callable[[State, Block], dict[str, Array]]


def slices(count: int) -> list[slice]:
    """The members of a block that each of `count` optimizers updates."""
    width = LANES * max(1, MEMBERS // (LANES * count))
    return [slice(i * width, (i + 1) * width) for i in range(count)]


def compile_programs(
    task: Task,
    optimizers: Functions,
    choices: Mapping[str, Functions],
    *,
    batch_size: int | None,
    mesh: Mesh,
) -> Programs:
    """The three programs. A batch size of None takes all examples at every step."""
    parts = list(zip(optimizers.values(), slices(len(optimizers))))

    def each(function: Callable[..., Any], block: Block, *trees: Tree) -> Any:
        """`function(point, seed, *trees)` of every member, at its own point."""

        def member(numbers: dict, seed: Array, *own: Tree) -> Any:
            return function(_point(numbers, block.codes, choices), seed, *own)

        return jax.vmap(member)(block.numbers, block.seeds, *trees)

    def init(block: Block) -> State:
        def params_of(point: Point, seed: Array) -> Tree:
            return task.init(jax.random.fold_in(jax.random.key(seed), 0), point)

        params = each(params_of, block)
        memories = [
            each(partial(_start, optimizer), _part(block, own), _take(params, own))
            for optimizer, own in parts
        ]
        return State(params, tuple(memories))

    def advance(
        state: State, block: Block, data: Tree, first: Array, last: Array
    ) -> tuple[State, Array]:
        """The state after the steps first, ..., last - 1, and their mean loss."""

        def gradient(step: Array, point: Point, seed: Array, params: Tree) -> Any:
            batch = _batch(data, seed, step, batch_size)
            return jax.value_and_grad(task.loss)(params, batch, point)

        def step(number: Array, carry: tuple[State, Array]) -> tuple[State, Array]:
            (params, memories), total = carry
            losses, grads = each(partial(gradient, number), block, params)
            moved = []
            for (optimizer, own), memory in zip(parts, memories):
                mine = _take(grads, own), memory, _take(params, own)
                moved.append(each(partial(_move, optimizer), _part(block, own), *mine))
            slices, memories = zip(*moved)
            params = jax.tree.map(lambda *xs: jnp.concatenate(xs), *slices)
            return State(params, memories), total + losses.astype(total.dtype)

        start = state, jnp.zeros(block.seeds.shape, jnp.float32)
        state, total = jax.lax.fori_loop(first, last, step, start)
        return state, total / jnp.asarray(last - first, jnp.float32)

    def evaluate(state: State, block: Block, data: Tree) -> dict[str, Array]:
        def metrics(point: Point, _: Array, params: Tree) -> dict[str, Array]:
            return task.metrics(params, data, point)

        return each(metrics, block, state.params)

    def outputs(state: State, block: Block) -> dict[str, Array]:
        def shown(point: Point, _: Array, params: Tree) -> dict[str, Array]:
            return task.outputs(params, point) if task.outputs else {}

        return each(shown, block, state.params)

    own, shared = PartitionSpec("devices"), PartitionSpec()
    specs = (own, own, shared, shared, shared)
    return Programs(
        init=_on_each_device(init, mesh, specs[1:2]),
        advance=_on_each_device(advance, mesh, specs, donate=(0,)),
        evaluate=_on_each_device(evaluate, mesh, specs[:3]),
        outputs=_on_each_device(outputs, mesh, specs[:2]),
    )


def _start(optimizer: Callable[..., Any], point: Point, seed: Array, x: Tree) -> Tree:
    return optimizer(point).init(x)


def _move(
    optimizer: Callable[..., Any],
    point: Point,
    seed: Array,
    g: Tree,
    memory: Tree,
    x: Tree,
) -> tuple[Tree, Tree]:
    updates, memory = optimizer(point).update(g, memory, x)
    return jax.tree.map(lambda x, u: x + u.astype(x.dtype), x, updates), memory


def _on_each_device(
    function: Callable[..., Any], mesh: Mesh, specs: tuple, donate: tuple[int, ...] = ()
) -> Callable[..., Any]:
    """`function` of one block, as a program that runs it on every device at once."""
    own = specs[0]

    def local(*arguments: Any) -> Any:
        blocks = [
            jax.tree.map(lambda x: x[0], argument) if spec == own else argument
            for argument, spec in zip(arguments, specs)
        ]
        return jax.tree.map(lambda x: x[None], function(*blocks))

    mapped = jax.shard_map(
        local, mesh=mesh, in_specs=specs, out_specs=own, check_vma=False
    )
    return jax.jit(mapped, donate_argnums=donate)


def _point(numbers: dict, codes: dict, choices: Mapping[str, Functions]) -> Point:
    chosen = {
        name: _chosen(functions, codes[name]) for name, functions in choices.items()
    }
    return {**numbers, **chosen}


def _chosen(functions: Functions, code: Array) -> Callable[..., Any]:
    """The function with this code; its gradient keeps the input and runs it again."""

    def call(*arguments: Any) -> Any:
        return jax.lax.switch(code, [*functions.values()], *arguments)

    return jax.checkpoint(call, prevent_cse=False)


def _batch(data: Tree, seed: Array, step: Array, size: int | None) -> Tree:
    """Examples drawn with replacement, from the member's seed and the step alone."""
    if size is None:
        return data
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 1), step)
    count = jax.tree.leaves(data)[0].shape[0]
    return _take(data, jax.random.randint(key, (size,), 0, count))


def _part(block: Block, members: slice) -> Block:
    numbers = _take(block.numbers, members)
    return Block(numbers, block.seeds[members], block.codes)


def _take(tree: Tree, where: Any) -> Tree:
    return jax.tree.map(lambda x: x[where], tree)

"""What will be trained, in what shape and in how many bytes, before it is."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from jaxml._core.checks import check_count, refuse
from jaxml._core.types import Tree
from jaxml.sweep.engine import _layout
from jaxml.sweep.engine._halving import Halving
from jaxml.sweep.engine._task import Task
from jaxml.sweep.engine._train import (
    Block,
    Design,
    Functions,
    Programs,
    State,
    compile_programs,
)

Points = Mapping[str, np.ndarray]


class Plan(NamedTuple):
    """Models to train, and the programs that will; printed, it says how large.

    Args:
        design: The functions that are compiled in.
        points: The settings, a column for each.
        codes: The place of every name among the functions of its column.
        keys: Members with one key may share a group.
        steps: The steps after which curves are taken.
        shape: Optimizers, groups and lanes of a block.
        devices: Each trains a block at a time.
        halving: When the worse models stop, if they do.
        programs: Compiled for a block on each device.
        bytes: Held on all devices together: data, states, and what the program that
            needs the most needs while it runs.
    """

    design: Design
    points: Points
    codes: dict[str, np.ndarray]
    keys: np.ndarray
    steps: np.ndarray
    shape: tuple[int, int, int]
    devices: tuple[Any, ...]
    halving: Halving | None
    programs: Programs
    bytes: int

    def blocks(self, members: np.ndarray | None = None) -> np.ndarray:
        """[blocks optimizers groups lanes]: who is trained where, -1 for nobody."""
        chosen = np.arange(len(self.keys)) if members is None else members
        places = _layout.arrange(
            self.codes["optimizer"][chosen],
            self.keys[chosen],
            self.shape,
            len(self.devices) * jax.process_count(),
        )
        return np.where(places < 0, -1, chosen[places])

    def gather(self, members: np.ndarray) -> Block:
        """The settings of these members; an empty lane repeats one of its group."""
        first = np.maximum(members[..., :1], 0)
        filled = np.where(members < 0, first, members)
        numbers = {
            name: np.asarray(column, np.float32)[filled]
            for name, column in self.points.items()
            if name not in self.codes and name != "seed"
        }
        return Block(
            numbers,
            np.asarray(self.points["seed"], np.uint32)[filled],
            {name: self.codes[name][filled] for name in self.design.selections},
            {name: self.codes[name][first[..., 0]] for name in self.design.choices},
            members[..., 0] >= 0,
        )

    def __str__(self) -> str:
        blocks = len(self.blocks())
        optimizers, groups, lanes = self.shape
        programs = len({id(program) for program in self.programs if program})
        return (
            f"{len(self.keys):,} models in {blocks:,} blocks of {optimizers} "
            f"optimizers x {groups} groups x {lanes} lanes, on {len(self.devices)} "
            f"devices: {programs} programs, {self.bytes / 2**20:,.1f} MiB."
        )


def plan(
    task: Task,
    points: Points,
    *,
    optimizers: Functions,
    choices: Mapping[str, Functions] | None = None,
    selections: Mapping[str, Functions] | None = None,
    steps: int,
    batch_size: int | None = 64,
    shared_batches: bool = False,
    evaluations: int = 10,
    halving: Halving | None = None,
    devices: Sequence[Any] | None = None,
    memory: int | None = None,
) -> Plan:
    """Lays out one model for every point, and compiles the programs that train them.

    Args:
        task: One model and its data.
        points: Equally long columns: names under `optimizer` and in those of `choices`
            and `selections`, integers under `seed`, numbers elsewhere.
        optimizers: By name, point -> what optax takes, told value, grad, value_fn.
        choices: By column and name, functions that the task calls as `point[column]`;
            models that differ in one are trained apart.
        selections: The same for functions so cheap that all are computed: schedules.
        steps: How many steps every model takes.
        batch_size: Examples a step, drawn with replacement; None takes all.
        shared_batches: Whether models of one seed share the arrays of their batches.
            The examples are the same either way; the last bits may not be.
        evaluations: How often the curves are taken, equally far apart.
        halving: Stops the worse models early.
        devices: All local ones by default.
        memory: The most bytes that may be held on all devices together.

    Raises:
        ValueError: If points or sizes are not as said, or the memory is too little.

    Example:
        >>> start = lambda key, point: jnp.zeros(())
        >>> loss = lambda x, data, point: jnp.mean((x - data) ** 2)
        >>> one = Task(start, loss, lambda *given: {}, jnp.ones(8), jnp.ones(8))
        >>> points = grid(optimizer=["sgd"], rate=[0.1, 0.2], seed=[0])
        >>> sgd = lambda point: jaxml.optimizers.sgd(point["rate"])
        >>> len(plan(one, points, optimizers={"sgd": sgd}, steps=3).keys)
        2
    """
    check_count(
        "plan",
        steps=steps,
        evaluations=evaluations,
        batch_size=batch_size,
        memory=memory,
    )
    if halving:
        halving.check()
    choices, selections = choices or {}, selections or {}
    codes = _encode(points, {"optimizer": optimizers, **choices, **selections})
    design = Design(task, optimizers, choices, selections, batch_size, shared_batches)
    alike = ["optimizer", *choices]
    seeds = {"seed": np.asarray(points["seed"])}
    keys = _layout.key(codes | seeds, [*alike, *(seeds if shared_batches else ())])
    devices = tuple(jax.local_devices() if devices is None else devices)
    edges = np.linspace(0, steps, min(evaluations, steps) + 1).round().astype(np.int32)

    draft = Plan(
        design,
        points,
        codes,
        keys,
        edges[1:],
        (len(optimizers), 1, 1),
        devices,
        halving,
        compile_programs(design, Mesh(np.array(devices), ("devices",))),
        0,
    )
    lanes = _layout.lanes(_bytes_of_member(draft), keys)
    while True:
        groups = _layout.groups(len(optimizers), keys, lanes, len(devices))
        shape = len(optimizers), groups, lanes
        laid = _compiled(draft._replace(shape=shape))
        _check_halving(laid)
        if memory is None or laid.bytes <= memory:
            return laid
        if lanes == _layout.LANES:
            rule = f"be at least {laid.bytes} bytes"
            refuse(ValueError, "plan", "memory", rule, memory)
        fitting = int(lanes * memory / laid.bytes) // _layout.LANES * _layout.LANES
        lanes = max(_layout.LANES, fitting)


def _bytes_of_member(draft: Plan) -> int:
    """Of the parameters, their gradients and the largest memory of an optimizer."""
    state = _shapes(draft)[0]
    members = int(np.prod(draft.shape)) * len(draft.devices)
    params = _bytes(state.params)
    of_memories = len(draft.design.optimizers) * max(map(_bytes, state.memories))
    return (2 * params + of_memories) // members


def _bytes(tree: Tree) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _shapes(draft: Plan) -> tuple[State, Block]:
    block = draft.gather(draft.blocks()[: len(draft.devices)])
    return jax.eval_shape(draft.programs.init, block), block


def _compiled(draft: Plan) -> Plan:
    """The plan with its programs compiled, and the bytes that the largest holds."""
    task, programs = draft.design.task, draft.programs
    state, block = _shapes(draft)
    init = programs.init.lower(block).compile()
    state = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        state,
        init.output_shardings,
    )
    step = np.int32(0)
    after = {
        "advance": (state, block, task.train, step, step),
        "on_train": (state, block, task.train),
        "on_valid": (state, block, task.valid),
        "outputs": (state, block),
    }
    ready = programs._replace(
        init=init,
        **{
            name: program.lower(*after[name]).compile()
            for name, program in programs._asdict().items()
            if name in after and program
        },
    )
    if jax.tree.map(jax.typeof, task.train) == jax.tree.map(jax.typeof, task.valid):
        ready = ready._replace(on_valid=ready.on_train)
    states, data = _bytes((state, block)), _bytes((task.train, task.valid))
    needed = max(
        init.memory_analysis().temp_size_in_bytes,  # what it returns are the states
        *(_needed(program) for program in ready[1:] if program),
    )
    held = states + len(draft.devices) * (data + needed)
    return draft._replace(programs=ready, bytes=int(held))


def _needed(program: Any) -> int:
    """The bytes on one device that it needs beside its arguments."""
    used = program.memory_analysis()
    of_results = used.output_size_in_bytes - used.alias_size_in_bytes
    return used.temp_size_in_bytes + of_results


def _check_halving(laid: Plan) -> None:
    tree = laid.programs.on_valid.out_tree
    metrics = jax.tree.unflatten(tree, range(tree.num_leaves))
    curves = ["train_loss", *(f"valid_{name}" for name in metrics)]
    if laid.halving and laid.halving.metric not in curves:
        rule = f"name one of {', '.join(curves)}"
        refuse(ValueError, "plan", "halving.metric", rule, laid.halving.metric)


def _encode(
    points: Points, functions: Mapping[str, Functions]
) -> dict[str, np.ndarray]:
    """Names as numbers: the place of each among the functions of its column."""
    for column in [*functions, "seed"]:
        if column not in points:
            rule, found = f"have a column {column!r}", tuple(points)
            refuse(ValueError, "plan", "points", rule, found)
    if len({len(column) for column in points.values()}) != 1 or not len(points["seed"]):
        lengths = {name: len(column) for name, column in points.items()}
        raise ValueError(f"plan: points must be equally long columns, got {lengths}.")
    codes = {}
    for column, known in functions.items():
        names = list(known)
        for name in set(points[column].tolist()) - set(names):
            near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.0)
            rule = f"name one of {', '.join(near)}"
            refuse(ValueError, "plan", f"points[{column!r}]", rule, name)
        places = {name: place for place, name in enumerate(names)}
        codes[column] = np.array([places[n] for n in points[column]], np.int32)
    for column, values in points.items():
        values = np.asarray(values)
        if column not in codes and not np.can_cast(values.dtype, float):
            rule, found = "be numbers, or a column of choices or selections", values[0]
            refuse(ValueError, "plan", f"points[{column!r}]", rule, found.item())
    seeds = np.asarray(points["seed"])
    for seed in (seeds.min(), seeds.max()):
        if seeds.dtype.kind not in "iu" or not 0 <= seed < 2**32:
            rule = "be whole numbers in [0, 2³²)"
            refuse(ValueError, "plan", "points['seed']", rule, seed.item())
    return codes

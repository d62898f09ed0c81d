"""The host's loop over blocks and chunks of steps: points in, a record out."""

import difflib
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxml.sweep._record import Record
from jaxml.sweep._task import Task
from jaxml.sweep._train import (
    Block,
    Functions,
    Programs,
    compile_programs,
    slices,
)

Points = Mapping[str, np.ndarray]
Watch = Callable[[float, Record], None]


def run(
    task: Task,
    points: Points,
    *,
    optimizers: Functions,
    choices: Mapping[str, Functions] | None = None,
    steps: int,
    batch_size: int | None = 64,
    evaluations: int = 10,
    devices: Sequence[Any] | None = None,
    watch: Watch | None = None,
) -> Record:
    """Trains one model for every point, many at a time, with three compiled programs.

    A model depends on its own settings, seed and steps alone. An interrupt ends the
    run.

    Args:
        task: One model and its data.
        points: Equally long columns: names under `optimizer` and in those of `choices`,
            integers under `seed`, of which all randomness comes, numbers elsewhere.
        optimizers: By name, point -> an optax gradient transformation.
        choices: By column and name, functions that the task calls as `point[column]`.
        steps: How many steps every model takes.
        batch_size: Examples a step, drawn with replacement; None takes all.
        evaluations: How often the curves are taken, equally far apart.
        devices: All local ones by default.
        watch: Called as watch(models done, record so far) after every chunk of steps.

    Raises:
        ValueError: If a column is missing, a name unknown or a size not positive.

    Example:
        >>> def loss(x, data, point):
        ...     return jnp.mean((x - data) ** 2)
        >>> report = lambda *given: {"loss": loss(*given)}
        >>> start = lambda key, point: jnp.zeros(())
        >>> one = Task(start, loss, report, jnp.ones(8), jnp.ones(8))
        >>> points = grid(optimizer=["sgd"], rate=[0.1, 1e30], seed=[0])
        >>> sgd = lambda point: jaxml.optimizers.sgd(point["rate"])
        >>> run(one, points, optimizers={"sgd": sgd}, steps=3).status.tolist()
        ['ok', 'diverged']
    """
    choices = {} if choices is None else choices
    _check_sizes(steps=steps, evaluations=evaluations, batch_size=batch_size)
    codes = _encode(points, {"optimizer": optimizers, **choices})
    devices = jax.local_devices() if devices is None else devices
    mesh = Mesh(np.array(devices), ("devices",))
    programs = compile_programs(
        task, optimizers, choices, batch_size=batch_size, mesh=mesh
    )
    edges = np.linspace(0, steps, min(evaluations, steps) + 1).round().astype(np.int32)
    record = _empty(points, edges[1:])
    blocks = _blocks(codes, len(optimizers))
    try:
        for start in range(0, len(blocks), len(devices)):
            group = blocks[start : start + len(devices)]
            _train(task, programs, points, codes, group, len(devices), record, watch)
    except KeyboardInterrupt:
        pass  # the status of what is not finished says so
    return record


def _train(
    task: Task,
    programs: Programs,
    points: Points,
    codes: dict[str, np.ndarray],
    group: list[np.ndarray],
    devices: int,
    record: Record,
    watch: Watch | None,
) -> None:
    """Trains a block on each device, and enters the outcome of their members."""
    members = np.stack([*group, *[group[0]] * (devices - len(group))])
    block = _gather(points, codes, members)
    members = members[: len(group)]
    done = np.sum(record.status != "unfinished")
    metrics = {}

    state = programs.init(block)
    edges = [np.int32(0), *record.steps]
    for i, (first, last) in enumerate(itertools.pairwise(edges)):
        state, loss = programs.advance(state, block, task.train, first, last)
        metrics = programs.evaluate(state, block, task.valid)
        _enter(record, "train", {"loss": loss}, members, i)
        _enter(record, "valid", metrics, members, i)
        if watch and i < len(record.steps) - 1:
            watch(done + np.sum(members >= 0) * last / record.steps[-1], record)

    on_train = programs.evaluate(state, block, task.train)
    _enter(record, "train", on_train, members, None)
    _enter(record, "valid", metrics, members, None)
    if task.outputs:
        _keep(record, programs.outputs(state, block), members)
    own = members[members >= 0]
    finite = np.all(
        [np.isfinite(column[own]) for column in record.final.values()], axis=0
    )
    record.status[own] = np.where(finite, "ok", "diverged")
    if watch:
        watch(done + len(own), record)


def _blocks(codes: dict[str, np.ndarray], optimizers: int) -> list[np.ndarray]:
    """The members of each block, each in its optimizer's slice; -1 where there is none.

    All members of a block share their choices.
    """
    shared = [code for name, code in codes.items() if name != "optimizer"]
    chosen = np.stack([*shared, np.zeros_like(codes["optimizer"])], axis=1)
    blocks: list[np.ndarray] = []
    for choice in np.unique(chosen, axis=0):
        own = np.flatnonzero((chosen == choice).all(axis=1))
        queues = [own[codes["optimizer"][own] == i] for i in range(optimizers)]
        parts = slices(optimizers)
        count = max(-(-len(q) // (p.stop - p.start)) for q, p in zip(queues, parts))
        places = np.full((count, parts[-1].stop), -1)
        for queue, part in zip(queues, parts):
            column = places[:, part]
            column.flat[: len(queue)] = queue
        blocks += [*places]
    return blocks


def _gather(points: Points, codes: dict[str, np.ndarray], members: np.ndarray) -> Block:
    """The settings of these members; an empty place repeats one of its block."""
    filled = np.where(members < 0, members.max(axis=1, keepdims=True), members)
    chosen = {name: code for name, code in codes.items() if name != "optimizer"}
    numbers = {n: c for n, c in points.items() if n not in codes and n != "seed"}
    return Block(
        {
            name: np.asarray(column, np.float32)[filled]
            for name, column in numbers.items()
        },
        np.asarray(points["seed"], np.uint32)[filled],
        {name: code[filled[:, 0]] for name, code in chosen.items()},
    )


def _encode(
    points: Points, functions: Mapping[str, Functions]
) -> dict[str, np.ndarray]:
    """Names as numbers: the place of each among the functions of its column."""
    for column in [*functions, "seed"]:
        if column not in points:
            raise ValueError(
                f"run: points must have a column {column!r}, got {[*points]}."
            )
    if len({len(column) for column in points.values()}) != 1 or not len(points["seed"]):
        lengths = {name: len(column) for name, column in points.items()}
        raise ValueError(f"run: points must be equally long columns, got {lengths}.")
    codes = {}
    for column, known in functions.items():
        names = list(known)
        for name in set(points[column].tolist()) - set(names):
            near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.0)
            rule = f"run: points[{column!r}] must name one of {', '.join(near)}"
            raise ValueError(f"{rule}, got {name!r}.")
        places = [names.index(name) for name in points[column]]
        codes[column] = np.array(places, np.int32)
    return codes


def _check_sizes(**sizes: int | None) -> None:
    for name, size in sizes.items():
        if size is not None and size < 1:
            raise ValueError(f"run: {name} must be positive, got {size}.")


def _empty(points: Points, steps: np.ndarray) -> Record:
    columns = {name: np.asarray(column) for name, column in points.items()}
    status = np.full(len(columns["seed"]), "unfinished")
    return Record(columns, status, {}, steps, {}, {})


def _enter(
    record: Record,
    prefix: str,
    values: Mapping[str, Any],
    members: np.ndarray,
    at: int | None,
) -> None:
    """Writes the members' values into the curves, or, at None, into what is final."""
    columns = record.final if at is None else record.curves
    shape = (len(record.status), *([] if at is None else [len(record.steps)]))
    kept = members >= 0
    for name, value in values.items():
        column = columns.setdefault(
            f"{prefix}_{name}", np.full(shape, np.nan, np.float32)
        )
        cells = members[kept] if at is None else (members[kept], at)
        column[cells] = np.asarray(value)[: len(members)][kept]


def _keep(record: Record, outputs: Mapping[str, Any], members: np.ndarray) -> None:
    """Writes the members' outputs; zeros stand where a model is not finished."""
    kept = members >= 0
    for name, value in outputs.items():
        value = np.asarray(value)[: len(members)]
        shape = len(record.status), *value.shape[2:]
        column = record.outputs.setdefault(name, np.zeros(shape, value.dtype))
        column[members[kept]] = value[kept]

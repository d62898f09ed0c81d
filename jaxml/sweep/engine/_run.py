"""The host's loop over blocks and chunks of steps: a plan in, a record out."""

import contextlib
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxml.sweep._record import Columns, Record
from jaxml.sweep.engine._checkpoint import Folder
from jaxml.sweep.engine._halving import States
from jaxml.sweep.engine._plan import Plan
from jaxml.sweep.engine._train import Block, State

Watch = Callable[[float, Record], None]


def run(
    plan: Plan,
    *,
    folder: str | os.PathLike[str] | None = None,
    resume: bool = False,
    keep_params: bool = False,
    watch: Watch | None = None,
) -> Record:
    """Trains every model of a plan, many at a time.

    A model depends on its own settings, seed and steps alone. An interrupt ends the
    run; what is finished stays. With several processes (`jax.distributed`) each trains
    its part on its own devices, and all return the whole record.

    Args:
        plan: What to train.
        folder: Where finished blocks are kept as they come, and the state of running
            ones about every second, so that a run that was killed may go on.
        resume: Whether to go on with what the folder holds.
        keep_params: Whether the record has the parameters of every model.
        watch: Called as watch(models done, record so far) after every chunk of steps.

    Raises:
        ValueError: If the folder holds a run of other settings, or if several processes
            are to halve or have not as many devices as each other.

    Example:
        >>> def loss(x, data, point):
        ...     return jnp.mean((x - data) ** 2)
        >>> report = lambda *given: {"loss": loss(*given)}
        >>> start = lambda key, point: jnp.zeros(())
        >>> one = Task(start, loss, report, jnp.ones(8), jnp.ones(8))
        >>> points = grid(optimizer=["sgd"], rate=[0.1, 1e30], seed=[0])
        >>> sgd = lambda point: jaxml.optimizers.sgd(point["rate"])
        >>> run(plan(one, points, optimizers={"sgd": sgd}, steps=3)).status.tolist()
        ['ok', 'diverged']
    """
    if plan.halving and jax.process_count() > 1:
        found = jax.process_count()
        raise ValueError(f"run: halving must be of one process, got {found}.")
    devices = np.bincount([device.process_index for device in jax.devices()]).tolist()
    if len(set(devices)) > 1:
        rule = "run: every process must have as many devices as the others"
        raise ValueError(f"{rule}, got {devices}.")
    if jax.process_count() > 1:  # the first exchange waits for half a minute at most
        multihost_utils.sync_global_devices("jaxml.sweep.run")
    given = {"resume": resume, "keep_params": keep_params}
    kept = None if folder is None else Folder(folder, plan, **given)
    training = _Run(plan, kept, keep_params, watch or (lambda done, record: None))
    with contextlib.suppress(KeyboardInterrupt):  # the status says what is unfinished
        training.whole()
    return _of_all_processes(training.record)


class _Run:
    """One run: the record as it grows, and the states that one rung hands on."""

    def __init__(
        self, plan: Plan, folder: Folder | None, keep_params: bool, watch: Watch
    ) -> None:
        self.plan, self.folder = plan, folder
        self.keep_params, self.watch = keep_params, watch
        columns = {name: np.asarray(column) for name, column in plan.points.items()}
        status = np.full(len(plan.keys), "unfinished")
        self.record = Record(columns, status, {}, plan.steps, {}, {}, {})
        self.before, self.after = States(), States()
        self.done = 0  # evaluations of models

    def whole(self) -> None:
        members, first = np.arange(len(self.plan.keys)), 0
        if halving := self.plan.halving:
            for stop in halving.stops(self.plan.steps):
                self._rung(members, first, stop)
                left = halving.best(members, self.record.curves, stop)
                out = np.setdiff1d(members, left)
                self._settle(out, stop, "stopped")
                self._progress(len(out), len(self.plan.steps) - 1 - stop)
                members, first = left, stop + 1
                self.before, self.after = self.after, States()
        self._rung(members, first, len(self.plan.steps) - 1)

    def _rung(self, members: np.ndarray, first: int, last: int) -> None:
        """Trains these members from one evaluation to another."""
        blocks, devices = self.plan.blocks(members), len(self.plan.devices)
        rounds = blocks.reshape(-1, devices, *blocks.shape[1:])
        for i in range(jax.process_index(), len(rounds), jax.process_count()):
            name = f"{first}-{i}"
            found = self.folder and self.folder.finished(name)
            if found:
                self._restore(found, rounds[i][rounds[i] >= 0])
                self._progress(np.sum(rounds[i] >= 0), last + 1 - first)
            else:
                self._train(rounds[i], first, last, name)

    def _train(self, members: np.ndarray, first: int, last: int, name: str) -> None:
        """Trains a block on each device, and enters the outcome of their members."""
        plan, programs, task = self.plan, self.plan.programs, self.plan.design.task
        own = members[members >= 0]
        block = plan.gather(members)
        state = self.before.recalled(members, programs.init(block))
        begun = self.folder and self.folder.paused(name, state)
        if begun:
            chunk, state, curves = begun
            self._restore(curves, own)
            self._progress(len(own), chunk - first)
            first = chunk

        edges = [0, *plan.steps]
        values: dict[str, Any] = {}
        for chunk in range(first, last + 1):
            if self.folder and self.folder.due():
                self._enter_curves(values, members, chunk - 1)
                self.folder.pause(name, chunk, state, self._curves(own))
            begin, end = np.int32(edges[chunk]), np.int32(edges[chunk + 1])
            state, loss = programs.advance(state, block, task.train, begin, end)
            metrics = programs.on_valid(state, block, task.valid)
            self._enter_curves(values, members, chunk - 1)  # while the devices work
            values = {"train_loss": loss, **_named("valid", metrics)}
            self._progress(len(own), 1)
        self._enter_curves(values, members, last)
        self._enter(self.record.final, {"trained": state.lived}, members)

        if last < len(plan.steps) - 1:
            self.after.keep(members, state)
            if self.folder:
                self.folder.pause(name, last + 1, state, self._curves(own))
        else:
            self._enter_final(state, block, members)
            self._settle(own, last, "ok")
            if self.folder:
                self.folder.finish(name, self._of(own))

    def _enter_curves(
        self, values: Mapping[str, Any], members: np.ndarray, at: int
    ) -> None:
        curves, kept = self.record.curves, members >= 0
        for name, value in values.items():
            if name not in curves:
                shape = len(self.plan.keys), len(self.plan.steps)
                curves[name] = np.full(shape, np.nan, np.float32)
            curves[name][members[kept], at] = np.asarray(value)[kept]

    def _enter(
        self, columns: Columns, values: Mapping[str, Any], members: np.ndarray
    ) -> None:
        """Writes the values of a block's members into the columns of their names."""
        kept = members >= 0
        for name, value in values.items():
            own = np.asarray(value)[kept]
            _put(columns, name, own, members[kept], len(self.plan.keys))

    def _enter_final(self, state: State, block: Block, members: np.ndarray) -> None:
        """What is taken once, when training is over."""
        plan, programs, record = self.plan, self.plan.programs, self.record
        on_train = programs.on_train(state, block, plan.design.task.train)
        self._enter(record.final, _named("train", on_train), members)
        if programs.outputs:
            self._enter(record.outputs, programs.outputs(state, block), members)
        if self.keep_params:
            paths = jax.tree_util.tree_leaves_with_path(state.params)
            named = {jax.tree_util.keystr(path): leaf for path, leaf in paths}
            self._enter(record.params, named, members)

    def _settle(self, members: np.ndarray, last: int, status: str) -> None:
        """Enters the last metrics of members, and what became of them."""
        record, length = self.record, len(self.plan.keys)
        for name, curve in record.curves.items():
            if name.startswith("valid_"):
                _put(record.final, name, curve[members, last], members, length)
        numbers = np.array([column[members] for column in record.final.values()])
        sound = np.isfinite(numbers).all(0) | (status == "stopped")
        sound &= record.final["trained"][members] == self.plan.steps[last]
        record.status[members] = np.where(sound, status, "diverged")

    def _curves(self, own: np.ndarray) -> Columns:
        return {f"curves:{n}": c[own] for n, c in self.record.curves.items()}

    def _of(self, own: np.ndarray) -> Columns:
        """The part of the record that says something of these members."""
        record = self.record._replace(points={}, steps=np.array([]))
        return {n: c[own] for n, c in record.flat().items() if n != "steps:"}

    def _restore(self, columns: Columns, own: np.ndarray) -> None:
        """Enters what was kept of these members."""
        fields = self.record._asdict()
        for path, column in columns.items():
            field, _, name = path.partition(":")
            if name:
                _put(fields[field], name, column, own, len(self.plan.keys))
            else:
                fields[field][own] = column

    def _progress(self, members: int, chunks: int) -> None:
        self.done += int(members * chunks)
        self.watch(self.done / len(self.plan.steps), self.record)


def _named(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}_{name}": value for name, value in values.items()}


def _put(
    columns: Columns, name: str, values: np.ndarray, members: np.ndarray, length: int
) -> None:
    """Writes the members' values; elsewhere a new column has NaN, or 0 for integers."""
    if name not in columns:
        nothing = np.nan if np.issubdtype(values.dtype, np.floating) else 0
        columns[name] = np.full((length, *values.shape[1:]), nothing, values.dtype)
    columns[name][members] = values


def _of_all_processes(record: Record) -> Record:
    """The record with the models of every process; each has trained others."""
    if jax.process_count() == 1:
        return record
    names = sorted(set(record.status) | {"ok", "diverged", "stopped", "unfinished"})
    columns = record._replace(points={}, steps=np.array([])).flat()
    columns["status:"] = np.searchsorted(names, record.status)
    trained = multihost_utils.process_allgather(record.status != "unfinished")
    owner, every = np.argmax(trained, 0), np.arange(len(record.status))
    merged = {}
    for name in sorted(set(columns) - {"steps:"}):  # the same order everywhere
        of_all = np.asarray(multihost_utils.process_allgather(columns[name]))
        merged[name] = of_all[owner, every]
    merged = {name: merged[name] for name in columns if name in merged}
    merged["status:"] = np.array(names)[merged["status:"]]
    whole = Record.of_flat(merged)
    return whole._replace(points=record.points, steps=record.steps)

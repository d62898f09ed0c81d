"""The host loop over blocks and chunks of training steps, from a plan to a record."""

import contextlib
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from jaxml.sweep._record import ARRAY_FIELDS, Columns, Record
from jaxml.sweep.engine._blocks import ConfigBlock, TrainState
from jaxml.sweep.engine._checkpoint import CheckpointDir, block_name
from jaxml.sweep.engine._halving import survivors
from jaxml.sweep.engine._layout import encode_group_keys
from jaxml.sweep.engine._plan import Plan
from jaxml.sweep.engine._population import PopulationBasedTraining
from jaxml.sweep.engine._processes import allgather
from jaxml.sweep.engine._states import StateStore

Callback = Callable[[float, Record], None]


def run(
    plan: Plan,
    *,
    checkpoint_dir: str | os.PathLike[str] | None = None,
    resume: bool = False,
    keep_params: bool = False,
    callback: Callback | None = None,
) -> Record:
    """Trains every model of a plan.

    The result of a model depends on its settings, its seed and the steps alone. A
    keyboard interrupt ends the run and returns the record of the finished models. With
    several processes (`jax.distributed`) each trains a part on its own devices, however
    many they are, and all return the whole record.

    Args:
        plan: The models to train.
        checkpoint_dir: Directory for the results of finished blocks and, about every
            second, the states of running ones, so that a killed run can resume.
        resume: Whether to resume from the checkpoints in the directory.
        keep_params: Whether the record holds the parameters of every model.
        callback: Called as callback(num_finished_models, record) after each chunk of
            steps; a model in training counts as a fraction.

    Raises:
        ValueError: If the directory holds a run of other settings.

    Example:
        >>> loss = lambda x, data, point: jnp.mean((x - data) ** 2)
        >>> metrics = lambda *args: {"loss": loss(*args)}
        >>> init = lambda key, point: jnp.zeros(())
        >>> task = Task(init, loss, metrics, jnp.ones(8), jnp.ones(8))
        >>> points = grid(optimizer=["sgd"], rate=[0.1, 1e30], seed=[0])
        >>> sgd = lambda point: jaxml.optimizers.sgd(point["rate"])
        >>> run(plan(task, points, optimizers={"sgd": sgd}, steps=3)).status.tolist()
        ['ok', 'diverged']
    """
    checkpoint = None
    if checkpoint_dir is not None:
        checkpoint = CheckpointDir(
            checkpoint_dir, plan, resume=resume, keep_params=keep_params
        )
    training = _Run(plan, checkpoint, keep_params, callback)
    with contextlib.suppress(KeyboardInterrupt):  # `status` marks unfinished models
        training.run_all()
    return _of_all_processes(training.record)


class _Run:
    """One run: the record as it grows, and the states between rungs of halving."""

    def __init__(
        self,
        plan: Plan,
        checkpoint: CheckpointDir | None,
        keep_params: bool,
        callback: Callback | None,
    ) -> None:
        self.plan, self.checkpoint = plan, checkpoint
        self.keep_params, self.callback = keep_params, callback
        columns = {name: np.asarray(column) for name, column in plan.points.items()}
        status = np.full(plan.num_models, "unfinished")
        self.record = Record(columns, status, {}, plan.steps, {}, {}, {}, {})
        self.prev_states, self.next_states = StateStore(), StateStore()
        self.is_finished: np.ndarray = np.zeros(plan.num_models, bool)  # earlier
        self.num_evals_done = 0  # summed over models

    def _restore_finished(self) -> None:
        """Reads the models that all processes find in the checkpoints."""
        if not self.checkpoint:
            return
        for ids, columns in self.checkpoint.load_done():
            self._restore(columns, ids)
            self.is_finished[ids] = True
        not_in_all = ~np.all(allgather(self.is_finished), 0)
        self.record.status[self.is_finished & not_in_all] = "unfinished"
        self.is_finished[not_in_all] = False
        if self.is_finished.any() and jax.process_index() == 0:
            self._report_progress(int(np.sum(self.is_finished)), len(self.plan.steps))

    def run_all(self) -> None:
        plan, last_eval = self.plan, len(self.plan.steps) - 1
        model_ids, first = np.arange(plan.num_models), 0
        self._restore_finished()
        groups = (
            plan.halving.groups(plan.steps, plan.num_models) if plan.halving else {}
        )
        evolutions = plan.population.rung_indices(plan.steps) if plan.population else []
        for rung in [*groups, *evolutions]:
            self._train_rung(model_ids, first, rung)
            owners = self._allgather_rung(model_ids)
            if plan.halving:
                values = self.record.curves[plan.halving.metric][:, rung]
                best = survivors(plan.halving, model_ids, groups[rung], values)
                self._stop(np.setdiff1d(model_ids, best), rung, owners)
                model_ids = best
            if plan.population:
                self._evolve(plan.population, first, rung)
            first = rung + 1
            self.prev_states, self.next_states = self.next_states, StateStore()
        self._train_rung(model_ids, first, last_eval)
        if plan.population:
            self._write_numbers(first, last_eval)

    def _stop(self, model_ids: np.ndarray, rung: int, owners: np.ndarray) -> None:
        """Finishes these models at a rung."""
        self._finalize(model_ids, rung, "stopped")
        num_own = int(np.sum(owners[model_ids] == jax.process_index()))
        self._report_progress(num_own, len(self.plan.steps) - 1 - rung)

    def _evolve(
        self, population: PopulationBasedTraining, first: int, rung: int
    ) -> None:
        """Makes bad models copy good ones, with other hyperparameters."""
        plan, curves = self.plan, self.record.curves
        self._write_numbers(first, rung)
        columns = ["optimizer", *plan.spec.choices]
        populations = encode_group_keys(plan.branch_indices, columns)
        numbers = {name: np.asarray(plan.points[name]) for name in plan.number_columns}
        values = curves[population.metric][:, rung]
        numbers, sources = population.evolve(numbers, populations, values, rung)
        self.next_states.copy(sources)
        self.plan = plan._replace(points={**plan.points, **numbers})

    def _write_numbers(self, first: int, last: int) -> None:
        """Records the hyperparameters of these evaluations, which may change."""
        shape = self.plan.num_models, len(self.plan.steps)
        for name in self.plan.number_columns:
            curve = self.record.curves.setdefault(name, np.full(shape, np.nan))
            curve[:, first : last + 1] = np.asarray(self.plan.points[name])[:, None]

    def _train_rung(self, model_ids: np.ndarray, first: int, last: int) -> None:
        """Trains these models up to evaluation `last`, a block per device at a time."""
        rounds = self._rounds(model_ids)
        if last == len(self.plan.steps) - 1:
            rounds = self._unfinished(rounds)
        is_local = self._device_owners() == jax.process_index()
        for blocks in rounds[:, is_local]:
            self._train_blocks(blocks, first, last)

    def _rounds(self, model_ids: np.ndarray) -> np.ndarray:
        """A block for each device of all processes, [rounds devices ...]."""
        blocks = self.plan.blocks(model_ids)
        return blocks.reshape(-1, sum(self.plan.device_counts), *blocks.shape[1:])

    def _device_owners(self) -> np.ndarray:
        """The process of each device."""
        counts = self.plan.device_counts
        return np.repeat(np.arange(len(counts)), counts)

    def _unfinished(self, rounds: np.ndarray) -> np.ndarray:
        """The rounds without those that an earlier run has finished.

        If that run had other blocks, because it had other devices or processes, the
        unfinished models are assigned to blocks anew.
        """
        is_finished = self.is_finished[rounds] | (rounds < 0)
        rounds = rounds[~is_finished.all((1, 2, 3, 4))]
        ids = rounds[rounds >= 0]
        if self.is_finished[ids].any():
            return self._rounds(np.sort(ids[~self.is_finished[ids]]))
        return rounds

    def _allgather_rung(self, model_ids: np.ndarray) -> np.ndarray:
        """Exchanges results and states; returns the process that trained each model."""
        owners = np.zeros(self.plan.num_models, int)
        if jax.process_count() == 1:
            return owners
        blocks = self._rounds(model_ids).swapaxes(0, 1)
        for process, ids in zip(self._device_owners(), blocks):
            owners[ids[ids >= 0]] = process
        columns = self.record.curves | {"trained": self.record.final["trained"]}
        for process, of_process in enumerate(allgather(columns)):
            ids = model_ids[owners[model_ids] == process]
            for name, values in of_process.items():
                columns[name][ids] = values[ids]
        self.next_states.allgather(self.plan.num_models)
        return owners

    def _train_blocks(self, model_ids: np.ndarray, first: int, last: int) -> None:
        """Trains one block on each device, and records the results."""
        plan, programs, task = self.plan, self.plan.programs, self.plan.spec.task
        ids, name = model_ids[model_ids >= 0], block_name(first, model_ids)
        num_new = int(np.sum(~self.is_finished[ids]))
        configs = plan.gather_configs(model_ids)
        state = self.prev_states.gather(model_ids, programs.init(configs))
        saved = self.checkpoint and self.checkpoint.load_running(name, state)
        if saved:
            chunk, state, curves = saved
            self._restore(curves, ids)
            self._report_progress(num_new, chunk - first)
            first = chunk

        boundaries = np.array([0, *plan.steps], np.int32)
        values: dict[str, Any] = {}
        for chunk in range(first, last + 1):
            if self.checkpoint and self.checkpoint.should_save():
                self._write_curves(values, model_ids, chunk - 1)
                curves = self._slice_curves(ids)
                self.checkpoint.save_running(name, chunk, state, curves)
            start, stop = boundaries[chunk], boundaries[chunk + 1]
            state, loss = programs.advance(state, configs, task.train, start, stop)
            metrics = programs.on_valid(state, configs, task.valid)
            # Writes the previous chunk's values while the devices run this one.
            self._write_curves(values, model_ids, chunk - 1)
            values = {"train_loss": loss, **_add_prefix("valid", metrics)}
            self._report_progress(num_new, 1)
        self._write_curves(values, model_ids, last)
        # A model of an earlier run may train again to a rung, but not on from there.
        new_ids = np.where(self.is_finished[model_ids], -1, model_ids)
        trained = {"trained": state.finite_steps}
        self._write_columns(self.record.final, trained, new_ids)

        if last < len(plan.steps) - 1:
            self.next_states.add(model_ids, state)
            if self.checkpoint:
                curves = self._slice_curves(ids)
                self.checkpoint.save_running(name, last + 1, state, curves)
        else:
            self._write_final(state, configs, model_ids)
            self._finalize(ids, last, "ok")
            if self.checkpoint:
                self.checkpoint.save_done(name, ids, self._slice_record(ids))

    def _write_curves(
        self, values: Mapping[str, Any], model_ids: np.ndarray, index: int
    ) -> None:
        curves, mask = self.record.curves, model_ids >= 0
        for name, value in values.items():
            if name not in curves:
                shape = self.plan.num_models, len(self.plan.steps)
                curves[name] = np.full(shape, np.nan, np.float32)
            curves[name][model_ids[mask], index] = np.asarray(value)[mask]

    def _write_columns(
        self, columns: Columns, values: Mapping[str, Any], model_ids: np.ndarray
    ) -> None:
        mask = model_ids >= 0
        for name, value in values.items():
            value = np.asarray(value)[mask]
            _scatter(columns, name, value, model_ids[mask], self.plan.num_models)

    def _write_final(
        self, state: TrainState, configs: ConfigBlock, model_ids: np.ndarray
    ) -> None:
        """Records what is computed after training: metrics, parameters and outputs."""
        programs, record = self.plan.programs, self.record
        metrics = programs.on_train(state, configs, self.plan.spec.task.train)
        self._write_columns(record.final, _add_prefix("train", metrics), model_ids)
        if programs.outputs:
            outputs = programs.outputs(state, configs)
            self._write_columns(record.outputs, outputs, model_ids)
        if self.keep_params:
            for columns, tree in (
                (record.params, state.params),
                (record.state, state.model_state),
            ):
                leaves = jax.tree_util.tree_leaves_with_path(tree)
                values = {jax.tree_util.keystr(path): leaf for path, leaf in leaves}
                self._write_columns(columns, values, model_ids)

    def _finalize(self, model_ids: np.ndarray, last: int, status: str) -> None:
        """Records the last metrics of these models, and their status."""
        record, num_models = self.record, self.plan.num_models
        for name, curve in record.curves.items():
            if name.startswith("valid_"):
                values = curve[model_ids, last]
                _scatter(record.final, name, values, model_ids, num_models)
        final = np.array([column[model_ids] for column in record.final.values()])
        is_finite = np.isfinite(final).all(0) | (status == "stopped")
        is_finite &= record.final["trained"][model_ids] == self.plan.steps[last]
        record.status[model_ids] = np.where(is_finite, status, "diverged")

    def _slice_curves(self, model_ids: np.ndarray) -> Columns:
        return {f"curves:{n}": c[model_ids] for n, c in self.record.curves.items()}

    def _slice_record(self, model_ids: np.ndarray) -> Columns:
        return {n: c[model_ids] for n, c in _flatten_results(self.record).items()}

    def _restore(self, columns: Columns, model_ids: np.ndarray) -> None:
        """Writes a slice of the record, or of its curves, back into it."""
        fields = self.record._asdict()
        for path, column in columns.items():
            field, _, name = path.partition(":")
            if field in ARRAY_FIELDS:
                fields[field][model_ids] = column
            else:
                _scatter(fields[field], name, column, model_ids, self.plan.num_models)

    def _report_progress(self, num_models: int, num_evals: int) -> None:
        self.num_evals_done += num_models * num_evals
        if self.callback:
            self.callback(self.num_evals_done / len(self.plan.steps), self.record)


def _add_prefix(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}_{name}": value for name, value in values.items()}


def _scatter(
    columns: Columns,
    name: str,
    values: np.ndarray,
    model_ids: np.ndarray,
    num_models: int,
) -> None:
    """Writes the values into a column, which starts as NaN, or as 0 for integers."""
    if name not in columns:
        fill = np.nan if np.issubdtype(values.dtype, np.floating) else 0
        columns[name] = np.full((num_models, *values.shape[1:]), fill, values.dtype)
    columns[name][model_ids] = values


def _flatten_results(record: Record) -> Columns:
    """The columns with one value for each model, without the points."""
    columns = record._replace(points={}).flatten()
    del columns["steps:"]
    return columns


def _of_all_processes(record: Record) -> Record:
    """The record of all processes; each has trained its own models."""
    if jax.process_count() == 1:
        return record
    names = sorted(set(record.status) | {"ok", "diverged", "stopped", "unfinished"})
    columns = _flatten_results(record)
    columns["status:"] = np.searchsorted(names, record.status)
    trained = record.status != "unfinished"
    for is_trained, of_process in allgather((trained, columns)):
        for name, values in of_process.items():
            columns[name][is_trained] = values[is_trained]
    columns["status:"] = np.array(names)[columns["status:"]]
    columns |= {f"points:{name}": column for name, column in record.points.items()}
    return Record.unflatten({**columns, "steps:": record.steps})

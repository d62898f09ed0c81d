"""The command line: trains the grid that the options describe and reports the results.

`options` parses the arguments, `registry` turns names into functions, and `console`
shows progress, tables and figures.
"""

import argparse
import contextlib
import os
import pathlib
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from rich.console import Console

from jaxml import sweep
from jaxml.cli.compilation_cache import use_compilation_cache
from jaxml.cli.console import (
    ProgressBar,
    compilation_bar,
    figures,
    leaderboard_table,
    rank_table,
)
from jaxml.cli.options import parse_options, unused_path
from jaxml.cli.settings import write_settings
from jaxml.cli.registry import (
    ACTIVATIONS,
    SCHEDULES,
    TASKS,
    TaskSpec,
    make_optimizer,
)


Columns = dict[str, np.ndarray]


class _Job(NamedTuple):
    """One plan of a command: a task with one batch size."""

    name: str
    spec: TaskSpec
    batch_size: int | None
    plan: sweep.Plan


def main(
    arguments: list[str] | None = None,
    *,
    on_compiled: Callable[[], object] = lambda: None,
) -> int:
    """Runs the command line and returns its exit status.

    Args:
        arguments: The words of the command; `sys.argv[1:]` by default.
        on_compiled: Called after compilation; from then on KeyboardInterrupt may be
            raised, and ends the training cleanly.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parse_options(arguments)
    with contextlib.suppress(RuntimeError):  # the caller has initialized JAX already
        cores = options.devices or os.cpu_count() or 1
        jax.config.update("jax_num_cpu_devices", cores)
    try:
        _join_processes(options)
        return _sweep(options, arguments, on_compiled)
    except ValueError as error:
        print(f"jaxml sweep: {error}", file=sys.stderr)
    except OSError as error:
        print(
            f"jaxml sweep: --out must be a writable directory: {error}; finished "
            "models are kept, and --resume continues the run",
            file=sys.stderr,
        )
    return 2


def _join_processes(options: argparse.Namespace) -> None:
    """Connects the processes of one run."""
    if options.coordinator:
        jax.distributed.initialize(
            options.coordinator, options.processes, options.process_id
        )
    elif options.distributed:
        try:
            jax.distributed.initialize()
        except (RuntimeError, ValueError) as error:
            raise ValueError(
                "argument --distributed: must run in a job of Slurm, MPI, Kubernetes "
                f"or Cloud TPU, but JAX says: {str(error).splitlines()[0]}"
            ) from None


def _sweep(
    options: argparse.Namespace,
    arguments: list[str],
    on_compiled: Callable[[], object],
) -> int:
    num_devices = len(jax.local_devices())
    if options.devices and options.devices > num_devices:
        raise ValueError(
            f"argument --devices: must be at most the {num_devices} that this process "
            f"has, got {options.devices}"
        )
    is_main_process = jax.process_index() == 0
    width = None if sys.stdout.isatty() else 130
    console = Console(width=width, quiet=not is_main_process, highlight=False)
    folder = options.out or unused_path(pathlib.Path("runs", options.task))
    if options.resume and _is_finished(folder):
        console.print(
            f"{folder}/ is finished: see its report.html and table.csv. Other settings "
            "need another --out.",
            soft_wrap=True,
        )
        return 0
    if not options.plan:
        folder.mkdir(parents=True, exist_ok=True)
        if is_main_process:
            write_settings(folder / "settings.json", options)
    start_time = time.monotonic()
    _announce_compilation_cache(options.compilation_cache, console)
    jobs = _compile_jobs(options, console)
    if options.plan:
        return 0
    on_compiled()
    num_models = sum(job.plan.num_models for job in jobs)
    with ProgressBar(num_models, console, start_time) as bar:
        records = _run_jobs(jobs, folder, options.resume, bar)
    if not is_main_process:
        return 0
    num_finished = _save_and_print(options, jobs, records, folder, console)
    console.print(bar.summary(), f"Results are in {folder}/.")
    if num_finished == num_models:
        return 0
    console.print(f"Interrupted: {num_finished:,} of {num_models:,} models finished.")
    words = [word for word in arguments if word != "--resume"]
    if not options.out:
        words += ["--out", str(folder)]
    console.print(f"Resume with: jaxml {shlex.join(words)} --resume", soft_wrap=True)
    return 130


def _is_finished(folder: pathlib.Path) -> bool:
    return (folder / "table.csv").exists() and not (folder / "parts").exists()


def _announce_compilation_cache(folder: pathlib.Path | None, console: Console) -> None:
    if folder is None:
        return
    try:
        cache = use_compilation_cache(folder)
    except OSError as error:
        print(
            f"jaxml sweep: --compilation-cache must be a writable directory: {error}; "
            "programs are compiled without it",
            file=sys.stderr,
        )
    else:
        console.print(f"Compiled programs are cached in {cache}/.", soft_wrap=True)


def _compile_jobs(options: argparse.Namespace, console: Console) -> list[_Job]:
    settings = [
        (name, losses, batch_size)
        for name, losses in options.tasks.items()
        for batch_size in options.batch_size
    ]
    jobs = []
    with compilation_bar(console) as progress:
        for name, losses, batch_size in progress.track(
            settings, description="compiling"
        ):
            plan = _plan(options, TASKS[name], losses, batch_size)
            jobs.append(_Job(name, TASKS[name], batch_size, plan))
            console.print(f"{name}: {plan}")
    return jobs


def _run_jobs(
    jobs: list[_Job], folder: pathlib.Path, resume: bool, bar: ProgressBar
) -> list[sweep.Record]:
    """The records of the jobs; an interrupt ends the list with an unfinished one."""
    records: list[sweep.Record] = []
    for job in jobs:
        before = sum(len(record.status) for record in records)
        record = sweep.run(
            job.plan,
            checkpoint_dir=folder / "parts" / f"{job.name}-{job.batch_size or 'full'}",
            resume=resume,
            keep_params=job.plan.num_models <= 10_000,
            callback=lambda done, record, job=job, before=before: bar.update(
                before + done, record, f"valid_{job.spec.metric}"
            ),
        )
        records.append(record)
        if "unfinished" in record.status:
            break
    return records


def _save_and_print(
    options: argparse.Namespace,
    jobs: list[_Job],
    records: list[sweep.Record],
    folder: pathlib.Path,
    console: Console,
) -> int:
    """Saves and prints the results; returns the number of finished models."""
    record, metric = _concat_results(jobs, records)
    num_finished = int(np.sum(record.status != "unfinished"))
    is_complete = num_finished == sum(job.plan.num_models for job in jobs)
    compare_by = jobs[0].spec.compare_by
    if is_complete:
        record.save(folder)
    if num_finished:
        for name, figure in figures(
            jobs[0].plan, record, metric, compare_by, options.task
        ):
            figure.savefig(folder / f"{name}.png")
        title = f"{options.task}: which {compare_by}?"
        path = folder / "report.html"
        target = None
        if options.target is not None:
            target = sweep.Target(metric, options.target)
        sweep.report(
            record, metric, by=compare_by, target=target, title=title, path=path
        )
        table = rank_table if "task" in record.points else leaderboard_table
        console.print(table(record, metric, compare_by))
    if is_complete:
        shutil.rmtree(folder / "parts")  # last, because it marks the run as finished
    return num_finished


def _plan(
    options: argparse.Namespace, spec: TaskSpec, losses: list[str], size: int | None
) -> sweep.Plan:
    spaces = [
        sweep.grid(
            optimizer=[name],
            schedule=options.schedule,
            activation=options.activation,
            loss=losses,
            learning_rate=options.learning_rate,
            **hyperparams,
        )
        for name, hyperparams in options.optimizer.items()
    ]
    metric, halving = f"valid_{spec.metric}", None
    if options.halving:
        halving = sweep.SuccessiveHalving(metric, options.halving)
    elif options.hyperband:
        halving = sweep.Hyperband(metric, options.hyperband)
    return sweep.plan(
        spec.task(),
        sweep.product(sweep.concat(*spaces), sweep.grid(seed=range(options.seeds))),
        optimizers={
            name: make_optimizer(name, hyperparams)
            for name, hyperparams in options.optimizer.items()
        },
        choices={
            "activation": {name: ACTIVATIONS[name] for name in options.activation},
            "loss": {name: spec.losses[name] for name in losses},
        },
        selections={
            "schedule": {n: SCHEDULES[n](options.steps) for n in options.schedule}
        },
        steps=options.steps,
        batch_size=size,
        shared_batches=options.shared_batches,
        halving=halving,
        devices=jax.local_devices()[: options.devices],
        memory=options.memory,
    )


def _concat_results(
    jobs: list[_Job], records: list[sweep.Record]
) -> tuple[sweep.Record, str]:
    """One record of all jobs, with columns that identify them, and its metric.

    If the tasks have different metrics, each is renamed to `score`.
    """
    metrics = {job.spec.metric for job in jobs}
    metric = metrics.pop() if len(metrics) == 1 else "score"
    num_tasks = len({job.name for job in jobs})
    labeled = []
    for job, record in zip(jobs, records):
        labels = {}
        if num_tasks > 1:
            labels["task"] = job.name
        if len(jobs) > num_tasks:
            labels["batch_size"] = str(job.batch_size or "full")
        points = {name: np.full(len(record.status), v) for name, v in labels.items()}
        labeled.append(
            record._replace(
                points=points | record.points,
                final=_rename_metric(record.final, job.spec.metric, metric),
                curves=_rename_metric(record.curves, job.spec.metric, metric),
            )
        )
    if len(labeled) == 1:
        return labeled[0], f"valid_{metric}"
    combined = sweep.Record(
        points=_concat_columns([record.points for record in labeled]),
        status=np.concatenate([record.status for record in labeled]),
        final=_concat_columns([record.final for record in labeled]),
        steps=labeled[0].steps,
        curves=_concat_columns([record.curves for record in labeled]),
    )
    if num_tasks == 1:  # models of different tasks have arrays of different shapes
        combined = combined._replace(
            outputs=_concat_columns([record.outputs for record in labeled]),
            params=_concat_columns([record.params for record in labeled]),
            state=_concat_columns([record.state for record in labeled]),
        )
    return combined, f"valid_{metric}"


def _rename_metric(columns: Columns, old: str, new: str) -> Columns:
    return {
        name.replace(f"_{old}", f"_{new}"): values for name, values in columns.items()
    }


def _concat_columns(tables: Sequence[Columns]) -> Columns:
    """Concatenates the columns that all tables have."""
    return {
        name: np.concatenate([table[name] for table in tables])
        for name in tables[0]
        if all(name in table for table in tables)
    }

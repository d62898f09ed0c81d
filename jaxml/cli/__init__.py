"""The command line: from what is asked for to a table, pictures and a report."""

import argparse
import contextlib
import os
import pathlib
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import numpy as np
from rich.console import Console

from jaxml import sweep
from jaxml.cli.options import fresh, options_of
from jaxml.cli.registry import ACTIVATIONS, SCHEDULES, TASKS, Setup, optimizer_of
from jaxml.cli.console import Bar, leaderboard, pictures, ranking


class _Part(NamedTuple):
    """One run of a command: a task, with one batch size."""

    name: str
    setup: Setup
    batch_size: int | None
    plan: sweep.Plan


def main(
    arguments: list[str] | None = None, *, compiled: Callable[[], object] = lambda: None
) -> int:
    """Runs the command line, and returns its exit status.

    Args:
        arguments: Its words; those of this process by default.
        compiled: Called when all is compiled: from now on an interrupt may be raised.
    """
    options = options_of(arguments)
    with contextlib.suppress(RuntimeError):  # a caller's JAX keeps its devices
        cores = options.devices or os.cpu_count() or 1
        jax.config.update("jax_num_cpu_devices", cores)
    if options.coordinator:
        jax.distributed.initialize(
            options.coordinator, options.processes, options.process_id
        )
    try:
        words = sys.argv[1:] if arguments is None else arguments
        return _sweep(options, words, compiled)
    except ValueError as error:
        print(f"jaxml sweep: {error}", file=sys.stderr)
    except OSError as error:
        print(
            f"jaxml sweep: --out must be a writable directory: {error}; what is "
            "finished is kept, and --resume goes on with it",
            file=sys.stderr,
        )
    return 2


def _sweep(
    options: argparse.Namespace, arguments: list[str], compiled: Callable[[], object]
) -> int:
    first, devices = jax.process_index() == 0, jax.local_devices()
    if options.devices and options.devices > len(devices):
        raise ValueError(
            f"argument --devices: must be at most the {len(devices)} that this process "
            f"has, got {options.devices}"
        )
    console = Console(width=None if sys.stdout.isatty() else 130, quiet=not first)
    folder = options.out or fresh(pathlib.Path("runs", options.task))
    if options.resume and _is_finished(folder):
        console.print(
            f"{folder}/ is finished: its report.html and table.csv say what was found; "
            "other settings need another --out.",
            highlight=False,
            soft_wrap=True,
        )
        return 0
    if not options.plan:
        folder.mkdir(parents=True, exist_ok=True)
    parts, begun = [], time.monotonic()
    for name, losses in options.tasks.items():
        for size in options.batch_size:
            plan = _plan(options, TASKS[name], losses, size)
            parts.append(_Part(name, TASKS[name], size, plan))
            console.print(f"{name}: {plan}", highlight=False)
    if options.plan:
        return 0

    models = sum(len(part.plan.keys) for part in parts)
    records: list[sweep.Record] = []
    compiled()
    with Bar(models, console, begun) as bar:
        for part in parts:
            before = sum(len(record.status) for record in records)
            record = sweep.run(
                part.plan,
                folder=folder / "parts" / f"{part.name}-{part.batch_size or 'full'}",
                resume=options.resume,
                keep_params=len(part.plan.keys) <= 10_000,
                watch=lambda done, record, part=part, before=before: bar.watch(
                    before + done, record, f"valid_{part.setup.metric}"
                ),
            )
            records.append(record)
            if "unfinished" in record.status:
                break
    if not first:
        return 0
    return _shown(options, arguments, parts, records, folder, bar, console)


def _is_finished(folder: pathlib.Path) -> bool:
    return (folder / "table.csv").exists() and not (folder / "parts").exists()


def _shown(
    options: argparse.Namespace,
    arguments: list[str],
    parts: list[_Part],
    records: list[sweep.Record],
    folder: pathlib.Path,
    bar: Bar,
    console: Console,
) -> int:
    """Saves what was found and prints it; says how to go on if that is not all."""
    record, metric = _joined(parts, records)
    finished = int(np.sum(record.status != "unfinished"))
    models = sum(len(part.plan.keys) for part in parts)
    compared = parts[0].setup.compared
    if finished == models:
        record.save(folder)
    if finished:
        for name, figure in pictures(
            parts[0].plan, record, metric, compared, options.task
        ):
            figure.savefig(folder / f"{name}.png")
        which = f"{options.task}: which {compared}?"
        page = folder / "report.html"
        sweep.report(record, metric, by=compared, title=which, path=page)
        table = ranking if "task" in record.points else leaderboard
        console.print(table(record, metric, compared))
    if finished == models:
        shutil.rmtree(folder / "parts")  # from here on it is finished
    console.print(bar.summary(), f"Results are in {folder}/.", highlight=False)
    if finished < models:
        again = [word for word in arguments if word != "--resume"]
        if not options.out:
            again += ["--out", str(folder)]
        console.print(f"Interrupted: {finished:,} of {models:,} models are finished.")
        console.print(f"Go on with: jaxml {shlex.join(again)} --resume", soft_wrap=True)
        return 130
    return 0


def _plan(
    options: argparse.Namespace, setup: Setup, losses: list[str], size: int | None
) -> sweep.Plan:
    spaces = [
        sweep.grid(
            optimizer=[name],
            schedule=options.schedule,
            activation=options.activation,
            loss=losses,
            learning_rate=options.learning_rate,
            **numbers,
        )
        for name, numbers in options.optimizer.items()
    ]
    halving = options.halving and sweep.Halving(
        f"valid_{setup.metric}", options.halving
    )
    return sweep.plan(
        setup.task(),
        sweep.product(sweep.concat(*spaces), sweep.grid(seed=range(options.seeds))),
        optimizers={
            name: optimizer_of(name, [*numbers])
            for name, numbers in options.optimizer.items()
        },
        choices={
            "activation": {name: ACTIVATIONS[name] for name in options.activation},
            "loss": {name: setup.losses[name] for name in losses},
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


def _joined(
    parts: list[_Part], records: list[sweep.Record]
) -> tuple[sweep.Record, str]:
    """All records as one, with columns that tell them apart, and what judges them.

    Where the tasks have metrics of their own, these are called the `score`.
    """
    metrics = {part.setup.metric for part in parts}
    metric = metrics.pop() if len(metrics) == 1 else "score"
    several = len({part.name for part in parts}) > 1
    told_apart = []
    for part, record in zip(parts, records):
        extra = {"task": part.name} if several else {}
        if len(parts) > len({part.name for part in parts}):
            extra["batch_size"] = str(part.batch_size or "full")
        points = {name: np.full(len(record.status), v) for name, v in extra.items()}
        final, curves = (
            {
                name.replace(f"_{part.setup.metric}", f"_{metric}"): c
                for name, c in f.items()
            }
            for f in (record.final, record.curves)
        )
        points |= record.points
        told_apart.append(record._replace(points=points, final=final, curves=curves))
    if len(told_apart) == 1:
        return told_apart[0], f"valid_{metric}"

    def stacked(columns: Iterable[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        first, *others = columns
        return {
            name: np.concatenate([column, *(other[name] for other in others)])
            for name, column in first.items()
            if all(name in other for other in others)
        }

    return sweep.Record(
        stacked(r.points for r in told_apart),
        np.concatenate([r.status for r in told_apart]),
        stacked(r.final for r in told_apart),
        told_apart[0].steps,
        stacked(r.curves for r in told_apart),
        {} if several else stacked(r.outputs for r in told_apart),
        {} if several else stacked(r.params for r in told_apart),
    ), f"valid_{metric}"

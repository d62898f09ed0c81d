"""The command line: the only place where a name becomes a function."""

import argparse
import contextlib
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from jaxml import activations, losses, optimizers, schedules, sweep, tasks
from jaxml._arguments import (
    Parser,
    batch_sizes,
    count,
    empty,
    fresh,
    one_of,
    rates,
    some_of,
)

METRIC = "valid_accuracy"


def _names(*functions: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    return {function.__name__: function for function in functions}


def binary_cross_entropy_with_logits(logits: Array, labels: Array) -> Array:
    """Each class against all others."""
    each = losses.binary_cross_entropy_with_logits(logits, _one_hot(labels, logits))
    return jnp.sum(each, -1)


def squared_error(logits: Array, labels: Array) -> Array:
    """Logits against 1 for the label and 0 for the others."""
    return jnp.sum(losses.squared_error(logits, _one_hot(labels, logits)), -1)


def _one_hot(labels: Array, logits: Array) -> Array:
    return jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)


ACTIVATIONS = _names(
    activations.sigmoid,
    activations.tanh,
    activations.softsign,
    activations.relu,
    activations.leaky_relu,
    activations.elu,
    activations.selu,
    activations.gelu,
    activations.swish,
    activations.mish,
    activations.softplus,
)
LOSSES = _names(
    losses.cross_entropy,
    losses.focal_loss,
    binary_cross_entropy_with_logits,
    squared_error,
)
OPTIMIZERS = _names(
    optimizers.sgd,
    optimizers.momentum,
    optimizers.nesterov,
    optimizers.lion,
    optimizers.adagrad,
    optimizers.adadelta,
    optimizers.rmsprop,
    optimizers.centered_rmsprop,
    optimizers.adam,
    optimizers.adam_l2,
    optimizers.adamw,
    optimizers.nadam,
    optimizers.radam,
    optimizers.amsgrad,
    optimizers.adamax,
    optimizers.yogi,
    optimizers.adabelief,
)
SCHEDULES = {  # by the number of steps; each is 1 at its highest
    "constant": lambda steps: schedules.constant(1.0),
    "linear": lambda steps: schedules.linear(1.0, 0.0, steps),
    "polynomial": lambda steps: schedules.polynomial(1.0, 0.0, steps, power=2.0),
    "exponential": lambda steps: schedules.exponential(
        1.0, decay_rate=0.01, decay_steps=steps
    ),
    "step_decay": lambda steps: schedules.step_decay(1.0, factor=0.1, every=steps / 3),
    "cosine": lambda steps: schedules.cosine(1.0, steps),
    "cosine_restarts": lambda steps: schedules.cosine_restarts(
        1.0, steps / 7, period_factor=2.0
    ),
    "warmup_cosine": lambda steps: schedules.warmup_cosine(1.0, steps / 10, steps),
    "warmup_linear": lambda steps: schedules.warmup_linear(1.0, steps / 10, steps),
    "inverse_sqrt": lambda steps: schedules.inverse_sqrt(1.0, steps / 10),
    "one_cycle": lambda steps: schedules.one_cycle(1.0, steps),
}
TASKS = _names(tasks.digits)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line, and returns its exit status."""
    options = _parser().parse_args(arguments)
    with contextlib.suppress(RuntimeError):  # a caller's JAX keeps its devices
        jax.config.update("jax_num_cpu_devices", os.cpu_count())
    try:
        return _sweep(options)
    except OSError as error:
        print(
            f"jaxml sweep: --out must be a writable directory: {error}", file=sys.stderr
        )
        return 2


def _sweep(options: argparse.Namespace) -> int:
    folder = options.out or fresh(pathlib.Path("runs", options.task))
    folder.mkdir(parents=True, exist_ok=True)
    points = sweep.grid(
        optimizer=options.optimizer,
        schedule=options.schedule,
        activation=options.activation,
        loss=options.loss,
        learning_rate=options.learning_rate,
        seed=range(options.seeds),
    )
    models = len(points["seed"]) * len(options.batch_size)
    console = Console(width=None if sys.stdout.isatty() else 130)
    records: list[sweep.Record] = []
    with _Bar(models, console) as bar:
        for size in options.batch_size:
            before = len(points["seed"]) * len(records)
            record = sweep.run(
                TASKS[options.task](),
                points,
                optimizers={n: _scheduled(OPTIMIZERS[n]) for n in options.optimizer},
                choices={
                    "schedule": {
                        n: SCHEDULES[n](options.steps) for n in options.schedule
                    },
                    "activation": {n: ACTIVATIONS[n] for n in options.activation},
                    "loss": {n: LOSSES[n] for n in options.loss},
                },
                steps=options.steps,
                batch_size=size,
                watch=lambda done, record, before=before: bar.watch(
                    before + done, record
                ),
            )
            records.append(record)
            if "unfinished" in record.status:
                break
    record = _joined(records, options.batch_size)
    record.save(folder)
    finished = int(np.sum(record.status != "unfinished"))
    if finished:
        title = f"{options.task}: best setting of each optimizer"
        sweep.plot_sensitivity(record, METRIC, title=title).savefig(
            folder / "learning_rates.png"
        )
        sweep.plot_curves(record, METRIC, title=title).savefig(folder / "curves.png")
        if len(options.batch_size) > 1:
            title = f"{options.task}: best setting of each batch size"
            sweep.plot_curves(record, METRIC, by="batch_size", title=title).savefig(
                folder / "batch_sizes.png"
            )
        console.print(_leaderboard(record))
    console.print(bar.summary(), f"Results are in {folder}/.", highlight=False)
    if finished < models:
        console.print(f"Interrupted: {finished} of {models} models finished.")
        return 130
    return 0


def _joined(records: list[sweep.Record], sizes: list[int | None]) -> sweep.Record:
    """The records of all batch sizes as one, with a column that tells them apart."""
    if len(sizes) == 1:
        return records[0]
    told_apart = [
        {"batch_size": np.full(len(r.status), str(size or "full")), **r.points}
        for r, size in zip(records, sizes)
    ]

    def stacked(parts: Iterable[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        first, *others = parts
        return {
            n: np.concatenate([c, *(o[n] for o in others)]) for n, c in first.items()
        }

    return sweep.Record(
        stacked(told_apart),
        np.concatenate([r.status for r in records]),
        stacked(r.final for r in records),
        records[0].steps,
        stacked(r.curves for r in records),
    )


class _Bar:
    """Models done, their rate, the best so far and the time left."""

    def __init__(self, models: int, console: Console) -> None:
        self.start = time.monotonic()
        self.first: tuple[float, float] | None = None
        self.last, self.best = (self.start, 0.0), 0.0
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:,.0f}/{task.total:,} models"),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=console,
        )
        self.task = self.progress.add_task("compiling", total=models, note="")

    def __enter__(self) -> "_Bar":
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def watch(self, done: float, record: sweep.Record) -> None:
        now = time.monotonic()
        self.first = self.first or (now, done)
        self.last = now, done
        self.best = np.nanmax(record.curves[METRIC], initial=self.best)
        note = f"{self.rate():,.0f}/s  best {self.best:.1%}"
        self.progress.update(
            self.task, completed=done, description="training ", note=note
        )

    def rate(self) -> float:
        """Models per second since the first chunk, which waits for the compiler."""
        (start, before), (now, done) = self.first or self.last, self.last
        return (done - before) / (now - start) if now > start else 0.0

    def summary(self) -> str:
        if not self.first:
            return "No model was trained."
        total = self.last[0] - self.start
        return (
            f"{self.last[1]:,.0f} models in {total:.1f} s: {self.rate():,.0f} models/s "
            f"after {self.first[0] - self.start:.1f} s of compiling."
        )


def _leaderboard(record: sweep.Record) -> Table:
    """The best setting of each optimizer, with the axes that have several values."""
    several = [
        name
        for name in ("batch_size", "schedule")
        if len(set(record.points.get(name, ()))) > 1
    ]
    table = Table(title="Best setting of each optimizer", box=box.SIMPLE)
    for column in ("", "optimizer", "rate", *several, "activation", "loss"):
        table.add_column(column.replace("_", " "), no_wrap=True)
    for column in ("validation accuracy", "seeds", "diverged"):
        table.add_column(column, no_wrap=True, justify="right")
    for place, row in enumerate(sweep.leaderboard(record, METRIC, by=["optimizer"]), 1):
        settings = row.settings
        interval = f" ± {row.high - row.mean:.2%}" if row.seeds > 1 else ""
        table.add_row(
            str(place),
            settings["optimizer"],
            f"{settings['learning_rate']:.2g}",
            *(settings[name] for name in several),
            settings["activation"],
            settings["loss"],
            f"{row.mean:.2%}{interval}",
            str(row.seeds),
            str(row.diverged),
        )
    table.caption = "Mean over seeds ± half the 95 % interval."
    return table


def _scheduled(optimizer: Callable[..., Any]) -> Callable[..., Any]:
    """The optimizer of a point: numbers are traced, so a sweep compiles once."""

    def make(point: sweep.Point) -> Any:
        rate, schedule = point["learning_rate"], point["schedule"]
        return optimizer(lambda step: rate * schedule(step).astype(rate.dtype))

    return make


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="jaxml", description="Batch experiments on real data.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser(
        "sweep",
        help="train a grid of small models, many at a time",
        description="Trains every combination and ranks the settings over their seeds.",
    )
    add = command.add_argument
    add("task", type=one_of(TASKS), help=f"the data: {', '.join(TASKS)}")
    add(
        "--optimizer",
        type=some_of(OPTIMIZERS),
        default="sgd,momentum,nesterov,adagrad,rmsprop,adam,adamw",
        help="names, or all (default %(default)s)",
    )
    add(
        "--schedule",
        type=some_of(SCHEDULES),
        default="constant",
        help="of the rate over the steps: names, or all (default %(default)s)",
    )
    add("--activation", type=some_of(ACTIVATIONS), default="relu,gelu,tanh")
    add("--loss", type=some_of(LOSSES), default="cross_entropy,focal_loss")
    add(
        "--learning-rate",
        type=rates,
        default="log:1e-4:1:9",
        help="numbers, or log:LOW:HIGH:COUNT (default %(default)s)",
    )
    add("--seeds", type=count, default=5, help="models of each setting (default 5)")
    add("--steps", type=count, default=300, help="of each model (default 300)")
    add(
        "--batch-size",
        type=batch_sizes,
        default="64",
        help="examples a step, full for all of them, or several (default %(default)s)",
    )
    add("--out", type=empty, help="a directory without results (default runs/TASK)")
    return parser

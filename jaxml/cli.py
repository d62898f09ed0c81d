"""The command line: the only place where a name becomes a function."""

import argparse
import contextlib
import difflib
import itertools
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from jaxml import activations, losses, optimizers, sweep, tasks
from jaxml.tasks._segmentation import LOSSES as SEGMENTATION_LOSSES


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


class _Setup(NamedTuple):
    """A task, its losses, what its runs compare by which metric, and defaults."""

    task: Callable[[], sweep.Task]
    losses: dict[str, Callable[..., Any]]
    metric: str
    compared: str
    defaults: dict[str, Any]


TASKS = {
    "digits": _Setup(
        tasks.digits,
        LOSSES,
        metric="accuracy",
        compared="optimizer",
        defaults={
            "optimizer": "sgd,momentum,nesterov,adagrad,rmsprop,adam,adamw",
            "activation": "relu,gelu,tanh",
            "loss": "cross_entropy,focal_loss",
            "learning_rate": "log:1e-4:1:9",
            "steps": 300,
            "batch_size": 64,
        },
    ),
    "digits-segmentation": _Setup(
        tasks.digits_segmentation,
        SEGMENTATION_LOSSES,
        metric="mean_iou",
        compared="loss",
        defaults={
            "optimizer": "adam",
            "activation": "relu",
            "loss": "all",
            "learning_rate": "log:1e-3:1e-1:9",
            "steps": 200,
            "batch_size": 4,
        },
    ),
}


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line, and returns its exit status."""
    options = _options(arguments)
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
    setup = TASKS[options.task]
    metric, compared = f"valid_{setup.metric}", setup.compared
    folder = options.out or _fresh(pathlib.Path("runs", options.task))
    folder.mkdir(parents=True, exist_ok=True)
    points = sweep.grid(
        optimizer=options.optimizer,
        activation=options.activation,
        loss=options.loss,
        learning_rate=options.learning_rate,
        seed=range(options.seeds),
    )
    console = Console(width=None if sys.stdout.isatty() else 120)
    task = setup.task()
    with _Bar(len(points["seed"]), metric, console) as bar:
        record = sweep.run(
            task,
            points,
            optimizers={name: _at_rate(OPTIMIZERS[name]) for name in options.optimizer},
            choices={
                "activation": {name: ACTIVATIONS[name] for name in options.activation},
                "loss": {name: setup.losses[name] for name in options.loss},
            },
            steps=options.steps,
            batch_size=options.batch_size,
            watch=bar.watch,
        )
    record.save(folder)
    finished = int(np.sum(record.status != "unfinished"))
    if finished:
        title = f"{options.task}: best setting of each {compared}"
        for name, plot in [
            ("learning_rates", sweep.plot_sensitivity),
            ("curves", sweep.plot_curves),
        ]:
            figure = plot(record, metric, by=compared, title=title)
            figure.savefig(folder / f"{name}.png")
        if record.outputs:
            rows = _pictures(task, record, metric, compared)
            figure = sweep.plot_images(rows, title=title)
            figure.savefig(folder / "predictions.png")
        console.print(_leaderboard(record, setup))
    console.print(bar.summary(), f"Results are in {folder}/.", highlight=False)
    if finished < len(record.status):
        console.print(
            f"Interrupted: {finished} of {len(record.status)} models finished."
        )
        return 130
    return 0


class _Bar:
    """Models done, their rate, the best so far and the time left."""

    def __init__(self, models: int, metric: str, console: Console) -> None:
        self.metric = metric
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
        self.best = np.nanmax(record.curves[self.metric], initial=0.0)
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


def _pictures(
    task: sweep.Task, record: sweep.Record, metric: str, compared: str
) -> dict[str, np.ndarray]:
    """What went in, what is true, and what the best models make of it."""
    guesses = record.outputs["labels"]
    x, y = (np.asarray(part[: guesses.shape[1]]) for part in task.valid)
    rows = {"input": x[..., 0], "truth": y}
    for best in sweep.leaderboard(record, metric, by=[compared]):
        values = record.final[metric][best.members]
        member = best.members[np.argmax(np.nan_to_num(values, nan=-np.inf))]
        name = f"{best.settings[compared]}\n{record.final[metric][member]:.1%}"
        rows[name] = guesses[member]
    return rows


def _leaderboard(record: sweep.Record, setup: _Setup) -> Table:
    metric, compared = f"valid_{setup.metric}", setup.compared
    table = Table(title=f"Best setting of each {compared}", box=box.SIMPLE)
    for column in ("", "optimizer", "rate", "activation", "loss"):
        table.add_column(column, no_wrap=True)
    words = setup.metric.replace("_", " ")
    for column in (f"validation {words}", "seeds", "diverged"):
        table.add_column(column, no_wrap=True, justify="right")
    for place, row in enumerate(sweep.leaderboard(record, metric, by=[compared]), 1):
        settings = row.settings
        interval = f" ± {row.high - row.mean:.2%}" if row.seeds > 1 else ""
        table.add_row(
            str(place),
            settings["optimizer"],
            f"{settings['learning_rate']:.2g}",
            settings["activation"],
            settings["loss"],
            f"{row.mean:.2%}{interval}",
            str(row.seeds),
            str(row.diverged),
        )
    table.caption = "Mean over seeds ± half the 95 % interval."
    return table


def _at_rate(optimizer: Callable[..., Any]) -> Callable[..., Any]:
    """The optimizer of a point: numbers are traced, so a sweep compiles once."""
    return lambda point: optimizer(point["learning_rate"])


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, not the usage."""
        self.exit(2, f"{self.prog}: {message}\n")


def _options(arguments: list[str] | None) -> argparse.Namespace:
    """What is asked for, and the task's defaults for the rest."""
    parser, command = _parser()
    setup = TASKS[parser.parse_args(arguments).task]
    command.set_defaults(**setup.defaults)
    options = parser.parse_args(arguments)
    try:
        options.loss = _some_of(setup.losses)(options.loss)
    except argparse.ArgumentTypeError as error:
        command.error(f"argument --loss: {error}")
    return options


def _parser() -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    """The parser of all commands, and that of `sweep`; defaults are the task's."""
    parser = _Parser(prog="jaxml", description="Batch experiments on real data.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser(
        "sweep",
        help="train a grid of small models, many at a time",
        description="Trains every combination and ranks the settings over their seeds.",
    )
    add = command.add_argument
    add("task", type=_one_of(TASKS), help=f"the data: {', '.join(TASKS)}")
    add("--optimizer", type=_some_of(OPTIMIZERS), help="names, or all")
    add("--activation", type=_some_of(ACTIVATIONS), help="names, or all")
    add("--loss", help="names of the task's losses, or all")
    add("--learning-rate", type=_rates, help="numbers, or log:LOW:HIGH:COUNT")
    add("--seeds", type=_count, default=5, help="models of each setting (default 5)")
    add("--steps", type=_count, help="of each model")
    add(
        "--batch-size",
        type=_batch_size,
        help="examples a step, or full: batch gradient descent",
    )
    add(
        "--out",
        type=_empty,
        help="a directory without results (default runs/TASK)",
    )
    return parser, command


def _some_of(known: Iterable[str]) -> Callable[[str], list[str]]:
    """A comma-separated list of known names, or `all` of them."""

    def parse(text: str) -> list[str]:
        names = list(known) if text == "all" else text.split(",")
        for name in names:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=3, cutoff=0.0)
                raise argparse.ArgumentTypeError(
                    f"{name!r} is not known; the nearest names are {', '.join(near)}"
                )
        return list(dict.fromkeys(names))

    return parse


def _one_of(known: Iterable[str]) -> Callable[[str], str]:
    return lambda text: _some_of(known)(text.replace(",", " "))[0]


def _rates(text: str) -> list[float]:
    """`log:LOW:HIGH:COUNT`, or numbers with commas between them."""
    try:
        if text.startswith("log:"):
            low, high, count = text.removeprefix("log:").split(":")
            rates = np.geomspace(float(low), float(high), int(count)).tolist()
        else:
            rates = [float(number) for number in text.split(",")]
    except ValueError:
        rates = []
    if not rates or not all(0 <= rate < np.inf for rate in rates):
        raise argparse.ArgumentTypeError(
            f"must be non-negative numbers or log:LOW:HIGH:COUNT, got {text!r}"
        )
    return rates


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a positive integer, got {text!r}")
    return int(text)


def _batch_size(text: str) -> int | None:
    return None if text == "full" else _count(text)


def _empty(text: str) -> pathlib.Path:
    """A directory that holds no results yet."""
    folder = pathlib.Path(text)
    if (folder / "table.csv").exists():
        raise argparse.ArgumentTypeError(f"must have no results yet, but {text} has")
    return folder


def _fresh(folder: pathlib.Path) -> pathlib.Path:
    """The folder, or the first of folder-2, folder-3, ... that does not exist."""
    names = itertools.chain(
        [folder.name], (f"{folder.name}-{i}" for i in itertools.count(2))
    )
    return next(path for name in names if not (path := folder.with_name(name)).exists())

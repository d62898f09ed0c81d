"""The command line: the only place where a name becomes a function."""

import argparse
import contextlib
import functools
import os
import pathlib
import sys
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from rich.console import Console

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
from jaxml._screen import Bar, leaderboard, pictures
from jaxml.tasks._embedding import LOSSES as EMBEDDING_LOSSES
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
            "batch_size": "64",
        },
    ),
    "digits-embedding": _Setup(
        tasks.digits_embedding,
        EMBEDDING_LOSSES,
        metric="recall_at_1",
        compared="loss",
        defaults={
            "optimizer": "adam",
            "activation": "relu",
            "loss": "nt_xent,supcon_loss,multi_similarity_loss,margin_loss,"
            "batch_contrastive_loss,batch_hard_triplet_loss",
            "learning_rate": "log:1e-4:1e-1:7",
            "steps": 200,
            "batch_size": "64",
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
            "batch_size": "4",
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
    choices = {
        "schedule": {name: SCHEDULES[name](options.steps) for name in options.schedule},
        "activation": {name: ACTIVATIONS[name] for name in options.activation},
        "loss": {name: setup.losses[name] for name in options.loss},
    }
    models = len(points["seed"]) * len(options.batch_size)
    console = Console(width=None if sys.stdout.isatty() else 130)
    task, records = setup.task(), []
    with Bar(models, metric, console) as bar:
        for size in options.batch_size:
            before = len(points["seed"]) * len(records)
            record = sweep.run(
                task,
                points,
                optimizers={n: _scheduled(OPTIMIZERS[n]) for n in options.optimizer},
                choices=choices,
                steps=options.steps,
                batch_size=size,
                watch=functools.partial(bar.watch, before),
            )
            records.append(record)
            if "unfinished" in record.status:
                break
    record = _joined(records, options.batch_size)
    record.save(folder)
    finished = int(np.sum(record.status != "unfinished"))
    if finished:
        for name, figure in pictures(task, record, metric, compared, options.task):
            figure.savefig(folder / f"{name}.png")
        console.print(leaderboard(record, metric, compared))
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
        stacked(r.outputs for r in records),
    )


def _scheduled(optimizer: Callable[..., Any]) -> Callable[..., Any]:
    """The optimizer of a point: numbers are traced, so a sweep compiles once."""

    def make(point: sweep.Point) -> Any:
        rate, schedule = point["learning_rate"], point["schedule"]
        return optimizer(lambda step: rate * schedule(step).astype(rate.dtype))

    return make


def _options(arguments: list[str] | None) -> argparse.Namespace:
    """What is asked for, and the task's defaults for the rest."""
    parser, command = _parser()
    setup = TASKS[parser.parse_args(arguments).task]
    command.set_defaults(**setup.defaults)
    options = parser.parse_args(arguments)
    try:
        options.loss = some_of(setup.losses)(options.loss)
    except argparse.ArgumentTypeError as error:
        command.error(f"argument --loss: {error}")
    return options


def _parser() -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    """The parser of all commands, and that of `sweep`; defaults are the task's."""
    parser = Parser(prog="jaxml", description="Batch experiments on real data.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser(
        "sweep",
        help="train a grid of small models, many at a time",
        description="Trains every combination and ranks the settings over their seeds.",
    )
    add = command.add_argument
    add("task", type=one_of(TASKS), help=f"the data: {', '.join(TASKS)}")
    add("--optimizer", type=some_of(OPTIMIZERS), help="names, or all")
    add(
        "--schedule",
        type=some_of(SCHEDULES),
        default="constant",
        help="of the rate over the steps: names, or all (default %(default)s)",
    )
    add("--activation", type=some_of(ACTIVATIONS), help="names, or all")
    add("--loss", help="names of the task's losses, or all")
    add("--learning-rate", type=rates, help="numbers, or log:LOW:HIGH:COUNT")
    add("--seeds", type=count, default=5, help="models of each setting (default 5)")
    add("--steps", type=count, help="of each model")
    add(
        "--batch-size",
        type=batch_sizes,
        help="examples a step, full for all of them, or several",
    )
    add("--out", type=empty, help="a directory without results (default runs/TASK)")
    return parser, command

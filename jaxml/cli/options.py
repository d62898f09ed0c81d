"""What the command line takes: texts become values, or are refused in one line."""

import argparse
import difflib
import itertools
import pathlib
from collections.abc import Callable, Iterable
from typing import NoReturn

import numpy as np

from jaxml.cli.registry import (
    ACTIVATIONS,
    OPTIMIZERS,
    SCHEDULES,
    SUITES,
    TASKS,
    numbers_of,
)


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def options_of(arguments: list[str] | None) -> argparse.Namespace:
    """What is asked for, and the task's defaults for the rest."""
    parser, command = _parser()
    task = parser.parse_args(arguments).task
    names, defaults = SUITES.get(task) or ([task], TASKS[task].defaults)
    command.set_defaults(**defaults)
    options = parser.parse_args(arguments)
    if options.resume and not options.out:
        command.error("argument --resume: must come with --out, to say with which run")
    if options.coordinator and not options.out:
        command.error("argument --coordinator: must come with --out, one for all")
    if options.processes > 1 and not options.coordinator:
        command.error("argument --processes: must come with --coordinator")
    if not 0 <= options.process_id < options.processes:
        command.error(
            f"argument --process-id: must be from 0 to {options.processes - 1}, got "
            f"{options.process_id}"
        )
    if options.out and not options.resume and not options.process_id:
        _check_empty(command, options.out)
    options.tasks = {}
    for name in names:
        wished = options.loss or next(iter(TASKS[name].losses))
        try:
            options.tasks[name] = some_of(TASKS[name].losses)(wished)
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
        description="Trains every combination and ranks the settings over their seeds. "
        "What is not said here, the task decides.",
    )
    known = [*TASKS, *SUITES]
    data = f"{', '.join(TASKS)}, or several of them: {', '.join(SUITES)}"
    command.add_argument("task", type=one_of(known), help=data)

    what = command.add_argument_group("what is compared").add_argument
    what(
        "--optimizer",
        type=optimizers,
        help=f"all, or some of {', '.join(OPTIMIZERS)}, "
        "with numbers of theirs, as sgd,adam:b1=0.9,0.95,b2=0.99",
    )
    for option, functions in (("--schedule", SCHEDULES), ("--activation", ACTIVATIONS)):
        names = f"all, or some of {', '.join(functions)}"
        what(option, type=some_of(functions), help=names)
    of_tasks = dict.fromkeys(name for task in TASKS.values() for name in task.losses)
    what("--loss", help=f"all that the task has, or some of {', '.join(of_tasks)}")
    what("--learning-rate", type=rates, help="numbers, or log:LOW:HIGH:COUNT")
    what("--seeds", type=count, help="models of each setting")
    what("--batch-size", type=batch_sizes, help="examples a step, full, or several")

    how = command.add_argument_group("how they are trained").add_argument
    how("--steps", type=count, help="of each model")
    how(
        "--shared-batches",
        action=argparse.BooleanOptionalAction,
        help="models of one seed that are "
        "trained together share their batches: faster, and the same examples",
    )
    how(
        "--halving",
        type=above_one,
        metavar="ETA",
        help="stop all but the best 1/ETA of the models, twice, and so train the "
        "best ones alone to the end: 2, or more for less time and a ruder choice",
    )

    run = command.add_argument_group("how it runs").add_argument
    run("--out", type=pathlib.Path, help="directory of results (default runs/TASK)")
    run("--resume", action="store_true", help="go on with the run that --out holds")
    run("--plan", action="store_true", help="say what would run, in how many bytes")
    run("--memory", type=memory, help="the most that the programs may hold: 500MB, 2GB")
    run(
        "--devices",
        type=count,
        help="how many accelerators or cores this process trains on (default: all of "
        "its machine; give each of several processes on one machine its share)",
    )
    run("--coordinator", metavar="HOST:PORT", help="of several processes of one run")
    run("--processes", type=count, default=1, help="how many of them there are")
    run("--process-id", type=int, default=0, help="which of them this is, from 0")
    return parser, command


def optimizers(text: str) -> dict[str, dict[str, list[float]]]:
    """`sgd,adam:b1=0.9,0.95`: names, each with the values of its own numbers."""
    chosen: dict[str, dict[str, list[float]]] = {}
    name = number = ""
    for word in (",".join(OPTIMIZERS) if text == "all" else text).split(","):
        head, _, assignment = word.rpartition(":") if ":" in word else ("", "", word)
        if head or ("=" not in word and not _is_number(word)):
            name = some_of(OPTIMIZERS)(head or word)[0]
            chosen[name], number = {}, ""
            if not head:
                continue
        if "=" in assignment:
            number, _, assignment = assignment.partition("=")
            if number not in numbers_of(name):
                known = ", ".join(numbers_of(name)) or "none"
                raise argparse.ArgumentTypeError(
                    f"{name} has no number {number!r}; its numbers are: {known}"
                )
            chosen[name][number] = []
        if not number or not _is_number(assignment):
            raise argparse.ArgumentTypeError(
                f"must be like sgd,adam:b1=0.9,0.95, got {text!r}"
            )
        value = float(assignment)
        try:
            OPTIMIZERS[name](1.0, **{number: value})
        except ValueError as error:  # in the sweep it is traced, and nobody looks
            raise argparse.ArgumentTypeError(str(error)) from None
        chosen[name][number].append(value)
    return chosen


def some_of(known: Iterable[str]) -> Callable[[str], list[str]]:
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


def one_of(known: Iterable[str]) -> Callable[[str], str]:
    return lambda text: some_of(known)(text.replace(",", " "))[0]


def rates(text: str) -> list[float]:
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


def count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a positive integer, got {text!r}")
    return int(text)


def batch_sizes(text: str) -> list[int | None]:
    sizes = dict.fromkeys(text.split(","))
    return [None if size == "full" else count(size) for size in sizes]


def above_one(text: str) -> float:
    if not _is_number(text) or not float(text) > 1:
        raise argparse.ArgumentTypeError(f"must be greater than 1, got {text!r}")
    return float(text)


def memory(text: str) -> int:
    """Bytes, with a unit: 500MB, 2GB."""
    units = {"KB": 10**3, "MB": 10**6, "GB": 10**9}
    number = text[:-2]
    if text[-2:] not in units or not _is_number(number) or not float(number) > 0:
        raise argparse.ArgumentTypeError(f"must be like 500MB or 2GB, got {text!r}")
    return int(float(number) * units[text[-2:]])


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def _check_empty(command: argparse.ArgumentParser, folder: pathlib.Path) -> None:
    if (folder / "table.csv").exists() or (folder / "parts").exists():
        command.error(
            f"argument --out: must have no results yet, but {folder} has (--resume "
            "goes on with a run that was stopped)"
        )


def fresh(folder: pathlib.Path) -> pathlib.Path:
    """The folder, or the first of folder-2, folder-3, ... that does not exist."""
    names = itertools.chain(
        [folder.name], (f"{folder.name}-{i}" for i in itertools.count(2))
    )
    return next(path for name in names if not (path := folder.with_name(name)).exists())

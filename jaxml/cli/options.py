"""The options of the command line: each text is parsed or rejected in one line."""

import argparse
import difflib
import importlib
import itertools
import os
import pathlib
import sys
from collections.abc import Callable, Iterable
from typing import NoReturn

import numpy as np

from jaxml.cli.compilation_cache import default_folder
from jaxml.cli.registry import (
    ACTIVATIONS,
    OPTIMIZERS,
    SCHEDULES,
    SUITES,
    TASKS,
    Suite,
    TaskSpec,
    find_optimizer,
    sweepable_hyperparams,
)


class OneLineErrorParser(argparse.ArgumentParser):
    """Reports an error in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def parse_options(arguments: list[str]) -> argparse.Namespace:
    """The options that are given, and the task's defaults for the others.

    Their `tasks` maps the name of each task to the names of its losses.
    """
    parser, command = _make_parsers()
    options = parser.parse_args(arguments)
    _check_run_options(command, options)
    if options.task in SUITES:
        suite = SUITES[options.task]
    else:
        suite = Suite([options.task], TASKS[options.task].defaults)
    try:
        options.tasks = {
            name: _loss_names(TASKS[name], options.loss or suite.defaults["loss"])
            for name in suite.tasks
        }
    except argparse.ArgumentTypeError as error:
        command.error(f"argument --loss: {error}")
    for name, default in suite.defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, default)
    return options


def _loss_names(spec: TaskSpec, losses: str | list[str] | None) -> list[str]:
    """Parses the text of `--loss`, or returns the task's default losses."""
    if isinstance(losses, str):
        return names_from(spec.losses)(losses)
    return losses or [next(iter(spec.losses))]


def _check_run_options(
    command: argparse.ArgumentParser, options: argparse.Namespace
) -> None:
    if options.resume and not options.out:
        command.error("argument --resume: must come with --out, the run to resume")
    if options.coordinator and not options.out:
        command.error(
            "argument --coordinator: must come with --out, one for all processes"
        )
    if options.distributed and not options.out:
        command.error(
            "argument --distributed: must come with --out, one for all processes"
        )
    if options.distributed and options.coordinator:
        command.error("argument --distributed: must come without --coordinator")
    if options.processes > 1 and not options.coordinator:
        command.error("argument --processes: must come with --coordinator")
    if not 0 <= options.process_id < options.processes:
        command.error(
            f"argument --process-id: must be from 0 to {options.processes - 1}, got "
            f"{options.process_id}"
        )
    if options.out and not options.resume and not options.process_id:
        _check_no_results(command, options.out)


def _check_no_results(command: argparse.ArgumentParser, folder: pathlib.Path) -> None:
    if (folder / "table.csv").exists() or (folder / "parts").exists():
        command.error(
            f"argument --out: must have no results yet, but {folder} has (--resume "
            "continues a run that was stopped)"
        )


def _make_parsers() -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    """The parser of all commands, and that of `sweep`.

    An option that is not given is None if its default depends on the task.
    """
    parser = OneLineErrorParser(
        prog="jaxml", description="Batch experiments on real data."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser(
        "sweep",
        help="train a grid of small models, many at a time",
        description="Trains every combination and ranks the settings by their mean "
        "over seeds. Options that are not given have the task's defaults.",
    )
    tasks = f"{', '.join(TASKS)}; or a suite of several tasks: {', '.join(SUITES)}"
    command.add_argument("task", type=name_from([*TASKS, *SUITES]), help=tasks)

    compare_group = command.add_argument_group("what to compare")
    compare_group.add_argument(
        "--optimizer",
        type=parse_optimizers,
        help=f"all, or any of {', '.join(OPTIMIZERS)}, or MODULE:FACTORY as in "
        "optax.contrib:muon; with values for their hyperparameters, as in "
        "sgd,adam:b1=0.9,0.95,b2=0.99,optax:lion:b1=0.9",
    )
    for option, functions in (("--schedule", SCHEDULES), ("--activation", ACTIVATIONS)):
        compare_group.add_argument(
            option,
            type=names_from(functions),
            help=f"all, or any of {', '.join(functions)}",
        )
    losses = dict.fromkeys(loss for spec in TASKS.values() for loss in spec.losses)
    compare_group.add_argument(
        "--loss", help=f"all that the task has, or any of {', '.join(losses)}"
    )
    compare_group.add_argument(
        "--learning-rate",
        type=parse_learning_rates,
        help="numbers, or log:LOW:HIGH:COUNT",
    )
    compare_group.add_argument(
        "--seeds", type=positive_int, help="number of models per setting"
    )
    compare_group.add_argument(
        "--batch-size",
        type=parse_batch_sizes,
        help="examples per step, or full for all of them; may list several",
    )

    training_group = command.add_argument_group("how to train")
    training_group.add_argument(
        "--steps", type=positive_int, help="training steps per model"
    )
    training_group.add_argument(
        "--shared-batches",
        action=argparse.BooleanOptionalAction,
        help="let models of one seed that train together share the arrays of their "
        "batches: faster, with the same examples",
    )
    search_group = training_group.add_mutually_exclusive_group()
    search_group.add_argument(
        "--halving",
        type=parse_reduction_factor,
        metavar="FACTOR",
        help="successive halving: twice, stop all but the best 1/FACTOR of the models; "
        "2, or more to save more time at a higher risk of stopping the best model",
    )
    search_group.add_argument(
        "--hyperband",
        type=parse_reduction_factor,
        metavar="FACTOR",
        help="Hyperband: of three brackets of models, one trains to the end, one is "
        "cut to its best 1/FACTOR once, and one twice",
    )
    training_group.add_argument(
        "--target",
        type=parse_number,
        metavar="SCORE",
        help="report the steps until the validation metric reaches this",
    )

    run_group = command.add_argument_group("how to run")
    run_group.add_argument(
        "--out", type=pathlib.Path, help="directory of results (default runs/TASK)"
    )
    run_group.add_argument(
        "--resume", action="store_true", help="continue the run in --out"
    )
    run_group.add_argument(
        "--plan",
        action="store_true",
        help="print the number of models and the memory they need, and train nothing",
    )
    run_group.add_argument(
        "--compilation-cache",
        type=parse_cache_folder,
        default=default_folder(),
        metavar="DIR",
        help="directory for compiled programs, so that the next command starts sooner; "
        "none compiles them every time (default: %(default)s)",
    )
    run_group.add_argument(
        "--memory",
        type=parse_bytes,
        help="most memory that all devices together may use: 500MB, 2GB",
    )
    run_group.add_argument(
        "--devices",
        type=positive_int,
        help="number of accelerators or cores that this process uses (default: all of "
        "its machine; processes on one machine must divide them)",
    )
    run_group.add_argument(
        "--distributed",
        action="store_true",
        help="join the other processes of this job of Slurm, MPI, Kubernetes or Cloud "
        "TPU, as jax.distributed.initialize() finds them",
    )
    run_group.add_argument(
        "--coordinator",
        metavar="HOST:PORT",
        help="address at which the processes of one run meet, without --distributed",
    )
    run_group.add_argument(
        "--processes", type=positive_int, default=1, help="number of processes"
    )
    run_group.add_argument(
        "--process-id", type=int, default=0, help="index of this process, from 0"
    )
    return parser, command


def parse_optimizers(text: str) -> dict[str, dict[str, list[float]]]:
    """`sgd,adam:b1=0.9,0.95`: names, each with values for its hyperparameters."""
    optimizers: dict[str, dict[str, list[float]]] = {}
    name = hyperparam = ""
    for word in (",".join(OPTIMIZERS) if text == "all" else text).split(","):
        head, assignment = _split_assignment(word)
        if head:
            name = optimizer_name(head)
            optimizers[name], hyperparam = {}, ""
            if not assignment:
                continue
        if "=" in assignment:
            hyperparam, _, assignment = assignment.partition("=")
            if hyperparam not in sweepable_hyperparams(name):
                known = ", ".join(sweepable_hyperparams(name)) or "none"
                raise argparse.ArgumentTypeError(
                    f"{name} has no hyperparameter {hyperparam!r}; its hyperparameters "
                    f"are: {known}"
                )
            optimizers[name][hyperparam] = []
        if not hyperparam or not _is_number(assignment):
            raise argparse.ArgumentTypeError(
                f"must be like sgd,adam:b1=0.9,0.95, got {text!r}"
            )
        value = float(assignment)
        try:  # the sweep traces the value, so only here its range is checked
            find_optimizer(name)(1.0, **{hyperparam: value})
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        optimizers[name][hyperparam].append(value)
    return optimizers


def _split_assignment(word: str) -> tuple[str, str]:
    """`adam:b1=0.9` in two at the last colon; one part is empty without the other."""
    head, _, last = word.rpartition(":")
    if "=" in last or _is_number(last):
        return head, last
    return word, ""


def optimizer_name(name: str) -> str:
    """A known name, or `module:factory` of any function that makes an optimizer."""
    if ":" not in name:
        return name_from(OPTIMIZERS)(name)
    module_name, factory = name.split(":", 1)
    if os.getcwd() not in sys.path:  # as `python -m jaxml` has it
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise argparse.ArgumentTypeError(
            f"{name!r} must be MODULE:FACTORY, but {error}"
        ) from None
    if not callable(getattr(module, factory, None)):
        known = [n for n in vars(module) if callable(getattr(module, n))]
        nearest = difflib.get_close_matches(factory, known, n=3, cutoff=0.0)
        raise argparse.ArgumentTypeError(
            f"{module_name} has no optimizer {factory!r}; the nearest names are "
            f"{', '.join(nearest)}"
        )
    try:
        optimizer = getattr(module, factory)(0.1)
        is_optimizer = callable(optimizer.init) and callable(optimizer.update)
    except Exception:  # whatever the user's function raises
        is_optimizer = False
    if not is_optimizer:
        raise argparse.ArgumentTypeError(
            f"{name!r} must return an optax transformation for a learning rate"
        )
    return name


def names_from(known: Iterable[str]) -> Callable[[str], list[str]]:
    """Makes a parser of comma-separated known names, or `all` of them."""

    def parse(text: str) -> list[str]:
        names = known if text == "all" else map(name_from(known), text.split(","))
        return list(dict.fromkeys(names))

    return parse


def name_from(known: Iterable[str]) -> Callable[[str], str]:
    """Makes a parser of one known name."""

    def parse(name: str) -> str:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=3, cutoff=0.0)
            raise argparse.ArgumentTypeError(
                f"{name!r} is not known; the nearest names are {', '.join(nearest)}"
            )
        return name

    return parse


def parse_learning_rates(text: str) -> list[float]:
    """`log:LOW:HIGH:COUNT`, or comma-separated numbers."""
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


def positive_int(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a positive integer, got {text!r}")
    return int(text)


def parse_cache_folder(text: str) -> pathlib.Path | None:
    return None if text == "none" else pathlib.Path(text)


def parse_batch_sizes(text: str) -> list[int | None]:
    """Comma-separated integers; `full`, all examples, is None."""
    sizes = dict.fromkeys(text.split(","))
    return [None if size == "full" else positive_int(size) for size in sizes]


def parse_reduction_factor(text: str) -> float:
    if not _is_number(text) or not float(text) > 1:
        raise argparse.ArgumentTypeError(f"must be greater than 1, got {text!r}")
    return float(text)


def parse_number(text: str) -> float:
    if not _is_number(text):
        raise argparse.ArgumentTypeError(f"must be a number, got {text!r}")
    return float(text)


def parse_bytes(text: str) -> int:
    """A number of bytes with a unit: 500MB, 2GB."""
    units = {"KB": 10**3, "MB": 10**6, "GB": 10**9}
    number, unit = text[:-2], text[-2:]
    if unit not in units or not _is_number(number) or not float(number) > 0:
        raise argparse.ArgumentTypeError(f"must be like 500MB or 2GB, got {text!r}")
    return int(float(number) * units[unit])


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def unused_path(folder: pathlib.Path) -> pathlib.Path:
    """The folder, or the first of folder-2, folder-3, ... that does not exist."""
    suffixes = itertools.chain([""], (f"-{i}" for i in itertools.count(2)))
    paths = (folder.with_name(folder.name + suffix) for suffix in suffixes)
    return next(path for path in paths if not path.exists())

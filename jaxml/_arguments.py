"""What the command line takes: texts become values, or are refused in one line."""

import argparse
import difflib
import itertools
import pathlib
from collections.abc import Callable, Iterable
from typing import NoReturn

import numpy as np


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


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


def empty(text: str) -> pathlib.Path:
    """A directory that holds no results yet."""
    folder = pathlib.Path(text)
    if (folder / "table.csv").exists():
        raise argparse.ArgumentTypeError(f"must have no results yet, but {text} has")
    return folder


def fresh(folder: pathlib.Path) -> pathlib.Path:
    """The folder, or the first of folder-2, folder-3, ... that does not exist."""
    names = itertools.chain(
        [folder.name], (f"{folder.name}-{i}" for i in itertools.count(2))
    )
    return next(path for name in names if not (path := folder.with_name(name)).exists())

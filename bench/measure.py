"""The one clock, the one scale, and the one notebook in which both are written down.

Memory is what the compiler says (exact); time is a ratio of functions that ran in turn
in one process (medians), for the machine's speed drifts.
"""

import datetime
import json
import os
import pathlib
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

RESULTS = pathlib.Path(__file__).parent / "results"
BRIEF = int(os.environ.get("BENCH_REPEATS", "0"))
"""The most repeats, without warming up before; 0 leaves each bench its own number."""
SHORT, PATIENCE = 1.0, 10.0
"""Seconds: of a run that the one before it may disturb, and of all turns if brief."""
BEGUN = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
"""When this process began: the lines of one run have it in common."""


def temporaries(function: Callable[..., Any], *arguments: Any) -> int:
    """Bytes that the compiled function holds beside its arguments and results."""
    compiled = jax.jit(function).lower(*arguments).compile()
    analysis = compiled.memory_analysis()
    assert analysis is not None, "this backend does not say what it holds"
    return analysis.temp_size_in_bytes


def paired(
    runs: Mapping[str, Callable[[], Any]], *, repeats: int = 15, warmup: int = 2
) -> dict[str, float]:
    """Median seconds of each run, all of them taken in turn `repeats` times.

    A short one is timed right after itself: another library's threads spin on for a
    while, on the cores of whoever comes next.
    """
    for run in runs.values():
        jax.block_until_ready(run())  # compiles
    if BRIEF:
        repeats, warmup = min(repeats, BRIEF), 0
    taken: dict[str, list[float]] = {name: [] for name in runs}
    begun = time.perf_counter()
    for _ in range(warmup + repeats):
        for name, run in runs.items():
            one = seconds(run)
            taken[name].append(seconds(run) if one < SHORT else one)
        if BRIEF and time.perf_counter() - begun > PATIENCE:
            break
    return {name: statistics.median(own[-repeats:]) for name, own in taken.items()}


def seconds(run: Callable[[], Any]) -> float:
    """How long one run takes, until its results are there."""
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


def record(bench: str, rows: list[dict[str, Any]]) -> None:
    """Prints the rows as a table and appends them as lines to the device's results.

    `bench` is the module that was run, and after a dot which of its tables this is.
    """
    table = Table(title=f"{bench} on {device()}")
    for column in rows[0]:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*(shown(value) for value in row.values()))
    Console(width=max(100, 18 * len(rows[0]))).print(table)

    stamp = {
        "time": BEGUN,
        "device": device(),
        "jax": jax.__version__,
        "optax": metadata.version("optax"),
        "bench": bench,
    }
    RESULTS.mkdir(exist_ok=True)
    with open(RESULTS / f"{jax.default_backend()}.jsonl", "a") as file:
        file.writelines(json.dumps(stamp | row) + "\n" for row in rows)


def device() -> str:
    """What ran: an accelerator's name, or the processor with its number of cores."""
    first = jax.devices()[0]
    if first.platform != "cpu":
        return first.device_kind
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(": ")[1] for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.machine()


def shown(value: Any) -> str:
    """Three digits of a float, anything else as it is."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)

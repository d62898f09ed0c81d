"""The only clock and memory meter of the benches, and the only writer of results.

Memory is what the compiler reports, which is exact. Times are medians of functions that
run in turn in one process, because the speed of a machine drifts.
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
MAX_REPEATS = int(os.environ.get("BENCH_REPEATS", "0"))
"""An upper bound on repeats, without warm-up; 0 means each bench's own number."""
PAUSE_S = 0.02
"""Before each run: after a while, idle threads of another library stop spinning."""
WARM_BELOW_S = 1.0
"""A run shorter than this is timed right after itself."""
TIME_BUDGET_S = 10.0
"""The time for all rounds if `MAX_REPEATS` is set."""
STARTED_AT = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
"""The start of this process, which all lines of one run share."""


def temporaries(function: Callable[..., Any], *args: Any) -> int:
    """Bytes that the compiled function allocates besides its inputs and outputs."""
    compiled = jax.jit(function).lower(*args).compile()
    analysis = compiled.memory_analysis()
    assert analysis is not None, "this backend does not report memory"
    return analysis.temp_size_in_bytes


def interleaved_medians(
    runs: Mapping[str, Callable[[], Any]], *, repeats: int = 15, warmup: int = 2
) -> dict[str, float]:
    """Median seconds of each run; all of them run in turn, `repeats` times.

    A pause before each run lets the idle threads of another library stop spinning. A
    short run is timed right after itself.
    """
    for run in runs.values():
        jax.block_until_ready(run())  # compiles
    if MAX_REPEATS:
        repeats, warmup = min(repeats, MAX_REPEATS), 0
    times: dict[str, list[float]] = {name: [] for name in runs}
    start = time.perf_counter()
    for _ in range(warmup + repeats):
        for name, run in runs.items():
            time.sleep(PAUSE_S)
            first = seconds(run)
            times[name].append(seconds(run) if first < WARM_BELOW_S else first)
        if MAX_REPEATS and time.perf_counter() - start > TIME_BUDGET_S:
            break
    return {name: statistics.median(t[-repeats:]) for name, t in times.items()}


def seconds(run: Callable[[], Any]) -> float:
    """The wall time of one run, until its results are ready."""
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


def record(bench: str, rows: list[dict[str, Any]]) -> None:
    """Prints the rows as a table and appends them to the results of this platform.

    `bench` is the name of the module that ran, with the name of the table after a dot
    if it has several.
    """
    table = Table(title=f"{bench} on {attached_device()}")
    for column in rows[0]:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*(format_value(value) for value in row.values()))
    Console(width=max(100, 18 * len(rows[0]))).print(table)

    append(bench, rows)


def append(
    bench: str, rows: list[dict[str, Any]], device: str = "", how: str = "run"
) -> None:
    """Appends the rows to the results of this platform.

    `how` is "run" unless the rows are of programs that were compiled for another device
    than this machine has; they have a file of their own.
    """
    stamp = {
        "time": STARTED_AT,
        "device": device or attached_device(),
        "how": how,
        "jax": jax.__version__,
        "optax": metadata.version("optax"),
        "bench": bench,
    }
    file_name = jax.default_backend() if how == "run" else "compiled"
    RESULTS.mkdir(exist_ok=True)
    with open(RESULTS / f"{file_name}.jsonl", "a") as file:
        file.writelines(json.dumps(stamp | row) + "\n" for row in rows)


def attached_device() -> str:
    """The name of the accelerator, or of the CPU with its number of cores."""
    first = jax.devices()[0]
    if first.platform != "cpu":
        return first.device_kind
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(": ")[1] for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.machine()


def format_value(value: Any) -> str:
    """Three significant digits of a float, anything else unchanged."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)

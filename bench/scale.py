"""Sweeps at scale: processes, memory, new points without compilation, and the command.

    python -m bench.scale [--valley]

Two processes with one core each, as a scheduler assigns them, train what one process
with two devices trains. `scale.evaluate` is a study that asks for its trials in batches
and trains them by `Plan.evaluate`, without the time of the sampler. `scale.command` is
`jaxml sweep digits` twice with one compilation cache: the seconds in XLA's compiler, or
in reading what it has stored, and those of the whole command. `--valley` times the
command `jaxml sweep valley` from its start to its report, and nothing else, because it
takes minutes.
"""

import argparse
import contextlib
import csv
import os
import pathlib
import resource
import runpy
import socket
import subprocess
import sys
import tempfile
import time
from functools import partial
from typing import Any

import jax
import numpy as np

from bench import measure
from bench import sweep as bench
from bench.measure import seconds
from jaxml import sweep, tasks


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--valley", action="store_true")
    if parser.parse_args().valley:
        return measure.record("scale.valley", [valley()])
    rounds = range(1 if measure.MAX_REPEATS else 3)
    rates = zip(*((models_per_second(1), models_per_second(2)) for _ in rounds))
    ways = "1 process, 2 devices", "2 processes, a device each"
    bench.report("scale.processes", dict(zip(ways, map(list, rates))), ratio=ways[0])
    measure.record("scale.memory", [memory_of_many_models()])
    measure.record("scale.evaluate", [evaluate_new_points()])
    measure.record("scale.command", command_twice())


def valley() -> dict[str, Any]:
    """The time of `jaxml sweep valley`, and the number of models it trains."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder, "valley")
        command = [sys.executable, "-m", "jaxml", "sweep", "valley", "--out", str(out)]
        elapsed = seconds(lambda: subprocess.run(command, check=True).returncode)
        with open(out / "table.csv", newline="") as table:
            models = sum(1 for _ in csv.DictReader(table))
    return {"models": models, "s": elapsed}


def models_per_second(num_processes: int) -> float:
    """The rate of processes with 2 devices in total, without compilation."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    program = "from bench import scale; scale.train_in_process({!r}, {}, {})"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program.format(address, num_processes, i)],
            preexec_fn=partial(_bind_to_cores, num_processes, i),
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(num_processes)
    ]
    outputs = [process.communicate()[0] for process in processes]
    return min(float(text.split()[-1]) for text in outputs)  # after Gloo's messages


def _bind_to_cores(num_processes: int, i: int) -> None:
    """Gives the i-th process its part of the cores, as a scheduler does."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[i::num_processes])


def train_in_process(address: str, num_processes: int, i: int) -> None:
    """Trains the i-th part of a run, and prints the models per second of all."""
    jax.config.update("jax_num_cpu_devices", 2 // num_processes)
    if num_processes > 1:  # what --coordinator, --processes and --process-id do
        jax.distributed.initialize(address, num_processes, i)
    run = bench.sweep_rate(tasks.digits(), 64)
    run()
    print(run())


def memory_of_many_models() -> dict[str, Any]:
    """The peak memory of a new process that trains 100,000 models."""
    program = "from bench import scale; scale.train_many_models()"
    output = subprocess.check_output([sys.executable, "-c", program], text=True)
    columns = "models", "steps", "resident MiB", "s"
    return {"task": "T", **dict(zip(columns, map(float, output.split())))}


def train_many_models(steps: int = 20) -> None:
    """Prints the peak memory of this process, which does not depend on the steps."""
    hidden, batch = bench.TASKS["T"]
    jax.config.update("jax_num_cpu_devices", os.cpu_count())
    rates = sweep.log(1e-4, 1e-1, 1000)
    task = tasks.digits(hidden=hidden)
    plan = bench.make_plan(task, batch, rates, seeds=100, steps=steps)
    elapsed = seconds(lambda: sweep.run(plan))
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(plan.num_models, steps, peak_mib, elapsed)


def evaluate_new_points() -> dict[str, Any]:
    """A study of 1,000 trials in a new process, asked and told in batches."""
    program = "from bench import scale; scale.study()"
    output = subprocess.check_output([sys.executable, "-c", program], text=True)
    trials, batch, rate, compilations = output.split()
    return {
        "task": "T",
        "trials": int(trials),
        "in a batch": int(batch),
        "trials_per_s": float(rate),
        "compilations": int(compilations),
    }


def study(trials: int = 1000, batch: int = 100) -> None:
    """Prints the trials per second, and the compilations of trials after the plan."""
    hidden, batch_size = bench.TASKS["T"]
    jax.config.update("jax_num_cpu_devices", os.cpu_count())
    rates = sweep.log(1e-4, 1e-1, batch)
    plan = bench.make_plan(tasks.digits(hidden=hidden), batch_size, rates, seeds=1)
    plan.evaluate(plan.points)
    points = sweep.random(
        trials,
        0,
        optimizer=["adam"],
        activation=["relu"],
        loss=["cross_entropy"],
        learning_rate=sweep.log(1e-4, 1e-1),
    )
    points["seed"] = np.arange(trials)
    batches = [
        {name: column[first : first + batch] for name, column in points.items()}
        for first in range(0, trials, batch)
    ]
    compile_s = compilation_seconds()
    elapsed = seconds(lambda: [plan.evaluate(asked).steps for asked in batches])
    print(trials, batch, trials / elapsed, len(compile_s))


def command_twice() -> list[dict[str, Any]]:
    """The command with an empty compilation cache, and with the one that it left."""
    with tempfile.TemporaryDirectory() as folder:
        return [
            {"command": which, **command_seconds(pathlib.Path(folder), which)}
            for which in ("first", "second")
        ]


def command_seconds(folder: pathlib.Path, which: str) -> dict[str, float]:
    program = "from bench import scale; scale.print_command_seconds({!r})"
    words = ["jaxml", "sweep", "digits", "--out", str(folder / which)]
    words += ["--compilation-cache", str(folder / "cache")]
    command = [sys.executable, "-c", program.format(words)]
    output = subprocess.check_output(command, text=True)
    return dict(zip(("compile s", "s"), map(float, output.split()[-2:])))


def print_command_seconds(words: list[str]) -> None:
    """Runs a command, and prints its seconds of compilation and in total."""
    compile_s = compilation_seconds()
    sys.argv = words
    start = time.perf_counter()
    with contextlib.suppress(SystemExit):
        runpy.run_module("jaxml", run_name="__main__")
    print(sum(compile_s), time.perf_counter() - start)


def compilation_seconds() -> list[float]:
    """A list that grows by the seconds of each compilation of this process."""
    durations: list[float] = []

    def listen(event: str, duration: float, **_: Any) -> None:
        if event.endswith("backend_compile_duration"):
            durations.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    return durations


if __name__ == "__main__":
    main()

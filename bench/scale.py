"""Sweeps at scale: several processes beside several devices, and what many models hold.

    python -m bench.scale [--valley]

Two processes have a core each, as a scheduler gives them, and train what one process
with two devices trains. The valley is timed as a command, from its start to its report;
it takes minutes, so that it is run where it is asked for, and then alone.
"""

import argparse
import csv
import os
import pathlib
import resource
import socket
import subprocess
import sys
import tempfile
from functools import partial
from typing import Any

import jax

from bench import measure
from bench import sweep as bench
from bench.measure import seconds
from jaxml import sweep, tasks


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--valley", action="store_true")
    if parser.parse_args().valley:
        return measure.record("scale.valley", [valley()])
    rounds = range(1 if measure.BRIEF else 3)
    taken = zip(*((in_processes(1), in_processes(2)) for _ in rounds))
    ways = "1 process, 2 devices", "2 processes, a device each"
    bench.report("scale.processes", dict(zip(ways, map(list, taken))), ratio=ways[0])
    measure.record("scale.memory", [held_by_many()])


def valley() -> dict[str, Any]:
    """How long `jaxml sweep valley` takes, and how many models it trains."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder, "valley")
        command = [sys.executable, "-m", "jaxml", "sweep", "valley", "--out", str(out)]
        taken = seconds(lambda: subprocess.run(command, check=True).returncode)
        with open(out / "table.csv", newline="") as table:
            models = sum(1 for _ in csv.DictReader(table))
    return {"models": models, "s": taken}


def in_processes(count: int) -> float:
    """Models per second of `count` processes with 2 devices in all, once compiled."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    program = "from bench import scale; scale.process_of({!r}, {}, {})"
    of_each = [
        subprocess.Popen(
            [sys.executable, "-c", program.format(address, count, number)],
            preexec_fn=partial(_bind, count, number),
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]
    said = [process.communicate()[0] for process in of_each]
    return min(float(lines.split()[-1]) for lines in said)  # after what Gloo says


def _bind(count: int, number: int) -> None:
    """Gives a process its share of the cores, as a scheduler does."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[number::count])


def process_of(address: str, count: int, number: int) -> None:
    """Prints the models per second of a run of which this process trains a part."""
    jax.config.update("jax_num_cpu_devices", 2 // count)
    if count > 1:  # what --coordinator, --processes and --process-id do
        jax.distributed.initialize(address, count, number)
    run = bench.swept(tasks.digits(), 64)
    run()
    print(run())


def held_by_many() -> dict[str, Any]:
    """What 100,000 models hold: a process of their own, so that nothing else counts."""
    program = "from bench import scale; scale.many()"
    output = subprocess.check_output([sys.executable, "-c", program], text=True)
    columns = "models", "steps", "resident MiB", "s"
    return {"task": "T", **dict(zip(columns, map(float, output.split())))}


def many(steps: int = 20) -> None:
    """Prints the most memory that a process had; few steps hold what many do."""
    hidden, batch = bench.TASKS["T"]
    jax.config.update("jax_num_cpu_devices", os.cpu_count())
    rates = sweep.log(1e-4, 1e-1, 1000)
    task = tasks.digits(hidden=hidden)
    plan = bench.planned(task, batch, rates, seeds=100, steps=steps)
    taken = seconds(lambda: sweep.run(plan))
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(plan.num_models, steps, held, taken)


if __name__ == "__main__":
    main()

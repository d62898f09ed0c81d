"""Compiled for an H100 and a TPU v5e, not run: launches, bytes, products, temporaries.

    python -m bench.devices [NAME ...] [--device h100 v5e] [--mesh] [--check | --accept]

Every public loss, distance, activation and optimizer step is compiled ahead of time by
the compilers of the devices, which need no device (`pip install ".[devices]"`), and the
compiled program is read: kernels launched and bytes moved, with loops multiplied out,
operations of matrix products, bytes of temporaries, and seconds of compilation.

The milliseconds are a model: 3 µs (0.5 µs on the TPU) a launch, and the time of the
bytes or of the products at the figures of the data sheet, whichever is longer. It is
good for factors, not for percents. The peer is optax's or jax.nn's function, or the
form that holds the matrix of all pairs; a loss of all pairs without a dense form has
that of a loss with the same products. All branches of a conditional count, and a loop
of unknown length counts once.

A sweep's row is one training step of all models of a block, which a plan has compiled;
its decisions are branches and loops of unknown length, at which a GPU waits for the
host, and its models per second are those of a whole run.

A loss of a head that holds no logits computes them again in its backward pass. The
cross entropy has 4 products where the dense form has 3, and a divergence 6 where the
dense form has 4, because only the student is trained. The products alone make them 1.33
and 1.5 times as slow as the dense form. With the kernels between the products it is
1.38, and 1.56 to 1.59, on an H100. Fewer products are possible only if logits stay in
memory. On a CPU the Jensen-Shannon divergence has 8 products.

`--mesh` compiles for eight devices: the figures are those of one of them, and the model
leaves out the collectives, which have columns of their own.

Where a GPU is attached, the same command runs the programs on it, and sets the measured
times beside the modeled ones. `--check` holds rows to the bounds of
`bench/aot/targets.py` and appends no results; `--accept` lets the rows that miss a
target have what they have now.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import jax
import jax.numpy as jnp

from bench import measure
from bench.aot import hardware, targets
from bench.aot.forms import Form, Program
from bench.aot.hardware import Compilation, Hardware, Layout
from bench.aot.meshes import mesh_programs
from bench.aot.programs import all_programs
from bench.aot.sweeps import SweepProgram, sweep_programs, sweep_row

CHECKED = (
    "cross_entropy",
    "multiclass_hinge_loss",
    "linear_cross_entropy",
    "info_nce",
    "siglip_loss",
    "batch_hard_triplet_loss",
    "arcface_loss",
    "dice_loss",
    "lovasz_hinge_loss",
    "euclidean",
    "softmax",
    "gelu",
    "adamw",
    "sweep T",
)
"""The rows that `--check` compiles if no names are given: minutes on 2 cores."""
COMPILED, RUN = "compiled, not run", "run"
LONGEST_RUN_S = 10.0
"""A program that takes longer by the model is not run."""
ERROR_LENGTH = 160
NUM_LABELS = 16
MISSING = "-"

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="a public function")
    parser.add_argument("--device", nargs="+", choices=hardware.COMPILED_FOR)
    parser.add_argument("--check", action="store_true", help="exit with 1 if one fails")
    parser.add_argument("--accept", action="store_true", help="as they are")
    parser.add_argument("--mesh", action="store_true", help="for eight devices")
    options = parser.parse_args()
    gpu = hardware.attached_gpu()
    table = mesh_programs() if options.mesh else [*all_programs(), *sweep_programs()]
    programs = selected(table, options.names, parser.error)
    if options.check and not options.names and not options.mesh:
        programs = [program for program in programs if program.name in CHECKED]
    if gpu and not options.device:
        devices = {"gpu": gpu}
    elif problem := hardware.missing_packages():
        sys.exit(problem)
    else:
        chosen = options.device or hardware.COMPILED_FOR
        devices = {name: hardware.COMPILED_FOR[name]() for name in chosen}

    failures: list[str] = []
    for name, device in devices.items():
        jax.clear_caches()  # of functions traced for the mesh of another device
        compiler = Compiler(device, runs=device is gpu)
        for number, program in enumerate(programs, 1):
            is_sweep = isinstance(program, SweepProgram)
            row = compiler.sweep_row(program) if is_sweep else compiler.row(program)
            print(f"{name} {number}/{len(programs)} {summary(row)}", flush=True)
            failures += targets.violations(row, name)
            if options.accept:
                targets.accept(row, name)
            if not options.check:
                how = RUN if device is gpu else COMPILED
                bench = f"devices.{name}" + ".mesh" * options.mesh + ".sweep" * is_sweep
                measure.append(bench, [row], device=device.name, how=how)
    if options.check:
        sys.exit("\n".join(failures) or 0)


def selected(
    programs: Sequence[Program | SweepProgram],
    names: Sequence[str],
    refuse: Callable[[str], NoReturn],
) -> list[Program | SweepProgram]:
    """The programs of the named functions; all programs if there are no names."""
    functions = [program.name.split(",")[0] for program in programs]
    for name in names:
        if name not in functions:
            refuse(f"NAME must be a function with a row, got {name}")
    return [p for p, f in zip(programs, functions) if not names or f in names]


class Compiler:
    """Makes the rows of one device. Rows with the same peer share its compilation."""

    def __init__(self, device: Hardware, *, runs: bool) -> None:
        self.device = device
        self.runs = runs
        self.peers: dict[Any, Compilation] = {}

    def row(self, program: Program) -> Row:
        """The figures of a program and of its peer; the row says what fails."""
        row: Row = {"program": program.name, "inputs": describe(program.ours.arrays)}
        errors = []
        forms = {"": program.ours, "peer ": program.peer}
        compile_form = {"": self.compile, "peer ": self.compile_peer}
        for prefix, form in forms.items():
            compiled = run_s = None
            try:
                if form:
                    compiled = compile_form[prefix](form, program.layout)
                    run_s = self.run_s(form, compiled) if self.runs else None
            except Exception as error:  # compilers raise errors of many types
                errors.append(f"{prefix}{type(error).__name__}: {first_line(error)}")
            row |= columns(self.device, compiled, prefix)
            if program.layout:
                row |= collective_columns(compiled, prefix)
            if self.runs:
                row[f"{prefix}run ms"] = 1e3 * run_s if run_s else MISSING
        return row | {"error": "; ".join(errors)}

    def sweep_row(self, program: SweepProgram) -> Row:
        try:
            return sweep_row(program, self.device, runs=self.runs)
        except Exception as error:
            message = f"{type(error).__name__}: {first_line(error)}"
            return {"program": program.name, "ms": MISSING, "error": message}

    def compile(self, form: Form, layout: Layout | None) -> Compilation:
        donated = () if self.runs else form.donated  # donated arrays run only once
        return hardware.compile_for(
            self.device, form.function, form.arrays, donated, layout
        )

    def compile_peer(self, form: Form, layout: Layout | None) -> Compilation:
        key = form.function, describe(form.arrays), layout
        if key not in self.peers:
            self.peers[key] = self.compile(form, layout)
        return self.peers[key]

    def run_s(self, form: Form, compiled: Compilation) -> float | None:
        """The measured seconds; None if the program takes too long by the model."""
        if self.device.seconds(compiled.cost) > LONGEST_RUN_S:
            return None
        arrays = jax.tree.map(sample, form.arrays)
        run = {"": lambda: compiled.program(*arrays)}
        return measure.interleaved_medians(run, repeats=5, warmup=1)[""]


def columns(device: Hardware, compiled: Compilation | None, prefix: str) -> Row:
    """The figures of a compiled program, missing if there is none."""
    names = "ms", "launches", "GiB", "Tflop", "MiB", "inputs MiB", "compile s"
    if compiled is None:
        figures: Row = dict.fromkeys(names, MISSING)
    else:
        cost = compiled.cost
        values = (
            1e3 * device.seconds(cost),
            cost.launches,
            cost.moved_bytes / 2**30,
            sum(cost.flops.values()) / 1e12,
            compiled.temporary_bytes / 2**20,
            compiled.input_bytes / 2**20,
            compiled.compile_s,
        )
        figures = dict(zip(names, values))
    ours_only = ("Tflop", "inputs MiB", "compile s") if prefix else ()
    return {prefix + n: value for n, value in figures.items() if n not in ours_only}


def collective_columns(compiled: Compilation | None, prefix: str) -> Row:
    """The collectives of a device and their GiB, outside of loops and inside."""
    row: Row = {}
    for place, is_in_loop in (("outside", False), ("in loops", True)):
        collectives = compiled.cost.collectives if compiled else ()
        here = [c for c in collectives if c.is_in_loop == is_in_loop]
        row[f"{prefix}collectives {place}"] = sum(c.times for c in here)
        row[f"{prefix}GiB {place}"] = sum(c.times * c.nbytes for c in here) / 2**30
    return row


def sample(array: Any) -> jax.Array:
    """An array that any program takes: numbers in (0, 1), or a few labels."""
    if jnp.issubdtype(array.dtype, jnp.floating):
        return jax.random.uniform(jax.random.key(0), array.shape, array.dtype)
    return (jnp.arange(array.size).reshape(array.shape) % NUM_LABELS).astype(
        array.dtype
    )


def describe(arrays: Any) -> str:
    """The types of the arrays, each once: bf16[4096,32768], i32[4096]."""
    short = {"bfloat16": "bf16", "float32": "f32", "int32": "i32"}
    types = (
        f"{short.get(x.dtype.name, x.dtype.name)}{[*x.shape]}".replace(" ", "")
        for x in jax.tree.leaves(arrays)
    )
    return ", ".join(dict.fromkeys(types))


def first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")[:ERROR_LENGTH]


def summary(row: Row) -> str:
    """A row in one line, as its progress is shown."""
    shown = (
        *("models_per_s", "run models_per_s", "kernels a step", "decisions"),
        *("ms", "run ms", "launches", "GiB", "MiB", "compile s", "plan s"),
        *("collectives outside", "GiB outside", "collectives in loops", "GiB in loops"),
        *("peer ms", "peer run ms", "peer GiB", "peer MiB"),
    )
    figures = (
        f"{measure.format_value(row[column])} {column}"
        for column in shown
        if row.get(column, MISSING) != MISSING
    )
    return f"{row['program']}: {', '.join(figures)} {row['error']}"


if __name__ == "__main__":
    main()

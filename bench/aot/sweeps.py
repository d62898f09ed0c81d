"""Rows of sweeps: the kernels of one training step of all models of a block.

A plan for a device compiles as it does where the device is attached; the data are given
by their shapes. A decision is a branch or a loop of unknown length: a GPU waits for the
host at each. The models per second are those of a whole run, from the initial
parameters to the metrics, by the model of the time.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax

from bench import sweep as bench
from bench.aot.cost import read_cost
from bench.aot.hardware import Hardware
from bench.aot.hlo import parse
from bench.measure import seconds
from jaxml import activations, losses, optimizers, sweep, tasks

NUM_PIXEL_CLASSES = 11


class SweepProgram(NamedTuple):
    name: str
    task: sweep.Task
    make_plan: Callable[..., sweep.Plan]
    """(task, devices=...) -> the plan."""


def sweep_programs() -> list[SweepProgram]:
    return [
        *(digits(name, *sizes) for name, sizes in bench.TASKS.items()),
        SweepProgram(
            "sweep segmentation", tasks.digits_segmentation(), plan_segmentation
        ),
    ]


def digits(name: str, hidden: int, batch: int) -> SweepProgram:
    """4,096 models of one of the tasks of `bench.sweep`."""
    rates = sweep.log(1e-4, 1e-1, 64)
    make_plan = partial(bench.make_plan, batch=batch, rates=rates, seeds=64)
    return SweepProgram(f"sweep {name}", tasks.digits(hidden=hidden), make_plan)


def plan_segmentation(task: sweep.Task, *, devices: Sequence[Any]) -> sweep.Plan:
    """64 models with one of two losses."""
    losses_by_name = {"cross_entropy": cross_entropy, "lovasz_softmax": lovasz_softmax}
    points = sweep.grid(
        optimizer=["adam"],
        activation=["relu", "gelu"],
        loss=[*losses_by_name],
        learning_rate=sweep.log(1e-3, 1e-1, 16),
        seed=[0],
    )
    return sweep.plan(
        task,
        points,
        optimizers={"adam": lambda point: optimizers.adam(point["learning_rate"])},
        choices={
            "activation": {"relu": activations.relu, "gelu": activations.gelu},
            "loss": losses_by_name,
        },
        steps=bench.STEPS,
        num_evals=1,
        devices=devices,
    )


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return losses.mean(losses.cross_entropy(logits, labels))


def lovasz_softmax(logits: jax.Array, labels: jax.Array) -> jax.Array:
    values = losses.lovasz_softmax_loss(jax.nn.softmax(logits), labels)
    return losses.mean(values, where=losses.present(labels, NUM_PIXEL_CLASSES))


def sweep_row(program: SweepProgram, device: Hardware, *, runs: bool) -> dict[str, Any]:
    """The figures of a plan; a device that is attached runs it too."""
    task = program.task if runs else without_data(program.task)
    start = time.perf_counter()
    plan = program.make_plan(task, devices=device.devices[:1])
    plan_s = time.perf_counter() - start
    programs = {id(program): program for program in plan.programs if program}.values()
    run_s = sum(device.seconds(read_cost(p.as_text())) for p in programs)
    text = plan.programs.advance.as_text()
    step = read_cost(text)
    row = {
        "program": program.name,
        "models": plan.num_models,
        "kernels a step": step.launches / bench.STEPS,
        "decisions": parse(text).num_decisions(),
        "ms": 1e3 * device.seconds(step) / bench.STEPS,
        "GiB": step.moved_bytes / bench.STEPS / 2**30,
        "MiB": plan.bytes / 2**20,
        "models_per_s": plan.num_models / run_s,
        "plan s": plan_s,
    }
    if runs:
        sweep.run(plan)  # reads its data for the first time
        row["run models_per_s"] = plan.num_models / seconds(lambda: sweep.run(plan))
    return row | {"error": ""}


def without_data(task: sweep.Task) -> sweep.Task:
    """The task with the shapes of its data."""
    train, valid = jax.eval_shape(lambda: (task.train, task.valid))
    return task._replace(train=train, valid=valid)

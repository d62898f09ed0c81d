"""Models trained per second: the sweep against other ways to train many models.

Task R: digits, one hidden layer of 32 units, batches of 64, 200 steps of Adam. Task T:
8 units, batches of 16. The fair baseline on a CPU is a Python loop over a jitted
training run: it compiles once, traces its hyperparameters, and pays for Python once per
model. It is measured with jaxml's loss and optimizer (`ratio`: the gain from training
many models at once) and with optax's (`of_optax`: the gain in total).

All ways run in turn in one process, without compilation, each with the same network
and with metrics on the training and validation data at the end. Two exceptions:
torch.func's ensemble computes no metrics, and a process per trial runs once. The
sweep's time is that of the whole engine, its record included. `by hand` is the program
without an engine. Most of the ten activations cost more than relu, so they are measured
in one program and in ten.

`models_per_s` is the median over several rounds, a ratio the median of the ratios of
each round.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, PartitionSpec

from bench import measure
from bench.measure import seconds
from jaxml import activations, losses, optimizers, sweep, tasks

STEPS, REPEATS = 200, 3 if measure.MAX_REPEATS else 5
TASKS = {"R": (32, 64), "T": (8, 16)}  # hidden units, examples a step
POINT = {"activation": activations.relu, "loss": losses.cross_entropy}
Functions = tuple[Callable[..., Any], ...]
TWELVE_OPTIMIZERS = (
    optimizers.sgd,
    optimizers.momentum,
    optimizers.nesterov,
    optimizers.adagrad,
    optimizers.adadelta,
    optimizers.rmsprop,
    optimizers.adam,
    optimizers.adamw,
    optimizers.amsgrad,
    optimizers.nadam,
    optimizers.adamax,
    optimizers.radam,
)
TEN_ACTIVATIONS = (
    activations.relu,
    activations.leaky_relu,
    activations.elu,
    activations.selu,
    activations.sigmoid,
    activations.tanh,
    activations.softsign,
    activations.gelu,
    activations.swish,
    activations.mish,
)


def main() -> None:
    jax.config.update("jax_num_cpu_devices", os.cpu_count())
    for name, (hidden, batch) in TASKS.items():
        task = tasks.digits(hidden=hidden)
        ways = {
            "loop of jitted runs": loop_of_runs(task, batch),
            "loop of jitted runs, optax": loop_of_runs(
                with_optax_loss(task), batch, optax.adam
            ),
            "loop of jitted steps": loop_of_steps(task, batch),
            "by hand, own batches": by_hand(task, batch),
            "sweep, own batches": sweep_rate(task, batch),
            "sweep, shared batches": sweep_rate(task, batch, shared=True),
        }
        if ensemble := torch_ensemble(hidden, batch):
            ways["torch.func ensemble"] = ensemble
        rates = interleaved_rates(ways)
        if name == "R":
            rates["process per trial"] = [process_per_trial()] * REPEATS
        report(
            f"sweep.{name}",
            rates,
            ratio="loop of jitted runs",
            of_optax="loop of jitted runs, optax",
        )
    task = tasks.digits()
    mixed = {
        "adam, relu": sweep_rate(task, 64),
        "twelve optimizers": sweep_rate(task, 64, make_optimizers=TWELVE_OPTIMIZERS),
        "ten activations": sweep_rate(task, 64, activation_fns=TEN_ACTIVATIONS),
        "ten activations, a program each": one_program_each(task, 64),
    }
    report("sweep.mixed", interleaved_rates(mixed), ratio="adam, relu")
    halving_rows(task)


def interleaved_rates(ways: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
    for way in ways.values():
        way()  # compiles
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(REPEATS):
        for name, way in ways.items():
            time.sleep(0.5)  # another library's threads keep spinning for a while
            rates[name].append(way())
    return rates


def report(bench: str, rates: dict[str, list[float]], **bases: str) -> None:
    measure.record(
        bench,
        [
            {
                "way": way,
                "models_per_s": statistics.median(way_rates),
                **{
                    name: statistics.median(
                        a / b for a, b in zip(way_rates, rates[base])
                    )
                    for name, base in bases.items()
                },
            }
            for way, way_rates in rates.items()
        ],
    )


def halving_rows(task: sweep.Task) -> None:
    """Trains 900 models to the end, and with successive halving in several forms."""
    full = make_plan(task, 64, sweep.log(1e-4, 1.0, 90), seeds=10, num_evals=27)
    plans = {"whole": full}
    for factor, rungs in ((2.0, 2), (4.0, 1), (2.0, 3)):
        halving = sweep.SuccessiveHalving(
            "valid_loss", factor, rungs, higher_is_better=False
        )
        plans[f"factor {factor:g}, rungs {rungs}"] = full._replace(halving=halving)
    records = {way: sweep.run(plan) for way, plan in plans.items()}
    times = measure.interleaved_medians(
        {way: lambda plan=plan: sweep.run(plan).steps for way, plan in plans.items()},
        repeats=3,
        warmup=0,
    )
    best = {
        way: np.argsort(np.where(r.status == "ok", r.final["valid_loss"], np.inf))
        for way, r in records.items()
    }
    measure.record(
        "sweep.halving",
        [
            {
                "way": way,
                "models": full.num_models,
                "s": times[way],
                "times less": times["whole"] / times[way],
                "same best": bool(order[0] == best["whole"][0]),
                "same of the best 5": len({*order[:5]} & {*best["whole"][:5]}),
            }
            for way, order in best.items()
        ],
    )


def sweep_rate(
    task: sweep.Task,
    batch: int,
    *,
    shared: bool = False,
    make_optimizers: Functions = (optimizers.adam,),
    activation_fns: Functions = (activations.relu,),
) -> Callable[[], float]:
    """Models per second of the engine: about 1,000 models, from plan to record."""
    combinations = len(make_optimizers) * len(activation_fns)
    plan = make_plan(
        task,
        batch,
        sweep.log(1e-4, 1e-1, 64),
        seeds=max(1, 16 // combinations),
        shared=shared,
        make_optimizers=make_optimizers,
        activation_fns=activation_fns,
    )
    return lambda: plan.num_models / seconds(lambda: sweep.run(plan))


def one_program_each(task: sweep.Task, batch: int) -> Callable[[], float]:
    """The ten activations in ten programs, without a choice between them."""
    rates = [sweep_rate(task, batch, activation_fns=(f,)) for f in TEN_ACTIVATIONS]
    return lambda: statistics.harmonic_mean(rate() for rate in rates)


def make_plan(
    task: sweep.Task,
    batch: int,
    rates: Any,
    *,
    seeds: int,
    steps: int = STEPS,
    num_evals: int = 1,
    shared: bool = False,
    make_optimizers: Functions = (optimizers.adam,),
    activation_fns: Functions = (activations.relu,),
    devices: Any = None,
) -> sweep.Plan:
    points = sweep.grid(
        optimizer=[make.__name__ for make in make_optimizers],
        activation=[f.__name__ for f in activation_fns],
        loss=["cross_entropy"],
        learning_rate=rates,
        seed=range(seeds),
    )
    return sweep.plan(
        task,
        points,
        optimizers={
            make.__name__: lambda point, make=make: make(point["learning_rate"])
            for make in make_optimizers
        },
        choices={
            "activation": {f.__name__: f for f in activation_fns},
            "loss": {"cross_entropy": losses.cross_entropy},
        },
        steps=steps,
        batch_size=batch,
        shared_batches=shared,
        num_evals=num_evals,
        devices=devices,
    )


def by_hand(task: sweep.Task, batch: int, lanes: int = 16) -> Callable[[], float]:
    """One model per lane on every device, in one program without an engine."""
    devices = jax.local_devices()
    train = jax.vmap(training_run(task, batch))
    lanes *= 1 if batch == 64 else 4
    mesh, spec = Mesh(np.array(devices), ("devices",)), PartitionSpec("devices")
    program = jax.jit(
        jax.shard_map(train, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
    )
    count = lanes * len(devices)
    rates = np.geomspace(1e-4, 1e-1, count).astype(np.float32)

    def run() -> None:
        for first in range(0, 8 * count, count):
            seeds = np.arange(first, first + count, dtype=np.uint32)
            jax.block_until_ready(program(rates, seeds))

    return lambda: 8 * count / seconds(run)


def loop_of_runs(
    task: sweep.Task, batch: int, adam: Any = optimizers.adam, models: int = 60
) -> Callable[[], float]:
    train = jax.jit(training_run(task, batch, adam))

    def run() -> None:
        for seed in range(models):
            jax.block_until_ready(train(jnp.float32(0.01), jnp.uint32(seed)))

    return lambda: models / seconds(run)


def loop_of_steps(task: sweep.Task, batch: int, models: int = 5) -> Callable[[], float]:
    start, step = init_and_step(task, batch)
    start, step = jax.jit(start), jax.jit(step)
    metrics = jax.jit(lambda params: final_metrics(task, params))

    def run() -> None:
        for seed in range(models):
            rate, seed = jnp.float32(0.01), jnp.uint32(seed)
            carry = start(rate, seed)
            for number in range(STEPS):
                carry = step(rate, seed, carry, jnp.int32(number))
            jax.block_until_ready(metrics(carry[0]))

    return lambda: models / seconds(run)


def with_optax_loss(task: sweep.Task) -> sweep.Task:
    """The task with optax's loss, from the same initial parameters."""

    def logits(params: Any, x: jax.Array) -> jax.Array:
        h = jax.nn.relu(x @ params["w1"].T + params["b1"].T)
        return h @ params["w2"].T + params["b2"].T

    def loss(params: Any, batch: Any, _: Any) -> jax.Array:
        x, y = batch
        cross_entropy = optax.softmax_cross_entropy_with_integer_labels
        return jnp.mean(cross_entropy(logits(params, x), y))

    def metrics(params: Any, data: Any, _: Any) -> dict[str, jax.Array]:
        x, y = data
        accuracy = jnp.mean(jnp.argmax(logits(params, x), -1) == y)
        return {"loss": loss(params, data, None), "accuracy": accuracy}

    return task._replace(loss=loss, metrics=metrics)


def training_run(
    task: sweep.Task, batch: int, adam: Any = optimizers.adam
) -> Callable[..., Any]:
    """One model from its initial parameters to its metrics, not yet compiled."""
    start, step = init_and_step(task, batch, adam)

    def train(rate: jax.Array, seed: jax.Array) -> Any:
        def body(carry: Any, number: jax.Array) -> Any:
            return step(rate, seed, carry, number), None

        steps = jnp.arange(STEPS, dtype=jnp.int32)
        (params, _), _ = jax.lax.scan(body, start(rate, seed), steps)
        return final_metrics(task, params)

    return train


def final_metrics(task: sweep.Task, params: Any) -> Any:
    return [task.metrics(params, data, POINT) for data in (task.train, task.valid)]


def init_and_step(
    task: sweep.Task, batch: int, adam: Any = optimizers.adam
) -> tuple[Callable, Callable]:
    def start(rate: jax.Array, seed: jax.Array) -> Any:
        params = task.init(jax.random.fold_in(jax.random.key(seed), 0), POINT)
        return params, adam(rate).init(params)

    def step(rate: jax.Array, seed: jax.Array, carry: Any, number: jax.Array) -> Any:
        params, state = carry
        draw = jax.random.fold_in(jax.random.key(seed), 1)
        key = jax.random.fold_in(draw, number)
        rows = jax.random.randint(key, (batch,), 0, len(task.train[1]))
        drawn = jax.tree.map(lambda array: array[rows], task.train)
        grads = jax.grad(task.loss)(params, drawn, POINT)
        updates, state = adam(rate).update(grads, state)
        return jax.tree.map(jnp.add, params, updates), state

    return start, step


def torch_ensemble(hidden: int, batch: int) -> Callable[[], float] | None:
    """256 stacked models with their own batches, as in the tutorial of torch.func."""
    try:
        import torch
    except ModuleNotFoundError:
        return None
    from torch.func import functional_call, grad, vmap

    count = 256
    x, y = (torch.tensor(np.asarray(part)) for part in tasks.digits().train)
    y = y.long()
    net = torch.nn.Sequential(
        torch.nn.Linear(64, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, 10)
    )
    start = {
        name: torch.randn(count, *value.shape) * 0.1
        for name, value in net.named_parameters()
    }

    def loss(params: Any, x: Any, y: Any) -> Any:
        return torch.nn.functional.cross_entropy(functional_call(net, params, x), y)

    gradients = vmap(grad(loss))

    def run() -> None:
        params = dict(start)
        mu = {n: torch.zeros_like(v) for n, v in params.items()}
        nu = {n: torch.zeros_like(v) for n, v in params.items()}
        for step in range(1, STEPS + 1):
            rows = torch.randint(len(y), (count, batch))
            grads = gradients(params, x[rows], y[rows])
            for n, g in grads.items():
                mu[n] = 0.9 * mu[n] + 0.1 * g
                nu[n] = 0.999 * nu[n] + 0.001 * g * g
                root = (nu[n] / (1 - 0.999**step)).sqrt() + 1e-8
                params[n] = params[n] - 0.01 * mu[n] / (1 - 0.9**step) / root

    return lambda: count / seconds(run)


def process_per_trial() -> float:
    """One trial in its own process: import, compile, train."""
    program = (
        "import jax, jax.numpy as jnp; from bench import sweep; "
        "from jaxml import tasks; "
        "train = jax.jit(sweep.training_run(tasks.digits(), 64));"
        "jax.block_until_ready(train(jnp.float32(0.01), jnp.uint32(0)))"
    )
    command = [sys.executable, "-c", program]
    return 1 / seconds(lambda: subprocess.run(command, check=True))


if __name__ == "__main__":
    main()

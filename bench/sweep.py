"""Models trained per second: the sweep beside the other ways to train many.

Task R: digits, one hidden layer of 32 units, batches of 64, 200 steps of Adam. Task T:
8 units, batches of 16. The fair peer on a processor is the Python loop over a jitted
whole run: it compiles once, traces its numbers, and pays Python only once a model. It
stands here twice, of optax's loss and optimizer as one writes it without jaxml, and of
jaxml's, so that `of_optax` is what a sweep gains in all and `ratio` what it gains by
training many at once.

`models_per_s` is a median of several turns, and a ratio the median of each turn's
ratio, so that it is not quite the ratio of the medians.

All are taken in turn in one process, without the time that they compile, each with the
same network, and its metrics on the data for training and for validation at the end
(but torch.func's ensemble has no metrics, and a process per trial is timed once); the
sweep's time is that of the whole engine, its record included. What runs by hand is the
program that the engine should not be slower than. Of ten activations most cost more
than relu, each by itself: so they stand there once in one program, and once in ten.
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

STEPS, REPEATS = 200, 3 if measure.BRIEF else 5
TASKS = {"R": (32, 64), "T": (8, 16)}  # hidden units, examples a step
CHOSEN = {"activation": activations.relu, "loss": losses.cross_entropy}
Functions = tuple[Callable[..., Any], ...]
TWELVE = (
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
TEN = (
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
            "loop of jitted runs, optax": loop_of_runs(plain(task), batch, optax.adam),
            "loop of jitted steps": loop_of_steps(task, batch),
            "by hand, own batches": by_hand(task, batch),
            "sweep, own batches": swept(task, batch),
            "sweep, shared batches": swept(task, batch, shared=True),
        }
        if ensemble := torch_ensemble(hidden, batch):
            ways["torch.func ensemble"] = ensemble
        rates = in_turn(ways)
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
        "adam, relu": swept(task, 64),
        "twelve optimizers": swept(task, 64, of_optimizers=TWELVE),
        "ten activations": swept(task, 64, of_activations=TEN),
        "ten activations, a program each": one_by_one(task, 64),
    }
    report("sweep.mixed", in_turn(mixed), ratio="adam, relu")
    halved(task)


def in_turn(ways: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
    for way in ways.values():
        way()  # compiles
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(REPEATS):
        for name, way in ways.items():
            time.sleep(0.5)  # another library's threads spin on for a while
            taken[name].append(way())
    return taken


def report(bench: str, rates: dict[str, list[float]], **bases: str) -> None:
    measure.record(
        bench,
        [
            {
                "way": way,
                "models_per_s": statistics.median(own),
                **{
                    name: statistics.median(a / b for a, b in zip(own, rates[base]))
                    for name, base in bases.items()
                },
            }
            for way, own in rates.items()
        ],
    )


def halved(task: sweep.Task) -> None:
    """900 models whole, and with the worse ones stopped early in several ways."""
    whole = planned(task, 64, sweep.log(1e-4, 1.0, 90), seeds=10, num_evals=27)
    plans = {"whole": whole}
    for eta, rungs in ((2.0, 2), (4.0, 1), (2.0, 3)):
        halving = sweep.SuccessiveHalving(
            "valid_loss", eta, rungs, higher_is_better=False
        )
        plans[f"eta {eta:g}, rungs {rungs}"] = whole._replace(halving=halving)
    records = {way: sweep.run(plan) for way, plan in plans.items()}
    taken = measure.paired(
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
                "models": whole.num_models,
                "s": taken[way],
                "times less": taken["whole"] / taken[way],
                "same best": bool(order[0] == best["whole"][0]),
                "same of the best 5": len({*order[:5]} & {*best["whole"][:5]}),
            }
            for way, order in best.items()
        ],
    )


def swept(
    task: sweep.Task,
    batch: int,
    *,
    shared: bool = False,
    of_optimizers: Functions = (optimizers.adam,),
    of_activations: Functions = (activations.relu,),
) -> Callable[[], float]:
    """The whole engine: about a thousand models, from the plan to the record."""
    combinations = len(of_optimizers) * len(of_activations)
    plan = planned(
        task,
        batch,
        sweep.log(1e-4, 1e-1, 64),
        seeds=max(1, 16 // combinations),
        shared=shared,
        of_optimizers=of_optimizers,
        of_activations=of_activations,
    )
    return lambda: plan.num_models / seconds(lambda: sweep.run(plan))


def one_by_one(task: sweep.Task, batch: int) -> Callable[[], float]:
    """The ten activations again, without a choice to make: what they cost alone."""
    alone = [swept(task, batch, of_activations=(f,)) for f in TEN]
    return lambda: statistics.harmonic_mean(rate() for rate in alone)


def planned(
    task: sweep.Task,
    batch: int,
    rates: Any,
    *,
    seeds: int,
    steps: int = STEPS,
    num_evals: int = 1,
    shared: bool = False,
    of_optimizers: Functions = (optimizers.adam,),
    of_activations: Functions = (activations.relu,),
) -> sweep.Plan:
    points = sweep.grid(
        optimizer=[make.__name__ for make in of_optimizers],
        activation=[f.__name__ for f in of_activations],
        loss=["cross_entropy"],
        learning_rate=rates,
        seed=range(seeds),
    )
    return sweep.plan(
        task,
        points,
        optimizers={
            make.__name__: lambda point, make=make: make(point["learning_rate"])
            for make in of_optimizers
        },
        choices={
            "activation": {f.__name__: f for f in of_activations},
            "loss": {"cross_entropy": losses.cross_entropy},
        },
        steps=steps,
        batch_size=batch,
        shared_batches=shared,
        num_evals=num_evals,
    )


def by_hand(task: sweep.Task, batch: int, lanes: int = 16) -> Callable[[], float]:
    """As many models as lanes on every device, in one program without an engine."""
    devices = jax.local_devices()
    train = whole_run(task, batch)
    lanes *= 1 if batch == 64 else 4

    def local(rates: jax.Array, seeds: jax.Array) -> Any:
        return jax.vmap(train)(rates, seeds)

    mesh, own = Mesh(np.array(devices), ("devices",)), PartitionSpec("devices")
    program = jax.jit(
        jax.shard_map(local, mesh=mesh, in_specs=own, out_specs=own, check_vma=False)
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
    train = jax.jit(whole_run(task, batch, adam))

    def run() -> None:
        for seed in range(models):
            jax.block_until_ready(train(jnp.float32(0.01), jnp.uint32(seed)))

    return lambda: models / seconds(run)


def loop_of_steps(task: sweep.Task, batch: int, models: int = 5) -> Callable[[], float]:
    start, step = parts_of_run(task, batch)
    start, step = jax.jit(start), jax.jit(step)
    metrics = jax.jit(lambda params: examined(task, params))

    def run() -> None:
        for seed in range(models):
            rate, seed = jnp.float32(0.01), jnp.uint32(seed)
            carry = start(rate, seed)
            for number in range(STEPS):
                carry = step(rate, seed, carry, jnp.int32(number))
            jax.block_until_ready(metrics(carry[0]))

    return lambda: models / seconds(run)


def plain(task: sweep.Task) -> sweep.Task:
    """The task as one writes it without jaxml, from the same first parameters."""

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


def whole_run(
    task: sweep.Task, batch: int, adam: Any = optimizers.adam
) -> Callable[..., Any]:
    """One model from its first parameters to its metrics, to be compiled."""
    start, step = parts_of_run(task, batch, adam)

    def train(rate: jax.Array, seed: jax.Array) -> Any:
        def body(carry: Any, number: jax.Array) -> Any:
            return step(rate, seed, carry, number), None

        steps = jnp.arange(STEPS, dtype=jnp.int32)
        (params, _), _ = jax.lax.scan(body, start(rate, seed), steps)
        return examined(task, params)

    return train


def examined(task: sweep.Task, params: Any) -> Any:
    return [task.metrics(params, data, CHOSEN) for data in (task.train, task.valid)]


def parts_of_run(
    task: sweep.Task, batch: int, adam: Any = optimizers.adam
) -> tuple[Callable, Callable]:
    def start(rate: jax.Array, seed: jax.Array) -> Any:
        params = task.init(jax.random.fold_in(jax.random.key(seed), 0), CHOSEN)
        return params, adam(rate).init(params)

    def step(rate: jax.Array, seed: jax.Array, carry: Any, number: jax.Array) -> Any:
        params, state = carry
        draw = jax.random.fold_in(jax.random.key(seed), 1)
        key = jax.random.fold_in(draw, number)
        rows = jax.random.randint(key, (batch,), 0, len(task.train[1]))
        drawn = jax.tree.map(lambda array: array[rows], task.train)
        grads = jax.grad(task.loss)(params, drawn, CHOSEN)
        updates, state = adam(rate).update(grads, state)
        return jax.tree.map(jnp.add, params, updates), state

    return start, step


def torch_ensemble(hidden: int, batch: int) -> Callable[[], float] | None:
    """256 stacked models, own batches, Adam by hand: the tutorial's way."""
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

    slopes = vmap(grad(loss))

    def run() -> None:
        params = dict(start)
        mu = {n: torch.zeros_like(v) for n, v in params.items()}
        nu = {n: torch.zeros_like(v) for n, v in params.items()}
        for step in range(1, STEPS + 1):
            rows = torch.randint(len(y), (count, batch))
            grads = slopes(params, x[rows], y[rows])
            for n, g in grads.items():
                mu[n] = 0.9 * mu[n] + 0.1 * g
                nu[n] = 0.999 * nu[n] + 0.001 * g * g
                root = (nu[n] / (1 - 0.999**step)).sqrt() + 1e-8
                params[n] = params[n] - 0.01 * mu[n] / (1 - 0.9**step) / root

    return lambda: count / seconds(run)


def process_per_trial() -> float:
    """One trial as orchestrators run it: import, compile, train."""
    program = (
        "import jax, jax.numpy as jnp; from bench import sweep; "
        "from jaxml import tasks; train = jax.jit(sweep.whole_run(tasks.digits(), 64));"
        "jax.block_until_ready(train(jnp.float32(0.01), jnp.uint32(0)))"
    )
    return 1 / seconds(
        lambda: subprocess.run([sys.executable, "-c", program], check=True)
    )


if __name__ == "__main__":
    main()

"""Models trained per second: the sweep against a Python loop over a jitted whole run.

Reference task R: digits, one hidden layer of 32 units, batches of 64, 200 steps of
Adam; every model draws its own batches. The loop is the fair peer on a processor: it
compiles once, traces its numbers, and pays Python only once a model. Both are taken in
turn in one process, without the time that they compile; the sweep's includes its
evaluations.
"""

import os
import statistics
import time

import jax

jax.config.update("jax_num_cpu_devices", os.cpu_count())

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from bench import measure  # noqa: E402
from jaxml import activations, losses, optimizers, sweep, tasks  # noqa: E402

STEPS, BATCH, REPEATS = 200, 64, 5
CHOSEN = {"activation": activations.relu, "loss": losses.cross_entropy}


def main() -> None:
    task = tasks.digits()
    loop = whole_run(task)
    rates = [(sweep_rate(task), loop_rate(loop)) for _ in range(REPEATS)]
    ours, peer = (statistics.median(column) for column in zip(*rates))
    ratio = statistics.median(a / b for a, b in rates)
    measure.record(
        "sweep",
        [
            {"way": "loop of jitted runs", "models_per_s": peer, "ratio": 1.0},
            {"way": "sweep", "models_per_s": ours, "ratio": ratio},
        ],
    )


def sweep_rate(task: sweep.Task) -> float:
    """Models per second of 1,024 models, from the first chunk of steps to the last."""
    points = sweep.grid(
        optimizer=["adam"],
        **{name: [function.__name__] for name, function in CHOSEN.items()},
        learning_rate=np.geomspace(1e-4, 1e-1, 32),
        seed=range(32),
    )
    seen: list[tuple[float, float]] = []
    sweep.run(
        task,
        points,
        optimizers={"adam": lambda point: optimizers.adam(point["learning_rate"])},
        choices={name: {f.__name__: f} for name, f in CHOSEN.items()},
        steps=STEPS,
        batch_size=BATCH,
        watch=lambda done, _: seen.append((done, time.perf_counter())),
    )
    (before, start), (after, end) = seen[0], seen[-1]
    return (after - before) / (end - start)


def whole_run(task: sweep.Task):
    """One model from its first parameters to its metrics, as one program."""

    @jax.jit
    def train(learning_rate: jax.Array, seed: jax.Array) -> dict[str, jax.Array]:
        optimizer = optimizers.adam(learning_rate)
        init, draw = (jax.random.fold_in(jax.random.key(seed), i) for i in (0, 1))
        params = task.init(init, CHOSEN)
        count = len(task.train[1])

        def step(carry: tuple, number: jax.Array) -> tuple:
            params, state = carry
            key = jax.random.fold_in(draw, number)
            rows = jax.random.randint(key, (BATCH,), 0, count)
            batch = jax.tree.map(lambda array: array[rows], task.train)
            grads = jax.grad(task.loss)(params, batch, CHOSEN)
            updates, state = optimizer.update(grads, state)
            return (jax.tree.map(jnp.add, params, updates), state), None

        start = params, optimizer.init(params)
        (params, _), _ = jax.lax.scan(step, start, jnp.arange(STEPS))
        return task.metrics(params, task.valid, CHOSEN)

    return train


def loop_rate(train, models: int = 100) -> float:
    jax.block_until_ready(train(jnp.float32(0.01), jnp.uint32(0)))
    start = time.perf_counter()
    for seed in range(models):
        jax.block_until_ready(train(jnp.float32(0.01), jnp.uint32(seed)))
    return models / (time.perf_counter() - start)


if __name__ == "__main__":
    main()

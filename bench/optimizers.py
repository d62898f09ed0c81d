"""How fast a step of an optimizer is, compared with only copying the same arrays.

    python -m bench.optimizers [--small] [--only adam lion] [--leaves]

A step is one jitted update and apply that donates its inputs; all run in turn in one
process, in the same arrays, because some memory pages are faster than others. `copy`
reads the gradient and reads and writes the parameters and every accumulator, once each:
a lower bound on the bytes a step moves. `split` reads the new accumulators again to
write the parameters, as a step must: XLA:CPU makes one kernel per output. `optax` is
optax's step, `torch` the faster of PyTorch's fused and foreach steps, if PyTorch is
installed. A column `a / b` is the time of a divided by the time of b.

On a CPU, Adam's step cannot reach `copy`. A loop of XLA:CPU writes one array, so the
step has three loops, which read 7 arrays and write 3, where `copy` reads 4 and writes
3: 0.7 of its speed. Both accumulators in one array are slower, because XLA:CPU copies
that array before it writes it. On an H100 the compiled step moves the ideal bytes:
those of 7 arrays (adamw in `devices.h100`, 1.75 GiB for arrays of 0.25 GiB).

A second table has the seconds to trace, lower and compile a step of 1024 leaves, as
medians: for Adam, or with `--leaves` for all optimizers and nothing else.

A third table, alone with `--matrices`, has the optimizers of matrices: 100 leaves, the
weights of a transformer of width 256, or of width 64 for the seconds to compile. Gflop
are those of the matrix products of a step.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bench import measure
from bench.aot.cost import read_cost
from jaxml import optimizers

LEARNING_RATE = 1e-3


class Peers(NamedTuple):
    """An optimizer, and the same in optax and PyTorch."""

    ours: Callable[..., Any]
    optax: Callable[..., Any] | None = None
    torch: tuple[str, dict[str, Any]] | None = None


OPTIMIZERS = {
    "sgd": Peers(optimizers.sgd, optax.sgd, ("SGD", {})),
    "momentum": Peers(
        optimizers.momentum,
        lambda rate: optax.sgd(rate, 0.9),
        ("SGD", {"momentum": 0.9}),
    ),
    "nesterov": Peers(
        optimizers.nesterov,
        lambda rate: optax.sgd(rate, 0.9, nesterov=True),
        ("SGD", {"momentum": 0.9, "nesterov": True}),
    ),
    "lion": Peers(optimizers.lion, lambda rate: optax.lion(rate, weight_decay=0.0)),
    "adagrad": Peers(optimizers.adagrad, optax.adagrad, ("Adagrad", {})),
    "adadelta": Peers(optimizers.adadelta, optax.adadelta, ("Adadelta", {})),
    "rmsprop": Peers(
        optimizers.rmsprop, optax.rmsprop, ("RMSprop", {"alpha": 0.9, "eps": 1e-8})
    ),
    "rmsprop_momentum": Peers(
        lambda rate: optimizers.rmsprop(rate, momentum=0.9),
        lambda rate: optax.rmsprop(rate, momentum=0.9),
        ("RMSprop", {"alpha": 0.9, "momentum": 0.9}),
    ),
    "centered_rmsprop": Peers(
        optimizers.centered_rmsprop,
        lambda rate: optax.rmsprop(rate, centered=True),
        ("RMSprop", {"alpha": 0.9, "centered": True}),
    ),
    "adam": Peers(optimizers.adam, optax.adam, ("Adam", {})),
    "adam_l2": Peers(
        optimizers.adam_l2,
        lambda rate: optax.chain(optax.add_decayed_weights(1e-2), optax.adam(rate)),
        ("Adam", {"weight_decay": 1e-2}),
    ),
    "adamw": Peers(optimizers.adamw, optax.adamw, ("AdamW", {})),
    "nadam": Peers(optimizers.nadam, optax.nadam, ("NAdam", {})),
    "radam": Peers(optimizers.radam, optax.radam, ("RAdam", {})),
    "amsgrad": Peers(optimizers.amsgrad, optax.amsgrad, ("Adam", {"amsgrad": True})),
    "adamax": Peers(optimizers.adamax, optax.adamax, ("Adamax", {})),
    "yogi": Peers(optimizers.yogi, optax.yogi),
    "adabelief": Peers(optimizers.adabelief, optax.adabelief),
    "shadow_weights": Peers(
        lambda rate: optimizers.shadow_weights(optimizers.adam(rate))
    ),
    "compressed": Peers(
        lambda rate: optimizers.compressed(optimizers.adam(rate)), optax.adam
    ),
}
MATRICES = {
    "muon": Peers(optimizers.muon, optax.contrib.muon),
    "soap": Peers(optimizers.soap),
}
"""Optimizers of leaves with two axes."""
NUM_MATRICES = 100


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--small", action="store_true", help="8 M parameters, not 32 M")
    parser.add_argument("--only", nargs="*", default=OPTIMIZERS, choices=OPTIMIZERS)
    parser.add_argument("--leaves", action="store_true")
    parser.add_argument("--matrices", action="store_true")
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    if not args.leaves:
        measure.record("optimizers.matrices", [matrix_row(name) for name in MATRICES])
    if not (args.leaves or args.matrices):
        size = 2 ** (23 if args.small else 25)
        rows = [speed(name, size, args.repeats) for name in args.only]
        measure.record("optimizers.speed", rows)
    if not args.matrices:
        names = args.only if args.leaves else ["adam"]
        measure.record("optimizers.leaves", [compile_times(name) for name in names])


# Seconds per step


def speed(name: str, size: int, repeats: int) -> dict[str, Any]:
    peers = OPTIMIZERS[name]
    params, grads = jnp.ones(size), jax.random.normal(jax.random.key(0), (size,))
    ours = peers.ours(LEARNING_RATE)
    state = ours.init(params)
    accumulators = [leaf for leaf in jax.tree.leaves(state) if leaf.size == size]
    steps = {
        "ours": (train_step(ours), (params, state)),
        "copy": (copy, (params, accumulators)),
        "split": (split, (params, accumulators)),
    }
    if peers.optax:
        optimizer = peers.optax(LEARNING_RATE)
        steps["optax"] = train_step(optimizer), (params, optimizer.init(params))
    pool: list[jax.Array] = []
    runs = {n: in_place(step, carry, grads, pool) for n, (step, carry) in steps.items()}
    if peers.torch:
        runs |= torch_runs(*peers.torch, size)
    seconds = measure.interleaved_medians(runs, repeats=repeats)
    torch_seconds = [t for n, t in seconds.items() if n.startswith("torch")]
    return {
        "optimizer": name,
        "parameters": size,
        "state_bytes": sum(a.nbytes for a in accumulators) // size,
        "temporaries": temporaries(train_step(ours), (params, state), grads),
        "ms": 1e3 * seconds["ours"],
        "GB/s": (2 * len(accumulators) + 3) * 4 * size / seconds["ours"] / 1e9,
        "copy / ours": seconds["copy"] / seconds["ours"],
        "split / ours": seconds["split"] / seconds["ours"],
        "optax / ours": seconds.get("optax", float("nan")) / seconds["ours"],
        "torch / ours": min(torch_seconds, default=float("nan")) / seconds["ours"],
    }


def train_step(optimizer: Any) -> Callable[..., Any]:
    def step(carry: tuple[Any, Any], grads: Any) -> tuple[Any, Any]:
        params, state = carry
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return step


def copy(carry: tuple[Any, list], grads: Any) -> tuple[Any, list]:
    params, accumulators = carry
    return params + grads, [-a for a in accumulators]


def split(carry: tuple[Any, list], grads: Any) -> tuple[Any, list]:
    params, accumulators = carry
    accumulators = [grads - a for a in accumulators]
    return sum(accumulators, params if accumulators else params + grads), accumulators


def temporaries(step: Callable[..., Any], carry: Any, grads: Any) -> int:
    """Like `measure.temporaries`, for a step that updates its carry in place."""
    analysis = jit_in_place(step).lower(carry, grads).compile().memory_analysis()
    return analysis.temp_size_in_bytes


def jit_in_place(step: Callable[..., Any]) -> Any:
    return jax.jit(step, donate_argnums=0)


def in_place(
    step: Callable[..., Any], carry: Any, grads: Any, pool: list[jax.Array]
) -> Callable[[], Any]:
    """A run of one step, in the arrays of the pool, which all runs share."""
    jitted = jit_in_place(step)
    leaves, structure = jax.tree.flatten(carry)
    large = [i for i, leaf in enumerate(leaves) if leaf.size == grads.size]
    pool += [jnp.copy(leaves[i]) for i in large[len(pool) :]]
    leaves = [jnp.copy(leaf) if leaf.size == 1 else None for leaf in leaves]

    def run() -> Any:
        for i, array in zip(large, pool):
            leaves[i] = array
        leaves[:] = jax.tree.leaves(jitted(structure.unflatten(leaves), grads))
        pool[: len(large)] = [leaves[i] for i in large]
        return pool

    return run


def torch_runs(
    name: str, options: dict[str, Any], size: int
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """PyTorch's fused and foreach steps on the CPU, as far as they exist."""
    try:
        import torch
    except ImportError:
        return
    if jax.default_backend() != "cpu":
        return
    for implementation in ("fused", "foreach"):
        p = torch.ones(size, requires_grad=True)
        p.grad = torch.randn(size)
        arguments = {"lr": LEARNING_RATE, **options, implementation: True}
        try:
            optimizer = getattr(torch.optim, name)([p], **arguments)
            optimizer.step()
        except (TypeError, RuntimeError, NotImplementedError):
            continue
        yield f"torch {implementation}", optimizer.step


# Seconds to compile


def compile_times(
    name: str, num_leaves: int = 1024, size: int = 256, repeats: int = 3
) -> dict[str, Any]:
    candidates = {"ours": OPTIMIZERS[name].ours, "optax": OPTIMIZERS[name].optax}
    libraries = {library: make for library, make in candidates.items() if make}
    times: dict[str, list[tuple[float, ...]]] = {library: [] for library in libraries}
    for make in libraries.values():
        phases(make(LEARNING_RATE), [jnp.ones(size)] * 4)  # warm-up
    for _ in range(repeats):
        for library, make in libraries.items():
            seconds = phases(make(LEARNING_RATE), [jnp.ones(size)] * num_leaves)
            times[library].append((*seconds, sum(seconds)))
    row: dict[str, Any] = {"optimizer": name, "leaves": num_leaves}
    for library, repetitions in times.items():
        medians = map(statistics.median, zip(*repetitions))
        for phase, median in zip(("trace", "lower", "compile", "all"), medians):
            row[f"{library} {phase}"] = median
    row["ours / optax"] = row["ours all"] / row.get("optax all", float("nan"))
    return row


def phases(optimizer: Any, params: list) -> tuple[float, float, float]:
    """Seconds to trace, lower and compile a step of these parameters."""
    carry = params, optimizer.init(params)
    times = [time.perf_counter()]
    traced = jit_in_place(train_step(optimizer)).trace(carry, params)
    times.append(time.perf_counter())
    lowered = traced.lower()
    times.append(time.perf_counter())
    lowered.compile()
    times.append(time.perf_counter())
    trace, lower, compiled = (end - start for start, end in itertools.pairwise(times))
    return trace, lower, compiled


# Matrices


def shapes(width: int) -> list[tuple[int, int]]:
    """Of the weights of 25 layers: attention, its output, and the two of an MLP."""
    layer = (width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)
    return [*layer] * (NUM_MATRICES // 4)


def matrix_row(name: str) -> dict[str, Any]:
    known = MATRICES[name]
    small = [jnp.ones(shape) for shape in shapes(64)]
    keys = jax.random.split(jax.random.key(0), NUM_MATRICES)
    params = [jax.random.normal(*pair) for pair in zip(keys, shapes(256))]
    size = sum(x.size for x in params)
    result: dict[str, Any] = {"optimizer": name, "parameters": size}
    runs = {}
    for library, make in (("ours", known.ours), ("optax", known.optax)):
        columns = [
            f"{library} {c}"
            for c in ("compile s", "state_bytes", "temporaries", "Gflop")
        ]
        if make is None:
            result |= dict.fromkeys(columns, "-")
            continue
        optimizer = make(LEARNING_RATE)
        seconds = min(sum(phases(optimizer, small)) for _ in range(3))
        carry = params, optimizer.init(params)
        state_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(carry[1]))
        compiled = jit_in_place(train_step(optimizer)).lower(carry, params).compile()
        memory = compiled.memory_analysis()
        assert memory is not None
        products = sum(read_cost(compiled.as_text()).flops.values())
        values = (
            seconds,
            state_bytes / size,
            memory.temp_size_in_bytes,
            products / 1e9,
        )
        result |= dict(zip(columns, values))
        step = jax.jit(train_step(optimizer))
        for _ in range(2):  # the first makes the bases of SOAP, most others keep them
            carry = step(carry, params)
        runs[library] = lambda step=step, carry=carry: step(carry, params)
    times = measure.interleaved_medians(runs, repeats=5, warmup=1)
    for library in ("ours", "optax"):
        result[f"{library} ms"] = 1e3 * times[library] if library in times else "-"
    return result


if __name__ == "__main__":
    main()

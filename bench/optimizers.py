"""How fast an optimizer's step is, against a kernel that only moves the same arrays.

    python -m bench.optimizers [--small] [--only adam lion] [--leaves]

One donated jit of update and apply, all in turn in one process. The mover reads the
gradient once, and reads and writes the parameters and every accumulator once: the bytes
that a step cannot do without. `of_move` is the mover's time by the step's; `of_split`
is that of a mover which reads again, for the parameters, the accumulators that it
wrote: XLA on CPU makes a kernel of each output, so a step does too. All of them work in
the same arrays, for some pages of memory are faster than others. `of_optax` is the time
of optax's step by ours, `of_torch` that of the faster of torch's fused and foreach
steps, where torch is there. Then seconds to trace, lower and compile a tree of 1024
leaves, medians of what is taken in turn, where `of_optax` is ours by optax's: of Adam,
or with `--leaves` of all, and nothing else.
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
from jaxml import optimizers

RATE = 1e-3


class Row(NamedTuple):
    ours: Callable[..., Any]
    optax: Callable[..., Any] | None = None
    torch: tuple[str, dict[str, Any]] | None = None


ROWS = {
    "sgd": Row(optimizers.sgd, optax.sgd, ("SGD", {})),
    "momentum": Row(
        optimizers.momentum,
        lambda rate: optax.sgd(rate, 0.9),
        ("SGD", {"momentum": 0.9}),
    ),
    "nesterov": Row(
        optimizers.nesterov,
        lambda rate: optax.sgd(rate, 0.9, nesterov=True),
        ("SGD", {"momentum": 0.9, "nesterov": True}),
    ),
    "lion": Row(optimizers.lion, lambda rate: optax.lion(rate, weight_decay=0.0)),
    "adagrad": Row(optimizers.adagrad, optax.adagrad, ("Adagrad", {})),
    "adadelta": Row(optimizers.adadelta, optax.adadelta, ("Adadelta", {})),
    "rmsprop": Row(
        optimizers.rmsprop, optax.rmsprop, ("RMSprop", {"alpha": 0.9, "eps": 1e-8})
    ),
    "rmsprop_momentum": Row(
        lambda rate: optimizers.rmsprop(rate, momentum=0.9),
        lambda rate: optax.rmsprop(rate, momentum=0.9),
        ("RMSprop", {"alpha": 0.9, "momentum": 0.9}),
    ),
    "centered_rmsprop": Row(
        optimizers.centered_rmsprop,
        lambda rate: optax.rmsprop(rate, centered=True),
        ("RMSprop", {"alpha": 0.9, "centered": True}),
    ),
    "adam": Row(optimizers.adam, optax.adam, ("Adam", {})),
    "adam_l2": Row(
        optimizers.adam_l2,
        lambda rate: optax.chain(optax.add_decayed_weights(1e-2), optax.adam(rate)),
        ("Adam", {"weight_decay": 1e-2}),
    ),
    "adamw": Row(optimizers.adamw, optax.adamw, ("AdamW", {})),
    "nadam": Row(optimizers.nadam, optax.nadam, ("NAdam", {})),
    "radam": Row(optimizers.radam, optax.radam, ("RAdam", {})),
    "amsgrad": Row(optimizers.amsgrad, optax.amsgrad, ("Adam", {"amsgrad": True})),
    "adamax": Row(optimizers.adamax, optax.adamax, ("Adamax", {})),
    "yogi": Row(optimizers.yogi, optax.yogi),
    "adabelief": Row(optimizers.adabelief, optax.adabelief),
    "shadow_weights": Row(
        lambda rate: optimizers.shadow_weights(optimizers.adam(rate))
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--small", action="store_true", help="8 M parameters, not 32 M")
    parser.add_argument("--only", nargs="*", default=ROWS, choices=ROWS)
    parser.add_argument("--leaves", action="store_true")
    parser.add_argument("--repeats", type=int, default=9)
    given = parser.parse_args()
    if not given.leaves:
        size = 2 ** (23 if given.small else 25)
        rows = [speed(name, size, given.repeats) for name in given.only]
        measure.record("optimizers.speed", rows)
    compiled = given.only if given.leaves else ["adam"]
    measure.record("optimizers.leaves", [leaves(name) for name in compiled])


def speed(name: str, size: int, repeats: int) -> dict[str, Any]:
    row = ROWS[name]
    params, gradients = jnp.ones(size), jax.random.normal(jax.random.key(0), (size,))
    ours = row.ours(RATE)
    state = ours.init(params)
    arrays = [leaf for leaf in jax.tree.leaves(state) if leaf.size == size]
    steps = {
        "ours": (step_of(ours), (params, state)),
        "move": (move, (params, arrays)),
        "split": (split, (params, arrays)),
    }
    if row.optax:
        peer = row.optax(RATE)
        steps["optax"] = step_of(peer), (params, peer.init(params))
    pool: list[jax.Array] = []
    runs = {n: running(*given, gradients, pool) for n, given in steps.items()}
    if row.torch:
        runs |= torch_runs(*row.torch, size)
    seconds = measure.interleaved_medians(runs, repeats=repeats)
    peers = {n: t for n, t in seconds.items() if n.startswith("torch")}
    return {
        "optimizer": name,
        "parameters": size,
        "state_bytes": sum(a.nbytes for a in arrays) // size,
        "temporaries": temporaries(step_of(ours), (params, state), gradients),
        "ms": 1e3 * seconds["ours"],
        "GB/s": (2 * len(arrays) + 3) * 4 * size / seconds["ours"] / 1e9,
        "of_move": seconds["move"] / seconds["ours"],
        "of_split": seconds["split"] / seconds["ours"],
        "of_optax": seconds.get("optax", float("nan")) / seconds["ours"],
        "of_torch": min(peers.values(), default=float("nan")) / seconds["ours"],
    }


def step_of(optimizer: Any) -> Callable[..., Any]:
    def step(carry: tuple[Any, Any], gradients: Any) -> tuple[Any, Any]:
        params, state = carry
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    return step


def temporaries(step: Callable[..., Any], carry: Any, gradients: Any) -> int:
    """As `measure.temporaries`, of the step that writes in place."""
    analysis = donated(step).lower(carry, gradients).compile().memory_analysis()
    return analysis.temp_size_in_bytes


def donated(step: Callable[..., Any]) -> Any:
    return jax.jit(step, donate_argnums=0)


def move(carry: tuple[Any, list], gradients: Any) -> tuple[Any, list]:
    params, arrays = carry
    return params + gradients, [-array for array in arrays]


def split(carry: tuple[Any, list], gradients: Any) -> tuple[Any, list]:
    params, arrays = carry
    arrays = [gradients - array for array in arrays]
    return sum(arrays, params if arrays else params + gradients), arrays


def running(
    step: Callable[..., Any], carry: Any, gradients: Any, pool: list[jax.Array]
) -> Callable[[], Any]:
    """A call is one step, in place, in the arrays of the pool that all runs share."""
    compiled = donated(step)
    leaves, structure = jax.tree.flatten(carry)
    large = [i for i, leaf in enumerate(leaves) if leaf.size == gradients.size]
    pool += [jnp.copy(leaves[i]) for i in large[len(pool) :]]
    held = [jnp.copy(leaf) if leaf.size == 1 else None for leaf in leaves]

    def run() -> Any:
        for i, array in zip(large, pool):
            held[i] = array
        held[:] = jax.tree.leaves(compiled(structure.unflatten(held), gradients))
        pool[: len(large)] = [held[i] for i in large]
        return pool

    return run


def torch_runs(
    name: str, options: dict[str, Any], size: int
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """torch's step on the processor, fused and foreach, as far as it has them."""
    try:
        import torch
    except ImportError:
        return
    if jax.default_backend() != "cpu":
        return
    for form in ("fused", "foreach"):
        p = torch.ones(size, requires_grad=True)
        p.grad = torch.randn(size)
        try:
            optimizer = getattr(torch.optim, name)(
                [p], lr=RATE, **options, **{form: True}
            )
            optimizer.step()
        except (TypeError, RuntimeError, NotImplementedError):
            continue
        yield f"torch {form}", optimizer.step


def leaves(
    name: str, count: int = 1024, size: int = 256, repeats: int = 3
) -> dict[str, Any]:
    libraries = {"ours": ROWS[name].ours, "optax": ROWS[name].optax}
    made = {library: make for library, make in libraries.items() if make}
    taken: dict[str, list[tuple[float, ...]]] = {library: [] for library in made}
    for make in made.values():
        phases(make(RATE), [jnp.ones(size)] * 4)  # what is slow once alone
    for _ in range(repeats):
        for library, make in made.items():
            seconds = phases(make(RATE), [jnp.ones(size)] * count)
            taken[library].append((*seconds, sum(seconds)))
    result: dict[str, Any] = {"optimizer": name, "leaves": count}
    for library, rows in taken.items():
        medians = map(statistics.median, zip(*rows))
        names = [f"{library} {part}" for part in ("trace", "lower", "compile", "all")]
        result |= dict(zip(names, medians))
    result["of_optax"] = result["ours all"] / result.get("optax all", float("nan"))
    return result


def phases(optimizer: Any, params: list) -> tuple[float, float, float]:
    """Seconds to trace, lower and compile the step of these parameters."""
    carry = params, optimizer.init(params)
    times = [time.perf_counter()]
    traced = donated(step_of(optimizer)).trace(carry, params)
    times.append(time.perf_counter())
    lowered = traced.lower()
    times.append(time.perf_counter())
    lowered.compile()
    times.append(time.perf_counter())
    trace, lower, compiled = (late - early for early, late in itertools.pairwise(times))
    return trace, lower, compiled


if __name__ == "__main__":
    main()

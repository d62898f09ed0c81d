"""How fast an optimizer's step is, against a kernel that only moves the same arrays.

    python -m bench.optimizers [--small] [--only adam lion] [--leaves]

One donated jit of update and apply. `of_move` is the time of the mover (it adds the
gradient to the parameters and to every accumulator) by the time of the step, `of_optax`
the time of optax's step by ours, `of_torch` that of torch's own, where torch is there.
With `--leaves`: tracing, lowering and compiling a tree of 1024 leaves, in seconds.
"""

import argparse
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
    if given.leaves:
        measure.record("optimizers.leaves", [leaves(name) for name in given.only])
    else:
        size = 2 ** (23 if given.small else 25)
        rows = [speed(name, size, given.repeats) for name in given.only]
        measure.record("optimizers.speed", rows)


def speed(name: str, size: int, repeats: int) -> dict[str, Any]:
    row = ROWS[name]
    params, gradients = jnp.ones(size), jax.random.normal(jax.random.key(0), (size,))
    ours = row.ours(RATE)
    state = ours.init(params)
    arrays = [leaf for leaf in jax.tree.leaves(state) if leaf.size == size]
    runs = {
        "ours": running(step_of(ours), (params, state), gradients),
        "move": running(move, (params, arrays), gradients),
    }
    if row.optax:
        peer = row.optax(RATE)
        runs["optax"] = running(step_of(peer), (params, peer.init(params)), gradients)
    if row.torch:
        runs |= torch_runs(*row.torch, size)
    seconds = measure.paired(runs, repeats=repeats)
    peers = {n: t for n, t in seconds.items() if n.startswith("torch")}
    return {
        "optimizer": name,
        "parameters": size,
        "state_bytes": sum(a.nbytes for a in jax.tree.leaves(state)) / size,
        "temporaries": temporaries(step_of(ours), (params, state), gradients),
        "ms": 1e3 * seconds["ours"],
        "GB/s": (2 * len(arrays) + 3) * 4 * size / seconds["ours"] / 1e9,
        "of_move": seconds["move"] / seconds["ours"],
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


def move(carry: tuple[Any, Any], gradients: Any) -> tuple[Any, Any]:
    return jax.tree.map(lambda array: array + gradients, carry)


def running(
    step: Callable[..., Any], carry: tuple[Any, Any], gradients: Any
) -> Callable[[], Any]:
    """A call is one step, in place."""
    compiled = donated(step)
    held = [jax.tree.map(jnp.copy, carry)]

    def run() -> Any:
        held[0] = compiled(held[0], gradients)
        return held[0]

    return run


def torch_runs(
    name: str, options: dict[str, Any], size: int
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """torch's step, fused and foreach, as far as it has them on this device."""
    try:
        import torch
    except ImportError:
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


def leaves(name: str, count: int = 1024, size: int = 256) -> dict[str, Any]:
    row = ROWS[name]
    params = [jnp.ones(size)] * count
    result: dict[str, Any] = {"optimizer": name, "leaves": count}
    for library, optimizer in {"ours": row.ours, "optax": row.optax}.items():
        if optimizer:
            state = optimizer(RATE).init(params)
            step = donated(step_of(optimizer(RATE)))
            start = time.perf_counter()
            traced = step.trace((params, state), params)
            middle = time.perf_counter()
            lowered = traced.lower()
            late = time.perf_counter()
            lowered.compile()
            end = time.perf_counter()
            result |= {
                f"{library} trace": middle - start,
                f"{library} lower": late - middle,
                f"{library} compile": end - late,
                f"{library} all": end - start,
            }
    result["of_optax"] = result["ours all"] / result.get("optax all", float("nan"))
    return result


if __name__ == "__main__":
    main()

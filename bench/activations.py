"""What exactness costs: time and memory of activations beside jax.nn's and torch's.

    python -m bench.activations [NAME ...]

Times are of value and gradient together, compiled, at 16 M float32 inputs, all of them
paired in one process. What `move` takes, which writes as much and computes nothing, is
mostly the system's pages for two new arrays: no function can do with less. torch has
swish at β = 1 alone, as silu; beside ours, whose β is traced, stands its x σ(βx).
Memory is what the gradient of a 24-layer lax.scan of act(h @ W) holds besides its
arguments and results, for h (2048, 256) in float32.
"""

import argparse
import importlib.util
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from bench import measure
from bench.accuracy import PEERS, TORCH, ours, with_slope
from bench.activation_truths import TRUTHS

SIZE = 2**24
LAYERS, ROWS, WIDTH = 24, 2048, 256


def scanned(activation: Callable[[Any], Any], dtype: Any = jnp.float32) -> float:
    """Temporaries of the gradient through the layers, in MB."""

    def loss(weights: jax.Array, h: jax.Array) -> jax.Array:
        def layer(h: jax.Array, w: jax.Array) -> tuple[jax.Array, None]:
            return activation(h @ w), None

        return jnp.sum(jax.lax.scan(layer, h, weights)[0])

    weights = jnp.zeros((LAYERS, WIDTH, WIDTH), dtype)
    h = jnp.zeros((ROWS, WIDTH), dtype)
    return measure.temporaries(jax.grad(loss), weights, h) / 1e6


@jax.jit
def move(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return x + 1, x + 2


def of_torch(name: str, x: jax.Array) -> Callable[[], Any]:
    import numpy as np
    import torch

    known, options = TORCH[name]
    beta = torch.tensor(1.0)
    tensor = torch.tensor(np.asarray(x), requires_grad=True)
    ones = torch.ones_like(tensor)

    def value() -> torch.Tensor:
        if name == "swish":
            return tensor * torch.sigmoid(beta * tensor)
        return getattr(torch.nn.functional, known)(tensor, **options)

    def run() -> Any:
        return torch.autograd.grad(value(), tensor, ones)[0].numpy()

    return run


def row(name: str, x: jax.Array, repeats: int) -> dict[str, Any]:
    functions = {"ours": ours(name)} | (
        {"jax.nn": PEERS[name]} if name in PEERS else {}
    )
    both = {which: with_slope(function) for which, function in functions.items()}
    runs: dict[str, Callable[[], Any]] = {
        which: (lambda f=f: f(x)) for which, f in both.items()
    }
    runs["move"] = lambda: move(x)
    if name in TORCH and importlib.util.find_spec("torch"):
        runs["torch"] = of_torch(name, x)
    seconds = measure.interleaved_medians(runs, repeats=repeats)

    def times(peer: str) -> Any:
        return seconds["ours"] / seconds[peer] if peer in seconds else ""

    return {
        "name": name,
        "ms": 1e3 * seconds["ours"],
        "times move": times("move"),
        "times jax.nn": times("jax.nn"),
        "times torch": times("torch"),
        "scan MB": scanned(functions["ours"]),
        "jax.nn scan MB": scanned(functions["jax.nn"]) if name in PEERS else "",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(TRUTHS))
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    x = 2 * jax.random.normal(jax.random.key(0), SIZE)
    rows = [row(name, x, options.repeats) for name in options.names]
    measure.record("activations", rows)


if __name__ == "__main__":
    main()

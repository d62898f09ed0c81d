"""Time and memory of activations, next to jax.nn and torch.

    python -m bench.activations [NAME ...]

Times are of the compiled value and gradient at 16 M float32 inputs, interleaved in one
process. "times move" is relative to a function that writes two arrays of this size and
computes nothing: most of it is the operating system's paging, a lower bound for all.
torch has swish only at β = 1, as silu; jaxml's traced β is compared with x σ(βx) in
torch. Memory is what the gradient of a 24-layer lax.scan of act(h @ W) allocates
besides its arguments and results, for h (2048, 256) in float32.
"""

import argparse
import importlib.util
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from bench import measure
from bench.accuracy import PEERS, TORCH, unary, value_and_derivative
from bench.truths.activations import TRUTHS

SIZE = 2**24
LAYERS, ROWS, WIDTH = 24, 2048, 256


def scan_temporaries_mb(
    activation: Callable[[Any], Any], dtype: Any = jnp.float32
) -> float:
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


def torch_gradient(name: str, x: jax.Array) -> Callable[[], Any]:
    import numpy as np
    import torch

    torch_name, keywords = TORCH[name]
    beta = torch.tensor(1.0)
    tensor = torch.tensor(np.asarray(x), requires_grad=True)
    ones = torch.ones_like(tensor)

    def value() -> torch.Tensor:
        if name == "swish":
            return tensor * torch.sigmoid(beta * tensor)
        return getattr(torch.nn.functional, torch_name)(tensor, **keywords)

    def run() -> Any:
        return torch.autograd.grad(value(), tensor, ones)[0].numpy()

    return run


def cost_row(name: str, x: jax.Array, repeats: int) -> dict[str, Any]:
    functions = {"ours": unary(name)}
    if name in PEERS:
        functions["jax.nn"] = PEERS[name]
    compiled = {which: value_and_derivative(f) for which, f in functions.items()}
    runs: dict[str, Callable[[], Any]] = {
        which: (lambda f=f: f(x)) for which, f in compiled.items()
    }
    runs["move"] = lambda: move(x)
    if name in TORCH and importlib.util.find_spec("torch"):
        runs["torch"] = torch_gradient(name, x)
    seconds = measure.interleaved_medians(runs, repeats=repeats)

    def relative_to(run: str) -> Any:
        return seconds["ours"] / seconds[run] if run in seconds else ""

    return {
        "name": name,
        "ms": 1e3 * seconds["ours"],
        "times move": relative_to("move"),
        "times jax.nn": relative_to("jax.nn"),
        "times torch": relative_to("torch"),
        "scan MB": scan_temporaries_mb(functions["ours"]),
        "jax.nn scan MB": scan_temporaries_mb(PEERS[name]) if name in PEERS else "",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(TRUTHS))
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    x = 2 * jax.random.normal(jax.random.key(0), SIZE)
    rows = [cost_row(name, x, options.repeats) for name in options.names]
    measure.record("activations", rows)


if __name__ == "__main__":
    main()

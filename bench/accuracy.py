"""Errors of activations and their derivatives in ulps, next to jax.nn and torch.

    python -m bench.accuracy [--exhaustive] [NAME ...]

An ulp is the distance between neighboring floats at the true result. Float32 inputs
come from every binade, evenly from [-110, 110], and from the neighborhoods of roots and
kinks; with --exhaustive they are all 2³² floats, and each function is recorded as soon
as it is done. bfloat16 and float16 inputs are always all 65,536. Results that are not
normal numbers of the dtype do not count, and a subnormal float32 input is 0, as in XLA.
Peers are measured at the sampled inputs only, without the kinks, where the derivative
is a convention. The exit code is 1 if an error of jaxml exceeds its bound.
"""

import argparse
import importlib.util
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from rich.progress import track

from bench import measure
from bench.truths.activations import TRUTHS, Array, Truth
from jaxml import activations

BOUNDS = {"float32": 4.0, "bfloat16": 0.51, "float16": 0.51}
SPECIAL = (1.5, -0.7517915, -0.7524614, -1.2784646, -0.7511542, -1.1924312)
KINKS = (0.0, 0.5, 1.0, 3.0, 6.0)
CENTERS = (0.25, 0.75, 1e10, 1e30, *KINKS, *SPECIAL)
REQUIRED_ARGUMENTS = {
    "threshold": {"threshold": 1.0, "value": 0.0},
    "prelu": {"slope": 0.25},
    "snake": {"alpha": 1.0},
}
nn = jax.nn
PEERS: dict[str, Callable[[Any], Any]] = {
    **{name: getattr(nn, name) for name in TRUTHS if hasattr(nn, name)},
    "gelu": lambda x: nn.gelu(x, approximate=False),
    "gelu_tanh": lambda x: nn.gelu(x, approximate=True),
    "logit": jax.scipy.special.logit,
    "softsign": nn.soft_sign,
    "tanh": jnp.tanh,
}
TORCH = {  # the function of torch.nn.functional, and its keywords
    "sigmoid": ("sigmoid", {}),
    "log_sigmoid": ("logsigmoid", {}),
    "hard_sigmoid": ("hardsigmoid", {}),
    "tanh": ("tanh", {}),
    "hard_tanh": ("hardtanh", {}),
    "softsign": ("softsign", {}),
    "relu": ("relu", {}),
    "relu6": ("relu6", {}),
    "leaky_relu": ("leaky_relu", {}),
    "elu": ("elu", {}),
    "celu": ("celu", {}),
    "selu": ("selu", {}),
    "hard_shrink": ("hardshrink", {}),
    "soft_shrink": ("softshrink", {}),
    "tanh_shrink": ("tanhshrink", {}),
    "gelu": ("gelu", {}),
    "gelu_tanh": ("gelu", {"approximate": "tanh"}),
    "swish": ("silu", {}),
    "silu": ("silu", {}),
    "mish": ("mish", {}),
    "softplus": ("softplus", {}),
    "hard_swish": ("hardswish", {}),
}


def unary(name: str) -> Callable[[Any], Any]:
    """An activation as a function of x alone."""
    activation = getattr(activations, name)
    keywords = REQUIRED_ARGUMENTS.get(name, {})

    def function(x: Any) -> Any:
        return activation(
            x, **{n: jnp.asarray(v, x.dtype) for n, v in keywords.items()}
        )

    return function if keywords else activation


def value_and_derivative(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """x -> f(x), f'(x)"""

    @jax.jit
    def compute(x: Any) -> Any:
        y, pullback = jax.vjp(function, x)
        return y, pullback(jnp.ones_like(y))[0]

    return compute


def torch_value_and_derivative(name: str) -> Callable[[Any], Any]:
    import torch

    torch_name, keywords = TORCH[name]

    def compute(x: Array) -> Any:
        tensor = torch.tensor(x, requires_grad=True)
        y = getattr(torch.nn.functional, torch_name)(tensor, **keywords)
        y.sum().backward()
        return y.detach().numpy(), tensor.grad.numpy()

    return compute


def ulp_errors(result: Any, truth: Array, dtype: Any, min_scale: float = 0.0) -> Array:
    """|result - truth| in ulps of the truth, or of `min_scale` if that is larger."""
    info = ml_dtypes.finfo(dtype)
    size = np.abs(truth)
    is_normal = (size >= float(info.smallest_normal)) & (size <= float(info.max))
    truth = np.where(is_normal, truth, 1.0)
    exponent = np.floor(np.log2(np.maximum(np.abs(truth), min_scale)))
    error = np.abs(np.asarray(result).astype(np.float64) - truth)
    ulps = error * 2.0 ** (info.nmant - exponent)
    return np.where(is_normal, np.where(np.isnan(ulps), np.inf, ulps), 0.0)


def max_errors(compute: Callable, truth: Truth, x: Any) -> dict[str, float]:
    """The largest error of the value and of the derivative, and the x of each."""
    exact_x = x.astype(np.float64)
    if x.dtype != np.float16:
        exact_x[np.abs(exact_x) < np.finfo(np.float32).tiny] = 0.0
    value, derivative = compute(x)
    with np.errstate(all="ignore"):
        ulps = {
            "value": ulp_errors(value, truth.value(exact_x), x.dtype),
            "derivative": ulp_errors(
                derivative, truth.derivative(exact_x), x.dtype, truth.min_scale
            ),
        }
    result: dict[str, float] = {}
    for column, errors in ulps.items():
        i = int(np.argmax(errors))
        result |= {column: float(errors[i]), f"{column} at": float(exact_x[i])}
    return result


def max_errors_of_chunks(
    compute: Callable, truth: Truth, chunks: Iterable[Array]
) -> dict[str, float]:
    """`max_errors` over all chunks of inputs."""
    result: dict[str, float] = {}
    for x in chunks:
        errors = max_errors(compute, truth, x)
        for column in ("value", "derivative"):
            if errors[column] >= result.get(column, -1.0):
                at = f"{column} at"
                result |= {column: errors[column], at: errors[at]}
    return result


def stratified_float32(
    per_binade: int = 64, num_even: int = 200_001, num_neighbors: int = 1500
) -> Array:
    """Inputs from every binade, even grids, and neighborhoods; always the same."""
    rng = np.random.default_rng(0)
    bits = np.repeat(np.arange(2**9, dtype=np.uint32) << 23, per_binade)
    bits = bits | rng.integers(0, 2**23, size=bits.size, dtype=np.uint32)
    centers = np.float32([*CENTERS, *(-c for c in CENTERS)]).view(np.uint32)
    neighbors = centers[:, None] + np.arange(-num_neighbors, num_neighbors + 1)
    x = np.concatenate(
        [
            bits.view(np.float32),
            neighbors.astype(np.uint32).ravel().view(np.float32),
            np.linspace(-110, 110, num_even).astype(np.float32),
            np.linspace(-4, 4, num_even).astype(np.float32),
        ]
    )
    return np.where(np.isfinite(x), x, np.float32(0))


def all_float32(chunk: int = 2**22) -> Iterator[Array]:
    for start in track(range(0, 2**32, chunk), "every float32"):
        x = np.arange(start, start + chunk).astype(np.uint32).view(np.float32)
        yield np.where(np.isfinite(x), x, np.float32(0))


def all_16_bit(dtype: Any) -> Array:
    x = np.arange(2**16).astype(np.uint16).view(dtype)
    return np.where(np.isfinite(x.astype(np.float32)), x, x.dtype.type(0))


def without_kinks(x: Array) -> Array:
    """x with kinks and subnormal numbers replaced by 1/4."""
    is_kink = np.isin(np.abs(x), KINKS) | (np.abs(x) < np.finfo(x.dtype).tiny)
    return np.where(is_kink, np.float32(0.25), x)


def accuracy_row(name: str, float32_chunks: Iterable[Array]) -> dict[str, Any]:
    truth, compute = TRUTHS[name], value_and_derivative(unary(name))
    errors = max_errors_of_chunks(compute, truth, float32_chunks)
    row: dict[str, Any] = {"name": name, **errors}
    for dtype in (ml_dtypes.bfloat16, np.float16):
        errors = max_errors(compute, truth, all_16_bit(dtype))
        row[np.dtype(dtype).name] = max(errors["value"], errors["derivative"])
    peers = {"jax.nn": value_and_derivative(PEERS[name])} if name in PEERS else {}
    if name in TORCH and importlib.util.find_spec("torch"):
        peers["torch"] = torch_value_and_derivative(name)
    x = without_kinks(stratified_float32())
    for peer in ("jax.nn", "torch"):
        errors = max_errors(peers[peer], truth, x) if peer in peers else {}
        for column in ("value", "derivative"):
            row[f"{peer} {column}"] = errors.get(column, "")
    return row


def is_within_bounds(row: dict[str, Any]) -> bool:
    float32_error = max(row["value"], row["derivative"])
    errors = {"float32": float32_error} | {d: row[d] for d in ("bfloat16", "float16")}
    return all(errors[dtype] <= bound for dtype, bound in BOUNDS.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(TRUTHS))
    parser.add_argument("--exhaustive", action="store_true")
    options = parser.parse_args()
    rows = []
    for name in options.names:
        chunks = all_float32() if options.exhaustive else [stratified_float32()]
        rows.append(accuracy_row(name, chunks))
        if options.exhaustive:
            measure.record("accuracy.exhaustive", rows[-1:])
    if not options.exhaustive:
        measure.record("accuracy", rows)
    failures = [row["name"] for row in rows if not is_within_bounds(row)]
    sys.exit(f"out of bounds: {', '.join(failures)}" if failures else 0)


if __name__ == "__main__":
    main()

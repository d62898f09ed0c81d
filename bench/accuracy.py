"""How far activations and their derivatives are from the truth, in ulps, and peers'.

    python -m bench.accuracy [--exhaustive] [NAME ...]

An ulp is the distance of two floats where the true result lies. Float32 inputs come
from every binade, evenly from [-110, 110], and from next to roots and kinks; with
--exhaustive they are all 2³², each function recorded when it is through. bfloat16 and
float16 inputs are always all 65,536. What is not a normal number of the dtype does not
count, and a subnormal float32 is 0, as XLA has it. Peers are not asked at all 2³², and
not at a kink, where a derivative is a convention. The exit code is 1 where ours are off
by more than the bound.
"""

import argparse
import importlib.util
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from rich.progress import track

from bench import measure
from bench.activation_truths import TRUTHS, Array, Truth
from jaxml import activations

BOUNDS = {"float32": 4.0, "bfloat16": 0.51, "float16": 0.51}
SPECIAL = (1.5, -0.7517915, -0.7524614, -1.2784646, -0.7511542, -1.1924312)
KINKS = (0.0, 0.5, 1.0, 3.0, 6.0)
CENTRES = (0.25, 0.75, 1e10, 1e30, *KINKS, *SPECIAL)
nn = jax.nn
PEERS: dict[str, Callable[[Any], Any]] = {
    **{name: getattr(nn, name) for name in TRUTHS if hasattr(nn, name)},
    "gelu": lambda x: nn.gelu(x, approximate=False),
    "gelu_tanh": lambda x: nn.gelu(x, approximate=True),
    "logit": jax.scipy.special.logit,
    "softsign": nn.soft_sign,
    "tanh": jnp.tanh,
}
TORCH = {
    "sigmoid": ("sigmoid", {}),
    "log_sigmoid": ("logsigmoid", {}),
    "hard_sigmoid": ("hardsigmoid", {}),
    "tanh": ("tanh", {}),
    "hard_tanh": ("hardtanh", {}),
    "softsign": ("softsign", {}),
    "hard_shrink": ("hardshrink", {}),
    "soft_shrink": ("softshrink", {}),
    "tanh_shrink": ("tanhshrink", {}),
    "gelu_tanh": ("gelu", {"approximate": "tanh"}),
    "swish": ("silu", {}),
    "hard_swish": ("hardswish", {}),
    **{
        name: (name, {})
        for name in ("relu", "relu6", "leaky_relu", "elu", "celu", "selu")
    },
    **{name: (name, {}) for name in ("gelu", "silu", "mish", "softplus")},
}


def ours(name: str) -> Callable[[Any], Any]:
    function = getattr(activations, name)
    if name == "threshold":
        return lambda x: function(x, threshold=1.0, value=0.0)
    if name == "snake":
        return lambda x: function(x, jnp.ones((), x.dtype))
    return function


def with_slope(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """x -> f(x), f'(x)"""

    @jax.jit
    def both(x: Any) -> Any:
        y, pullback = jax.vjp(function, x)
        return y, pullback(jnp.ones_like(y))[0]

    return both


def of_torch(name: str) -> Callable[[Any], Any]:
    import torch

    known, options = TORCH[name]

    def both(x: Array) -> Any:
        tensor = torch.tensor(x, requires_grad=True)
        y = getattr(torch.nn.functional, known)(tensor, **options)
        y.sum().backward()
        return y.detach().numpy(), tensor.grad.numpy()

    return both


def ulps(got: Any, true: Array, dtype: Any, scale: float = 0.0) -> Array:
    """|got - true| in units of the last place of the true result, or of `scale`."""
    info = ml_dtypes.finfo(dtype)
    size = np.abs(true)
    counts = (size >= float(info.smallest_normal)) & (size <= float(info.max))
    true = np.where(counts, true, 1.0)
    exponent = np.floor(np.log2(np.maximum(np.abs(true), scale)))
    off = np.abs(np.asarray(got).astype(np.float64) - true) * 2.0 ** (
        info.nmant - exponent
    )
    return np.where(counts, np.where(np.isnan(off), np.inf, off), 0.0)


def worst(both: Callable, truth: Truth, x: Any) -> dict[str, float]:
    """The greatest error of value and of slope, and where it is."""
    exact = x.astype(np.float64)
    if x.dtype != np.float16:
        exact[np.abs(exact) < np.finfo(np.float32).tiny] = 0.0
    found: dict[str, float] = {}
    with np.errstate(all="ignore"):
        true = truth.value(exact), truth.slope(exact)
    for what, got, t in zip(("value", "derivative"), both(x), true):
        off = ulps(got, t, x.dtype, truth.scale if what == "derivative" else 0.0)
        i = int(np.argmax(off))
        found |= {what: float(off[i]), f"{what} at": float(exact[i])}
    return found


def stratified(
    per_binade: int = 64, even: int = 200_001, about: int = 1500
) -> Iterator[Array]:
    """Inputs from everywhere, the same each time."""
    rng = np.random.default_rng(0)
    bits = np.repeat(np.arange(2**9, dtype=np.uint32) << 23, per_binade)
    bits = bits | rng.integers(0, 2**23, size=bits.size, dtype=np.uint32)
    centres = np.float32([*CENTRES, *(-c for c in CENTRES)]).view(np.uint32)
    near = centres[:, None] + np.arange(-about, about + 1)
    x = np.concatenate(
        [
            bits.view(np.float32),
            near.astype(np.uint32).ravel().view(np.float32),
            np.linspace(-110, 110, even).astype(np.float32),
            np.linspace(-4, 4, even).astype(np.float32),
        ]
    )
    yield np.where(np.isfinite(x), x, np.float32(0))


def off_kinks(x: Array) -> Array:
    at_kink = np.isin(np.abs(x), KINKS) | (np.abs(x) < np.finfo(x.dtype).tiny)
    return np.where(at_kink, np.float32(0.25), x)


def every_float32(chunk: int = 2**22) -> Iterator[Array]:
    for start in track(range(0, 2**32, chunk), "every float32"):
        x = np.arange(start, start + chunk).astype(np.uint32).view(np.float32)
        yield np.where(np.isfinite(x), x, np.float32(0))


def every_short(dtype: Any) -> Array:
    x = np.arange(2**16).astype(np.uint16).view(dtype)
    return np.where(np.isfinite(x.astype(np.float32)), x, x.dtype.type(0))


def over(both: Callable, truth: Truth, inputs: Iterator[Array]) -> dict[str, float]:
    """The worst of all chunks of inputs."""
    total: dict[str, float] = {}
    for x in inputs:
        found = worst(both, truth, x)
        for what in ("value", "derivative"):
            if found[what] >= total.get(what, -1.0):
                total |= {what: found[what], f"{what} at": found[f"{what} at"]}
    return total


def row(name: str, inputs: Iterator[Array]) -> dict[str, Any]:
    truth, function = TRUTHS[name], with_slope(ours(name))
    found: dict[str, Any] = {"name": name, **over(function, truth, inputs)}
    for dtype in (ml_dtypes.bfloat16, np.float16):
        short = over(function, truth, iter([every_short(dtype)]))
        found[np.dtype(dtype).name] = max(short["value"], short["derivative"])
    peers = {"jax.nn": with_slope(PEERS[name])} if name in PEERS else {}
    if name in TORCH and importlib.util.find_spec("torch"):
        peers["torch"] = of_torch(name)
    for peer in ("jax.nn", "torch"):
        smooth = map(off_kinks, stratified())
        theirs = over(peers[peer], truth, smooth) if peer in peers else {}
        for what in ("value", "derivative"):
            found[f"{peer} {what}"] = theirs.get(what, "")
    return found


def within(found: dict[str, Any]) -> bool:
    single = max(found["value"], found["derivative"]) <= BOUNDS["float32"]
    return single and all(found[d] <= BOUNDS[d] for d in ("bfloat16", "float16"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(TRUTHS))
    parser.add_argument("--exhaustive", action="store_true")
    options = parser.parse_args()
    inputs = every_float32 if options.exhaustive else stratified
    rows = []
    for name in options.names:
        rows.append(row(name, inputs()))
        if options.exhaustive:
            measure.record("accuracy.exhaustive", rows[-1:])
    if not options.exhaustive:
        measure.record("accuracy", rows)
    beyond = [found["name"] for found in rows if not within(found)]
    sys.exit(f"out of bounds: {', '.join(beyond)}" if beyond else 0)


if __name__ == "__main__":
    main()

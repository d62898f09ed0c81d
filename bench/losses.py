"""Losses against optax and PyTorch: the time and memory of value and gradient.

Inputs are 4096 examples of 1024 classes, or 65536 of 10 and 512 of 50257. A ratio below
1 means that ours is faster. PyTorch, if it is installed, runs on the CPU, interleaved
with ours in the same process. focal_loss is compared with optax's cross entropy. For
bfloat16 logits, ours computes in float32, and optax computes the softmax in bfloat16.

Where ours is slower, the time buys accuracy. kl_divergence adds p (eᵘ - 1 - u) with u =
log q - log p, and its derivative is q - p: two exponentials and a series, where the
naive p log(p/q) has one exponential and no correct digit for p ≈ q. The gradient q - p
alone costs a third more than the naive -p. log_cosh_loss has a series near 0 instead of
a difference of logarithms. soft_cross_entropy sums the exponentials twice, with and
without the largest, because 1 + 1e-9 has no digits of a small loss. focal_loss also
computes a power and a softplus for each example, which is noticeable with 10 classes.
multilabel_margin_loss has no peer: it spends most of its time in one sort of the
scores, which XLA:CPU runs on one core. ctc_loss makes another pass over the frames if
the model is confident, because 1 - p needs the paths that leave the labels: optax's
loss may be negative there.

Arrays of 512 x 50257 are allocated anew in each call, and page faults take a large part
of the time of every library. Huge pages avoid most of them on Linux: set
GLIBC_TUNABLES=glibc.malloc.hugetlb=1 in the environment. These figures are without it.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bench import measure
from jaxml import losses

SHAPES = (4096, 1024), (65536, 10), (512, 50257)
OF_CLASSES = (
    "cross_entropy",
    "cross_entropy, smoothing",
    "soft_cross_entropy",
    "kl_divergence",
    "focal_loss",
    "poly_loss",
)
"""The losses that are measured with all shapes."""
SMOOTHING = 0.1
CTC = [
    {"batch": 16, "frames": 400, "classes": 64, "labels": 40},
    {"batch": 32, "frames": 200, "classes": 1024, "labels": 30},
    {"batch": 8, "frames": 2000, "classes": 32, "labels": 200},
]

Loss = Callable[..., jax.Array]


class Comparison(NamedTuple):
    """A loss of logits and a target, and its peers."""

    name: str
    target: np.ndarray
    ours: Loss
    optax: Loss | None = None
    torch: str | None = None
    """A function of `torch.nn.functional`."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="an eighth of the sizes")
    shrink = 8 if parser.parse_args().small else 1
    rng = np.random.default_rng(0)
    rows = []
    _warm_up(rng)
    for dtype in jnp.float32, jnp.bfloat16:
        for shape in SHAPES:
            rows += _measure_losses(rng, (shape[0] // shrink, shape[1]), dtype)
    measure.record("losses", rows)
    rows = [_measure_ctc(rng, size, shrink) for size in CTC]
    rows += [_measure_ctc(rng, CTC[0], shrink, confidence=20.0)]
    measure.record("losses.ctc", rows)
    rows = [_measure_energy_score(rng, m // shrink) for m in (1024, 8192)]
    measure.record("losses.energy_score", rows)
    measure.record("losses.first_trace", [_measure_first_trace()])


def _warm_up(rng: np.random.Generator) -> None:
    """Measures the first loss for nothing: in a new process it would seem slow."""
    z = rng.normal(size=SHAPES[0]).astype(np.float32)
    _measure_loss(_comparisons(rng, z.shape)[0], "", z)


def _measure_losses(
    rng: np.random.Generator, shape: tuple[int, int], dtype: Any
) -> list[dict[str, Any]]:
    """All losses of float32 logits in the first shape, otherwise those `OF_CLASSES`."""
    z = rng.normal(size=shape).astype(dtype)
    is_first = shape[1] == SHAPES[0][1]
    rows = []
    for loss in _comparisons(rng, shape):
        if (is_first and dtype == jnp.float32) or loss.name in OF_CLASSES:
            label = [loss.name]
            label += [] if is_first else [f"{shape[0]} × {shape[1]}"]
            label += [] if dtype == jnp.float32 else ["bfloat16"]
            rows.append(_measure_loss(loss, ", ".join(label), z))
    return rows


def _measure_first_trace(repeats: int = 15) -> dict[str, Any]:
    """CPU time to trace `cross_entropy` with its gradient, all caches empty."""
    z, y = jnp.zeros((8, 10)), jnp.zeros(8, int)
    cross_entropies = {
        "ours": losses.cross_entropy,
        "optax": optax.losses.softmax_cross_entropy_with_integer_labels,
    }
    times: dict[str, list[float]] = {name: [] for name in cross_entropies}
    for _ in range(repeats):
        for name, loss in cross_entropies.items():
            jax.clear_caches()
            start = time.process_time()
            _value_and_grad(lambda z, loss=loss: loss(z, y)).trace(z)
            times[name].append(1e3 * (time.process_time() - start))
    ours, peer = (statistics.median(times[name]) for name in ("ours", "optax"))
    return {"ours_ms": ours, "optax_ms": peer, "ratio": ours / peer}


def _comparisons(rng: np.random.Generator, shape: tuple[int, int]) -> list[Comparison]:
    num_examples, num_classes = shape
    y = rng.integers(0, num_classes, num_examples).astype(np.int32)
    t = rng.dirichlet(np.ones(num_classes), num_examples).astype(np.float32)
    multi_hot = (t > 1 / num_classes).astype(np.float32)
    log_t, zeros, signs = np.log(t + 1e-9), np.zeros_like(t), 2 * multi_hot - 1
    with_labels = optax.losses.softmax_cross_entropy_with_integer_labels

    def optax_smooth_cross_entropy(z: jax.Array, y: jax.Array) -> jax.Array:
        onehot = jax.nn.one_hot(y, num_classes)
        smoothed = optax.losses.smooth_labels(onehot, SMOOTHING)
        return optax.losses.softmax_cross_entropy(z, smoothed)

    def optax_poly_loss(z: jax.Array, y: jax.Array) -> jax.Array:
        return optax.losses.poly_loss_cross_entropy(z, jax.nn.one_hot(y, num_classes))

    return [
        Comparison(
            "cross_entropy", y, losses.cross_entropy, with_labels, "cross_entropy"
        ),
        Comparison(
            "cross_entropy, smoothing",
            y,
            partial(losses.cross_entropy, label_smoothing=SMOOTHING),
            optax_smooth_cross_entropy,
        ),
        Comparison(
            "cross_entropy, where",
            y,
            lambda z, y: losses.cross_entropy(z, y, where=z > -2),
            lambda z, y: with_labels(z, y, where=z > -2),
        ),
        Comparison(
            "soft_cross_entropy",
            t,
            losses.soft_cross_entropy,
            optax.losses.softmax_cross_entropy,
            "cross_entropy",
        ),
        Comparison(
            "kl_divergence",
            log_t,
            lambda z, log_t: losses.kl_divergence(jax.nn.log_softmax(z), log_t),
            lambda z, log_t: optax.losses.kl_divergence_with_log_targets(
                jax.nn.log_softmax(z), log_t
            ),
        ),
        Comparison(
            "js_divergence",
            log_t,
            lambda z, log_t: losses.js_divergence(jax.nn.log_softmax(z), log_t),
            lambda z, log_t: _optax_js_divergence(jax.nn.log_softmax(z), log_t),
        ),
        Comparison("focal_loss", y, losses.focal_loss, with_labels),
        Comparison("poly_loss", y, losses.poly_loss, optax_poly_loss),
        Comparison(
            "binary_cross_entropy_with_logits",
            multi_hot,
            losses.binary_cross_entropy_with_logits,
            optax.losses.sigmoid_binary_cross_entropy,
            "binary_cross_entropy_with_logits",
        ),
        Comparison(
            "binary_focal_loss",
            multi_hot,
            losses.binary_focal_loss,
            optax.losses.sigmoid_focal_loss,
        ),
        Comparison("hinge_loss", signs, losses.hinge_loss, optax.losses.hinge_loss),
        Comparison(
            "multiclass_hinge_loss",
            y,
            losses.multiclass_hinge_loss,
            optax.losses.multiclass_hinge_loss,
        ),
        Comparison(
            "multi_margin_loss", y, losses.multi_margin_loss, None, "multi_margin_loss"
        ),
        Comparison("multilabel_margin_loss", multi_hot, losses.multilabel_margin_loss),
        Comparison(
            "squared_error",
            zeros,
            losses.squared_error,
            optax.losses.squared_error,
            "mse_loss",
        ),
        Comparison(
            "huber_loss",
            zeros,
            losses.huber_loss,
            optax.losses.huber_loss,
            "huber_loss",
        ),
        Comparison(
            "smooth_l1_loss", zeros, losses.smooth_l1_loss, None, "smooth_l1_loss"
        ),
        Comparison("log_cosh_loss", zeros, losses.log_cosh_loss, optax.losses.log_cosh),
        Comparison(
            "cosine_distance",
            t,
            losses.cosine_distance,
            optax.losses.cosine_distance,
        ),
    ]


def _optax_js_divergence(log_q: jax.Array, log_p: jax.Array) -> jax.Array:
    kl = optax.losses.kl_divergence_with_log_targets
    log_m = jnp.logaddexp(log_q, log_p) - np.log(2).astype(log_p.dtype)
    return (kl(log_m, log_p) + kl(log_m, log_q)) / 2


def _measure_loss(loss: Comparison, label: str, z: np.ndarray) -> dict[str, Any]:
    arguments = jnp.asarray(z), jnp.asarray(loss.target)
    programs = {"ours": _value_and_grad(loss.ours)}
    if loss.optax:
        programs["optax"] = _value_and_grad(loss.optax)
    runs = {library: partial(f, *arguments) for library, f in programs.items()}
    if loss.torch:
        runs |= _torch_run(loss.torch, z, loss.target)
    seconds = measure.interleaved_medians(runs, repeats=25)
    row: dict[str, Any] = {"loss": label}
    for library in ("ours", "optax", "torch"):
        row[f"{library}_ms"] = 1e3 * seconds[library] if library in seconds else "-"
    for library in ("optax", "torch"):
        is_measured = library in seconds
        row[f"to_{library}"] = (
            seconds["ours"] / seconds[library] if is_measured else "-"
        )
    for library in ("ours", "optax"):
        program = programs.get(library)
        row[f"{library}_MiB"] = (
            measure.temporaries(program, *arguments) / 2**20 if program else "-"
        )
    return row


def _torch_run(name: str, z: np.ndarray, target: np.ndarray) -> dict[str, Callable]:
    try:
        import torch
    except ModuleNotFoundError:
        return {}
    loss = getattr(torch.nn.functional, name)
    # as torch wants them: bfloat16 comes from float32, and labels are 64-bit
    dtype = torch.float32 if z.dtype == np.float32 else torch.bfloat16
    logits = torch.from_numpy(z.astype(np.float32)).to(dtype)
    is_label = target.dtype == np.int32
    target_ = torch.from_numpy(target).to(torch.int64 if is_label else dtype)
    logits.requires_grad_()

    def run() -> None:
        loss(logits, target_).backward()
        logits.grad = None

    return {"torch": run}


def _value_and_grad(loss: Loss) -> Callable[..., Any]:
    return jax.jit(jax.value_and_grad(lambda *args: jnp.mean(loss(*args))))


def _measure_ctc(
    rng: np.random.Generator,
    size: dict[str, int],
    shrink: int,
    confidence: float = 0.0,
) -> dict[str, Any]:
    """`ctc_loss` of random logits, or of a model that is sure of some alignment."""
    batch, num_frames, num_classes, length = size.values()
    num_frames, length = num_frames // shrink, length // shrink
    y = rng.integers(1, num_classes, (batch, length)).astype(np.int32)
    z = rng.normal(size=(batch, num_frames, num_classes)).astype(np.float32)
    sure = np.zeros((batch, num_frames), int)  # a label in every other frame
    sure[:, : 2 * length : 2] = y
    z += confidence * np.eye(num_classes, dtype=np.float32)[sure]
    padding = jnp.zeros((batch, num_frames)), jnp.zeros((batch, length))
    programs = {
        "ours": _value_and_grad(lambda z: losses.ctc_loss(z, y)),
        "optax": _value_and_grad(
            lambda z: optax.losses.ctc_loss(z, padding[0], y, padding[1])
        ),
    }
    logits = jnp.asarray(z)
    runs = {name: partial(program, logits) for name, program in programs.items()}
    runs |= _torch_ctc_run(z, y)
    seconds = measure.interleaved_medians(runs, repeats=9)
    row: dict[str, Any] = {**size, "confidence": confidence}
    row |= {f"{name}_ms": 1e3 * seconds.get(name, np.nan) for name in ("ours", "optax")}
    row["torch_ms"] = 1e3 * seconds["torch"] if "torch" in seconds else "-"
    row["to_optax"] = seconds["ours"] / seconds["optax"]
    row["to_torch"] = seconds["ours"] / seconds["torch"] if "torch" in seconds else "-"
    for name, program in programs.items():
        row[f"{name}_MiB"] = measure.temporaries(program, logits) / 2**20
    return row


def _torch_ctc_run(z: np.ndarray, y: np.ndarray) -> dict[str, Callable]:
    try:
        import torch
    except ModuleNotFoundError:
        return {}
    logits, labels = torch.from_numpy(z.copy()), torch.from_numpy(y).long()
    logits.requires_grad_()
    lengths = [torch.full((len(z),), x.shape[1]) for x in (z, y)]

    def run() -> None:
        log_p = logits.log_softmax(-1).transpose(0, 1)
        loss = torch.nn.functional.ctc_loss(log_p, labels, *lengths, reduction="none")
        loss.mean().backward()
        logits.grad = None

    return {"torch": run}


def _pairwise_energy_score(x: jax.Array, y: jax.Array) -> jax.Array:
    """Holds the differences of all pairs."""
    m, differences = len(x), x[:, None] - x[None] + jnp.eye(len(x))[..., None]
    spread = jnp.sum(jnp.linalg.norm(differences, axis=-1) * (1 - jnp.eye(m)))
    return jnp.mean(jnp.linalg.norm(x - y, axis=-1)) - spread / (2 * m * (m - 1))


def _measure_energy_score(rng: np.random.Generator, m: int) -> dict[str, Any]:
    """`energy_score` of m members against all of their differences in memory."""
    x, y = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((m, 32), (32,)))
    programs = {
        "ours": jax.jit(jax.value_and_grad(losses.energy_score)),
        "pairs": jax.jit(jax.value_and_grad(_pairwise_energy_score)),
    }
    row: dict[str, Any] = {"m": m, "d": 32}
    for name, program in programs.items():
        row[f"{name}_MiB"] = measure.temporaries(program, x, y) / 2**20
    if row["pairs_MiB"] > 2048:
        del programs["pairs"]
    runs = {name: partial(program, x, y) for name, program in programs.items()}
    seconds = measure.interleaved_medians(runs, repeats=5)
    return row | {f"{name}_s": seconds.get(name, "-") for name in ("ours", "pairs")}


if __name__ == "__main__":
    main()

"""Losses beside their peers: time of value and gradient, paired, and bytes held.

Losses take 4096 x 1024 numbers, of which those of classes make 4096 rows. A ratio below
1 means that ours is faster. PyTorch, where it is installed, runs on the processor, in
the same process and in turn with ours.
"""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bench import measure
from jaxml import losses

ROWS, CLASSES = 4096, 1024
HEAD = {"rows": 2048, "width": 256, "classes": 32768}
LARGE = {"rows": 8192, "width": 512, "classes": 131072}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="an eighth of the sizes")
    shrink = 8 if parser.parse_args().small else 1
    rng = np.random.default_rng(0)
    measure.record("losses", _elementwise_and_rows(rng, ROWS // shrink))
    measure.record("losses.linear", [*_head(rng, shrink)])


def _elementwise_and_rows(rng: np.random.Generator, rows: int) -> list[dict[str, Any]]:
    z = rng.normal(size=(rows, CLASSES)).astype(np.float32)
    y = rng.integers(0, CLASSES, rows).astype(np.int32)
    t = rng.dirichlet(np.ones(CLASSES), rows).astype(np.float32)
    yes, log_t, zeros = (
        (t > 1 / CLASSES).astype(np.float32),
        np.log(t),
        np.zeros_like(z),
    )
    peers, log_q = optax.losses, jax.nn.log_softmax
    # ours, optax's, and the name and arguments of PyTorch's
    compared = {
        "cross_entropy": (
            lambda z: losses.cross_entropy(z, y),
            lambda z: peers.softmax_cross_entropy_with_integer_labels(z, y),
            ("cross_entropy", y.astype(np.int64)),
        ),
        "soft_cross_entropy": (
            lambda z: losses.soft_cross_entropy(z, t),
            lambda z: peers.softmax_cross_entropy(z, t),
            ("cross_entropy", t),
        ),
        "kl_divergence": (
            lambda z: losses.kl_divergence(log_q(z), log_t),
            lambda z: peers.kl_divergence_with_log_targets(log_q(z), log_t),
            None,
        ),
        "focal_loss": (lambda z: losses.focal_loss(z, y), None, None),
        "poly_loss": (
            lambda z: losses.poly_loss(z, y),
            lambda z: peers.poly_loss_cross_entropy(z, jax.nn.one_hot(y, CLASSES)),
            None,
        ),
        "binary_cross_entropy_with_logits": (
            lambda z: losses.binary_cross_entropy_with_logits(z, yes),
            lambda z: peers.sigmoid_binary_cross_entropy(z, yes),
            ("binary_cross_entropy_with_logits", yes),
        ),
        "binary_focal_loss": (
            lambda z: losses.binary_focal_loss(z, yes),
            lambda z: peers.sigmoid_focal_loss(z, yes),
            None,
        ),
        "multiclass_hinge_loss": (
            lambda z: losses.multiclass_hinge_loss(z, y),
            lambda z: peers.multiclass_hinge_loss(z, y),
            None,
        ),
        "multi_margin_loss": (
            lambda z: losses.multi_margin_loss(z, y),
            None,
            ("multi_margin_loss", y.astype(np.int64)),
        ),
        "multilabel_margin_loss": (
            lambda z: losses.multilabel_margin_loss(z, yes),
            None,
            None,
        ),
        "squared_error": (
            lambda z: losses.squared_error(z, zeros),
            lambda z: peers.squared_error(z, zeros),
            ("mse_loss", zeros),
        ),
        "huber_loss": (
            lambda z: losses.huber_loss(z, zeros),
            lambda z: peers.huber_loss(z, zeros),
            ("huber_loss", zeros),
        ),
        "log_cosh_loss": (
            lambda z: losses.log_cosh_loss(z, zeros),
            lambda z: peers.log_cosh(z, zeros),
            None,
        ),
        "cosine_distance": (
            lambda z: losses.cosine_distance(z, t),
            lambda z: peers.cosine_distance(z, t),
            None,
        ),
    }
    return [_compared(name, *peers_, z) for name, peers_ in compared.items()]


def _compared(
    name: str, ours: Any, peer: Any, torchs: tuple | None, z: np.ndarray
) -> dict[str, Any]:
    logits = jnp.asarray(z)
    programs = {"ours": _gradient(ours)} | ({"optax": _gradient(peer)} if peer else {})
    runs = {k: lambda f=f: f(logits) for k, f in programs.items()}
    runs |= _torch_gradient(*torchs, z) if torchs else {}
    seconds = measure.paired(runs, repeats=9)
    row: dict[str, Any] = {"loss": name}
    for peer in ("ours", "optax", "torch"):
        row[f"{peer}_ms"] = 1e3 * seconds[peer] if peer in seconds else "-"
    for peer in ("optax", "torch"):
        known = peer in seconds
        row[f"to_{peer}"] = seconds["ours"] / seconds[peer] if known else "-"
    for peer in ("ours", "optax"):
        program = programs.get(peer)
        held = measure.temporaries(program, logits) / 2**20 if program else "-"
        row[f"{peer}_MiB"] = held
    return row


def _torch_gradient(
    name: str, target: np.ndarray, z: np.ndarray
) -> dict[str, Callable]:
    try:
        import torch
    except ModuleNotFoundError:
        return {}
    loss, logits = getattr(torch.nn.functional, name), torch.from_numpy(z.copy())
    wanted = torch.from_numpy(target)
    logits.requires_grad_()

    def run() -> None:
        loss(logits, wanted).backward()
        logits.grad = None

    return {"torch": run}


def _gradient(loss: Callable[..., jax.Array]) -> Callable[..., Any]:
    return jax.jit(jax.value_and_grad(lambda z: jnp.mean(loss(z))))


def _head(rng: np.random.Generator, shrink: int) -> list[dict[str, Any]]:
    """The head with its loss, against the loss of logits that are held."""

    def ours(x: jax.Array, w: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.mean(losses.linear_cross_entropy(x, w, y))

    def dense(x: jax.Array, w: jax.Array, y: jax.Array) -> jax.Array:
        each = optax.losses.softmax_cross_entropy_with_integer_labels(x @ w, y)
        return jnp.mean(each)

    rows = []
    for size in (HEAD, LARGE):
        n, d, v = size["rows"], size["width"], size["classes"] // shrink
        x = jnp.asarray(rng.normal(size=(n, d)), jnp.float32)
        w = jnp.asarray(rng.normal(size=(d, v)) / np.sqrt(d), jnp.float32)
        y = jnp.asarray(rng.integers(0, v, n))
        programs = {
            name: jax.jit(jax.value_and_grad(loss, (0, 1)))
            for name, loss in [("ours", ours), ("dense", dense)]
        }
        held = {k: measure.temporaries(f, x, w, y) for k, f in programs.items()}
        row = {"n": n, "d": d, "classes": v}
        row |= {f"{k}_MiB": bytes_ / 2**20 for k, bytes_ in held.items()}
        if size is LARGE:
            del programs["dense"]  # gigabytes of logits
        runs = {k: partial(f, x, w, y) for k, f in programs.items()}
        runs |= _torch_heads(x, w, y) if size is HEAD else {}
        if size is LARGE and measure.BRIEF:
            runs = {}  # half a minute each
        seconds = measure.paired(runs, repeats=5 if size is HEAD else 1, warmup=1)
        for name in ("ours", "dense", "torch", "torch_fused"):
            row[f"{name}_s"] = seconds.get(name, "-")
        row["ratio"] = seconds["ours"] / seconds["dense"] if size is HEAD else "-"
        rows.append(row)
    return rows


def _torch_heads(x: jax.Array, w: jax.Array, y: jax.Array) -> dict[str, Callable]:
    """PyTorch's dense loss and its fused one, with their backward passes."""
    try:
        import torch
    except ModuleNotFoundError:
        return {}
    functional = torch.nn.functional
    x_, w_, y_ = (torch.from_numpy(np.array(a)) for a in (x, w.T, y))
    x_.requires_grad_()
    w_.requires_grad_()

    def dense() -> None:
        functional.cross_entropy(x_ @ w_.T, y_.long()).backward()
        x_.grad = w_.grad = None

    def fused() -> None:
        functional.linear_cross_entropy(x_, w_, y_.long()).backward()
        x_.grad = w_.grad = None

    return {"torch": dense, "torch_fused": fused}


if __name__ == "__main__":
    main()

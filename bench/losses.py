"""Losses beside their peers: time of value and gradient, paired, and bytes held.

A ratio below 1 means that ours is faster. PyTorch, where it is installed, runs on the
processor, in the same process and in turn with ours.
"""

import argparse
from collections.abc import Callable
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
    measure.record("losses", [*_classification(rng, ROWS // shrink), _regression(rng)])
    measure.record("linear", [*_head(rng, shrink)])


def _classification(rng: np.random.Generator, rows: int) -> list[dict[str, Any]]:
    z = jnp.asarray(rng.normal(size=(rows, CLASSES)), jnp.float32)
    y = jnp.asarray(rng.integers(0, CLASSES, rows))
    t = jax.nn.softmax(jnp.asarray(rng.normal(size=z.shape), jnp.float32))
    log_t, yes = jnp.log(t), (t > 1 / CLASSES).astype(jnp.float32)
    ours_and_optax = {
        "cross_entropy": (
            lambda z: losses.cross_entropy(z, y),
            lambda z: optax.losses.softmax_cross_entropy_with_integer_labels(z, y),
        ),
        "soft_cross_entropy": (
            lambda z: losses.soft_cross_entropy(z, t),
            lambda z: optax.losses.softmax_cross_entropy(z, t),
        ),
        "poly_loss": (
            lambda z: losses.poly_loss(z, y),
            lambda z: optax.losses.poly_loss_cross_entropy(
                z, jax.nn.one_hot(y, CLASSES), epsilon=1.0
            ),
        ),
        "focal_loss": (lambda z: losses.focal_loss(z, y), None),
        "kl_divergence": (
            lambda z: losses.kl_divergence(jax.nn.log_softmax(z), log_t),
            lambda z: optax.losses.kl_divergence_with_log_targets(
                jax.nn.log_softmax(z), log_t
            ),
        ),
        "binary_cross_entropy_with_logits": (
            lambda z: losses.binary_cross_entropy_with_logits(z, yes),
            lambda z: optax.losses.sigmoid_binary_cross_entropy(z, yes),
        ),
        "binary_focal_loss": (
            lambda z: losses.binary_focal_loss(z, yes),
            lambda z: optax.losses.sigmoid_focal_loss(z, yes),
        ),
        "multiclass_hinge_loss": (
            lambda z: losses.multiclass_hinge_loss(z, y),
            lambda z: optax.losses.multiclass_hinge_loss(z, y),
        ),
    }
    return [_compared(name, *pair, z) for name, pair in ours_and_optax.items()]


def _regression(rng: np.random.Generator) -> dict[str, Any]:
    x = jnp.asarray(rng.normal(size=(ROWS, CLASSES)), jnp.float32)
    return _compared(
        "huber_loss",
        lambda x: losses.huber_loss(x, jnp.zeros_like(x)),
        lambda x: optax.losses.huber_loss(x, jnp.zeros_like(x)),
        x,
    )


def _compared(name: str, ours: Any, peer: Any, z: jax.Array) -> dict[str, Any]:
    programs = {"ours": _gradient(ours)} | ({"optax": _gradient(peer)} if peer else {})
    seconds = measure.paired({k: lambda f=f: f(z) for k, f in programs.items()})
    held = {k: measure.temporaries(f, z) / 2**20 for k, f in programs.items()}
    return {
        "loss": name,
        "ours_ms": 1e3 * seconds["ours"],
        "optax_ms": 1e3 * seconds["optax"] if peer else "-",
        "ratio": seconds["ours"] / seconds["optax"] if peer else "-",
        "ours_MiB": held["ours"],
        "optax_MiB": held.get("optax", "-"),
    }


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
        runs = {k: lambda f=f: f(x, w, y) for k, f in programs.items()}  # noqa: B023
        runs |= _torch_heads(x, w, y) if size is HEAD else {}
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

"""Losses of a language model's head against their dense forms and PyTorch's.

The dense forms hold the logits of all rows. PyTorch, if it is installed, runs on the
CPU, interleaved with ours in the same process. A ratio below 1 means that ours is
faster.
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
from bench.aot import peers
from jaxml import losses

SIZE = {"n": 2048, "d": 256, "classes": 32768}
LARGE_SIZE = {"n": 8192, "d": 512, "classes": 131072}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="an eighth of the sizes")
    shrink = 8 if parser.parse_args().small else 1
    rng = np.random.default_rng(0)
    rows = [_measure(rng, name, SIZE, shrink) for name in LOSSES]
    rows.append(_measure(rng, "linear_cross_entropy", LARGE_SIZE, shrink))
    measure.record("losses.linear", rows)


def _log_prob_and_entropy(x: jax.Array, w: jax.Array, labels: jax.Array) -> jax.Array:
    """An objective of reinforcement learning."""
    fields = losses.linear_log_prob(x, w, labels)
    return fields.log_prob + 0.01 * fields.entropy


def _dense_log_prob_and_entropy(
    x: jax.Array, w: jax.Array, labels: jax.Array
) -> jax.Array:
    log_p = jax.nn.log_softmax(x @ w)
    log_prob = jnp.take_along_axis(log_p, labels[:, None], -1)[:, 0]
    return log_prob - 0.01 * jnp.sum(jnp.exp(log_p) * log_p, -1)


def _dense_cross_entropy(x: jax.Array, w: jax.Array, labels: jax.Array) -> jax.Array:
    return optax.losses.softmax_cross_entropy_with_integer_labels(x @ w, labels)


LOSSES: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "linear_cross_entropy": (losses.linear_cross_entropy, _dense_cross_entropy),
    "linear_log_prob": (_log_prob_and_entropy, _dense_log_prob_and_entropy),
    "linear_kl_divergence": (losses.linear_kl_divergence, peers.linear_kl_divergence),
    "linear_js_divergence": (losses.linear_js_divergence, peers.linear_js_divergence),
}
"""Ours, and the loss whose logits are an array."""


def _measure(
    rng: np.random.Generator, name: str, size: dict[str, int], shrink: int
) -> dict[str, Any]:
    """A loss of a head against its dense form; no dense run at the large size."""
    n, d, classes = size["n"], size["d"], size["classes"] // shrink
    arrays = _arrays(rng, name, n, d, classes)
    programs = {
        form: jax.jit(
            jax.value_and_grad(lambda *xs, loss=loss: jnp.mean(loss(*xs)), (0, 1))
        )
        for form, loss in zip(("ours", "dense"), LOSSES[name])
    }
    row: dict[str, Any] = {"loss": name, "n": n, "d": d, "classes": classes}
    for form, program in programs.items():
        row[f"{form}_MiB"] = measure.temporaries(program, *arrays) / 2**20
    is_large = size is LARGE_SIZE
    if is_large:
        del programs["dense"]  # gigabytes of logits
    runs = {form: partial(program, *arrays) for form, program in programs.items()}
    if not is_large:
        runs |= _torch_runs(name, arrays)
    if is_large and measure.MAX_REPEATS:
        runs = {}  # half a minute each
    seconds = measure.interleaved_medians(runs, repeats=1 if is_large else 5, warmup=1)
    for form in ("ours", "dense", "torch", "torch_fused"):
        row[f"{form}_s"] = seconds.get(form, "-")
    row["ratio"] = "-" if is_large else seconds["ours"] / seconds["dense"]
    return row


def _arrays(
    rng: np.random.Generator, name: str, n: int, d: int, classes: int
) -> tuple[jax.Array, ...]:
    """A student's head, and labels or a teacher's head of twice its width."""

    def head(d: int) -> tuple[jax.Array, jax.Array]:
        x = rng.normal(size=(n, d))
        w = rng.normal(size=(d, classes)) / np.sqrt(d)
        return jnp.asarray(x, jnp.float32), jnp.asarray(w, jnp.float32)

    if name.endswith("divergence"):
        return *head(d), *head(2 * d)
    return *head(d), jnp.asarray(rng.integers(0, classes, n))


def _torch_runs(
    name: str, arrays: tuple[jax.Array, ...]
) -> dict[str, Callable[[], None]]:
    """PyTorch's dense loss and its fused one, with their backward passes."""
    try:
        import torch
    except ModuleNotFoundError:
        return {}
    functional = torch.nn.functional
    x, w, *truth = (torch.from_numpy(np.array(a)) for a in arrays)
    w = w.T.contiguous()
    x.requires_grad_()
    w.requires_grad_()

    def dense() -> Any:
        if name == "linear_cross_entropy":
            return functional.cross_entropy(x @ w.T, truth[0].long())
        log_q = torch.log_softmax(x @ w.T, -1)
        if name == "linear_log_prob":
            log_prob = log_q.gather(-1, truth[0].long()[:, None])[:, 0]
            return (log_prob - 0.01 * (log_q.exp() * log_q).sum(-1)).mean()
        log_p = torch.log_softmax(truth[0] @ truth[1], -1)
        kl = partial(functional.kl_div, reduction="batchmean", log_target=True)
        if name == "linear_kl_divergence":
            return kl(log_q, log_p)
        log_m = torch.logaddexp(log_q, log_p) - np.log(2)
        return (kl(log_m, log_p) + kl(log_m, log_q)) / 2

    def fused() -> Any:
        return functional.linear_cross_entropy(x, w, truth[0].long())

    def with_gradient(loss: Callable[[], Any]) -> Callable[[], None]:
        def run() -> None:
            loss().backward()
            x.grad = w.grad = None

        return run

    runs = {"torch": with_gradient(dense)}
    if name == "linear_cross_entropy":
        runs["torch_fused"] = with_gradient(fused)
    return runs


if __name__ == "__main__":
    main()

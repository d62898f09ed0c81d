"""Losses over the pairs of a batch: bytes and time beside dense forms and PyTorch's.

    python -m bench.metric [--small]

Value and gradient, on rows of length 1 and 128 features. Memory is what the compiled
program holds besides its arguments and results; times are paired in one process. The
dense forms are what one writes without jaxml: optax on a matrix of all similarities,
and the triplets of a batch as a tensor. pytorch-metric-learning runs where it is there.
"""

import argparse
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bench import measure
from jaxml import losses, mining

FEATURES = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="an eighth of the sizes")
    shrink = 8 if parser.parse_args().small else 1
    measure.record("metric", [*large(shrink)])
    measure.record("metric.products", [products(8192 // shrink)])
    measure.record("metric.pml", [*beside_pml(512 // shrink)])
    measure.record("metric.proxies", [*proxies(512 // shrink, 1024 // shrink)])


def rows(n: int, classes: int) -> tuple[jax.Array, jax.Array]:
    """Rows of length 1, and as many of each class."""
    x = jax.random.normal(jax.random.key(n), (n, FEATURES))
    return x / jnp.linalg.norm(x, axis=1, keepdims=True), jnp.arange(n) % classes


def program(loss: Callable[..., jax.Array]) -> Callable[..., Any]:
    return jax.jit(jax.value_and_grad(lambda x: jnp.mean(loss(x))))


def dense_info_nce(x: jax.Array) -> jax.Array:
    s, own = x @ (x + 0.1).T / 0.1, jnp.arange(len(x))
    return optax.losses.softmax_cross_entropy_with_integer_labels(s, own)


def large(shrink: int) -> list[dict[str, Any]]:
    """Our losses at sizes of which all pairs, or all triplets, fill a memory."""

    def dense_clip(x: jax.Array) -> jax.Array:
        s, own = x @ (x + 0.1).T / 0.07, jnp.arange(len(x))
        cross_entropy = optax.losses.softmax_cross_entropy_with_integer_labels
        return (cross_entropy(s, own) + cross_entropy(s.T, own)) / 2

    def dense_triplets(y: jax.Array) -> Callable[[jax.Array], jax.Array]:
        def loss(x: jax.Array) -> jax.Array:
            squares = jnp.sum(jnp.square(x[:, None] - x[None]), -1)
            d = jnp.sqrt(jnp.where(squares == 0, 1, squares)) * (squares > 0)
            same = y[:, None] == y[None]
            positive = same & ~jnp.eye(len(y), dtype=bool)
            valid = positive[:, :, None] & ~same[:, None]
            each = jnp.maximum(d[:, :, None] - d[:, None] + 0.2, 0)
            return jnp.sum(jnp.where(valid, each, 0), (1, 2)) / jnp.sum(valid, (1, 2))

        return loss

    def row(
        loss: str, n: int, classes: int, dense: Any = None, timed: bool = True
    ) -> dict[str, Any]:
        x, y = rows(n // shrink, max(2, classes // shrink))
        views = loss in ("info_nce", "clip_loss")
        function = getattr(losses, loss)
        programs = {"ours": lambda x: function(x, x + 0.1 if views else y)}
        if dense:
            programs["dense"] = dense if views else dense(y)
        compiled = {name: program(f) for name, f in programs.items()}
        held = {name: measure.temporaries(f, x) / 2**20 for name, f in compiled.items()}
        if not timed:
            compiled.pop("dense", None)  # too large to run
        runs = {name: lambda f=f: f(x) for name, f in compiled.items()}
        seconds = measure.paired(runs, repeats=5, warmup=1)
        return {
            "loss": loss,
            "n": len(x),
            "ours_MiB": held["ours"],
            "dense_MiB": held.get("dense", "-"),
            "ours_s": seconds["ours"],
            "dense_s": seconds.get("dense", "-"),
            "ratio": seconds["ours"] / seconds["dense"] if "dense" in seconds else "-",
        }

    def ntxent(y: jax.Array) -> Callable[[jax.Array], jax.Array]:
        return lambda x: optax.losses.ntxent(x, y)

    return [
        row("info_nce", 8192, 8192, dense_info_nce),
        row("clip_loss", 8192, 8192, dense_clip),
        row("nt_xent", 512, 64, ntxent),
        row("nt_xent", 4096, 512, ntxent, timed=False),
        row("supcon_loss", 4096, 512),
        row("batch_all_triplet_loss", 512, 64, dense_triplets),
        row("batch_all_triplet_loss", 4096, 512),
        row("batch_hard_triplet_loss", 4096, 512),
        row("batch_semihard_triplet_loss", 4096, 512),
        row("batch_hard_triplet_loss", 8192, 512),
    ]


def products(n: int) -> dict[str, Any]:
    """What of `info_nce` no loss can go without, and what rows of unlike weights cost.

    Its gradient takes three products of n² d: the similarities, and one for each side.
    `products` runs these alone, a tile at a time. `weighted` is the loss in a weighted
    mean, for which the tiles are made again; `dense` and `ours` in a mean.
    """
    x, _ = rows(n, n)
    weights = jnp.arange(n) / n

    def three(x: jax.Array) -> Any:
        tiles, keys = x.reshape(-1, min(n, 256), FEATURES), x + 0.1
        columns = jax.lax.optimization_barrier(keys.T)

        def fold(total: jax.Array, tile: jax.Array) -> tuple[Any, Any]:
            s = jax.lax.optimization_barrier(tile @ columns)
            return total + tile.T @ s, s @ keys

        return jax.lax.scan(fold, jnp.zeros_like(columns), tiles)

    def of_keys(x: jax.Array) -> jax.Array:
        return losses.info_nce(x, x + 0.1)

    programs = {
        "products": jax.jit(three),
        "ours": program(of_keys),
        "weighted": program(lambda x: weights * of_keys(x)),
        "dense": program(dense_info_nce),
    }
    runs = {name: lambda f=f: f(x) for name, f in programs.items()}
    seconds = measure.paired(runs, repeats=7, warmup=1)
    dense = seconds.pop("dense")
    shares = {f"{name}_of_dense": taken / dense for name, taken in seconds.items()}
    return {"n": n, "dense_s": dense} | shares


def beside_pml(n: int) -> list[dict[str, Any]]:
    """What pytorch-metric-learning has too, on eight rows of a class."""
    found = []
    for name in PML:
        x, y = rows(n // 4 if name in CUBIC else n, n // 8)
        ours, theirs = program(_ours(name, y)), _of_pml(name, np.asarray(x), y)
        runs: dict[str, Callable] = {"ours": lambda f=ours, x=x: f(x)}
        runs |= {"pml": theirs} if theirs else {}
        seconds = measure.paired(runs, repeats=25 if name not in CUBIC else 3)
        found.append({"loss": name, "n": len(x)} | _compared(seconds))
    return found


def proxies(n: int, classes: int) -> list[dict[str, Any]]:
    """Losses with a vector, or ten, learned for each class: gradients of both sides."""
    found = []
    for name in PROXIES:
        several = name == "soft_triple_loss"
        x, y = rows(n, classes // 8 if several else classes)
        shape = (classes // 8, 10) if several else (classes,)
        learned = jax.random.normal(jax.random.key(1), (*shape, FEATURES))

        def total(x: jax.Array, w: jax.Array, f: str = name, y: Any = y) -> jax.Array:
            return jnp.mean(getattr(losses, f)(x, w, y))

        ours = jax.jit(jax.value_and_grad(total, (0, 1)))
        theirs = _of_pml(name, np.asarray(x), y, (shape[0], FEATURES))
        runs: dict[str, Callable] = {"ours": lambda f=ours, x=x, w=learned: f(x, w)}
        runs |= {"pml": theirs} if theirs else {}
        row = {"loss": name, "n": n, "classes": shape[0]}
        found.append(row | _compared(measure.paired(runs, repeats=25)))
    return found


def _compared(seconds: dict[str, float]) -> dict[str, Any]:
    ours, theirs = seconds["ours"], seconds.get("pml")
    return {
        "ours_ms": 1e3 * ours,
        "pml_ms": 1e3 * theirs if theirs else "-",
        "ratio": ours / theirs if theirs else "-",
    }


CUBIC = ("nt_xent", "smooth_ap_loss", "lifted_structure_loss")  # theirs: minutes at 512
PML = {  # theirs: the loss, and the miner before it
    "nt_xent": ("NTXentLoss", None),
    "supcon_loss": ("SupConLoss", None),
    "multi_similarity_loss": ("MultiSimilarityLoss", None),
    "circle_loss": ("CircleLoss", None),
    "smooth_ap_loss": ("SmoothAPLoss", None),
    "batch_contrastive_loss": ("ContrastiveLoss", None),
    "margin_loss": ("MarginLoss", None),
    "batch_hard_triplet_loss": ("TripletMarginLoss", "hard"),
    "batch_semihard_triplet_loss": ("TripletMarginLoss", "semihard"),
    "batch_all_triplet_loss": ("TripletMarginLoss", None),
    "lifted_structure_loss": ("LiftedStructureLoss", None),
    "angular_loss": ("AngularLoss", None),
    "nca_loss": ("NCALoss", None),
    "n_pair_loss": ("NPairsLoss", None),
    "vicreg_loss": ("VICRegLoss", None),
    "lp": ("LpDistance", None),
}
PROXIES = {
    "normalized_softmax_loss": ("NormalizedSoftmaxLoss", None),
    "arcface_loss": ("ArcFaceLoss", None),
    "cosface_loss": ("CosFaceLoss", None),
    "proxy_nca_loss": ("ProxyNCALoss", None),
    "proxy_anchor_loss": ("ProxyAnchorLoss", None),
    "soft_triple_loss": ("SoftTripleLoss", None),
}


def _ours(name: str, y: jax.Array) -> Callable[[jax.Array], jax.Array]:
    if name == "lp":
        return lambda x: mining.lp(x, x + 0.1, p=1.0)
    loss = getattr(losses, name)
    if name == "vicreg_loss":
        return lambda x: loss(x, x + 0.1)
    if name == "n_pair_loss":
        return lambda x: loss(*jnp.split(x, 2))
    return lambda x: loss(x, y)


def _of_pml(
    name: str, x: np.ndarray, y: jax.Array, sizes: tuple[int, ...] = ()
) -> Callable[[], Any] | None:
    try:
        import torch
        from pytorch_metric_learning import distances, miners
        from pytorch_metric_learning import losses as of_pml
    except ModuleNotFoundError:
        return None
    labels = torch.from_numpy(np.sort(y).astype(np.int64))  # SmoothAP wants them sorted
    rows = torch.from_numpy(np.array(x)).requires_grad_()
    loss_name, mined = (PML | PROXIES)[name]
    if name == "lp":
        loss = distances.LpDistance(p=1, normalize_embeddings=False)
    else:
        loss = getattr(of_pml, loss_name)(*sizes)
    semihard = miners.TripletMarginMiner(0.2, "semihard")
    miner = {"hard": miners.BatchHardMiner(), "semihard": semihard}.get(mined or "")

    def value() -> Any:
        if name == "lp":
            return loss(rows, rows + 0.1).mean()
        if name == "vicreg_loss":
            return loss(rows, ref_emb=rows + 0.1)
        if name == "n_pair_loss":
            return loss(rows, torch.arange(len(rows)) // 2)
        return loss(rows, labels, *([miner(rows, labels)] if miner else []))

    def step() -> None:
        value().backward()
        rows.grad = None

    return step


if __name__ == "__main__":
    main()

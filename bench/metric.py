"""In-batch and proxy losses: memory and time of dense forms and of PyTorch.

    python -m bench.metric [--small]

All figures are of value and gradient, on embeddings of norm 1 with 128 features. Memory
is the compiled program's temporaries. Times are interleaved in one process. The dense
forms are what one writes without jaxml: optax on the matrix of all similarities, and
the triplets of a batch as one array. pytorch-metric-learning runs if it is installed.
"""

import argparse
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bench import measure
from jaxml import losses, mining

FEATURES = 128
Loss = Callable[[jax.Array], jax.Array]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="an eighth of the sizes")
    divisor = 8 if parser.parse_args().small else 1
    measure.record("metric", [*large_batches(divisor)])
    measure.record("metric.products", [info_nce_products(8192 // divisor)])
    measure.record("metric.pml", [*against_pml(512 // divisor)])
    measure.record("metric.proxies", [*proxy_losses(512 // divisor, 1024 // divisor)])


def embeddings_and_labels(n: int, num_classes: int) -> tuple[jax.Array, jax.Array]:
    """Embeddings of norm 1, as many of each class."""
    x = jax.random.normal(jax.random.key(n), (n, FEATURES))
    return x / jnp.linalg.norm(x, axis=1, keepdims=True), jnp.arange(n) % num_classes


def value_and_grad_of_mean(loss: Loss) -> Callable[[jax.Array], Any]:
    return jax.jit(jax.value_and_grad(lambda x: jnp.mean(loss(x))))


def time_on(x: jax.Array, programs: dict[str, Any], **options: Any) -> dict[str, float]:
    """Median seconds of each program on x."""
    runs = {name: lambda f=f: f(x) for name, f in programs.items()}
    return measure.interleaved_medians(runs, **options)


def dense_info_nce(x: jax.Array) -> jax.Array:
    logits = x @ (x + 0.1).T / 0.1
    return _cross_entropy(logits, jnp.arange(len(x)))


def dense_clip(x: jax.Array) -> jax.Array:
    logits, labels = x @ (x + 0.1).T / 0.07, jnp.arange(len(x))
    return (_cross_entropy(logits, labels) + _cross_entropy(logits.T, labels)) / 2


def dense_triplets(labels: jax.Array) -> Loss:
    """batch_all_triplet_loss with all triplets as one array [n n n]."""

    def loss(x: jax.Array) -> jax.Array:
        squares = jnp.sum(jnp.square(x[:, None] - x[None]), -1)
        d = jnp.sqrt(jnp.where(squares == 0, 1, squares)) * (squares > 0)
        is_same = labels[:, None] == labels[None]
        is_positive = is_same & ~jnp.eye(len(labels), dtype=bool)
        is_triplet = is_positive[:, :, None] & ~is_same[:, None]
        hinges = jnp.maximum(d[:, :, None] - d[:, None] + 0.2, 0)
        total = jnp.sum(jnp.where(is_triplet, hinges, 0), (1, 2))
        return total / jnp.sum(is_triplet, (1, 2))

    return loss


def dense_nt_xent(labels: jax.Array) -> Loss:
    return lambda x: optax.losses.ntxent(x, labels)


def row_nll(similarities: jax.Array, index: jax.Array) -> jax.Array:
    return jax.nn.logsumexp(similarities / 0.1) - similarities[index] / 0.1


TWO_VIEWS = {
    "info_nce": losses.info_nce,
    "clip_loss": losses.clip_loss,
    "siglip_loss": functools.partial(losses.siglip_loss, scale=10.0, bias=-10.0),
    "in_batch": functools.partial(losses.in_batch, row_nll),
}
"""Losses of two sets of rows; all others take one, and labels."""


def large_batches(divisor: int) -> list[dict[str, Any]]:
    """At sizes where a dense array of all pairs or triplets fills the memory."""

    def row(
        name: str, n: int, num_classes: int, dense: Any = None, time_dense: bool = True
    ) -> dict[str, Any]:
        x, labels = embeddings_and_labels(n // divisor, max(2, num_classes // divisor))
        if name in TWO_VIEWS:
            forms = {"ours": lambda x: TWO_VIEWS[name](x, x + 0.1)}
        else:
            forms = {"ours": lambda x: getattr(losses, name)(x, labels)}
        if dense:
            forms["dense"] = dense if name in TWO_VIEWS else dense(labels)
        programs = {form: value_and_grad_of_mean(f) for form, f in forms.items()}
        mebibytes = {
            form: measure.temporaries(f, x) / 2**20 for form, f in programs.items()
        }
        if not time_dense:
            programs.pop("dense", None)  # too large to run
        seconds = time_on(x, programs, repeats=5, warmup=1)
        return {
            "loss": name,
            "n": len(x),
            "ours_MiB": mebibytes["ours"],
            "dense_MiB": mebibytes.get("dense", "-"),
            "ours_s": seconds["ours"],
            "dense_s": seconds.get("dense", "-"),
            "ratio": seconds["ours"] / seconds["dense"] if "dense" in seconds else "-",
        }

    return [
        row("info_nce", 8192, 8192, dense_info_nce),
        row("clip_loss", 8192, 8192, dense_clip),
        row("siglip_loss", 8192, 8192),
        row("in_batch", 8192, 8192, dense_info_nce),
        row("nt_xent", 512, 64, dense_nt_xent),
        row("nt_xent", 4096, 512, dense_nt_xent, time_dense=False),
        row("supcon_loss", 4096, 512),
        row("batch_all_triplet_loss", 512, 64, dense_triplets),
        row("batch_all_triplet_loss", 4096, 512),
        row("batch_hard_triplet_loss", 4096, 512),
        row("batch_semihard_triplet_loss", 4096, 512),
        row("batch_hard_triplet_loss", 8192, 512),
    ]


def info_nce_products(n: int) -> dict[str, Any]:
    """`info_nce` against the matrix products that any form of it needs.

    Its gradient takes three products of n² d operations: the similarities, and one for
    each of the two gradients. `products` runs only these, tile by tile. `ours` and
    `dense` are the mean loss; `weighted` is a weighted mean, which recomputes tiles.
    """
    x, _ = embeddings_and_labels(n, n)
    weights = jnp.arange(n) / n

    def three_products(x: jax.Array) -> Any:
        tiles, keys = x.reshape(-1, min(n, 256), FEATURES), x + 0.1
        keys_t = jax.lax.optimization_barrier(keys.T)

        def step(keys_t_grad: jax.Array, tile: jax.Array) -> tuple[Any, Any]:
            s = jax.lax.optimization_barrier(tile @ keys_t)
            return keys_t_grad + tile.T @ s, s @ keys

        return jax.lax.scan(step, jnp.zeros_like(keys_t), tiles)

    def info_nce(x: jax.Array) -> jax.Array:
        return losses.info_nce(x, x + 0.1)

    programs = {
        "products": jax.jit(three_products),
        "ours": value_and_grad_of_mean(info_nce),
        "weighted": value_and_grad_of_mean(lambda x: weights * info_nce(x)),
        "dense": value_and_grad_of_mean(dense_info_nce),
    }
    seconds = time_on(x, programs, repeats=7, warmup=1)
    dense = seconds.pop("dense")
    ratios = {f"{name}_of_dense": value / dense for name, value in seconds.items()}
    return {"n": n, "dense_s": dense} | ratios


def against_pml(n: int) -> list[dict[str, Any]]:
    """Losses that pytorch-metric-learning also has, with eight examples per class."""
    result = []
    for name in PML:
        x, labels = embeddings_and_labels(n // 4 if name in CUBIC else n, n // 8)
        ours = value_and_grad_of_mean(_our_loss(name, labels))
        runs: dict[str, Callable] = {"ours": lambda f=ours, x=x: f(x)}
        if pml := _pml_step(name, np.asarray(x), labels):
            runs["pml"] = pml
        seconds = measure.interleaved_medians(
            runs, repeats=25 if name not in CUBIC else 3
        )
        result.append({"loss": name, "n": len(x)} | _milliseconds(seconds))
    return result


def proxy_losses(n: int, num_classes: int) -> list[dict[str, Any]]:
    """Losses with one or ten learned vectors per class; gradients of both arguments."""
    result = []
    for name in PROXIES:
        has_centers = name == "soft_triple_loss"
        classes = num_classes // 8 if has_centers else num_classes
        x, labels = embeddings_and_labels(n, classes)
        shape = (classes, 10, FEATURES) if has_centers else (classes, FEATURES)
        proxies = jax.random.normal(jax.random.key(1), shape)

        def mean_loss(
            x: jax.Array, proxies: jax.Array, name: str = name, labels: Any = labels
        ) -> jax.Array:
            return jnp.mean(getattr(losses, name)(x, proxies, labels))

        ours = jax.jit(jax.value_and_grad(mean_loss, (0, 1)))
        runs: dict[str, Callable] = {"ours": lambda f=ours, x=x, w=proxies: f(x, w)}
        if pml := _pml_step(name, np.asarray(x), labels, (classes, FEATURES)):
            runs["pml"] = pml
        seconds = measure.interleaved_medians(runs, repeats=25)
        row = {"loss": name, "n": n, "classes": classes}
        result.append(row | _milliseconds(seconds))
    return result


def _milliseconds(seconds: dict[str, float]) -> dict[str, Any]:
    ours, pml = seconds["ours"], seconds.get("pml")
    return {
        "ours_ms": 1e3 * ours,
        "pml_ms": 1e3 * pml if pml else "-",
        "ratio": ours / pml if pml else "-",
    }


CUBIC = ("nt_xent", "smooth_ap_loss", "lifted_structure_loss")
"""pytorch-metric-learning takes minutes for these at n = 512."""

PML = {  # the class, and the miner that precedes it
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


def _cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)


def _our_loss(name: str, labels: jax.Array) -> Loss:
    if name == "lp":
        return lambda x: mining.lp(x, x + 0.1, p=1.0)
    loss = getattr(losses, name)
    if name == "vicreg_loss":
        return lambda x: loss(x, x + 0.1)
    if name == "n_pair_loss":
        return lambda x: loss(*jnp.split(x, 2))
    return lambda x: loss(x, labels)


def _pml_step(
    name: str, x: np.ndarray, labels: jax.Array, proxy_shape: tuple[int, ...] = ()
) -> Callable[[], Any] | None:
    """Value and gradient by pytorch-metric-learning, None if it is not installed."""
    try:
        import torch
        from pytorch_metric_learning import distances, miners
        from pytorch_metric_learning import losses as pml_losses
    except ModuleNotFoundError:
        return None
    sorted_labels = np.sort(labels).astype(np.int64)  # SmoothAPLoss requires the order
    y = torch.from_numpy(sorted_labels)
    embeddings = torch.from_numpy(np.array(x)).requires_grad_()
    class_name, miner_name = (PML | PROXIES)[name]
    if name == "lp":
        loss = distances.LpDistance(p=1, normalize_embeddings=False)
    else:
        loss = getattr(pml_losses, class_name)(*proxy_shape)
    semihard = miners.TripletMarginMiner(0.2, "semihard")
    miner = {"hard": miners.BatchHardMiner(), "semihard": semihard}.get(
        miner_name or ""
    )

    def value() -> Any:
        if name == "lp":
            return loss(embeddings, embeddings + 0.1).mean()
        if name == "vicreg_loss":
            return loss(embeddings, ref_emb=embeddings + 0.1)
        if name == "n_pair_loss":
            return loss(embeddings, torch.arange(len(embeddings)) // 2)
        return loss(embeddings, y, *([miner(embeddings, y)] if miner else []))

    def step() -> None:
        value().backward()
        embeddings.grad = None

    return step


if __name__ == "__main__":
    main()

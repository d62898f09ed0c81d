"""Segmentation losses beside their peers: time of value and gradient, bytes held.

An image has 1024 x 1024 pixels and 8 classes, and `bytes_per_pixel` is of all classes.
A ratio below 1 means that ours is faster. PyTorch, MONAI and optax run in the same
process, on the processor, in turn with ours. PyTorch's Lovász losses are the published
formula as a user writes it.
"""

import argparse
import importlib.util
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bench import measure
from jaxml import losses

SIDE, CLASSES = 1024, 8
GRADIENTS = 2**14, 2**20, 2**24


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="an eighth of the sides")
    small = parser.parse_args().small
    rng = np.random.default_rng(0)
    rows = _regions(rng, SIDE // 8 if small else SIDE)
    measure.record("segmentation", rows)
    errors = [_gradient_error(rng, n) for n in GRADIENTS[: 1 if small else None]]
    measure.record("segmentation.lovasz_gradient", errors)


def _regions(rng: np.random.Generator, side: int) -> list[dict[str, Any]]:
    """Each loss of one image, of `CLASSES` classes but for the hinge."""
    labels = rng.integers(0, CLASSES, (1, side, side)).astype(np.int32)
    z = rng.normal(size=(1, side, side, CLASSES)).astype(np.float32)
    t = np.eye(CLASSES, dtype=np.float32)[labels]
    yes, p = t[..., 0], np.asarray(jax.nn.softmax(z))
    hinge = (lambda z, t: losses.lovasz_hinge_loss(z, t)), z[..., 0], yes
    softmax = (lambda p, y: losses.lovasz_softmax_loss(p, y)), p, labels
    return [
        _row("lovasz_hinge_loss", *hinge, _published_hinge),
        _row("lovasz_softmax_loss", *softmax, _published_softmax),
        _row("dice_loss", losses.dice_loss, p, t, _monai("DiceLoss"), _optax_dice),
        _row("generalized_dice_loss", losses.generalized_dice_loss, p, t,
             _monai("GeneralizedDiceLoss")),
        _row("tversky_loss", losses.tversky_loss, p, t, _monai("TverskyLoss")),
        _row("focal_tversky_loss", losses.focal_tversky_loss, p, t),
        _row("jaccard_loss", losses.jaccard_loss, p, t,
             _monai("DiceLoss", jaccard=True)),
        _row("sensitivity_specificity_loss", losses.sensitivity_specificity_loss, p, t),
        _row("matthews_loss", losses.matthews_loss, p, t, _monai("MCCLoss")),
        _row("cldice_loss", lambda p, t: losses.cldice_loss(p, t, iterations=3),
             p[..., :1], t[..., :1], _monai("SoftclDiceLoss", iter_=3)),
        _row("boundary_loss", losses.boundary_loss, p, t),
    ]  # fmt: skip


def _row(
    name: str,
    loss: Callable,
    predicted: np.ndarray,
    true: np.ndarray,
    torchs: Callable | None = None,
    optaxs: Callable | None = None,
) -> dict[str, Any]:
    given = jnp.asarray(predicted), jnp.asarray(true)
    programs = {"ours": _gradient(loss)} | (
        {"optax": _gradient(optaxs)} if optaxs else {}
    )
    runs = {k: lambda f=f: f(*given) for k, f in programs.items()}
    runs |= _torch_gradient(torchs, predicted, true) if torchs else {}
    seconds = measure.paired(runs, repeats=9)
    row: dict[str, Any] = {"loss": name}
    for who in ("ours", "torch", "optax"):
        row[f"{who}_ms"] = 1e3 * seconds[who] if who in seconds else "-"
    for who in ("torch", "optax"):
        row[f"to_{who}"] = seconds["ours"] / seconds[who] if who in seconds else "-"
    held = measure.temporaries(programs["ours"], *given)
    return row | {"bytes_per_pixel": held / np.prod(true.shape[:3])}


def _gradient(loss: Callable) -> Callable:
    return jax.jit(jax.value_and_grad(lambda p, t: jnp.mean(loss(p, t))))


def _optax_dice(p: jax.Array, t: jax.Array) -> jax.Array:
    return optax.losses.dice_loss(jnp.log(p), t)  # it takes no probabilities under jit


def _torch_gradient(loss: Callable, predicted: np.ndarray, true: np.ndarray) -> dict:
    """The loss of PyTorch's arrays; channels first where there are channels."""
    if not importlib.util.find_spec("monai"):
        return {}
    import torch

    def tensor(x: np.ndarray) -> Any:
        x = np.moveaxis(x, -1, 1) if x.ndim == 4 else x
        return torch.from_numpy(np.ascontiguousarray(x).copy())

    p, t = tensor(predicted).requires_grad_(), tensor(true)

    def run() -> None:
        loss(p, t).backward()
        p.grad = None

    return {"torch": run}


def _monai(name: str, **options: Any) -> Callable:
    def loss(p: Any, t: Any) -> Any:
        import monai.losses

        return getattr(monai.losses, name)(**options)(p, t)

    return loss


def _published(errors: Any, inside: Any) -> Any:
    """One region: sorted errors times differences of the Jaccard loss."""
    import torch

    ranked, order = torch.sort(errors, descending=True)
    mine = inside[order]
    region = mine.sum()
    jaccard = 1 - (region - mine.cumsum(0)) / (region + (1 - mine).cumsum(0))
    steps = torch.cat([jaccard[:1], jaccard[1:] - jaccard[:-1]])
    return torch.dot(ranked, steps)


def _published_hinge(z: Any, t: Any) -> Any:
    z, t = z.flatten(), t.flatten()
    return _published((1 - z * (2 * t - 1)).relu(), t)


def _published_softmax(p: Any, labels: Any) -> Any:
    masks = ((labels == c).flatten().float() for c in range(p.shape[1]))
    each = [_published((t - q.flatten()).abs(), t) for q, t in zip(p[0], masks)]
    return sum(each) / len(each)


def _gradient_error(rng: np.random.Generator, pixels: int) -> dict[str, Any]:
    """How far gradients are, in L2, from the published formula's in float64."""
    z = rng.normal(size=pixels).astype(np.float32)
    t = (rng.random(pixels) < 0.3).astype(np.float32)
    sign = 2 * t - 1
    errors = (1 - z * sign).astype(float)
    order = np.argsort(-errors, kind="stable")
    mine = t[order].astype(float)
    jaccard = 1 - (mine.sum() - mine.cumsum()) / (mine.sum() + (1 - mine).cumsum())
    exact = np.empty(pixels)
    exact[order] = np.diff(jaccard, prepend=0.0)
    exact *= -sign * (errors > 0)

    def error(gradient: np.ndarray) -> float:
        return float(np.linalg.norm(gradient - exact) / np.linalg.norm(exact))

    hinge = jax.grad(lambda z: losses.lovasz_hinge_loss(z, t, axis=-1))
    row = {"pixels": pixels, "ours": error(np.asarray(hinge(z), float))}
    try:
        import torch
    except ModuleNotFoundError:
        return row | {"torch": "-"}
    logits = torch.from_numpy(z).requires_grad_()
    _published_hinge(logits, torch.from_numpy(t)).backward()
    return row | {"torch": error(logits.grad.numpy().astype(float))}


if __name__ == "__main__":
    main()

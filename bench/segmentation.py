"""Segmentation losses against their peers: time of value and gradient, and memory.

An image has 1024 x 1024 pixels and 8 classes; `bytes_per_pixel` covers all classes. A
ratio below 1 means that jaxml is faster. PyTorch, MONAI and optax run on the CPU in the
same process, interleaved with jaxml. PyTorch has no Lovász loss: the bench uses
the published formula. Distance maps are compared with SciPy's, on the CPU.
"""

import argparse
import importlib.util
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy import ndimage

from bench import measure
from jaxml import losses

SIDE, CLASSES, MAP_SIDE = 1024, 8, 512
GRADIENT_SIZES = 2**14, 2**20, 2**24


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="an eighth of the sides")
    small = parser.parse_args().small
    rng = np.random.default_rng(0)
    measure.record("segmentation", speed_and_memory(rng, SIDE // 8 if small else SIDE))
    sizes = GRADIENT_SIZES[: 1 if small else None]
    errors = [gradient_error(rng, num_pixels) for num_pixels in sizes]
    measure.record("segmentation.lovasz_gradient", errors)
    side = MAP_SIDE // 8 if small else MAP_SIDE
    measure.record("segmentation.distance_map", distance_maps(rng, side))


def speed_and_memory(rng: np.random.Generator, side: int) -> list[dict[str, Any]]:
    """One row per loss, of one image with all classes; the hinge takes one class."""
    labels = rng.integers(0, CLASSES, (1, side, side)).astype(np.int32)
    z = rng.normal(size=(1, side, side, CLASSES)).astype(np.float32)
    p, t = np.asarray(jax.nn.softmax(z)), np.eye(CLASSES, dtype=np.float32)[labels]
    return [
        compare("lovasz_hinge_loss", losses.lovasz_hinge_loss, z[..., 0], t[..., 0],
                published_hinge),
        compare("lovasz_softmax_loss", losses.lovasz_softmax_loss, p, labels,
                published_softmax),
        compare("dice_loss", losses.dice_loss, p, t, monai("DiceLoss"), optax_dice),
        compare("generalized_dice_loss", losses.generalized_dice_loss, p, t,
                monai("GeneralizedDiceLoss")),
        compare("tversky_loss", losses.tversky_loss, p, t, monai("TverskyLoss")),
        compare("focal_tversky_loss", losses.focal_tversky_loss, p, t),
        compare("jaccard_loss", losses.jaccard_loss, p, t,
                monai("DiceLoss", jaccard=True)),
        compare("sensitivity_specificity_loss", losses.sensitivity_specificity_loss,
                p, t),
        compare("matthews_loss", losses.matthews_loss, p, t, monai("MCCLoss")),
        compare("cldice_loss", cldice, p[..., :1], t[..., :1],
                monai("SoftclDiceLoss", iter_=3)),
        compare("boundary_loss", losses.boundary_loss, p, t),
    ]  # fmt: skip


def compare(
    name: str,
    loss: Callable,
    predicted: np.ndarray,
    true: np.ndarray,
    torch_loss: Callable | None = None,
    optax_loss: Callable | None = None,
) -> dict[str, Any]:
    arrays = jnp.asarray(predicted), jnp.asarray(true)
    gradient = value_and_gradient(loss)
    runs = {"ours": lambda: gradient(*arrays)}
    if optax_loss:
        optax_gradient = value_and_gradient(optax_loss)
        runs["optax"] = lambda: optax_gradient(*arrays)
    if torch_loss and importlib.util.find_spec("monai"):
        runs["torch"] = torch_gradient(torch_loss, predicted, true)
    seconds = measure.interleaved_medians(runs, repeats=9)
    row: dict[str, Any] = {"loss": name}
    for library in ("ours", "torch", "optax"):
        row[f"{library}_ms"] = 1e3 * seconds[library] if library in seconds else "-"
    for peer in ("torch", "optax"):
        row[f"to_{peer}"] = seconds["ours"] / seconds[peer] if peer in seconds else "-"
    temp_bytes = measure.temporaries(gradient, *arrays)
    return row | {"bytes_per_pixel": temp_bytes / np.prod(true.shape[:3])}


def value_and_gradient(loss: Callable) -> Callable:
    return jax.jit(jax.value_and_grad(lambda p, t: jnp.mean(loss(p, t))))


def cldice(p: jax.Array, t: jax.Array) -> jax.Array:
    return losses.cldice_loss(p, t, iterations=3)


def optax_dice(p: jax.Array, t: jax.Array) -> jax.Array:
    return optax.losses.dice_loss(jnp.log(p), t)  # under jit it takes logits only


def torch_gradient(
    loss: Callable, predicted: np.ndarray, true: np.ndarray
) -> Callable[[], None]:
    """A run of the loss and its gradient in PyTorch, with channels first."""
    import torch

    def tensor(x: np.ndarray) -> Any:
        x = np.moveaxis(x, -1, 1) if x.ndim == 4 else x
        return torch.from_numpy(np.ascontiguousarray(x).copy())

    p, t = tensor(predicted).requires_grad_(), tensor(true)

    def run() -> None:
        loss(p, t).backward()
        p.grad = None

    return run


def monai(name: str, **options: Any) -> Callable:
    def loss(p: Any, t: Any) -> Any:
        import monai.losses

        return getattr(monai.losses, name)(**options)(p, t)

    return loss


def published_lovasz(errors: Any, inside: Any) -> Any:
    """The sorted errors times the differences of the Jaccard loss, of one region."""
    import torch

    sorted_errors, order = torch.sort(errors, descending=True)
    t = inside[order]
    size = t.sum()
    jaccard = 1 - (size - t.cumsum(0)) / (size + (1 - t).cumsum(0))
    increments = torch.cat([jaccard[:1], jaccard[1:] - jaccard[:-1]])
    return torch.dot(sorted_errors, increments)


def published_hinge(z: Any, t: Any) -> Any:
    z, t = z.flatten(), t.flatten()
    return published_lovasz((1 - z * (2 * t - 1)).relu(), t)


def published_softmax(p: Any, labels: Any) -> Any:
    """The mean over the classes, of one image."""
    total = 0.0
    for c, p_c in enumerate(p[0]):
        t = (labels == c).flatten().float()
        total += published_lovasz((t - p_c.flatten()).abs(), t)
    return total / p.shape[1]


def distance_maps(rng: np.random.Generator, side: int) -> list[dict[str, Any]]:
    """Signed distances of one image, next to two distance transforms of SciPy."""
    y, x = np.mgrid[:side, :side]
    noise = ndimage.gaussian_filter(rng.normal(size=(side, side)), side / 20)
    regions = {
        "smooth regions": noise > 0.3 * noise.std(),
        "a small disk": (y - side / 2) ** 2 + (x - side / 3) ** 2 < (side / 8) ** 2,
        "one pixel in a corner": y + x == 0,
        "noise": rng.random((side, side)) < 0.5,
    }
    ours = jax.jit(losses.distance_map)
    rows = []
    for name, region in regions.items():
        image = jnp.asarray(region[..., None])
        runs = {
            "ours": lambda image=image: ours(image),
            "scipy": lambda region=region: signed_by_scipy(region),
        }
        seconds = measure.interleaved_medians(runs, repeats=9)
        error = np.abs(np.asarray(ours(image))[..., 0] - signed_by_scipy(region)).max()
        row = {"region": name, "pixels": side * side}
        row |= {f"{library}_ms": 1e3 * t for library, t in seconds.items()}
        ratio = seconds["ours"] / seconds["scipy"]
        rows.append(row | {"to_scipy": ratio, "largest error": float(error)})
    return rows


def signed_by_scipy(region: np.ndarray) -> np.ndarray:
    outside = ndimage.distance_transform_edt(~region)
    return outside - ndimage.distance_transform_edt(region)


def gradient_error(rng: np.random.Generator, num_pixels: int) -> dict[str, Any]:
    """The relative L2 error of float32 gradients of the hinge loss."""
    z = rng.normal(size=num_pixels).astype(np.float32)
    t = (rng.random(num_pixels) < 0.3).astype(np.float32)
    exact = exact_hinge_gradient(z, t)

    def relative_error(gradient: np.ndarray) -> float:
        return float(np.linalg.norm(gradient - exact) / np.linalg.norm(exact))

    gradient = jax.grad(lambda z: losses.lovasz_hinge_loss(z, t, axis=-1))(z)
    row = {"pixels": num_pixels, "ours": relative_error(np.asarray(gradient, float))}
    if not importlib.util.find_spec("torch"):
        return row | {"torch": "-"}
    import torch

    logits = torch.from_numpy(z).requires_grad_()
    published_hinge(logits, torch.from_numpy(t)).backward()
    return row | {"torch": relative_error(logits.grad.numpy().astype(float))}


def exact_hinge_gradient(z: np.ndarray, t: np.ndarray) -> np.ndarray:
    """The gradient by the published formula, in float64."""
    sign = 2 * t - 1
    errors = (1 - z * sign).astype(float)
    order = np.argsort(-errors, kind="stable")
    sorted_t = t[order].astype(float)
    size = sorted_t.sum()
    jaccard = 1 - (size - sorted_t.cumsum()) / (size + (1 - sorted_t).cumsum())
    increments = np.empty(len(z))
    increments[order] = np.diff(jaccard, prepend=0.0)
    return -sign * increments * (errors > 0)


if __name__ == "__main__":
    main()

"""The tables of equivalents in READMEs of losses and activations: both sides run."""

import importlib
import os
import pathlib
import re
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxml import activations, losses, mining

KEY = jax.random.key(0)


def rows(library: str, chapter: Any = losses) -> list[tuple[str, str]]:
    """(their expression, ours) of each row."""
    readme = pathlib.Path(chapter.__file__).with_name("README.md").read_text()
    section = readme.split(f"### From {library}\n")[1].split("\n#")[0]
    return re.findall(r"^\| `(.+)` \| `(.+)` \|$", section, flags=re.MULTILINE)


def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 6).astype(np.int32)
    floats = {
        "x": rng.normal(size=(6, 4)),
        "v": rng.normal(size=(6, 4)),
        "z": 2 * rng.normal(size=(6, 4)),
        "t": rng.dirichlet(np.ones(4), 6),
        "m": rng.integers(0, 2, (6, 4)),
        "s": rng.choice([-1, 1], (6, 4)),
        "p": rng.dirichlet(5 * np.ones(4), 6),
        "q": rng.dirichlet(5 * np.ones(4), 6),
        "w": rng.uniform(0.5, 2, 4),
        "r": rng.dirichlet(np.ones(3), (2, 4, 5)),
        "f": np.random.default_rng(1).normal(size=(2, 5, 4)),
    }
    u = rng.integers(0, 3, (2, 4, 5)).astype(np.int32)
    floats["g"] = np.eye(3)[u]
    floats["e"] = floats["x"] / np.linalg.norm(floats["x"], axis=1, keepdims=True)
    given = {name: value.astype(np.float32) for name, value in floats.items()}
    return {
        **given,
        "u": u,
        "b": rng.random((2, 4, 5)) < 0.6,
        "y": y,
        "ignored": np.where(np.arange(6) < 2, -100, y).astype(np.int32),
        "a": np.array([[1, 2], [2, 2]], np.int32),
        "c": np.arange(6, dtype=np.int32) % 3,
        "i": np.arange(6, dtype=np.int32),
        "j": np.array([3, 4, 5, 0, 1, 2], np.int32),
        "n": np.array([1, 2, 3, 4, 0, 0], np.int32),
    }


def blur(images: jax.Array) -> jax.Array:
    """A Gaussian filter with standard deviation 1, cut off at 3."""

    def weights(size: int) -> jax.Array:
        offsets = jnp.arange(float(size))[:, None] - jnp.arange(float(size))[None]
        density = jax.scipy.stats.norm.pdf(offsets)
        return jnp.where(jnp.abs(offsets) <= 3, density, 0.0)

    _, height, width, _ = images.shape
    return jnp.einsum("hi,wj,bijc->bhwc", weights(height), weights(width), images)


def check(
    peer: str, ours: str, module: object, *chapters: Any, **given: object
) -> None:
    plain = {"jax": jax, "jnp": jnp}
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        with jax.numpy_rank_promotion("allow"):
            theirs = eval(peer, {**plain, **vars(module), **given})
        inputs = {name: jnp.asarray(value) for name, value in arrays().items()}
        e, i, j, n = (inputs[name] for name in "eijn")
        inputs["l"] = losses.triplet_loss(e[i], e[j], e[n], margin=0.5)
        inputs["d"] = mining.euclidean(e, e)
        names = {n: v for c in chapters or (mining, losses) for n, v in vars(c).items()}
        got = eval(ours, {**plain, **names, **inputs, "key": KEY, "blur": blur})
    theirs = theirs.detach() if hasattr(theirs, "detach") else theirs
    np.testing.assert_allclose(got, np.asarray(theirs), rtol=2e-5, atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("peer", "ours"), rows("optax"))
def test_optax(peer: str, ours: str) -> None:
    import optax

    given = {name: jnp.asarray(value) for name, value in arrays().items()}
    check(peer, ours, optax.losses, **given)


@pytest.mark.parity
@pytest.mark.parametrize(("peer", "ours"), rows("PyTorch"))
def test_torch(peer: str, ours: str) -> None:
    torch = pytest.importorskip("torch")
    given = {name: torch.from_numpy(value) for name, value in arrays().items()}
    given |= {name: given[name].long() for name in ("y", "ignored")}
    check(peer, ours, torch.nn.functional, torch=torch, **given)


@pytest.mark.parity
@pytest.mark.parametrize(("peer", "ours"), rows("PyTorch", activations))
def test_torch_activations(
    peer: str, ours: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    given = {name: torch.from_numpy(value) for name, value in arrays().items()}
    with jax.enable_x64(False):
        noise = np.asarray(jax.random.gumbel(KEY, given["z"].shape))
    exponential = torch.from_numpy(np.exp(-noise))
    monkeypatch.setattr(torch.Tensor, "exponential_", lambda self: exponential)
    check(peer, ours, torch.nn.functional, activations, torch=torch, **given)


@pytest.mark.parity
@pytest.mark.parametrize(("peer", "ours"), rows("pytorch-metric-learning"))
def test_pytorch_metric_learning(peer: str, ours: str) -> None:
    torch = pytest.importorskip("torch")
    library = pytest.importorskip("pytorch_metric_learning")
    given = {name: torch.from_numpy(value) for name, value in arrays().items()}
    given |= {name: given[name].long() for name in "cijn"}
    names = {}
    for chapter in ("losses", "miners", "distances", "reducers", "regularizers"):
        names |= vars(importlib.import_module(f"{library.__name__}.{chapter}"))

    def with_proxies(loss: Any, proxies: Any) -> Any:
        flat = proxies.reshape(-1, proxies.shape[-1])
        if hasattr(loss, "proxies"):
            loss.proxies.data = flat
        else:  # [d classes]
            getattr(loss, "W" if hasattr(loss, "W") else "fc").data = flat.T
        return loss

    class PairLoss(names["GenericPairLoss"]):
        def __init__(self, formula: Any) -> None:
            distance = names["CosineSimilarity"]()
            super().__init__(mat_based_loss=True, distance=distance)
            self.formula = formula

        def _compute_loss(self, s: Any, positive: Any, negative: Any) -> dict:
            losses, indices = self.formula(s, positive, negative), torch.arange(len(s))
            of_elements = {"losses": losses, "indices": indices}
            return {"loss": {**of_elements, "reduction_type": "element"}}

    given |= {"torch": torch, "with_proxies": with_proxies, "pair_loss": PairLoss}
    names |= {name: masking(miner) for name, miner in names.items() if "Miner" in name}
    check(peer, ours, SimpleNamespace(**names), **given)


def masking(miner: Any) -> Any:
    """The miner, with its index tuples turned into a mask of pairs or triplets."""

    def build(**options: Any) -> Any:
        def mask(rows: Any, classes: Any) -> np.ndarray:
            chosen = miner(**options)(rows, classes)
            mask_array = np.zeros((len(rows),) * (3 if len(chosen) == 3 else 2), bool)
            for start in range(0, len(chosen), mask_array.ndim):
                mask_array[chosen[start : start + mask_array.ndim]] = True
            return mask_array

        return mask

    return build


@pytest.mark.parametrize(("peer", "ours"), rows("SciPy"))
def test_scipy(peer: str, ours: str) -> None:
    region = np.random.default_rng(0).random((20, 30)) < 0.9
    names = {**vars(ndimage), "m": region}
    ours_names = {"jnp": jnp, "m": jnp.asarray(region), **vars(losses)}
    with jax.numpy_dtype_promotion("standard"):
        np.testing.assert_allclose(eval(ours, ours_names), eval(peer, names), rtol=1e-6)


@pytest.mark.parity
@pytest.mark.parametrize(("peer", "ours"), rows("keras"))
def test_keras(peer: str, ours: str) -> None:
    os.environ.setdefault("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    check(peer, ours, keras.losses, **arrays())


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")  # from its imports
@pytest.mark.parametrize(("peer", "ours"), rows("MONAI"))
def test_monai(peer: str, ours: str) -> None:
    torch = pytest.importorskip("torch")
    monai = pytest.importorskip("monai.losses")
    regions = {name: arrays()[name] for name in "rg"}
    given = {name: np.moveaxis(value, -1, 1) for name, value in regions.items()}
    given |= {name: arrays()[name][:, None] for name in "ub"}
    check(peer, ours, monai, **{n: torch.from_numpy(v) for n, v in given.items()})

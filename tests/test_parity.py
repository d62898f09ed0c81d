"""README's tables of other libraries' losses, of which both sides are run."""

import os
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxml import losses

README = (pathlib.Path(__file__).parent.parent / "README.md").read_text()


def rows(library: str) -> list[tuple[str, str]]:
    section = README.split(f"### From {library}\n")[1].split("\n#")[0]
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
    }
    k = rng.integers(0, 3, (2, 4, 5)).astype(np.int32)
    floats["g"] = np.eye(3)[k]
    given = {name: value.astype(np.float32) for name, value in floats.items()}
    return {
        **given,
        "k": k,
        "b": rng.random((2, 4, 5)) < 0.6,
        "y": y,
        "ignored": np.where(np.arange(6) < 2, -100, y).astype(np.int32),
    }


def check(peer: str, ours: str, module: object, **given: object) -> None:
    plain = {"jax": jax, "jnp": jnp}
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        with jax.numpy_rank_promotion("allow"):
            theirs = eval(peer, {**plain, **vars(module), **given})
        own = {name: jnp.asarray(value) for name, value in arrays().items()}
        got = eval(ours, {**plain, **vars(losses), **own})
    np.testing.assert_allclose(got, np.asarray(theirs), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(("peer", "ours"), rows("optax"))
def test_optax(peer: str, ours: str) -> None:
    import optax

    given = {name: jnp.asarray(value) for name, value in arrays().items()}
    check(peer, ours, optax.losses, **given)


@pytest.mark.parametrize(("peer", "ours"), rows("PyTorch"))
def test_torch(peer: str, ours: str) -> None:
    torch = pytest.importorskip("torch")
    given = {name: torch.from_numpy(value) for name, value in arrays().items()}
    given |= {name: given[name].long() for name in ("y", "ignored")}
    check(peer, ours, torch.nn.functional, torch=torch, **given)


@pytest.mark.parametrize(("peer", "ours"), rows("keras"))
def test_keras(peer: str, ours: str) -> None:
    os.environ.setdefault("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    check(peer, ours, keras.losses, **arrays())


@pytest.mark.filterwarnings("ignore")  # of what it imports
@pytest.mark.parametrize(("peer", "ours"), rows("MONAI"))
def test_monai(peer: str, ours: str) -> None:
    torch = pytest.importorskip("torch")
    monai = pytest.importorskip("monai.losses")
    regions = {name: arrays()[name] for name in "rg"}
    given = {name: np.moveaxis(value, -1, 1) for name, value in regions.items()}
    given |= {name: arrays()[name][:, None] for name in "kb"}
    check(peer, ours, monai, **{n: torch.from_numpy(v) for n, v in given.items()})

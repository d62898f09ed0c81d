"""README's tables of other libraries' optimizers and schedules: both sides are run.

An optimizer descends a function with many minima for 50 steps, at a rate that is
constant first and falls then, so that it shows where a library keeps the rate.
"""

import os
import pathlib
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxml import optimizers, schedules

README = (pathlib.Path(__file__).parent.parent / "README.md").read_text()
START = np.array([-2.0, -0.7, -0.1, 0.4, 1.1, 2.5])
STEPS, RATE = 50, 0.03
OURS = {**vars(schedules), **vars(optimizers), "optax": optax, "jnp": jnp}


def rows(subject: str, library: str) -> list[tuple[str, str]]:
    section = README.split(f"### {subject} from {library}\n")[1].split("\n#")[0]
    return re.findall(r"^\| `(.+)` \| `(.+)` \|$", section, flags=re.MULTILINE)


def slope(x: Any) -> Any:
    """Of x²/2 + cos(5x)."""
    x = np.asarray(x)
    return x - 5 * np.sin(5 * x)


def rate(step: Any) -> Any:
    return RATE * 0.8 ** jnp.maximum(step - STEPS // 2, 0)


def descend(optimizer: Any) -> np.ndarray:
    x = jnp.asarray(START)
    state, path = optimizer.init(x), []
    for _ in range(STEPS):
        update, state = optimizer.update(jnp.asarray(slope(x)), state, x)
        x = x + update
        path.append(x)
    return np.stack(path)


def compare(ours: str, theirs: Callable[[], np.ndarray], rtol: float = 1e-9) -> None:
    with jax.numpy_dtype_promotion("standard"), jax.disable_jit():
        got = descend(eval(ours, {**OURS, "r": rate}))
        np.testing.assert_allclose(got, theirs(), rtol=rtol, atol=rtol)


@pytest.mark.parametrize(("peer", "ours"), rows("Optimizers", "optax"))
def test_optax(peer: str, ours: str) -> None:
    compare(ours, lambda: descend(eval(peer, {**vars(optax), "r": rate})))


@pytest.mark.parametrize(("peer", "ours"), rows("Optimizers", "PyTorch"))
def test_torch(peer: str, ours: str) -> None:
    torch = pytest.importorskip("torch")

    def theirs() -> np.ndarray:
        x = torch.tensor(START, requires_grad=True)
        optimizer = eval(peer, {**vars(torch.optim), "x": [x], "r": RATE})
        path = []
        for step in range(STEPS):
            optimizer.param_groups[0]["lr"] = float(rate(step))
            x.grad = torch.from_numpy(slope(x.detach()))
            optimizer.step()
            path.append(x.detach().numpy().copy())
        return np.stack(path)

    torch.set_default_dtype(torch.float64)  # of what NAdam keeps
    try:
        compare(ours, theirs)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(("peer", "ours"), rows("Optimizers", "keras"))
def test_keras(peer: str, ours: str) -> None:
    os.environ.setdefault("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")

    def theirs() -> np.ndarray:
        x = keras.Variable(START, dtype="float64")
        optimizer = eval(peer, {**vars(keras.optimizers), "r": RATE})
        path = []
        for step in range(STEPS):
            optimizer.learning_rate = float(rate(step))
            optimizer.apply([jnp.asarray(slope(x.value))], [x])
            path.append(np.asarray(x))
        return np.stack(path)

    compare(ours, theirs, rtol=1e-5)  # keras holds the rate in float32


@pytest.mark.parametrize(("peer", "ours"), rows("Schedules", "optax"))
def test_schedules_of_optax(peer: str, ours: str) -> None:
    with jax.numpy_dtype_promotion("standard"):
        theirs, own = eval(peer, {**vars(optax)}), eval(ours, OURS)
        steps = range(30)
        expected = [float(theirs(step)) for step in steps]
        got = [float(own(step)) for step in steps]
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-7)

"""The tables of equivalents in the READMEs of optimizers and schedules.

Both sides of each row run. An optimizer minimizes a function with many minima for 50
steps. The learning rate is constant at first and then falls, which shows whether a
library applies it inside or outside the momentum.
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

START = np.array([-2.0, -0.7, -0.1, 0.4, 1.1, 2.5])
STEPS, RATE = 50, 0.03
STEPS_OF_SCHEDULE = 30
OURS = {**vars(schedules), **vars(optimizers), "optax": optax, "jnp": jnp}


def rows(chapter: Any, library: str) -> list[tuple[str, str]]:
    """(their expression, ours) of each row."""
    readme = pathlib.Path(chapter.__file__).with_name("README.md").read_text()
    section = readme.split(f"### From {library}\n")[1].split("\n#")[0]
    return re.findall(r"^\| `(.+)` \| `(.+)` \|$", section, flags=re.MULTILINE)


def start(ours: str) -> np.ndarray:
    """A matrix, for the optimizers of matrices."""
    return START.reshape(2, 3) if re.search("muon|soap", ours) else START


def gradient(x: Any) -> Any:
    """The gradient of x²/2 + cos(5x)."""
    x = np.asarray(x)
    return x - 5 * np.sin(5 * x)


def rate(step: Any) -> Any:
    return RATE * 0.8 ** jnp.maximum(step - STEPS // 2, 0)


def descend(optimizer: Any, start: np.ndarray = START) -> np.ndarray:
    x = jnp.asarray(start)
    state, path = optimizer.init(x), []
    for _ in range(STEPS):
        update, state = optimizer.update(jnp.asarray(gradient(x)), state, x)
        x = x + update
        path.append(x)
    return np.stack(path)


def compare(ours: str, theirs: Callable[[], np.ndarray], rtol: float = 1e-9) -> None:
    with jax.numpy_dtype_promotion("standard"), jax.disable_jit():
        got = descend(eval(ours, {**OURS, "r": rate}), start(ours))
        np.testing.assert_allclose(got, theirs(), rtol=rtol, atol=rtol)


@pytest.mark.slow
@pytest.mark.parametrize(("peer", "ours"), rows(optimizers, "optax"))
def test_optax(peer: str, ours: str) -> None:
    theirs = eval(peer, {**vars(optax), "r": rate})
    compare(ours, lambda: descend(theirs, start(ours)))


@pytest.mark.parity
@pytest.mark.parametrize(("peer", "ours"), rows(optimizers, "PyTorch"))
def test_torch(peer: str, ours: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda x: x)  # of Muon's iteration

    def theirs() -> np.ndarray:
        x = torch.tensor(start(ours), requires_grad=True)
        optimizer = eval(peer, {**vars(torch.optim), "x": [x], "r": RATE})
        path = []
        for step in range(STEPS):
            optimizer.param_groups[0]["lr"] = float(rate(step))
            x.grad = torch.from_numpy(gradient(x.detach()))
            optimizer.step()
            path.append(x.detach().numpy().copy())
        return np.stack(path)

    torch.set_default_dtype(torch.float64)  # of what NAdam keeps
    try:
        compare(ours, theirs)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parity
@pytest.mark.parametrize(("peer", "ours"), rows(optimizers, "keras"))
def test_keras(peer: str, ours: str) -> None:
    os.environ.setdefault("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")

    def theirs() -> np.ndarray:
        x = keras.Variable(START, dtype="float64")
        optimizer = eval(peer, {**vars(keras.optimizers), "r": RATE})
        path = []
        for step in range(STEPS):
            optimizer.learning_rate = float(rate(step))
            optimizer.apply([jnp.asarray(gradient(x.value))], [x])
            path.append(np.asarray(x))
        return np.stack(path)

    compare(ours, theirs, rtol=1e-5)  # keras holds the rate in float32


def compare_schedules(ours: str, expected: list[float]) -> None:
    with jax.numpy_dtype_promotion("standard"):
        schedule = eval(ours, OURS)
        got = [float(schedule(step)) for step in range(STEPS_OF_SCHEDULE)]
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize(("peer", "ours"), rows(schedules, "optax"))
def test_schedules_of_optax(peer: str, ours: str) -> None:
    with jax.numpy_dtype_promotion("standard"):
        theirs = eval(peer, {**vars(optax)})
        expected = [float(theirs(step)) for step in range(STEPS_OF_SCHEDULE)]
    compare_schedules(ours, expected)


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")  # the order of its step functions
@pytest.mark.parametrize(("peer", "ours"), rows(schedules, "PyTorch"))
def test_schedules_of_torch(peer: str, ours: str) -> None:
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler = eval(peer, {**vars(torch.optim.lr_scheduler), "o": optimizer})
    expected = []
    for _ in range(STEPS_OF_SCHEDULE):
        expected.append(optimizer.param_groups[0]["lr"])
        scheduler.step()
    compare_schedules(ours, expected)


@pytest.mark.parity
@pytest.mark.parametrize(("peer", "ours"), rows(schedules, "keras"))
def test_schedules_of_keras(peer: str, ours: str) -> None:
    os.environ.setdefault("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    theirs = eval(peer, {**vars(keras.optimizers.schedules)})
    with jax.numpy_dtype_promotion("standard"):
        expected = [float(theirs(step)) for step in range(STEPS_OF_SCHEDULE)]
    compare_schedules(ours, expected)

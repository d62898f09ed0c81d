"""Activations, one number at a time, from their definitions."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from scipy import special

KEY = 7


def elementwise(one: Callable[..., float]) -> Callable[..., np.ndarray]:
    """The truth of a whole array from the truth of one number."""

    def truth(x: np.ndarray, **numbers: float) -> np.ndarray:
        return np.array([one(v, **numbers) for v in x.ravel()]).reshape(x.shape)

    return truth


def along(axis: int, one: Callable[..., Any], x: np.ndarray) -> np.ndarray:
    """The truth of a whole array from the truth of one vector."""
    return np.apply_along_axis(one, axis, x)


def elu(x: float, alpha: float = 1.0) -> float:
    return x if x > 0 else alpha * np.expm1(x)


def celu(x: float, alpha: float = 1.0) -> float:
    return x if x > 0 else alpha * np.expm1(x / alpha)


def selu(x: float) -> float:
    return 1.0507009873554804934 * elu(x, 1.6732632423543772848)


def soft_shrink(x: float, threshold: float = 0.5) -> float:
    return np.sign(x) * max(0.0, abs(x) - threshold)


def gelu(x: float) -> float:
    return x * special.ndtr(x)


def gelu_tanh(x: float) -> float:
    return x * special.expit(2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))


def swish(x: float, beta: float = 1.0) -> float:
    return x * special.expit(beta * x)


def softplus(x: float, beta: float = 1.0) -> float:
    return np.logaddexp(0, beta * x) / beta


def squareplus(x: float) -> float:
    return (x + np.sqrt(x * x + 4)) / 2 if x > 0 else 2 / (np.sqrt(x * x + 4) - x)


def gated(gate: Callable[[float], float]) -> Callable[..., np.ndarray]:
    def truth(x: np.ndarray, axis: int = -1) -> np.ndarray:
        a, b = np.split(x, 2, axis)
        return a * elementwise(gate)(b)

    return truth


def kept_softmax(x: np.ndarray, where: np.ndarray) -> np.ndarray:
    out = np.zeros_like(x)
    if where.any():
        out[where] = np.exp(x[where] - max(x[where])) / sum(
            np.exp(x[where] - max(x[where]))
        )
    return out


def of_kept(one: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """The truth along an axis from that of one vector with its mask."""

    def truth(x: np.ndarray, axis: int = -1, where: Any = None) -> np.ndarray:
        rows = np.moveaxis(x, axis, -1)
        kept = (
            np.ones_like(rows, bool) if where is None else np.moveaxis(where, axis, -1)
        )
        out = [
            one(x, w)
            for x, w in zip(
                rows.reshape(-1, rows.shape[-1]), kept.reshape(-1, rows.shape[-1])
            )
        ]
        return np.moveaxis(np.array(out).reshape(rows.shape), -1, axis)

    return truth


def kept_sparsemax(x: np.ndarray, where: np.ndarray) -> np.ndarray:
    """By trying every size of the support."""
    out = np.zeros_like(x)
    for size in range(1, where.sum() + 1):
        top = np.sort(x[where])[::-1][:size]
        threshold = (top.sum() - 1) / size
        if top[-1] > threshold:
            out[where] = np.maximum(x[where] - threshold, 0)
    return out


def l2_normalize(x: np.ndarray, axis: int = -1, eps: float = 1e-12) -> np.ndarray:
    return along(axis, lambda v: v / np.sqrt(max(sum(v * v), eps)), x)


def maxout(x: np.ndarray, pieces: int) -> np.ndarray:
    groups = range(0, x.shape[-1], pieces)
    return np.stack([x[..., i : i + pieces].max(-1) for i in groups], -1)


def prelu(x: np.ndarray, slope: np.ndarray, axis: int = -1) -> np.ndarray:
    out = np.moveaxis(x.copy(), axis, -1)
    for i, channel in np.ndenumerate(out):
        a = slope if slope.ndim == 0 else slope[i[-1]]
        out[i] = channel if channel > 0 else a * channel
    return np.moveaxis(out, -1, axis)


def snake(x: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return x + np.sin(alpha * x) ** 2 / alpha


def draws(shape: tuple[int, ...]) -> np.ndarray:
    return np.asarray(jax.random.uniform(jax.random.key(KEY), shape, "float32"), float)


def rrelu(x: np.ndarray, lower: float = 1 / 8, upper: float = 1 / 3) -> np.ndarray:
    return np.where(x > 0, x, (lower + (upper - lower) * draws(x.shape)) * x)


def stochastic_gelu(x: np.ndarray) -> np.ndarray:
    return np.where(draws(x.shape) < special.ndtr(x), x, 0)

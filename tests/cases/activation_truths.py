"""Truths of activations along an axis, and of stochastic ones, in loops of NumPy.

The truths of elementwise activations are `bench.truths.activations.TRUTHS`.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from scipy import special

KEY = 7


def gated_linear_unit(gate: Callable[[np.ndarray], Any]) -> Callable[..., np.ndarray]:
    def truth(x: np.ndarray, axis: int = -1) -> np.ndarray:
        a, b = np.split(x, 2, axis)
        return a * gate(b)

    return truth


def clipped_swiglu(x: np.ndarray, limit: float = np.inf) -> np.ndarray:
    a, b = np.split(x, 2, -1)
    a, b = np.clip(a, -limit, limit), np.minimum(b, limit)
    return a * b * special.expit(b)


def along_axis(
    vector_truth: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> Callable[..., np.ndarray]:
    """The truth of an array from the truth of one vector and its mask."""

    def truth(
        x: np.ndarray, axis: int = -1, where: np.ndarray | None = None
    ) -> np.ndarray:
        mask = np.ones_like(x, bool) if where is None else where
        x, mask = np.moveaxis(x, axis, -1), np.moveaxis(mask, axis, -1)
        result = np.empty_like(x)
        for i in np.ndindex(x.shape[:-1]):
            result[i] = vector_truth(x[i], mask[i])
        return np.moveaxis(result, -1, axis)

    return truth


def softmax(x: np.ndarray, mask: np.ndarray) -> np.ndarray:
    p = np.zeros_like(x)
    if mask.any():
        p[mask] = special.softmax(x[mask])
    return p


def log_softmax(x: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return special.log_softmax(np.where(mask, x, -np.inf))


def sparsemax(x: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """By trying every size of the support."""
    p = np.zeros_like(x)
    for size in range(1, mask.sum() + 1):
        support = np.sort(x[mask])[::-1][:size]
        threshold = (support.sum() - 1) / size
        if support[-1] > threshold:
            p[mask] = np.maximum(x[mask] - threshold, 0)
    return p


def l2_normalize(x: np.ndarray, axis: int = -1, eps: float = 1e-12) -> np.ndarray:
    return np.apply_along_axis(lambda v: v / np.sqrt(max(sum(v * v), eps)), axis, x)


def maxout(x: np.ndarray, pieces: int) -> np.ndarray:
    groups = range(0, x.shape[-1], pieces)
    return np.stack([x[..., i : i + pieces].max(-1) for i in groups], -1)


def uniform(shape: tuple[int, ...]) -> np.ndarray:
    return np.asarray(jax.random.uniform(jax.random.key(KEY), shape, "float32"), float)


def rrelu(x: np.ndarray, lower: float = 1 / 8, upper: float = 1 / 3) -> np.ndarray:
    return np.where(x > 0, x, (lower + (upper - lower) * uniform(x.shape)) * x)


def stochastic_gelu(x: np.ndarray) -> np.ndarray:
    return np.where(uniform(x.shape) < special.ndtr(x), x, 0)

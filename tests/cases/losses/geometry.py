"""Explicit pairs and triplets."""

import itertools

import numpy as np

from cases import Case, Extreme
from jaxml import losses


def triplet_loss(a, p, n, margin=1.0):
    result = np.empty(a.shape[:-1])
    for i in itertools.product(*map(range, result.shape)):
        near = np.sqrt(sum((x - y) ** 2 for x, y in zip(a[i], p[i])))
        far = np.sqrt(sum((x - y) ** 2 for x, y in zip(a[i], n[i])))
        result[i] = max(0.0, near - far + margin)
    return result


CASES = [
    Case(
        losses.triplet_loss,
        lambda rng: tuple(rng.normal(size=(3, 6, 4))),
        triplet_loss,
        numbers={"margin": (0.0, 0.2, 3.0)},
        ulps=16,
        extremes=(
            Extreme((np.zeros((2, 3)), np.zeros((2, 3)), np.zeros((2, 3))), [1.0, 1.0]),
            Extreme((np.ones((1, 3)), np.ones((1, 3)), 1e30 * np.ones((1, 3))), [0.0]),
            Extreme(
                (np.zeros((1, 4)), np.full((1, 4), 1e30), np.zeros((1, 4))), [2e30]
            ),
        ),
    ),
]

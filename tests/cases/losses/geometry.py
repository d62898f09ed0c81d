<<<<<<< HEAD
"""Explicit pairs and triplets."""

import itertools
=======
"""Segmentation."""
>>>>>>> metric

import numpy as np

from cases import Case, Extreme
from jaxml import losses


<<<<<<< HEAD
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
=======
def dice_loss(p, t, smoothing=0.0, axis=(-3, -2), where=None):
    where = np.ones(p.shape[:-1], bool) if where is None else where
    p, t = np.where(where[..., None], p, 0), np.where(where[..., None], t, 0)
    common, sizes = (p * t).sum(axis), (p + t).sum(axis)
    both = sizes + smoothing
    return np.where(both == 0, 0.0, 1 - (2 * common + smoothing) / both)


CASES = [
    *(
        Case(
            losses.dice_loss,
            lambda rng: (rng.random((2, 4, 5, 3)), rng.random((2, 4, 5, 3)).round()),
            dice_loss,
            numbers={"smoothing": (0.0, 1.0)},
            options={"axis": axis},
            mask=lambda rng: rng.random((2, 4, 5)) < 0.5,
            ulps=16,
            label=f"axis={axis}",
            extremes=(
                Extreme((np.zeros((2, 2, 2, 1)),) * 2, 0.0),
                Extreme((np.ones((2, 2, 2, 1)),) * 2, 0.0),
                Extreme((np.ones((2, 2, 2, 1)), np.zeros((2, 2, 2, 1))), 1.0),
                Extreme((np.full((2, 2, 2, 1), 1 - 1e-7), np.ones((2, 2, 2, 1))), None),
            ),
        )
        for axis in [(-3, -2), (0, 1, 2), 1]
>>>>>>> metric
    ),
]

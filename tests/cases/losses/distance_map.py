"""The table of distance maps. The truth compares each pixel with all others."""

import numpy as np

from cases import Case, Extreme
from jaxml import losses


def distance_map(targets, axis=(-3, -2), spacing=1.0):
    axes = [a % targets.ndim for a in axis]
    batch_axes = [a for a in range(targets.ndim) if a not in axes]
    regions = np.transpose(targets, (*batch_axes, *axes)) > 0.5
    result = np.zeros(regions.shape)
    for i in np.ndindex(regions.shape[: len(batch_axes)]):
        result[i] = signed_distance(regions[i], spacing)
    return np.transpose(result, np.argsort((*batch_axes, *axes)))


def signed_distance(region, spacing):
    """0 everywhere if there is no contour."""
    distances = np.zeros(region.shape)
    pixels = np.argwhere(np.ones(region.shape))
    for a in pixels:
        other_side = pixels[region.ravel() != region[*a]]
        if len(other_side):
            nearest = np.min(np.linalg.norm((other_side - a) * spacing, axis=1))
            distances[*a] = -nearest if region[*a] else nearest
    return distances


def call(targets, **keywords):
    return losses.distance_map(targets, **keywords)


ONE_PIXEL = np.zeros((1, 3, 4, 1))
ONE_PIXEL[0, 0, 0] = 1
CASES = [
    Case(
        losses.distance_map,
        lambda rng: (rng.random((2, 4, 7, 3)) ** 2,),
        distance_map,
        hyperparams={"spacing": (1.0, 0.3)},
        dtypes=(),
        not_differentiated=(0,),
        adapter=call,
        extremes=(
            Extreme((np.zeros((1, 3, 4, 2)),), 0.0),
            Extreme((np.ones((1, 3, 4, 2)),), 0.0),
            Extreme((ONE_PIXEL,), distance_map(ONE_PIXEL)),
            Extreme((1e30 * ONE_PIXEL - 1e29,), distance_map(ONE_PIXEL)),
        ),
    ),
    Case(
        losses.distance_map,
        lambda rng: (rng.random((2, 3, 4, 5, 2)) ** 3,),
        distance_map,
        static_args={"axis": (-4, -3, -2)},
        dtypes=(),
        not_differentiated=(0,),
        adapter=call,
        id_suffix="volumes",
    ),
]

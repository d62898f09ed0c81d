"""Losses: the truth is one example at a time, written from the definition."""

import itertools

import numpy as np

from cases import Case, Extreme
from jaxml import losses

INF, NAN = np.inf, np.nan


def rows(truth):
    """The truth of a batch from that of one example, whose event is the last axis."""

    def batch(first, second, where=None, **numbers):
        shape = first.shape[:-1]
        result = np.empty(shape)
        for i in itertools.product(*map(range, shape)):
            kept = np.ones(first.shape[-1], bool) if where is None else where[i]
            result[i] = truth(first[i], second[i], kept, **numbers)
        return result

    return batch


def elements(truth):
    """The truth of arrays from the truth of one element."""
    return lambda *arrays, **numbers: np.vectorize(truth, [float])(*arrays, **numbers)


def log_softmax(z, kept):
    """log q of the kept classes; the others do not exist."""
    top = max(z[kept])
    total = sum(np.exp(v - top) for v in z[kept])
    return {j: z[j] - top - np.log(total) for j in np.flatnonzero(kept)}


def logits_and_labels(rng):
    return 3 * rng.normal(size=(4, 2, 5)), rng.integers(0, 3, (4, 2))


def keeps_labels(rng):
    where = rng.random((4, 2, 5)) < 0.6
    where[..., :3] = True  # the labels that are sampled stay among the kept
    return where


def logits_and_targets(rng):
    return 3 * rng.normal(size=(4, 5)), rng.dirichlet(np.ones(5), 4)


def same_shape(rng):
    return rng.normal(size=(4, 3)), rng.normal(size=(4, 3))


def cross_entropy(z, label, kept, smoothing=0.0):
    log_q = log_softmax(z, kept)
    return sum(
        -((1 - smoothing) * (j == label) + smoothing / len(log_q)) * log_q[j]
        for j in log_q
    )


def soft_cross_entropy(z, p, kept):
    log_q = log_softmax(z, kept)
    return -sum(p[j] * log_q[j] for j in log_q if p[j] > 0)


def focal_loss(z, label, kept, gamma=2.0):
    log_p = log_softmax(z, kept)[label]
    return -((1 - np.exp(log_p)) ** gamma) * log_p


def binary_cross_entropy(x, t, pos_weight=1.0):
    log_p, log_not = -np.logaddexp(0, -x), -np.logaddexp(0, x)
    return -(pos_weight * t * log_p + (1 - t) * log_not)


def triplet_loss(a, p, n, margin=1.0):
    result = np.empty(a.shape[:-1])
    for i in itertools.product(*map(range, result.shape)):
        near = np.sqrt(sum((x - y) ** 2 for x, y in zip(a[i], p[i])))
        far = np.sqrt(sum((x - y) ** 2 for x, y in zip(a[i], n[i])))
        result[i] = max(0.0, near - far + margin)
    return result


def dice_loss(p, t, smoothing=0.0, axis=(-3, -2), where=None):
    where = np.ones(p.shape[:-1], bool) if where is None else where
    p, t = np.where(where[..., None], p, 0), np.where(where[..., None], t, 0)
    common, sizes = (p * t).sum(axis), (p + t).sum(axis)
    both = sizes + smoothing
    return np.where(both == 0, 0.0, 1 - (2 * common + smoothing) / both)


CASES = [
    Case(
        losses.mean,
        lambda rng: (rng.normal(size=(3, 4)) + 3,),
        lambda v, where=None: np.mean(v[where] if where is not None else v),
        mask=lambda rng: rng.random((3, 4)) < 0.5,
        extremes=(
            Extreme((np.full(3, 1e30),), 1e30),
            Extreme((np.full(3, NAN),), 0.0, {"where": np.zeros(3, bool)}),
            Extreme((np.ones(3),), 0.0, {"weights": np.zeros(3)}),
        ),
    ),
    Case(
        losses.cross_entropy,
        logits_and_labels,
        rows(cross_entropy),
        numbers={"smoothing": (0.0, 0.1, 1.0)},
        mask=keeps_labels,
        ulps=16,
        extremes=(
            Extreme((np.array([[69.0, 0.0]]), np.array([0])), [np.exp(-69.0)]),
            Extreme((np.array([[1e30, 0.0]]), np.array([1])), [1e30]),
            Extreme((np.array([[-1e30, 0.0]]), np.array([1])), [0.0]),
            Extreme((np.array([[INF, 0.0]]), np.array([0])), [0.0]),
            Extreme((np.array([[-INF, 2.0, 2.0]]), np.array([1])), [np.log(2)]),
            Extreme((np.array([[7.0]]), np.array([0])), [0.0]),
            Extreme((np.zeros((3, 4)), np.array([-100, 4, 1])), [NAN, NAN, np.log(4)]),
            Extreme(
                (np.full((1, 3), NAN), np.array([0])),
                [0.0],
                {"where": np.zeros((1, 3), bool)},
            ),
        ),
    ),
    Case(
        losses.soft_cross_entropy,
        logits_and_targets,
        rows(soft_cross_entropy),
        mask=lambda rng: rng.random((4, 5)) < 0.6,
        ulps=16,
        extremes=(
            Extreme(
                (np.array([[-INF, 1.0, 1.0]]), np.array([[0, 0.5, 0.5]])), np.log(2)
            ),
            Extreme((np.array([[69.0, 0.0]]), np.array([[1.0, 0.0]])), [np.exp(-69.0)]),
            Extreme((np.array([[1e30, 0.0]]), np.array([[0.5, 0.5]])), [5e29]),
            Extreme(
                (np.full((1, 3), NAN), np.full((1, 3), NAN)),
                [0.0],
                {"where": np.zeros((1, 3), bool)},
            ),
        ),
    ),
    Case(
        losses.binary_cross_entropy_with_logits,
        lambda rng: (3 * rng.normal(size=(3, 4)), rng.random((3, 4))),
        elements(binary_cross_entropy),
        numbers={"pos_weight": (0.0, 0.5, 3.0)},
        ulps=8,
        extremes=(
            Extreme((np.array([INF, -INF]), np.array([1.0, 0.0])), 0.0, finite=(0,)),
            Extreme((np.array([1e30, -1e30]), np.array([0.0, 1.0])), [1e30, 1e30]),
            Extreme((np.array([69.0]), np.array([1.0])), [np.exp(-69.0)]),
        ),
    ),
    Case(
        losses.focal_loss,
        logits_and_labels,
        rows(focal_loss),
        numbers={"gamma": (0.0, 0.5, 1.0, 5.0)},
        mask=keeps_labels,
        ulps=64,
        extremes=(
            *(
                Extreme((np.array([[z, 0.0, 0.0]]), np.array([0])), v, {"gamma": gamma})
                for gamma in (0.0, 0.5, 1.0, 2.0)
                for z, v in [
                    (200.0, [0.0]),
                    (1e30, [0.0]),
                    (-1e30, [1e30]),
                    (INF, [0.0]),
                ]
            ),
            Extreme((np.array([[7.0]]), np.array([0])), [0.0]),
            Extreme((np.zeros((2, 4)), np.array([-1, 4])), [NAN, NAN]),
        ),
    ),
    Case(
        losses.squared_error,
        same_shape,
        elements(lambda x, y: (x - y) ** 2),
        extremes=(Extreme((np.array([1e15, 0.0]), np.array([-1e15, 0.0])), [4e30, 0]),),
    ),
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
    ),
]

"""Classification losses, and the mean."""

import numpy as np

from cases import Case, Extreme
from cases.losses.truth import (
    INF,
    NAN,
    class_mask,
    log_softmax,
    logits_and_labels,
    of_unmasked_classes,
    per_example,
)
from jaxml import losses


def logits_and_distributions(rng):
    return 3 * rng.normal(size=(4, 5)), rng.dirichlet(np.ones(5), 4)


def mean(values, where=None):
    return np.mean(values if where is None else values[where])


def cross_entropy(z, label, mask=None, label_smoothing=0.0):
    log_p = log_softmax(z, mask)
    uniform = label_smoothing / len(log_p)
    targets = {j: (1 - label_smoothing) * (j == label) + uniform for j in log_p}
    return -sum(targets[j] * log_p[j] for j in log_p)


def soft_cross_entropy(z, p, mask=None):
    log_q = log_softmax(z, mask)
    return -sum(p[j] * log_q[j] for j in log_q if p[j] > 0)


def focal_loss(z, label, mask=None, gamma=2.0):
    log_p = log_softmax(z, mask)[label]
    return -((1 - np.exp(log_p)) ** gamma) * log_p


def poly_loss(z, label, mask=None, epsilon=1.0):
    log_p = log_softmax(z, mask)[label]
    return -log_p + epsilon * (1 - np.exp(log_p))


def generalized_cross_entropy(z, label, q=0.7):
    log_p = log_softmax(z)[label]
    return (1 - np.exp(q * log_p)) / q if q else -log_p


def sparsemax_loss(z, label):
    """Tries every size of the support of p = max(0, z - τ)."""
    for size in range(1, len(z) + 1):
        largest = np.sort(z)[::-1][:size]
        tau = (sum(largest) - 1) / size
        if largest[-1] > tau:
            p = np.maximum(z - tau, 0)
    return sum(p * (z - z[label])) + (1 - sum(p * p)) / 2


def smooth_labels(t, label_smoothing=0.1):
    return (1 - label_smoothing) * t + label_smoothing / 5


def example(logits, true):
    return np.array([logits]), np.array([true])


ALL_MASKED = {"where": np.zeros((1, 3), bool)}
OUT_OF_RANGE = np.zeros((2, 4)), np.array([-1, 4])

CASES = [
    Case(
        losses.mean,
        lambda rng: (rng.normal(size=(3, 4)) + 3,),
        mean,
        mask=lambda rng: rng.random((3, 4)) < 0.5,
        extremes=(
            Extreme((np.full(3, 1e30),), 1e30),
            Extreme((np.full(3, NAN),), 0.0, {"where": np.zeros(3, bool)}),
            Extreme((np.ones(3),), 0.0, {"weights": np.zeros(3)}),
            Extreme((np.array([1.0, INF]),), 1.0, {"weights": np.array([1.0, 0.0])}),
        ),
    ),
    Case(
        losses.cross_entropy,
        logits_and_labels,
        per_example(cross_entropy),
        hyperparams={"label_smoothing": (0.0, 0.1, 1.0)},
        mask=class_mask,
        ulps=16,
        extremes=(
            Extreme(example([69.0, 0.0], 0), np.exp(0 - 69.0)),
            Extreme(example([1e30, 0.0], 1), 1e30 - 0),
            Extreme(example([-1e30, 0.0], 1), 0.0),
            Extreme(example([INF, 0.0], 0), 0.0),
            Extreme(example([-INF, 2.0, 2.0], 1), np.log(2)),
            Extreme(example([INF, 0.0, 1.0], 1), INF),
            Extreme(example([-INF, 0.0, 1.0], 0), INF),
            Extreme(example([7.0], 0), 0.0),
            Extreme((np.zeros((3, 4)), np.array([-100, 4, 1])), [NAN, NAN, np.log(4)]),
            Extreme(example([NAN, NAN, NAN], 0), 0.0, ALL_MASKED),
        ),
    ),
    Case(
        losses.soft_cross_entropy,
        logits_and_distributions,
        per_example(soft_cross_entropy),
        mask=lambda rng: rng.random((4, 5)) < 0.6,
        ulps=16,
        extremes=(
            Extreme(example([-INF, 1.0, 1.0], [0.0, 0.5, 0.5]), np.log(2)),
            Extreme(example([69.0, 0.0], [1.0, 0.0]), np.exp(0 - 69.0)),
            Extreme(example([1e30, 0.0], [0.5, 0.5]), 0.5 * 0 + 0.5 * 1e30),
            Extreme(example([NAN, NAN, NAN], [NAN, NAN, NAN]), 0.0, ALL_MASKED),
        ),
    ),
    Case(
        losses.focal_loss,
        logits_and_labels,
        per_example(focal_loss),
        hyperparams={"gamma": (0.0, 0.5, 1.0, 5.0)},
        mask=class_mask,
        ulps=64,
        extremes=(
            *(
                Extreme(example([z, 0.0, 0.0], 0), value, {"gamma": gamma})
                for gamma in (0.0, 0.5, 1.0, 2.0)
                for z, value in [(200.0, 0.0), (1e30, 0.0), (-1e30, 1e30), (INF, 0.0)]
            ),
            Extreme(example([7.0], 0), 0.0),
            Extreme(OUT_OF_RANGE, [NAN, NAN]),
        ),
    ),
    Case(
        losses.poly_loss,
        logits_and_labels,
        per_example(poly_loss),
        hyperparams={"epsilon": (0.0, -1.0, 2.0)},
        mask=class_mask,
        ulps=32,
        extremes=(
            Extreme(example([1e30, 0.0], 0), 0.0),
            Extreme(example([-1e30, 0.0], 0), 1e30 + 1 * (1 - 0)),
            Extreme(example([69.0, 0.0], 0), np.exp(-69.0) + 1 * np.exp(-69.0)),
            Extreme(OUT_OF_RANGE, [NAN, NAN]),
        ),
    ),
    Case(
        losses.generalized_cross_entropy,
        logits_and_labels,
        per_example(of_unmasked_classes(generalized_cross_entropy)),
        hyperparams={"q": (0.0, 0.3, 1.0)},
        ulps=32,
        extremes=(
            Extreme(example([1e30, 0.0], 0), (1 - 1**0.7) / 0.7),
            Extreme(example([-1e30, 0.0], 0), (1 - 0**0.7) / 0.7),
            Extreme(example([69.0, 0.0], 0), 0.7 * np.exp(-69.0) / 0.7),
            Extreme(OUT_OF_RANGE, [NAN, NAN]),
        ),
        mask=class_mask,
    ),
    Case(
        losses.sparsemax_loss,
        logits_and_labels,
        per_example(of_unmasked_classes(sparsemax_loss)),
        ulps=32,
        extremes=(
            Extreme(example([1e30, 0.0], 0), 0.0),
            Extreme(example([-1e30, 0.0], 0), 1 * (0 + 1e30) + (1 - 1) / 2),
            Extreme(example([1 - 2e-9, 0.0], 0), (1 - (1 - 2e-9)) ** 2 / 4),
            Extreme(example([0.0, 0.0, 0.0, 0.0], 3), (1 - 4 * (1 / 4) ** 2) / 2),
            Extreme(OUT_OF_RANGE, [NAN, NAN]),
        ),
        mask=class_mask,
    ),
    Case(
        losses.smooth_labels,
        lambda rng: (rng.dirichlet(np.ones(5), 4),),
        smooth_labels,
        hyperparams={"label_smoothing": (0.0, 0.3, 1.0)},
        adapter=lambda t, label_smoothing=0.1: losses.smooth_labels(
            t, label_smoothing=label_smoothing
        ),
    ),
]

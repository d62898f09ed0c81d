"""Classification, and the mean."""

import numpy as np

from cases import Case, Extreme
from cases.losses.truth import (
    INF,
    NAN,
    keeps_labels,
    log_softmax,
    logits_and_labels,
    rows,
)
from jaxml import losses


def sparsemax_loss(z, label, kept=None):
    """By trying every size of the support."""
    p = np.zeros_like(z)
    for size in range(1, len(z) + 1):
        top = np.sort(z)[::-1][:size]
        threshold = (sum(top) - 1) / size
        if top[-1] > threshold:
            p = np.maximum(z - threshold, 0)
    return sum(p * (z - z[label])) + (1 - sum(p * p)) / 2


def logits_and_targets(rng):
    return 3 * rng.normal(size=(4, 5)), rng.dirichlet(np.ones(5), 4)


def cross_entropy(z, label, kept=None, label_smoothing=0.0):
    log_q = log_softmax(z, kept)
    return sum(
        -((1 - label_smoothing) * (j == label) + label_smoothing / len(log_q))
        * log_q[j]
        for j in log_q
    )


def soft_cross_entropy(z, p, kept=None):
    log_q = log_softmax(z, kept)
    return -sum(p[j] * log_q[j] for j in log_q if p[j] > 0)


def focal_loss(z, label, kept=None, gamma=2.0):
    log_p = log_softmax(z, kept)[label]
    return -((1 - np.exp(log_p)) ** gamma) * log_p


def poly_loss(z, label, kept=None, epsilon=1.0):
    log_p = log_softmax(z, kept)[label]
    return -log_p + epsilon * (1 - np.exp(log_p))


def generalized_cross_entropy(z, label, q=0.7):
    log_p = log_softmax(z)[label]
    return (1 - np.exp(q * log_p)) / q if q else -log_p


def linear_cross_entropy(
    x, w, labels, label_smoothing=0.0, z_loss=0.0, softcap=None, block=None
):
    result = np.empty(labels.shape)
    for i in np.ndindex(labels.shape):
        z = np.array([sum(x[i] * column) for column in w.T])
        z = z if softcap is None else softcap * np.tanh(z / softcap)
        lse = max(z) + np.log(sum(np.exp(z - max(z))))
        result[i] = (
            cross_entropy(z, labels[i], label_smoothing=label_smoothing)
            + z_loss * lse**2
        )
    return result


def head(rng):
    """Three rows and eleven classes: tiles of 4 leave a remainder on both axes."""
    x, w = rng.normal(size=(2, 3, 4)), rng.normal(size=(4, 11))
    return x, w, rng.integers(0, 11, (2, 3))


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
            Extreme((np.array([1.0, INF]),), 1.0, {"weights": np.array([1.0, 0.0])}),
        ),
    ),
    Case(
        losses.cross_entropy,
        logits_and_labels,
        rows(cross_entropy),
        hyperparams={"label_smoothing": (0.0, 0.1, 1.0)},
        mask=keeps_labels,
        ulps=16,
        extremes=(
            Extreme((np.array([[69.0, 0.0]]), np.array([0])), [np.exp(-69.0)]),
            Extreme((np.array([[1e30, 0.0]]), np.array([1])), [1e30]),
            Extreme((np.array([[-1e30, 0.0]]), np.array([1])), [0.0]),
            Extreme((np.array([[INF, 0.0]]), np.array([0])), [0.0]),
            Extreme((np.array([[-INF, 2.0, 2.0]]), np.array([1])), [np.log(2)]),
            Extreme((np.array([[INF, 0.0, 1.0]]), np.array([1])), [INF]),
            Extreme((np.array([[-INF, 0.0, 1.0]]), np.array([0])), [INF]),
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
        losses.focal_loss,
        logits_and_labels,
        rows(focal_loss),
        hyperparams={"gamma": (0.0, 0.5, 1.0, 5.0)},
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
        losses.poly_loss,
        logits_and_labels,
        rows(poly_loss),
        hyperparams={"epsilon": (0.0, -1.0, 2.0)},
        mask=keeps_labels,
        ulps=32,
        extremes=(
            Extreme((np.array([[1e30, 0.0]]), np.array([0])), [0.0]),
            Extreme((np.array([[-1e30, 0.0]]), np.array([0])), [1e30]),
            Extreme((np.array([[69.0, 0.0]]), np.array([0])), [2 * np.exp(-69.0)]),
            Extreme((np.zeros((2, 4)), np.array([-1, 4])), [NAN, NAN]),
        ),
    ),
    Case(
        losses.generalized_cross_entropy,
        logits_and_labels,
        rows(generalized_cross_entropy),
        hyperparams={"q": (0.0, 0.3, 1.0)},
        ulps=32,
        extremes=(
            Extreme((np.array([[1e30, 0.0]]), np.array([0])), [0.0]),
            Extreme((np.array([[-1e30, 0.0]]), np.array([0])), [1 / 0.7]),
            Extreme((np.array([[69.0, 0.0]]), np.array([0])), [np.exp(-69.0)]),
            Extreme((np.zeros((2, 4)), np.array([-1, 4])), [NAN, NAN]),
        ),
    ),
    Case(
        losses.sparsemax_loss,
        logits_and_labels,
        rows(sparsemax_loss),
        ulps=32,
        extremes=(
            Extreme((np.array([[1e30, 0.0]]), np.array([0])), [0.0]),
            Extreme((np.array([[-1e30, 0.0]]), np.array([0])), [1e30]),
            Extreme((np.array([[1 - 2e-9, 0.0]]), np.array([0])), [1e-18]),
            Extreme((np.zeros((1, 4)), np.array([3])), [0.375]),
            Extreme((np.zeros((2, 4)), np.array([-1, 4])), [NAN, NAN]),
        ),
    ),
    Case(
        losses.smooth_labels,
        lambda rng: (rng.dirichlet(np.ones(5), 4),),
        lambda t, label_smoothing=0.1: (1 - label_smoothing) * t + label_smoothing / 5,
        hyperparams={"label_smoothing": (0.0, 0.3, 1.0)},
        adapter=lambda t, label_smoothing=0.1: losses.smooth_labels(
            t, label_smoothing=label_smoothing
        ),
    ),
    *(
        Case(
            losses.linear_cross_entropy,
            head,
            linear_cross_entropy,
            hyperparams={
                "label_smoothing": (0.0, 0.2),
                "z_loss": (0.0, 1e-2),
                "softcap": (0.5, 30.0),
            },
            static_args={"block": block},
            has_jvp=False,
            ulps=32,
            id_suffix=f"block={block}",
            extremes=(
                Extreme(
                    (np.full((1, 1), 69.0), np.array([[1.0, 0.0]]), np.array([0])),
                    [np.exp(-69.0)],
                ),
                Extreme((np.ones((1, 2)), np.ones((2, 1)), np.array([0])), [0.0]),
                Extreme((np.ones((1, 2)), np.ones((2, 3)), np.array([-100])), [NAN]),
                Extreme(
                    (np.ones((1, 1)), np.array([[1e30, 0.0]]), np.array([1])), [1e30]
                ),
                Extreme(
                    (np.ones((1, 1)), np.array([[1e200, 0.0]]), np.array([1])), [1e200]
                ),
            ),
        )
        for block in (4, None)
    ),
]

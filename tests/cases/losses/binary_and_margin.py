"""Binary losses and margins."""

import numpy as np

from cases import Case, Extreme
from cases.losses.truth import (
    INF,
    NAN,
    elements,
    logits_and_labels,
    logits_and_shares,
    rows,
    scores_and_marks,
    scores_and_signs,
)
from jaxml import losses


def with_logits(x, t, pos_weight=1.0):
    log_p, log_not = -np.logaddexp(0, -x), -np.logaddexp(0, x)
    return -(pos_weight * t * log_p + (1 - t) * log_not)


def on_probabilities(p, t, pos_weight=1.0):
    return -(pos_weight * t * np.log(p) + (1 - t) * np.log(1 - p))


def binary_focal_loss(x, t, gamma=2.0, alpha=None):
    log_p, log_not = -np.logaddexp(0, -x), -np.logaddexp(0, x)
    yes, no = (1.0, 1.0) if alpha is None else (alpha, 1 - alpha)
    yes *= -(np.exp(log_not) ** gamma) * log_p
    no *= -(np.exp(log_p) ** gamma) * log_not
    return t * yes + (1 - t) * no


def multiclass_hinge_loss(x, label, margin=1.0):
    rivals = [v for j, v in enumerate(x) if j != label]
    return max(0.0, margin + max(rivals) - x[label])


def multi_margin_loss(x, label, margin=1.0, p=1):
    others = [max(0.0, margin - x[label] + v) for j, v in enumerate(x) if j != label]
    return sum(v**p for v in others if v > 0) / len(x)


def multilabel_margin_loss(x, t):
    total = 0.0
    for j in np.flatnonzero(t > 0):
        for i in np.flatnonzero(t <= 0):
            total += max(0.0, 1 - (x[j] - x[i]))
    return total / len(x)


def multilabel_soft_margin_loss(x, t):
    return np.mean([with_logits(a, b) for a, b in zip(x, t)])


def row(function, sample, truth, *extremes, **options):
    return Case(function, sample, truth, extremes=extremes, **options)


def two(first, second):
    return np.array([first]), np.array([second])


CASES = [
    Case(
        losses.binary_cross_entropy_with_logits,
        logits_and_shares,
        elements(with_logits),
        hyperparams={"pos_weight": (0.0, 0.5, 3.0)},
        ulps=8,
        extremes=(
            Extreme(
                (np.array([INF, -INF]), np.array([1.0, 0.0])), 0.0, check_grads_of=(0,)
            ),
            Extreme((np.array([1e30, -1e30]), np.array([0.0, 1.0])), [1e30, 1e30]),
            Extreme((np.array([69.0]), np.array([1.0])), [np.exp(-69.0)]),
        ),
    ),
    row(
        losses.binary_cross_entropy,
        lambda rng: (rng.uniform(0.1, 0.9, (3, 4)), rng.random((3, 4))),
        elements(on_probabilities),
        Extreme(two(0.0, 0.0), 0.0, check_grads_of=(0,)),
        Extreme(two(1.0, 1.0), 0.0, check_grads_of=(0,)),
        Extreme(two(0.0, 1.0), INF, check_grads_of=()),
        Extreme(two(1.0, 0.0), INF, check_grads_of=()),
        Extreme(two(1e-30, 0.0), 1e-30, check_grads_of=(0,)),
        hyperparams={"pos_weight": (0.0, 0.5, 3.0)},
        ulps=8,
    ),
    row(
        losses.binary_focal_loss,
        logits_and_shares,
        elements(binary_focal_loss),
        *(
            Extreme(two(x, 1.0), value, {"gamma": gamma}, check_grads_of=(0,))
            for gamma in (0.0, 0.5, 1.0, 2.0)
            for x, value in [(1e30, 0.0), (-1e30, 1e30), (INF, 0.0), (200.0, 0.0)]
        ),
        Extreme(two(-INF, 1.0), 0.0, {"alpha": 0.0}, check_grads_of=(0,)),
        hyperparams={"gamma": (0.0, 0.5, 1.0, 5.0), "alpha": (0.0, 0.25, 1.0)},
        ulps=64,
    ),
    row(
        losses.hinge_loss,
        scores_and_signs,
        elements(lambda x, t: max(0.0, 1 - t * x)),
        Extreme(two(1e30, -1.0), 1e30),
        Extreme(two(1.0, 1.0), 0.0),
        Extreme(two(INF, 1.0), 0.0),
        tol_relative_to_max=True,
    ),
    row(
        losses.squared_hinge_loss,
        scores_and_signs,
        elements(lambda x, t: max(0.0, 1 - t * x) ** 2),
        Extreme(two(1e15, -1.0), 1e30),
        Extreme(two(1.0, 1.0), 0.0),
        Extreme(two(INF, 1.0), 0.0),
        tol_relative_to_max=True,
    ),
    row(
        losses.logistic_loss,
        scores_and_signs,
        elements(lambda x, t: np.logaddexp(0, -t * x)),
        Extreme(two(1e30, -1.0), 1e30),
        Extreme(two(69.0, 1.0), np.exp(-69.0)),
        Extreme(two(INF, 1.0), 0.0, check_grads_of=(0,)),
    ),
    row(
        losses.perceptron_loss,
        scores_and_signs,
        elements(lambda x, t: max(0.0, -t * x)),
        Extreme(two(1e30, -1.0), 1e30),
        Extreme(two(0.0, 1.0), 0.0),
        Extreme(two(INF, 1.0), 0.0),
    ),
    row(
        losses.multiclass_hinge_loss,
        logits_and_labels,
        rows(multiclass_hinge_loss),
        Extreme((np.zeros((3, 4)), np.array([-100, 4, 1])), [NAN, NAN, 1.0]),
        Extreme((np.array([[1e30, 0.0]]), np.array([1])), [1e30]),
        Extreme((np.array([[7.0]]), np.array([0])), [0.0]),
        hyperparams={"margin": (0.0, 0.3, 2.0)},
        tol_relative_to_max=True,
    ),
    row(
        losses.multi_margin_loss,
        logits_and_labels,
        rows(multi_margin_loss),
        Extreme((np.zeros((3, 4)), np.array([-100, 4, 1])), [NAN, NAN, 0.75]),
        Extreme((np.array([[1e30, 0.0]]), np.array([1])), [5e29]),
        Extreme((np.array([[1.0, 0.0]]), np.array([0])), [0.0]),
        hyperparams={"margin": (0.0, 0.3, 2.0), "p": (1.0, 2.0)},
        tol_relative_to_max=True,
    ),
    row(
        losses.multilabel_margin_loss,
        scores_and_marks,
        rows(multilabel_margin_loss),
        Extreme((np.ones((1, 3)), np.ones((1, 3))), 0.0),
        Extreme((np.ones((1, 3)), np.zeros((1, 3))), 0.0),
        Extreme((np.array([[0.0, 1e30]]), np.array([[1.0, 0.0]])), 5e29),
        Extreme((1e7 + np.array([[0, 1, 1, 1.0]]), np.array([[1.0, 0, 0, 0]])), 1.5),
        tol_relative_to_max=True,
        not_differentiated=(1,),
        ulps=16,
    ),
    row(
        losses.multilabel_soft_margin_loss,
        logits_and_shares,
        rows(multilabel_soft_margin_loss),
        Extreme((np.array([[1e30, -1e30]]), np.array([[1.0, 0.0]])), 0.0),
        ulps=8,
    ),
]

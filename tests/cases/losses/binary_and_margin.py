"""Binary and margin losses."""

from functools import partial

import numpy as np

from cases import Case, Extreme
from cases.losses.truth import (
    INF,
    NAN,
    class_mask,
    logits_and_labels,
    logits_and_targets,
    multi_hot_mask,
    of_unmasked_classes,
    per_element,
    per_example,
    scores_and_multi_hot,
    scores_and_signs,
)
from jaxml import losses


def probabilities_and_targets(rng):
    return rng.uniform(0.1, 0.9, (3, 4)), rng.random((3, 4))


def binary_cross_entropy(p, t, pos_weight=1.0):
    return -(pos_weight * t * np.log(p) + (1 - t) * np.log(1 - p))


def binary_cross_entropy_with_logits(x, t, pos_weight=1.0):
    log_p, log_1mp = -np.logaddexp(0, -x), -np.logaddexp(0, x)
    return -(pos_weight * t * log_p + (1 - t) * log_1mp)


def binary_focal_loss(x, t, gamma=2.0, alpha=None):
    log_p, log_1mp = -np.logaddexp(0, -x), -np.logaddexp(0, x)
    pos_loss = -(np.exp(log_1mp) ** gamma) * log_p
    neg_loss = -(np.exp(log_p) ** gamma) * log_1mp
    if alpha is not None:
        pos_loss, neg_loss = alpha * pos_loss, (1 - alpha) * neg_loss
    return t * pos_loss + (1 - t) * neg_loss


def asymmetric_loss(x, t, gamma_positive=0.0, gamma_negative=4.0, shift=0.05):
    p = 1 / (1 + np.exp(-x))
    q = max(0.0, p - shift)
    neg_loss = -(q**gamma_negative) * np.log(1 - q)
    return -t * (1 - p) ** gamma_positive * np.log(p) + (1 - t) * neg_loss


def multiclass_hinge_loss(x, label, margin=1.0):
    max_other = max(v for j, v in enumerate(x) if j != label)
    return max(0.0, margin + max_other - x[label])


def multi_margin_loss(x, label, margin=1.0, p=1):
    violations = [
        max(0.0, margin - x[label] + v) for j, v in enumerate(x) if j != label
    ]
    return sum(v**p for v in violations) / len(x)


def multilabel_margin_loss(x, t):
    total = 0.0
    for j in np.flatnonzero(t > 0):
        for i in np.flatnonzero(t <= 0):
            total += max(0.0, 1 - (x[j] - x[i]))
    return total / len(x)


def multilabel_soft_margin_loss(x, t):
    return np.mean([binary_cross_entropy_with_logits(a, b) for a, b in zip(x, t)])


def row(function, sample, truth, *extremes, **fields):
    return Case(function, sample, truth, extremes=extremes, **fields)


def element(predicted, true):
    return np.array([predicted]), np.array([true])


def example(scores, true):
    return np.array([scores]), np.array([true])


CASES = [
    row(
        losses.binary_cross_entropy_with_logits,
        logits_and_targets,
        per_element(binary_cross_entropy_with_logits),
        Extreme(element(INF, 1.0), 0.0, check_grads_of=(0,)),
        Extreme(element(-INF, 0.0), 0.0, check_grads_of=(0,)),
        Extreme(element(1e30, 0.0), 1e30),
        Extreme(element(-1e30, 1.0), 1e30),
        Extreme(element(69.0, 1.0), np.exp(-69.0)),
        hyperparams={"pos_weight": (0.0, 0.5, 3.0)},
        ulps=8,
    ),
    row(
        losses.binary_cross_entropy,
        probabilities_and_targets,
        per_element(binary_cross_entropy),
        Extreme(element(0.0, 0.0), 0.0, check_grads_of=(0,)),
        Extreme(element(1.0, 1.0), 0.0, check_grads_of=(0,)),
        Extreme(element(0.0, 1.0), INF, check_grads_of=()),
        Extreme(element(1.0, 0.0), INF, check_grads_of=()),
        Extreme(element(1e-30, 0.0), 1e-30, check_grads_of=(0,)),
        hyperparams={"pos_weight": (0.0, 0.5, 3.0)},
        ulps=8,
    ),
    row(
        losses.binary_focal_loss,
        logits_and_targets,
        per_element(binary_focal_loss),
        *(
            Extreme(element(x, 1.0), value, {"gamma": gamma}, check_grads_of=(0,))
            for gamma in (0.0, 0.5, 1.0, 2.0)
            for x, value in [(1e30, 0.0), (-1e30, 1e30), (INF, 0.0), (200.0, 0.0)]
        ),
        Extreme(element(-INF, 1.0), 0.0, {"alpha": 0.0}, check_grads_of=(0,)),
        hyperparams={"gamma": (0.0, 0.5, 1.0, 5.0), "alpha": (0.0, 0.25, 1.0)},
        ulps=64,
    ),
    row(
        losses.asymmetric_loss,
        logits_and_targets,
        per_element(asymmetric_loss),
        *(
            Extreme(
                element(x, 0.0),
                value,
                {"gamma_negative": gamma, "shift": shift},
                check_grads_of=(0,),
            )
            for gamma in (0.0, 0.5, 1.0, 4.0)
            for x, shift, value in [
                (1e30, 0.0, 1e30),
                (200.0, 0.0, 200.0),
                (1e30, 0.25, 0.75**gamma * np.log(4)),
                (INF, 0.25, 0.75**gamma * np.log(4)),
                (-1e30, 0.25, 0.0),
                (-INF, 0.0, 0.0),
                (0.0, 0.5, 0.0),
                (1e30, 1.0, 0.0),
            ]
        ),
        *(
            Extreme(element(x, 1.0), y, {"gamma_positive": gamma}, check_grads_of=(0,))
            for gamma in (0.0, 0.5, 2.0)
            for x, y in [(1e30, 0.0), (-1e30, 1e30), (INF, 0.0)]
        ),
        hyperparams={
            "gamma_positive": (0.0, 1.0),
            "gamma_negative": (0.0, 0.5, 4.0),
            "shift": (0.0, 0.05, 0.2),
        },
        ulps=64,
        rtol=1e-11,  # the truth is a difference of near-equal numbers
    ),
    row(
        losses.hinge_loss,
        scores_and_signs,
        per_element(lambda x, t: max(0.0, 1 - t * x)),
        Extreme(element(1e30, -1.0), 1 + 1e30),
        Extreme(element(1.0, 1.0), 1 - 1.0),
        Extreme(element(INF, 1.0), 0.0),
        tol_relative_to_max=True,
    ),
    row(
        losses.squared_hinge_loss,
        scores_and_signs,
        per_element(lambda x, t: max(0.0, 1 - t * x) ** 2),
        Extreme(element(1e15, -1.0), (1 + 1e15) ** 2),
        Extreme(element(1.0, 1.0), (1 - 1.0) ** 2),
        Extreme(element(INF, 1.0), 0.0),
        tol_relative_to_max=True,
    ),
    row(
        losses.logistic_loss,
        scores_and_signs,
        per_element(lambda x, t: np.logaddexp(0, -t * x)),
        Extreme(element(1e30, -1.0), 1e30),
        Extreme(element(69.0, 1.0), np.exp(-69.0)),
        Extreme(element(INF, 1.0), 0.0, check_grads_of=(0,)),
    ),
    row(
        losses.perceptron_loss,
        scores_and_signs,
        per_element(lambda x, t: max(0.0, -t * x)),
        Extreme(element(1e30, -1.0), 1e30),
        Extreme(element(0.0, 1.0), 0.0),
        Extreme(element(INF, 1.0), 0.0),
    ),
    row(
        losses.multiclass_hinge_loss,
        logits_and_labels,
        per_example(of_unmasked_classes(multiclass_hinge_loss)),
        Extreme((np.zeros((3, 4)), np.array([-100, 4, 1])), [NAN, NAN, 1.0 + 0 - 0]),
        Extreme(example([1e30, 0.0], 1), 1 + 1e30 - 0),
        Extreme(example([7.0], 0), 0.0),
        hyperparams={"margin": (0.0, 0.3, 2.0)},
        tol_relative_to_max=True,
        mask=class_mask,
    ),
    row(
        losses.multi_margin_loss,
        logits_and_labels,
        per_example(of_unmasked_classes(multi_margin_loss)),
        Extreme((np.zeros((3, 4)), np.array([-100, 4, 1])), [NAN, NAN, 3 * 1.0 / 4]),
        Extreme(example([1e30, 0.0], 1), (1 - 0 + 1e30) / 2),
        Extreme(example([1.0, 0.0], 0), (1 - 1 + 0.0) / 2),
        hyperparams={"margin": (0.0, 0.3, 2.0), "p": (1.0, 2.0)},
        tol_relative_to_max=True,
        mask=class_mask,
    ),
    row(
        losses.multilabel_margin_loss,
        scores_and_multi_hot,
        per_example(of_unmasked_classes(multilabel_margin_loss)),
        Extreme((np.ones((1, 3)), np.ones((1, 3))), 0.0),
        Extreme((np.ones((1, 3)), np.zeros((1, 3))), 0.0),
        Extreme(example([0.0, 1e30], [1.0, 0.0]), (1 - (0 - 1e30)) / 2),
        Extreme(
            example([1e7, 1e7 + 1, 1e7 + 1, 1e7 + 1], [1.0, 0.0, 0.0, 0.0]),
            3 * (1 - (0 - 1)) / 4,
        ),
        tol_relative_to_max=True,
        not_differentiated=(1,),
        ulps=16,
        mask=multi_hot_mask,
    ),
    row(
        losses.multilabel_soft_margin_loss,
        logits_and_targets,
        per_example(of_unmasked_classes(multilabel_soft_margin_loss)),
        Extreme(example([1e30, -1e30], [1.0, 0.0]), 0.0),
        ulps=8,
        mask=partial(multi_hot_mask, shape=(3, 4)),
    ),
]

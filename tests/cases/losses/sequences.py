"""Losses of sequences, of routers and of ensembles, and self-distillation."""

import itertools
import math

import numpy as np

from cases import Case, Extreme
from cases.losses.truth import (
    INF,
    NAN,
    of_unmasked_classes,
    per_element,
    per_example,
)
from jaxml import losses


def frames_and_labels(rng):
    return 2 * rng.normal(size=(3, 4, 3)), np.array([[1, 2], [2, 2], [1, 2]])


def first_and_last(rng):
    return np.array([True, False, True])


def per_sequence(truth):
    return lambda *arrays: np.array([truth(*sequence) for sequence in zip(*arrays)])


def ctc_loss(z, labels):
    """Sums over all alignments of frames and classes."""
    p = np.exp(z) / np.sum(np.exp(z), 1, keepdims=True)
    total = 0.0
    for alignment in itertools.product(range(p.shape[1]), repeat=len(p)):
        read = [k for k, _ in itertools.groupby(alignment) if k != 0]
        if read == list(labels):
            total += np.prod([p[t, k] for t, k in enumerate(alignment)])
    return -np.log(total)


def router_logits(rng):
    return (2 * rng.normal(size=(6, 4)),)


def token_mask(rng):
    return np.array([True, True, False, True, False, True])


def load_balance_loss(z, top_k, axis=-2, where=None):
    if z.ndim > 2:
        return np.array([load_balance_loss(layer, top_k) for layer in z])
    tokens = [x for i, x in enumerate(z) if where is None or where[i]]
    fraction, mean = np.zeros(z.shape[1]), np.zeros(z.shape[1])
    for x in tokens:
        mean += np.exp(x) / np.sum(np.exp(x)) / len(tokens)
        for expert in sorted(range(len(x)), key=lambda e: -x[e])[:top_k]:
            fraction[expert] += 1 / (top_k * len(tokens))
    return z.shape[1] * sum(fraction * mean)


def members_and_target(rng):
    return rng.normal(size=(3, 4)), rng.normal(size=3)


def vectors_and_target(rng):
    return rng.normal(size=(3, 4, 2)), rng.normal(size=(3, 2))


def member_mask(rng):
    where = np.ones((3, 4), bool)
    where[0, 1] = where[1, :3] = where[2, 1:] = False
    return where


def score_of_distances(x, y, fair, where=None):
    x = [np.atleast_1d(v) for i, v in enumerate(x) if where is None or where[i]]
    m = len(x)
    error = sum(np.linalg.norm(v - y) for v in x) / m
    spread = sum(np.linalg.norm(v - w) for v in x for w in x)
    pairs = m * (m - 1) if fair else m * m
    return error - (spread / (2 * pairs) if m > 1 else 0)


def per_ensemble(x, y, fair=True, where=None):
    where = [None] * len(x) if where is None else where
    return np.array([score_of_distances(*e, fair, w) for *e, w in zip(x, y, where)])


def mean_target_scale(rng):
    return rng.normal(size=(3, 4)), rng.normal(size=(3, 4)), rng.uniform(0.2, 3, (3, 4))


def gaussian_crps_loss(mean, y, scale):
    z = (y - mean) / scale
    cdf = (1 + math.erf(z / np.sqrt(2))) / 2
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    return scale * (z * (2 * cdf - 1) + 2 * density - 1 / np.sqrt(np.pi))


def byol_loss(p, t):
    return 2 - 2 * sum(p * t) / np.sqrt(sum(p**2) * sum(t**2))


def dino_loss(s, t, center=0.0, student_temperature=0.1, teacher_temperature=0.04):
    p = np.exp((t - center) / teacher_temperature)
    q = np.exp(s / student_temperature)
    return -sum(p / sum(p) * np.log(q / sum(q)))


def views(rng):
    return rng.normal(size=(3, 4)), rng.normal(size=(3, 4))


def small_views(rng):
    return 0.1 * rng.normal(size=(3, 4)), 0.1 * rng.normal(size=(3, 4))


def class_mask(rng):
    where = rng.random((3, 4)) < 0.6
    where[:, 0] = True
    return where


def row(function, sample, truth, *extremes, **fields):
    return Case(function, sample, truth, extremes=extremes, **fields)


def sequence(logits, labels):
    return np.array([logits], float), np.array([labels], int)


SURE = [[0.0, 17.0], [0.0, 17.0]]  # of which only blank, blank is wrong

CASES = [
    row(
        losses.ctc_loss,
        frames_and_labels,
        per_sequence(ctc_loss),
        Extreme(sequence(SURE, [1]), -np.log1p(-((1 / (1 + np.exp(17.0))) ** 2))),
        Extreme(sequence([[0.0, 69.0]], [1]), np.exp(-69.0)),
        Extreme(sequence([[0.0, 1e30]], [1]), 0.0),
        Extreme(sequence([[1e30, 0.0]], [1]), 1e30),
        Extreme(sequence([[1e30, 0.0], [-1e30, 0.0]], [1]), 0.0),
        Extreme(sequence([[0.0, -INF, 0.0]], [2]), np.log(2)),
        Extreme(sequence([[0.0, -INF]], [1]), INF),
        Extreme(sequence([[0.0, 0.0]], [1, 1]), INF),
        Extreme(sequence(np.zeros((2, 3)), [1, 1]), INF),
        Extreme(sequence(np.zeros((3, 2)), [1, 1]), np.log(2**3)),
        Extreme(sequence(np.full((3, 2), 1e6), [1, 1]), np.log(2**3)),
        Extreme(sequence(np.zeros((5, 2)), []), 5 * np.log(2)),
        Extreme(sequence(np.zeros((0, 2)), [1]), INF),
        Extreme(sequence(np.zeros((2, 3)), [3]), NAN),
        Extreme(sequence(np.zeros((2, 3)), [-100]), NAN),
        Extreme(sequence(np.zeros((2, 3)), [0]), NAN),
        mask=first_and_last,
        masks_result=True,
    ),
    *(
        row(
            losses.load_balance_loss,
            router_logits,
            load_balance_loss,
            Extreme((np.zeros((8, 4)),), 1.0),
            Extreme((1e30 * np.eye(4)[[0, 0, 0]],), 4.0 / top_k),
            Extreme((1e30 * np.eye(4),), value),
            Extreme((np.zeros((0, 4)),), 0.0),
            mask=token_mask,
            static_args={"top_k": top_k},
            id_suffix=f"top-{top_k}",
        )
        for top_k, value in ((1, 1.0), (2, 1.0))
    ),
    *(
        row(
            losses.crps_loss,
            members_and_target,
            per_ensemble,
            Extreme((np.full((1, 5), 1e30), np.array([-1e30])), 2e30),
            Extreme((np.full((1, 5), 2.0), np.array([2.0])), 0.0),
            Extreme((np.array([[1e-30, 3e-30]]), np.zeros(1)), value * 1e-30),
            Extreme((np.array([[3.0]]), np.array([1.0])), 2.0),
            Extreme((np.zeros((2, 0)), np.ones(2)), 0.0),
            mask=member_mask,
            static_args={"fair": fair},
            id_suffix="fair" if fair else "biased",
        )
        for fair, value in ((True, 2 - 2 / 2), (False, 2 - 4 / 8))
    ),
    *(
        row(
            losses.energy_score,
            vectors_and_target,
            per_ensemble,
            Extreme((np.full((1, 5, 2), 1e30), np.zeros((1, 2))), np.sqrt(2) * 1e30),
            Extreme((np.full((1, 5, 2), 2.0), np.full((1, 2), 2.0)), 0.0),
            Extreme((np.array([[[3.0, 4.0]]]), np.zeros((1, 2))), 5.0),
            Extreme((np.zeros((2, 0, 3)), np.ones((2, 3))), 0.0),
            mask=member_mask,
            static_args={"fair": fair},
            id_suffix="fair" if fair else "biased",
            rtol=1e-11,  # a difference
            tol_relative_to_max=True,
            ulps=16,
        )
        for fair in (True, False)
    ),
    row(
        losses.gaussian_crps_loss,
        mean_target_scale,
        per_element(gaussian_crps_loss),
        *(
            Extreme((np.array([m]), np.array([y]), np.array([scale])), value)
            for m, y, scale, value in [
                (0.0, 1e30, 1.0, 1e30),
                (0.0, 1e30, 1e-30, 1e30),
                (0.0, 1.0, 0.0, 1.0),
                (2.0, 2.0, 0.0, 0.0),
                (2.0, 2.0, 1e30, 1e30 * (math.sqrt(2) - 1) / math.sqrt(math.pi)),
                (1.0, 3.0, 1e-30, 2.0),
            ]
        ),
        adapter=lambda mean, y, scale, **keywords: losses.gaussian_crps_loss(
            mean, y, scale=scale, **keywords
        ),
        ulps=16,
        rtol=1e-11,  # the truth is a difference of near-equal numbers
    ),
    row(
        losses.byol_loss,
        views,
        per_example(byol_loss),
        Extreme((np.zeros((1, 3)), np.ones((1, 3))), 2.0),
        Extreme((np.ones((1, 3)), np.zeros((1, 3))), 2.0),
        Extreme((2.0**100 * np.ones((1, 3)), 2.0**-100 * np.ones((1, 3))), 0.0),
        Extreme((np.ones((1, 2)), -np.ones((1, 2))), 4.0),
        not_differentiated=(1,),
        ulps=16,
    ),
    row(
        losses.dino_loss,
        small_views,
        per_example(of_unmasked_classes(dino_loss)),
        Extreme((np.full((1, 4), 1e6), np.zeros((1, 4))), np.log(4)),
        Extreme((np.array([[1e28, 0.0]]), np.array([[1e28, 0.0]])), 0.0),
        Extreme((np.array([[1e28, 0.0]]), np.array([[0.0, 1e28]])), 1e29),
        hyperparams={
            "center": (0.0, 0.1),
            "student_temperature": (0.1, 1.0),
            "teacher_temperature": (0.04, 0.5),
        },
        mask=class_mask,
        not_differentiated=(1,),
        ulps=16,
    ),
]

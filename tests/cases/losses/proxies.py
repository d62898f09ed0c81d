"""Proxies: one row at a time, from the angles themselves."""

import numpy as np

from cases import Case, Extreme
from cases.losses.truth import NAN
from jaxml import losses


def cosine(x, v):
    length = np.sqrt(sum(x**2) * sum(v**2))
    return sum(a * b for a, b in zip(x, v)) / length if length else 0.0


def each(loss):
    """The truth of a batch from that of one row's cosines and its label."""

    def batch(x, proxies, labels, **numbers):
        result = np.empty(labels.shape)
        for i in np.ndindex(labels.shape):
            cosines = [cosine(x[i], v) for v in proxies]
            result[i] = loss(cosines, labels[i], **numbers)
        return result

    return batch


def cross_entropy(logits, label):
    rivals = [z for j, z in enumerate(logits) if j != label]
    return np.log1p(sum(np.exp(z - logits[label]) for z in rivals))


def normalized_softmax(cosines, label, temperature=0.05):
    return cross_entropy([c / temperature for c in cosines], label)


def cosface(cosines, label, margin=0.35, scale=64.0):
    logits = [scale * (c - margin * (j == label)) for j, c in enumerate(cosines)]
    return cross_entropy(logits, label)


def arcface(cosines, label, margin=0.5, scale=64.0):
    logits = [scale * c for c in cosines]
    angle = np.arccos(np.clip(cosines[label], -1, 1))
    if angle <= np.pi - margin:
        logits[label] = scale * np.cos(angle + margin)
    else:
        logits[label] -= scale * margin * np.sin(margin)
    return cross_entropy(logits, label)


def proxy_nca(cosines, label):
    squared = [2 - 2 * c for c in cosines]
    others = sum(np.exp(-d) for j, d in enumerate(squared) if j != label)
    return -np.log(np.exp(-squared[label]) / others)


def proxy_anchor(x, proxies, labels, margin=0.1, alpha=32.0):
    pulls, pushes = [], []
    for j, v in enumerate(proxies):
        pull = push = 1.0
        for row, label in zip(x, labels):
            if label == j:
                pull += np.exp(-alpha * (cosine(row, v) - margin))
            else:
                push += np.exp(alpha * (cosine(row, v) + margin))
        pulls += [np.log(pull)] if j in labels else []
        pushes += [np.log(push)]
    return np.mean(pulls) + np.mean(pushes)


def soft_triple(x, centers, labels, margin=0.01, gamma=0.1, scale=20.0):
    result = np.empty(labels.shape)
    for i in np.ndindex(labels.shape):
        similarities = []
        for own in centers:
            cosines = np.array([cosine(x[i], v) for v in own])
            weights = np.exp(cosines / gamma)
            similarities += [sum(weights * cosines) / sum(weights)]
        similarities[labels[i]] -= margin
        result[i] = cross_entropy([scale * s for s in similarities], labels[i])
    return result


def rows_and_proxies(rng):
    return (
        rng.normal(size=(2, 3, 4)),
        rng.normal(size=(5, 4)),
        rng.integers(0, 5, (2, 3)),
    )


def a_batch(rng):
    return rng.normal(size=(6, 4)), rng.normal(size=(5, 4)), rng.integers(0, 3, 6)


def one(x, *proxies):
    """One row, whose class is the first proxy's."""
    return np.array([x], float), np.array(proxies, float), np.array([0])


def edges(values, several=False):
    """A row at its proxy, opposite to it, of zeros, at a proxy of zeros; no classes."""
    rows = np.array([RIGHT, HUGE, NONE, RIGHT, RIGHT, RIGHT])
    proxies = np.array([RIGHT, LEFT, UP, NONE])
    labels = np.array([0, 1, 0, 3, -100, 4])
    arrays = rows, proxies[:, None] if several else proxies, labels
    return Extreme(arrays, [*values, NAN, NAN])


RIGHT, LEFT, UP, NONE = [1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, 0.0]
HUGE = [1e30, 0.0]
SINE, COSINE = np.sin(0.5), np.cos(0.5)

CASES = [
    Case(
        losses.normalized_softmax_loss,
        rows_and_proxies,
        each(normalized_softmax),
        any_num_rows=(1,),
        hyperparams={"temperature": (0.05, 0.5, 1.0)},
        ulps=64,
        extremes=(
            edges([2 * np.exp(-20), 40.0, np.log(4), 20.0]),
            Extreme(one(RIGHT, UP), 0.0, check_grads_of=(0,)),
        ),
    ),
    Case(
        losses.cosface_loss,
        rows_and_proxies,
        each(cosface),
        any_num_rows=(1,),
        hyperparams={"margin": (0.0, 0.35), "scale": (1.0, 30.0)},
        ulps=512,  # of a loss e^(s cos) in a difference of 64 cosines
        extremes=(
            edges([2 * np.exp(-41.6), 150.4, 22.4 + np.log(3), 86.4]),
            Extreme(one(RIGHT, UP), 0.0, check_grads_of=(0,)),
        ),
    ),
    Case(
        losses.arcface_loss,
        rows_and_proxies,
        each(arcface),
        any_num_rows=(1,),
        hyperparams={"margin": (0.0, 0.5, 1.2), "scale": (1.0, 30.0)},
        ulps=512,  # of a loss e^(s cos) in a difference of 64 cosines
        extremes=(
            edges(
                [
                    2 * np.exp(-64 * COSINE),
                    128 + 32 * SINE,
                    64 * SINE + np.log(3),
                    64 + 64 * SINE,
                ]
            ),
            Extreme(one(RIGHT, UP), 0.0, check_grads_of=(0,)),
        ),
    ),
    Case(
        losses.proxy_nca_loss,
        rows_and_proxies,
        each(proxy_nca),
        any_num_rows=(1,),
        tol_relative_to_max=True,
        ulps=8,
        extremes=(
            edges(
                [
                    np.log(np.exp(-2) + 2) - 2,
                    np.log(np.exp(2) + 2) + 2,
                    np.log(3),
                    np.log(np.exp(2) + np.exp(-2) + 1),
                ]
            ),
            Extreme(one(RIGHT, UP), 0.0, check_grads_of=(0,)),
        ),
    ),
    Case(
        losses.proxy_anchor_loss,
        a_batch,
        proxy_anchor,
        any_num_rows=(1,),
        hyperparams={"margin": (0.0, 0.1), "alpha": (1.0, 32.0)},
        ulps=64,
        extremes=(
            Extreme(one(HUGE, RIGHT, UP), np.exp(-28.8) + np.log1p(np.exp(3.2)) / 2),
            Extreme(one(NONE, RIGHT, NONE), None),
            Extreme(one(RIGHT, UP), np.log1p(np.exp(3.2))),
        ),
    ),
    Case(
        losses.soft_triple_loss,
        lambda rng: (
            rng.normal(size=(2, 3, 4)),
            rng.normal(size=(5, 3, 4)),
            rng.integers(0, 5, (2, 3)),
        ),
        soft_triple,
        any_num_rows=(1,),
        hyperparams={"margin": (0.0, 0.5), "gamma": (0.1, 1.0), "scale": (1.0, 20.0)},
        ulps=256,
        extremes=(
            edges(
                [2 * np.exp(-19.8), 40.2, np.log1p(3 * np.exp(0.2)), 20.2], several=True
            ),
            Extreme(one(RIGHT, [UP, LEFT]), 0.0),
        ),
    ),
]

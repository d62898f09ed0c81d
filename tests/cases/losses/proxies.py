"""The table of proxy losses. Truths are loops over embeddings, from their angles."""

import numpy as np

from cases import Case, Extreme
from cases.losses.truth import NAN
from jaxml import losses


def cosine(x, v):
    product_of_norms = np.sqrt(sum(x**2) * sum(v**2))
    dot = sum(a * b for a, b in zip(x, v))
    return dot / product_of_norms if product_of_norms else 0.0


def from_cosines(truth):
    """The truth of a batch, from the cosines and the label of one embedding."""

    def batch(x, proxies, labels, **hyperparams):
        values = np.empty(labels.shape)
        for i in np.ndindex(labels.shape):
            cosines = [cosine(x[i], v) for v in proxies]
            values[i] = truth(cosines, labels[i], **hyperparams)
        return values

    return batch


def cross_entropy(logits, label):
    others = [z for j, z in enumerate(logits) if j != label]
    return np.log1p(sum(np.exp(z - logits[label]) for z in others))


def normalized_softmax(cosines, label, temperature=0.05):
    return cross_entropy([c / temperature for c in cosines], label)


def cosface(cosines, label, margin=0.35, scale=64.0):
    logits = [scale * (c - margin * (j == label)) for j, c in enumerate(cosines)]
    return cross_entropy(logits, label)


def arcface(cosines, label, margin=0.5, scale=64.0):
    logits = [scale * c for c in cosines]
    theta = np.arccos(np.clip(cosines[label], -1, 1))
    if theta <= np.pi - margin:
        logits[label] = scale * np.cos(theta + margin)
    else:
        logits[label] -= scale * margin * np.sin(margin)
    return cross_entropy(logits, label)


def proxy_nca(cosines, label):
    squared_distances = [2 - 2 * c for c in cosines]
    others = sum(np.exp(-d) for j, d in enumerate(squared_distances) if j != label)
    return -np.log(np.exp(-squared_distances[label]) / others)


def proxy_anchor(x, proxies, labels, margin=0.1, alpha=32.0):
    positive_terms, negative_terms = [], []
    for j, v in enumerate(proxies):
        positive_sum = negative_sum = 1.0
        for row, label in zip(x, labels):
            if label == j:
                positive_sum += np.exp(-alpha * (cosine(row, v) - margin))
            else:
                negative_sum += np.exp(alpha * (cosine(row, v) + margin))
        positive_terms += [np.log(positive_sum)] if j in labels else []
        negative_terms += [np.log(negative_sum)]
    return np.mean(positive_terms) + np.mean(negative_terms)


def soft_triple(x, centers, labels, margin=0.01, gamma=0.1, scale=20.0):
    values = np.empty(labels.shape)
    for i in np.ndindex(labels.shape):
        similarities = []
        for class_centers in centers:
            cosines = np.array([cosine(x[i], v) for v in class_centers])
            weights = np.exp(cosines / gamma)
            similarities += [sum(weights * cosines) / sum(weights)]
        similarities[labels[i]] -= margin
        values[i] = cross_entropy([scale * s for s in similarities], labels[i])
    return values


def embeddings_and_proxies(rng):
    embeddings, proxies = rng.normal(size=(2, 3, 4)), rng.normal(size=(5, 4))
    return embeddings, proxies, rng.integers(0, 5, (2, 3))


def embeddings_and_centers(rng):
    embeddings, centers = rng.normal(size=(2, 3, 4)), rng.normal(size=(5, 3, 4))
    return embeddings, centers, rng.integers(0, 5, (2, 3))


def batch_and_proxies(rng):
    return rng.normal(size=(6, 4)), rng.normal(size=(5, 4)), rng.integers(0, 3, 6)


def one_embedding(x, *proxies):
    """An embedding of the class of the first proxy."""
    return np.array([x], float), np.array(proxies, float), np.array([0])


def standard_extreme(values, *, has_centers=False):
    """Six embeddings with the values of the first four, and two invalid labels.

    The embedding is at its proxy, opposite to it, zero, and at a proxy of zeros.
    """
    embeddings = np.array([RIGHT, HUGE, ZERO, RIGHT, RIGHT, RIGHT])
    proxies = np.array([RIGHT, LEFT, UP, ZERO])
    labels = np.array([0, 1, 0, 3, -100, 4])
    arrays = embeddings, proxies[:, None] if has_centers else proxies, labels
    return Extreme(arrays, [*values, NAN, NAN])


RIGHT, LEFT, UP, ZERO = [1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, 0.0]
HUGE = [1e30, 0.0]
SIN_M, COS_M = np.sin(0.5), np.cos(0.5)  # of arcface's default margin
ONE_CLASS = Extreme(one_embedding(RIGHT, UP), 0.0, check_grads_of=(0,))

CASES = [
    Case(
        losses.normalized_softmax_loss,
        embeddings_and_proxies,
        from_cosines(normalized_softmax),
        has_jvp=False,
        any_num_rows=(1,),
        hyperparams={"temperature": (0.05, 0.5, 1.0)},
        ulps=64,
        extremes=(
            standard_extreme([2 * np.exp(-20), 40.0, np.log(4), 20.0]),
            ONE_CLASS,
        ),
    ),
    Case(
        losses.cosface_loss,
        embeddings_and_proxies,
        from_cosines(cosface),
        has_jvp=False,
        any_num_rows=(1,),
        hyperparams={"margin": (0.0, 0.35), "scale": (1.0, 30.0)},
        ulps=512,  # a small loss is e^(64 x), x a difference of cosines
        extremes=(
            standard_extreme([2 * np.exp(-41.6), 150.4, 22.4 + np.log(3), 86.4]),
            ONE_CLASS,
        ),
    ),
    Case(
        losses.arcface_loss,
        embeddings_and_proxies,
        from_cosines(arcface),
        has_jvp=False,
        any_num_rows=(1,),
        hyperparams={"margin": (0.0, 0.5, 1.2), "scale": (1.0, 30.0)},
        ulps=512,  # as for cosface_loss
        extremes=(
            standard_extreme(
                [
                    2 * np.exp(-64 * COS_M),
                    128 + 32 * SIN_M,
                    64 * SIN_M + np.log(3),
                    64 + 64 * SIN_M,
                ]
            ),
            ONE_CLASS,
        ),
    ),
    Case(
        losses.proxy_nca_loss,
        embeddings_and_proxies,
        from_cosines(proxy_nca),
        has_jvp=False,
        any_num_rows=(1,),
        tol_relative_to_max=True,
        ulps=8,
        extremes=(
            standard_extreme(
                [
                    np.log(np.exp(-2) + 2) - 2,
                    np.log(np.exp(2) + 2) + 2,
                    np.log(3),
                    np.log(np.exp(2) + np.exp(-2) + 1),
                ]
            ),
            ONE_CLASS,
        ),
    ),
    Case(
        losses.proxy_anchor_loss,
        batch_and_proxies,
        proxy_anchor,
        any_num_rows=(1,),
        hyperparams={"margin": (0.0, 0.1), "alpha": (1.0, 32.0)},
        ulps=64,
        extremes=(
            Extreme(
                one_embedding(HUGE, RIGHT, UP),
                np.exp(-28.8) + np.log1p(np.exp(3.2)) / 2,
            ),
            Extreme(one_embedding(ZERO, RIGHT, ZERO), None),
            Extreme(one_embedding(RIGHT, UP), np.log1p(np.exp(3.2))),
        ),
    ),
    Case(
        losses.soft_triple_loss,
        embeddings_and_centers,
        soft_triple,
        any_num_rows=(1,),
        hyperparams={"margin": (0.0, 0.5), "gamma": (0.1, 1.0), "scale": (1.0, 20.0)},
        ulps=256,
        extremes=(
            standard_extreme(
                [2 * np.exp(-19.8), 40.2, np.log1p(3 * np.exp(0.2)), 20.2],
                has_centers=True,
            ),
            Extreme(one_embedding(RIGHT, [UP, LEFT]), 0.0),
        ),
    ),
]

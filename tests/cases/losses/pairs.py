"""Explicit pairs, triplets and tuplets, whose truth takes one of them at a time."""

import numpy as np

from cases import Case, Extreme
from cases.losses.truth import per_element, per_example
from jaxml import losses


def distance(x, y):
    return np.sqrt(sum((a - b) ** 2 for a, b in zip(x, y)))


def dot(x, y):
    return sum(a * b for a, b in zip(x, y))


def contrastive(x, y, match, margin=1.0):
    return distance(x, y) ** 2 if match else max(0.0, margin - distance(x, y)) ** 2


def cosine_embedding(x, y, match, margin=0.0):
    cosine = dot(x, y) / np.sqrt(dot(x, x) * dot(y, y))
    return 1 - cosine if match else max(0.0, cosine - margin)


def triplet(a, p, n, margin=1.0):
    return max(0.0, distance(a, p) - distance(a, n) + margin)


def squared_triplet(a, p, n, margin=1.0):
    return max(0.0, distance(a, p) ** 2 - distance(a, n) ** 2 + margin)


def soft_triplet(a, p, n):
    return np.logaddexp(0, distance(a, p) - distance(a, n))


def tuplet(a, p, n):
    return np.log(1 + sum(np.exp(dot(a, n_k) - dot(a, p)) for n_k in n))


def n_pair(a, p, block=None):
    negatives = [np.delete(p, i, 0) for i in range(len(a))]
    return [tuplet(*arrays) for arrays in zip(a, p, negatives)]


def pairs(rng):
    x, y = rng.normal(size=(2, 3, 6, 4)) / 2
    return x, y, np.arange(18).reshape(3, 6) % 2 == 0


def triplets(rng):
    return tuple(rng.normal(size=(3, 3, 6, 4)))


def diagonal_triplet(p, n):
    """An anchor at 0, and its positive and negative on the diagonal."""
    return np.zeros((1, 4)), np.full((1, 4), p), np.full((1, 4), n)


ZEROS, ONES, HUGE = np.zeros((2, 3)), np.ones((2, 3)), np.full((2, 3), 1e30)
MATCH = np.array([True, False])

CASES = [
    Case(
        losses.contrastive_loss,
        pairs,
        per_example(contrastive),
        hyperparams={"margin": (0.0, 0.2, 3.0)},
        tol_relative_to_max=True,
        extremes=(
            Extreme((ZEROS, ZEROS, MATCH), [0.0, 1.0]),
            Extreme((ONES, ONES, MATCH), [0.0, 4.0], {"margin": 2.0}),
            Extreme((ZEROS, HUGE, MATCH), [3e60, 0.0]),
            Extreme((1e-30 * ONES, ZEROS, MATCH), [3e-60, 1.0]),
        ),
    ),
    Case(
        losses.cosine_embedding_loss,
        pairs,
        per_example(cosine_embedding),
        hyperparams={"margin": (0.0, 0.3, -0.5)},
        ulps=16,
        tol_relative_to_max=True,
        extremes=(
            Extreme((ZEROS, ONES, MATCH), [1.0, 0.0]),
            Extreme((ZEROS, ZEROS, MATCH), [1.0, 0.0]),
            Extreme((ONES, ONES, MATCH), [0.0, 0.8], {"margin": 0.2}),
            Extreme((HUGE, -HUGE, MATCH), [2.0, 0.0]),
        ),
    ),
    Case(
        losses.margin_ranking_loss,
        lambda rng: (*rng.normal(size=(2, 3, 4)), rng.choice([-1.0, 1.0], (3, 4))),
        per_element(lambda x, y, t, margin=0.0: max(0.0, margin - t * (x - y))),
        hyperparams={"margin": (0.0, 0.3, 2.0)},
        tol_relative_to_max=True,
        extremes=(
            Extreme((np.ones(2), np.ones(2), np.array([1.0, -1.0])), 0.0),
            Extreme((np.zeros(1), np.array([1e30]), np.ones(1)), 1e30),
        ),
    ),
    Case(
        losses.triplet_loss,
        triplets,
        per_example(triplet),
        hyperparams={"margin": (0.0, 0.2, 3.0)},
        tol_relative_to_max=True,
        extremes=(
            Extreme((ZEROS, ZEROS, ZEROS), 1.0),
            Extreme((ONES, ONES, HUGE), 0.0),
            Extreme(diagonal_triplet(1e30, 0.0), 2e30),
        ),
    ),
    Case(
        losses.squared_triplet_loss,
        triplets,
        per_example(squared_triplet),
        hyperparams={"margin": (0.0, 0.2, 3.0)},
        tol_relative_to_max=True,
        extremes=(
            Extreme((ZEROS, ZEROS, ZEROS), 1.0),
            Extreme((ONES, ONES, HUGE), 0.0),
            Extreme(diagonal_triplet(1e30, 0.0), 4e60),
        ),
    ),
    Case(
        losses.soft_triplet_loss,
        triplets,
        per_example(soft_triplet),
        ulps=16,
        extremes=(
            Extreme((ZEROS, ZEROS, ZEROS), np.log(2)),
            Extreme(diagonal_triplet(1e30, 0.0), 2e30),
            Extreme(diagonal_triplet(0.0, 1e30), 0.0),
            Extreme(diagonal_triplet(0.0, 30.0), np.exp(-60.0)),
        ),
    ),
    Case(
        losses.tuplet_loss,
        lambda rng: (*rng.normal(size=(2, 2, 3, 4)), rng.normal(size=(2, 3, 5, 4))),
        per_example(tuplet),
        ulps=32,
        extremes=(
            Extreme((ZEROS, ONES, np.ones((2, 4, 3))), np.log(5)),
            Extreme((HUGE, ZEROS, np.ones((2, 4, 3))), 3e30),
            Extreme((HUGE, ONES, np.zeros((2, 4, 3))), 0.0),
            Extreme((ONES, 20 * ONES, np.zeros((2, 1, 3))), np.exp(-60.0)),
        ),
    ),
    *(
        Case(
            losses.n_pair_loss,
            lambda rng: tuple(rng.normal(size=(2, 5, 4))),
            n_pair,
            static_args={"block": block},
            has_jvp=False,
            ulps=32,
            id_suffix=f"block={block}",
            extremes=(
                Extreme((ZEROS, ONES), np.log(2)),
                Extreme((ONES[:1], ONES[:1]), 0.0),
                Extreme((ONES, np.array([[0.0] * 3, [1e30] * 3])), [3e30, 0.0]),
                Extreme((ONES, np.array([[20.0] * 3, [0.0] * 3])), [np.exp(-60), 60]),
            ),
        )
        for block in (2, None)
    ),
    Case(
        losses.embedding_penalty,
        lambda rng: (rng.normal(size=(3, 6, 4)),),
        per_example(lambda x: dot(x, x)),
        extremes=(Extreme((ZEROS,), 0.0), Extreme((HUGE,), 3e60)),
    ),
]

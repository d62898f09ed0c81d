"""The table of mining. Truths are loops over pairs or triplets."""

import jax
import numpy as np

from cases import Case, Extreme
from jaxml import mining

KEY = jax.random.key(0)


def per_pair(truth):
    """The truth of two sets of embeddings, from that of two embeddings."""

    def all_pairs(x, y, **hyperparams):
        return np.array([[truth(a, b, **hyperparams) for b in y] for a in x])

    return all_pairs


def dot(a, b):
    return sum(s * t for s, t in zip(a, b))


def squared_euclidean(a, b):
    return dot(a - b, a - b)


def euclidean(a, b):
    return np.sqrt(dot(a - b, a - b))


def lp(a, b, p=3.0):
    return sum(abs(a - b) ** p) ** (1 / p)


def cosine(a, b):
    return dot(a, b) / np.sqrt(dot(a, a) * dot(b, b))


def positives(labels, reference_labels=None):
    in_batch = reference_labels is None
    references = labels if in_batch else reference_labels
    return np.array(
        [
            [a == b and not (in_batch and i == j) for j, b in enumerate(references)]
            for i, a in enumerate(labels)
        ]
    )


def negatives(labels, reference_labels=None):
    references = labels if reference_labels is None else reference_labels
    return np.array([[a != b for b in references] for a in labels])


def has_positive(*labels):
    return positives(*labels).any(1)


def has_negative(*labels):
    return negatives(*labels).any(1)


def per_anchor(truth):
    """The truth of a miner of pairs, from the references that one anchor selects.

    It is given the anchor's distances, and the indices of positives and negatives.
    """

    def mask(d, labels, reference_labels=None, **hyperparams):
        selected = np.zeros(d.shape, bool)
        p = positives(labels, reference_labels)
        n = negatives(labels, reference_labels)
        for i in range(len(d)):
            indices = truth(
                d[i], np.flatnonzero(p[i]), np.flatnonzero(n[i]), **hyperparams
            )
            selected[i, list(indices)] = True
        return selected

    return mask


def hard_pairs(d, p, n):
    if not (len(p) and len(n)):
        return []
    return [j for j in p if d[j] == max(d[p])] + [j for j in n if d[j] == min(d[n])]


def pair_margin(d, p, n, positive=0.2, negative=0.8):
    return [j for j in p if d[j] > positive] + [j for j in n if d[j] < negative]


def multi_similarity_pairs(d, p, n, epsilon=0.1):
    if not (len(p) and len(n)):
        return []
    hard_positives = [j for j in p if d[j] + epsilon > min(d[n])]
    return hard_positives + [j for j in n if d[j] - epsilon < max(d[p])]


def distance_weighted(d, labels, dimension=6, count=1, cutoff=0.5, farthest=1.4):
    selected, p, n = np.zeros(d.shape, bool), positives(labels), negatives(labels)
    gumbel_noise = np.asarray(jax.random.gumbel(KEY, d.shape, float))
    for i in range(len(d)):
        scores = {}
        for j in np.flatnonzero(n[i] & (d[i] < farthest)):
            x = max(d[i, j], cutoff)
            density = x ** (dimension - 2) * (1 - x**2 / 4) ** ((dimension - 3) / 2)
            scores[j] = gumbel_noise[i, j] - np.log(density)
        sampled = sorted(scores, key=scores.get)[-count:]
        selected[i, sampled] = True
        selected[i] |= p[i] & bool(sampled)
    return selected


def distance_weighted_of_arrays(d, labels, dimension=6, **hyperparams):
    return mining.distance_weighted(KEY, d, labels, dimension=dimension, **hyperparams)


def per_triplet(truth):
    """The truth of a miner of triplets, from dₚ, dₙ and the margin of one triplet."""

    def mask(d, labels, reference_labels=None, margin=0.2):
        selected = np.zeros((*d.shape, d.shape[1]), bool)
        p = positives(labels, reference_labels)
        n = negatives(labels, reference_labels)
        for i in range(len(d)):
            for j in np.flatnonzero(p[i]):
                for k in np.flatnonzero(n[i]):
                    selected[i, j, k] = truth(d[i, j], d[i, k], margin)
        return selected

    return mask


def is_easy(d_positive, d_negative, margin):
    return d_negative > d_positive + margin


def is_semihard(d_positive, d_negative, margin):
    return d_positive < d_negative <= d_positive + margin


def is_hard(d_positive, d_negative, margin):
    return d_negative <= d_positive


def two_sets(rng):
    return rng.normal(size=(4, 3)), rng.normal(size=(5, 3))


def batch_labels(rng):
    return (rng.choice([-3, 0, 7], 6),)


def bank_labels(rng):
    return rng.choice([-3, 0, 7], 4), rng.choice([-3, 0, 8], 6)


def batch(rng):
    """Some distances are equal, and some classes have a single example."""
    return rng.integers(0, 12, (7, 7)) / 8, rng.choice([-3, 0, 7, 9], 7)


def bank(rng):
    return rng.random((5, 8)), rng.choice([0, 1, 2], 5), rng.choice([0, 1, 3], 8)


def with_references(function, sample, truth):
    """A row of `function` with labels of references, which are optional arrays."""
    return Case(
        function,
        sample,
        truth,
        dtypes=(),
        adapter=function,
        id_suffix="references",
    )


def mask_rows(function, truth):
    return [
        Case(function, batch_labels, truth, dtypes=()),
        with_references(function, bank_labels, truth),
    ]


def miner_rows(function, truth, *extremes, **fields):
    in_batch = Case(
        function,
        batch,
        truth,
        dtypes=(),
        not_differentiated=(0,),
        extremes=extremes,
        **fields,
    )
    return [in_batch, with_references(function, bank, truth)]


ZEROS, ONES, HUGE = np.zeros((2, 3)), np.ones((2, 3)), np.full((2, 3), 1e30)
EQUAL_IN_TWO_FEATURES = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 2.0]])
ALL_DIFFERENT = np.zeros((3, 3)), np.arange(3)
ONE_CLASS = np.zeros((3, 3)), np.zeros(3, int)
NO_PAIRS = Extreme(ALL_DIFFERENT, 0.0), Extreme(ONE_CLASS, 0.0)

CASES = [
    Case(
        mining.squared_euclidean,
        two_sets,
        per_pair(squared_euclidean),
        any_num_rows=(0, 1),
        ulps=8,
        extremes=(
            Extreme((ZEROS, ZEROS), 0.0),
            Extreme((ONES, HUGE), 3e60),
            Extreme((ONES, (1 + 1e-9) * ONES), 3e-18),
        ),
    ),
    Case(
        mining.euclidean,
        two_sets,
        per_pair(euclidean),
        any_num_rows=(0, 1),
        ulps=8,
        extremes=(
            Extreme((ZEROS, ZEROS), 0.0),
            Extreme((HUGE, HUGE), 0.0),
            Extreme((ONES, HUGE), np.sqrt(3) * 1e30),
        ),
    ),
    Case(
        mining.lp,
        two_sets,
        per_pair(lp),
        hyperparams={"p": (1.0, 1.5, 2.0, 3.0)},
        adapter=lambda x, y, p=3.0: mining.lp(x, y, p=p),
        ulps=16,
        extremes=(
            Extreme((ZEROS, 1e200 * ONES), 3 ** (1 / 3) * 1e200),
            Extreme((ZEROS, EQUAL_IN_TWO_FEATURES), [0.0, 2.0], {"p": 1.0}),
            Extreme((ZEROS, EQUAL_IN_TWO_FEATURES), [0.0, 2.0], {"p": 1.5}),
        ),
    ),
    Case(
        mining.cosine_similarity,
        two_sets,
        per_pair(cosine),
        any_num_rows=(0, 1),
        ulps=8,
        tol_relative_to_max=True,
        extremes=(
            Extreme((ZEROS, ONES), 0.0),
            Extreme((ZEROS, ZEROS), 0.0),
            Extreme((HUGE, -ONES), -1.0),
        ),
    ),
    Case(
        mining.dot_product,
        two_sets,
        per_pair(dot),
        any_num_rows=(0, 1),
        ulps=8,
        tol_relative_to_max=True,
        extremes=(Extreme((ZEROS, ONES), 0.0), Extreme((HUGE, HUGE), 3e60)),
    ),
    *mask_rows(mining.positives, positives),
    *mask_rows(mining.negatives, negatives),
    *mask_rows(mining.has_positive, has_positive),
    *mask_rows(mining.has_negative, has_negative),
    *miner_rows(mining.hard_pairs, per_anchor(hard_pairs), *NO_PAIRS),
    *miner_rows(
        mining.pair_margin,
        per_anchor(pair_margin),
        Extreme(ONE_CLASS, 0.0),
        hyperparams={"positive": (0.2, 0.5), "negative": (0.8, 0.4)},
    ),
    *miner_rows(
        mining.multi_similarity_pairs,
        per_anchor(multi_similarity_pairs),
        *NO_PAIRS,
        hyperparams={"epsilon": (0.0, 0.3)},
    ),
    *(
        Case(
            mining.distance_weighted,
            batch,
            distance_weighted,
            hyperparams={
                "dimension": (6.0, 128.0),
                "cutoff": (0.3, 0.6),
                "farthest": (0.9, 2.0),
            },
            static_args={"count": count},
            dtypes=(),
            not_differentiated=(0,),
            adapter=distance_weighted_of_arrays,
            extremes=(
                Extreme(ONE_CLASS, 0.0),
                Extreme((np.full((3, 3), 2.0), np.arange(3)), 0),
            ),
            id_suffix=f"count={count}",
        )
        for count in (1, 3)
    ),
    *miner_rows(
        mining.easy_triplets,
        per_triplet(is_easy),
        *NO_PAIRS,
        hyperparams={"margin": (0.0, 0.25)},
    ),
    *miner_rows(
        mining.semihard_triplets,
        per_triplet(is_semihard),
        *NO_PAIRS,
        hyperparams={"margin": (0.0, 0.25)},
    ),
    *miner_rows(mining.hard_triplets, per_triplet(is_hard), *NO_PAIRS),
]

"""Mining: the truth is one pair or one triplet at a time."""

import jax
import numpy as np

from cases import Case, Extreme
from jaxml import mining

KEY = jax.random.key(0)
ZEROS, ONES, FAR = np.zeros((2, 3)), np.ones((2, 3)), np.full((2, 3), 1e30)
TWO = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 2.0]])


def pairwise(of_pair):
    """The truth of two sets of rows from that of two rows."""

    def table(x, y, **numbers):
        return np.array([[of_pair(a, b, **numbers) for b in y] for a in x])

    return table


def cosine(a, b):
    return dot(a, b) / np.sqrt(dot(a, a) * dot(b, b))


def dot(a, b):
    return sum(s * t for s, t in zip(a, b))


def two_sets(rng):
    return rng.normal(size=(4, 3)), rng.normal(size=(5, 3))


def classes(rng):
    return (rng.choice([-3, 0, 7], 6),)


def both_classes(rng):
    return rng.choice([-3, 0, 7], 4), rng.choice([-3, 0, 8], 6)


def batch(rng):
    """Distances of which some are equal, and classes of which some are alone."""
    return rng.integers(0, 12, (7, 7)) / 8, rng.choice([-3, 0, 7, 9], 7)


def bank(rng):
    return rng.random((5, 8)), rng.choice([0, 1, 2], 5), rng.choice([0, 1, 3], 8)


def positive(labels, others=None):
    own = labels if others is None else others
    return np.array(
        [
            [a == b and (others is not None or i != j) for j, b in enumerate(own)]
            for i, a in enumerate(labels)
        ]
    )


def negative(labels, others=None):
    own = labels if others is None else others
    return np.array([[a != b for b in own] for a in labels])


def by_anchor(of_anchor):
    """The truth of a miner of pairs from that of one anchor."""

    def mask(d, labels, others=None, **numbers):
        keep = np.zeros(d.shape, bool)
        p, n = positive(labels, others), negative(labels, others)
        for i in range(len(d)):
            chosen = of_anchor(d[i], *map(np.flatnonzero, (p[i], n[i])), **numbers)
            keep[i, list(chosen)] = True
        return keep

    return mask


def hard_pairs(d, p, n):
    if not (len(p) and len(n)):
        return []
    return [j for j in p if d[j] == max(d[p])] + [j for j in n if d[j] == min(d[n])]


def pair_margin(d, p, n, positive=0.2, negative=0.8):
    return [j for j in p if d[j] > positive] + [j for j in n if d[j] < negative]


def multi_similarity(d, p, n, epsilon=0.1):
    if not (len(p) and len(n)):
        return []
    far = [j for j in p if d[j] + epsilon > min(d[n])]
    return far + [j for j in n if d[j] - epsilon < max(d[p])]


def distance_weighted(d, labels, dimension=6, count=1, cutoff=0.5, farthest=1.4):
    keep, p = np.zeros(d.shape, bool), positive(labels)
    luck = np.asarray(jax.random.gumbel(KEY, d.shape, float))
    for i in range(len(d)):
        rank = {}
        for j in np.flatnonzero(negative(labels)[i] & (d[i] < farthest)):
            at = max(d[i, j], cutoff)
            density = at ** (dimension - 2) * (1 - at**2 / 4) ** ((dimension - 3) / 2)
            rank[j] = luck[i, j] - np.log(density)
        best = sorted(rank, key=rank.get)[-count:]
        keep[i, best] = True
        keep[i] |= p[i] & bool(best)
    return keep


def triplets(kind):
    def mask(d, labels, others=None, margin=0.2):
        keep = np.zeros((*d.shape, d.shape[1]), bool)
        p, n = positive(labels, others), negative(labels, others)
        for i in range(len(d)):
            for j in np.flatnonzero(p[i]):
                for k in np.flatnonzero(n[i]):
                    keep[i, j, k] = kind(d[i, j], d[i, k], margin)
        return keep

    return mask


def masks(function, truth):
    return [
        Case(function, classes, truth, dtypes=()),
        Case(
            function,
            both_classes,
            truth,
            dtypes=(),
            adapter=function,
            id_suffix="references",
        ),
    ]


def miner(function, truth, *extremes, **options):
    return [
        Case(
            function,
            batch,
            truth,
            dtypes=(),
            not_differentiated=(0,),
            extremes=extremes,
            **options,
        ),
        Case(
            function,
            bank,
            truth,
            dtypes=(),
            adapter=function,
            id_suffix="references",
        ),
    ]


ALONE = np.zeros((3, 3)), np.arange(3)
ONE_CLASS = np.zeros((3, 3)), np.zeros(3, int)
NOTHING = Extreme(ALONE, 0.0), Extreme(ONE_CLASS, 0.0)

CASES = [
    Case(
        mining.squared_euclidean,
        two_sets,
        pairwise(lambda a, b: dot(a - b, a - b)),
        any_num_rows=(0, 1),
        ulps=8,
        extremes=(
            Extreme((ZEROS, ZEROS), 0.0),
            Extreme((ONES, FAR), 3e60),
            Extreme((ONES, (1 + 1e-9) * ONES), 3e-18),
        ),
    ),
    Case(
        mining.euclidean,
        two_sets,
        pairwise(lambda a, b: np.sqrt(dot(a - b, a - b))),
        any_num_rows=(0, 1),
        ulps=8,
        extremes=(
            Extreme((ZEROS, ZEROS), 0.0),
            Extreme((FAR, FAR), 0.0),
            Extreme((ONES, FAR), np.sqrt(3) * 1e30),
        ),
    ),
    Case(
        mining.lp,
        two_sets,
        pairwise(lambda a, b, p=3.0: sum(abs(a - b) ** p) ** (1 / p)),
        hyperparams={"p": (1.0, 1.5, 2.0, 3.0)},
        adapter=lambda x, y, p=3.0: mining.lp(x, y, p=p),
        ulps=16,
        extremes=(
            Extreme((ZEROS, 1e200 * ONES), 3 ** (1 / 3) * 1e200),
            *(Extreme((ZEROS, TWO), [0.0, 2.0], {"p": p}) for p in (1.0, 1.5)),
        ),
    ),
    Case(
        mining.cosine_similarity,
        two_sets,
        pairwise(cosine),
        any_num_rows=(0, 1),
        ulps=8,
        tol_relative_to_max=True,
        extremes=(
            Extreme((ZEROS, ONES), 0.0),
            Extreme((ZEROS, ZEROS), 0.0),
            Extreme((FAR, -ONES), -1.0),
        ),
    ),
    Case(
        mining.dot_product,
        two_sets,
        pairwise(dot),
        any_num_rows=(0, 1),
        ulps=8,
        tol_relative_to_max=True,
        extremes=(Extreme((ZEROS, ONES), 0.0), Extreme((FAR, FAR), 3e60)),
    ),
    *masks(mining.positives, positive),
    *masks(mining.negatives, negative),
    *masks(mining.has_positive, lambda *labels: positive(*labels).any(1)),
    *masks(mining.has_negative, lambda *labels: negative(*labels).any(1)),
    *miner(mining.hard_pairs, by_anchor(hard_pairs), *NOTHING),
    *miner(
        mining.pair_margin,
        by_anchor(pair_margin),
        Extreme(ONE_CLASS, 0.0),
        hyperparams={"positive": (0.2, 0.5), "negative": (0.8, 0.4)},
    ),
    *miner(
        mining.multi_similarity_pairs,
        by_anchor(multi_similarity),
        *NOTHING,
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
            adapter=lambda d, labels, dimension=6, **numbers: mining.distance_weighted(
                KEY, d, labels, dimension=dimension, **numbers
            ),
            extremes=(
                Extreme(ONE_CLASS, 0.0),
                Extreme((np.full((3, 3), 2.0), ALONE[1]), 0),
            ),
            id_suffix=f"count={count}",
        )
        for count in (1, 3)
    ),
    *miner(
        mining.easy_triplets,
        triplets(lambda p, n, m: n > p + m),
        *NOTHING,
        hyperparams={"margin": (0.0, 0.25)},
    ),
    *miner(
        mining.semihard_triplets,
        triplets(lambda p, n, m: p < n <= p + m),
        *NOTHING,
        hyperparams={"margin": (0.0, 0.25)},
    ),
    *miner(mining.hard_triplets, triplets(lambda p, n, m: n <= p), *NOTHING),
]

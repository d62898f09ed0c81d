"""How truths of batches are made from truths of one example or one element."""

import itertools

import numpy as np

INF, NAN = np.inf, np.nan


def rows(truth):
    """The truth of a batch from that of one example, whose event is the last axis."""

    def batch(*arrays, where=None, **numbers):
        shape = arrays[0].shape[:-1]
        result = np.empty(shape)
        for i in itertools.product(*map(range, shape)):
            kept = () if where is None else (where[i],)
            result[i] = truth(*(a[i] for a in arrays), *kept, **numbers)
        return result

    return batch


def elements(truth):
    """The truth of arrays from the truth of one element."""
    return lambda *arrays, **numbers: np.vectorize(truth, [float])(*arrays, **numbers)


def log_softmax(z, kept=None):
    """log q of the kept classes; the others do not exist."""
    kept = np.ones(len(z), bool) if kept is None else kept
    top = max(z[kept])
    total = sum(np.exp(v - top) for v in z[kept])
    return {j: z[j] - top - np.log(total) for j in np.flatnonzero(kept)}


def logits_and_labels(rng):
    return 3 * rng.normal(size=(4, 2, 5)), rng.integers(0, 3, (4, 2))


def keeps_labels(rng):
    where = rng.random((4, 2, 5)) < 0.6
    where[..., :3] = True  # the labels that are sampled stay among the kept
    return where


def two_arrays(rng):
    return rng.normal(size=(4, 3)), rng.normal(size=(4, 3))


def scores_and_signs(rng):
    return 2 * rng.normal(size=(4, 3)), rng.choice([-1.0, 1.0], (4, 3))


def logits_and_shares(rng):
    return 3 * rng.normal(size=(3, 4)), rng.random((3, 4))


def scores_and_marks(rng):
    return rng.normal(size=(4, 6)), rng.integers(0, 2, (4, 6)).astype(float)

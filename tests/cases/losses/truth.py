"""Builds the truth of a batch from the truth of one example or one element."""

import itertools

import numpy as np

INF, NAN = np.inf, np.nan


def per_example(truth):
    """The truth of a batch, from that of one example, whose event is the last axis."""

    def batch(*arrays, where=None, **hyperparams):
        shape = arrays[0].shape[:-1]
        values = np.empty(shape)
        for i in itertools.product(*map(range, shape)):
            mask = () if where is None else (where[i],)
            values[i] = truth(*(a[i] for a in arrays), *mask, **hyperparams)
        return values

    return batch


def of_unmasked_classes(truth):
    """The truth of one example, from that of its unmasked classes alone."""

    def masked(scores, true, mask=None, **hyperparams):
        if mask is None:
            return truth(scores, true, **hyperparams)
        true = true[mask] if np.ndim(true) else np.sum(mask[:true])
        return truth(scores[mask], true, **hyperparams)

    return masked


def per_element(truth):
    """The truth of arrays, from that of one element."""
    return lambda *arrays, **hyperparams: np.vectorize(truth, [float])(
        *arrays, **hyperparams
    )


def log_softmax(z, mask=None):
    """{class: log p} for the unmasked classes."""
    mask = np.ones(len(z), bool) if mask is None else mask
    z_max = max(z[mask])
    total = sum(np.exp(v - z_max) for v in z[mask])
    return {j: z[j] - z_max - np.log(total) for j in np.flatnonzero(mask)}


def logits_and_labels(rng):
    """Five classes, of which the first three occur as labels."""
    return 3 * rng.normal(size=(4, 2, 5)), rng.integers(0, 3, (4, 2))


def class_mask(rng):
    """A mask for `logits_and_labels` that keeps every class that occurs."""
    where = rng.random((4, 2, 5)) < 0.6
    where[..., :3] = True
    return where


def multi_hot_mask(rng, shape=(4, 6)):
    """A mask for `scores_and_multi_hot` that keeps the first class."""
    where = rng.random(shape) < 0.6
    where[:, 0] = True
    return where


def predicted_and_true(rng):
    return rng.normal(size=(4, 3)), rng.normal(size=(4, 3))


def scores_and_signs(rng):
    return 2 * rng.normal(size=(4, 3)), rng.choice([-1.0, 1.0], (4, 3))


def logits_and_targets(rng):
    return 3 * rng.normal(size=(3, 4)), rng.random((3, 4))


def scores_and_multi_hot(rng):
    return rng.normal(size=(4, 6)), rng.integers(0, 2, (4, 6)).astype(float)

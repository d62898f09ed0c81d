"""Information."""

import numpy as np

from cases import Case, Extreme
from cases.losses.truth import INF, NAN, logits_and_labels, rows
from jaxml import losses

LOG2 = np.log(2)


def distributions(count):
    """Each over the first three of five outcomes, which no mask leaves out."""

    def sample(rng):
        p = np.zeros((count, 4, 5))
        p[..., :3] = rng.dirichlet(np.ones(3), (count, 4))
        with np.errstate(divide="ignore"):
            return tuple(np.log(p))

    return sample


def keeps_outcomes(rng):
    where = rng.random((4, 5)) < 0.5
    where[:, :3] = True
    return where


def entropy(log_p, kept=None):
    return -sum(np.exp(v) * v for v in log_p if v > -INF)


def divergence(log_q, log_p, kept=None):
    """Σ p log(p/q) - p + q: its last terms cancel for normalised distributions."""
    total = 0.0
    for a, b in zip(log_p, log_q):
        total += (np.exp(a) * (a - b) if a > -INF else 0.0) - np.exp(a) + np.exp(b)
    return total


def js_divergence(log_q, log_p, kept=None):
    mean = np.log((np.exp(log_q) + np.exp(log_p)) / 2)
    return (divergence(mean, log_p) + divergence(mean, log_q)) / 2


def log(*rows_):
    with np.errstate(divide="ignore"):
        return np.log(np.array([rows_]))


NOTHING = {"where": np.zeros((1, 2), bool)}
SURE, OTHER, EVEN = log(1, 0), log(0, 1), log(0.5, 0.5)

CASES = [
    Case(
        losses.entropy,
        distributions(1),
        rows(entropy),
        mask=keeps_outcomes,
        ulps=8,
        extremes=(
            Extreme((SURE,), 0.0),
            Extreme((EVEN,), LOG2),
            Extreme((log(1 - 1e-9, 1e-9),), None),
            Extreme((np.full((1, 2), NAN),), 0.0, NOTHING),
        ),
    ),
    Case(
        losses.kl_divergence,
        distributions(2),
        rows(divergence),
        mask=keeps_outcomes,
        ulps=32,
        extremes=(
            Extreme((EVEN, EVEN), 0.0),
            Extreme((EVEN, SURE), LOG2),
            Extreme((SURE, OTHER), INF, check_grads_of=()),
            Extreme((SURE, SURE), 0.0),
            Extreme((np.full((1, 2), NAN),) * 2, 0.0, NOTHING),
        ),
    ),
    Case(
        losses.js_divergence,
        distributions(2),
        rows(js_divergence),
        mask=keeps_outcomes,
        ulps=32,
        extremes=(
            Extreme((EVEN, EVEN), 0.0),
            Extreme((SURE, OTHER), LOG2),
            Extreme((SURE, SURE), 0.0),
            Extreme((np.full((1, 2), NAN),) * 2, 0.0, NOTHING),
        ),
    ),
    Case(
        losses.nll_loss,
        logits_and_labels,
        rows(lambda log_p, label: -log_p[label]),
        ulps=1,
        extremes=(
            Extreme((log(0, 1), np.array([0])), INF),
            Extreme((np.zeros((3, 2)), np.array([-100, 2, 1])), [NAN, NAN, 0.0]),
        ),
    ),
]

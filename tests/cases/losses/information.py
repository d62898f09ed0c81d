"""Entropy and divergences."""

import numpy as np

from cases import Case, Extreme
from cases.losses.truth import INF, NAN, logits_and_labels, per_example
from jaxml import losses


def log_distributions(count):
    """Samples `count` arrays of distributions over the first three of five outcomes."""

    def sample(rng):
        p = np.zeros((count, 4, 5))
        p[..., :3] = rng.dirichlet(np.ones(3), (count, 4))
        with np.errstate(divide="ignore"):
            return tuple(np.log(p))

    return sample


def outcome_mask(rng):
    """A mask for `log_distributions` that keeps every outcome that occurs."""
    where = rng.random((4, 5)) < 0.5
    where[:, :3] = True
    return where


def entropy(log_p, mask=None):
    return -sum(np.exp(v) * v for v in log_p if v > -INF)


def kl_divergence(log_q, log_p, mask=None):
    """Σ p log(p/q) - p + q, where -p + q sums to 0 for normalized distributions."""
    total = 0.0
    for a, b in zip(log_p, log_q):
        total += (np.exp(a) * (a - b) if a > -INF else 0.0) - np.exp(a) + np.exp(b)
    return total


def js_divergence(log_q, log_p, mask=None):
    log_m = np.log((np.exp(log_q) + np.exp(log_p)) / 2)
    return (kl_divergence(log_m, log_p) + kl_divergence(log_m, log_q)) / 2


def log(*p):
    """A batch of one distribution."""
    with np.errstate(divide="ignore"):
        return np.log(np.array([p]))


ALL_NAN, ALL_MASKED = np.full((1, 2), NAN), {"where": np.zeros((1, 2), bool)}
FIRST, SECOND, UNIFORM = log(1, 0), log(0, 1), log(0.5, 0.5)

CASES = [
    Case(
        losses.entropy,
        log_distributions(1),
        per_example(entropy),
        mask=outcome_mask,
        ulps=8,
        extremes=(
            Extreme((FIRST,), 0.0),
            Extreme((UNIFORM,), np.log(2)),
            Extreme((log(1 - 1e-9, 1e-9),), None),
            Extreme((ALL_NAN,), 0.0, ALL_MASKED),
        ),
    ),
    Case(
        losses.kl_divergence,
        log_distributions(2),
        per_example(kl_divergence),
        mask=outcome_mask,
        ulps=32,
        extremes=(
            Extreme((UNIFORM, UNIFORM), 0.0),
            Extreme((UNIFORM, FIRST), 1 * np.log(1 / 0.5)),
            Extreme((FIRST, SECOND), INF, check_grads_of=()),
            Extreme((FIRST, FIRST), 0.0),
            Extreme((ALL_NAN, ALL_NAN), 0.0, ALL_MASKED),
        ),
    ),
    Case(
        losses.js_divergence,
        log_distributions(2),
        per_example(js_divergence),
        mask=outcome_mask,
        ulps=32,
        extremes=(
            Extreme((UNIFORM, UNIFORM), 0.0),
            Extreme((FIRST, SECOND), (np.log(1 / 0.5) + np.log(1 / 0.5)) / 2),
            Extreme((FIRST, FIRST), 0.0),
            Extreme((ALL_NAN, ALL_NAN), 0.0, ALL_MASKED),
        ),
    ),
    Case(
        losses.nll_loss,
        logits_and_labels,
        per_example(lambda log_p, label: -log_p[label]),
        ulps=1,
        extremes=(
            Extreme((log(0, 1), np.array([0])), INF),
            Extreme((np.zeros((3, 2)), np.array([-100, 2, 1])), [NAN, NAN, 0.0]),
        ),
    ),
]

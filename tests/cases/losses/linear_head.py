"""Losses of a linear layer's logits."""

import numpy as np

from cases import Case, Extreme
from cases.losses.truth import NAN, log_softmax
from jaxml import losses


def features_weights_labels(rng):
    """2 × 3 examples and 11 classes: blocks of 4 leave a remainder on both axes."""
    x, w = rng.normal(size=(2, 3, 4)), rng.normal(size=(4, 11))
    return x, w, rng.integers(0, 11, (2, 3))


def logits(x, w, temperature=1.0, softcap=None):
    z = np.array([sum(x * column) for column in w.T])
    return (z if softcap is None else softcap * np.tanh(z / softcap)) / temperature


def per_row(truth):
    """The truth of a batch, from that of the logits of one row and its label."""

    def batch(x, w, labels, temperature=1.0, softcap=None, block=None, **hyperparams):
        values = np.empty(labels.shape)
        for i in np.ndindex(labels.shape):
            z = logits(x[i], w, temperature, softcap)
            values[i] = truth(z, labels[i], **hyperparams)
        return values

    return batch


def two_heads(rng):
    """2 × 3 rows of a student and a teacher of other width, and 11 classes."""
    shapes = (2, 3, 4), (4, 11), (2, 3, 3), (3, 11)
    return tuple(rng.normal(size=shape) for shape in shapes)


def per_pair(truth):
    """The truth of a batch, from the log-probabilities of a student and a teacher."""

    def batch(x, w, teacher_x, teacher_w, temperature=1.0, softcap=None, **keywords):
        keywords.pop("block", None)
        values = np.empty(x.shape[:-1])
        for i in np.ndindex(values.shape):
            log_q, log_p = (
                np.array([*log_softmax(logits(*head, temperature, softcap)).values()])
                for head in ((x[i], w), (teacher_x[i], teacher_w))
            )
            values[i] = truth(log_q, log_p, **keywords)
        return values

    return batch


def kl_divergence(log_q, log_p):
    return sum(np.exp(log_p) * (log_p - log_q))


def js_divergence(log_q, log_p, beta=0.5):
    log_m = np.log(beta * np.exp(log_p) + (1 - beta) * np.exp(log_q))
    from_p, from_q = kl_divergence(log_m, log_p), kl_divergence(log_m, log_q)
    return beta * from_p + (1 - beta) * from_q


def logsumexp(z):
    return max(z) + np.log(sum(np.exp(z - max(z))))


def cross_entropy(z, label, label_smoothing=0.0, z_loss=0.0):
    log_p = log_softmax(z)
    nll = -log_p[label]
    uniform = -sum(log_p.values()) / len(z)
    smoothed = (1 - label_smoothing) * nll + label_smoothing * uniform
    return smoothed + z_loss * logsumexp(z) ** 2


LOG_PROB = {
    "log_prob": lambda z, label: log_softmax(z)[label],
    "entropy": lambda z, label: -sum(np.exp(v) * v for v in log_softmax(z).values()),
    "lse": lambda z, label: logsumexp(z),
}


def field(function, name):
    """One field of what a function returns."""
    return lambda *args, **keywords: getattr(function(*args, **keywords), name)


def of_logits(*z, label=0):
    """A row of these logits."""
    return np.ones((1, 1)), np.array([z]), np.array([label])


def of_heads(student, teacher):
    """A row of a student and a teacher with these logits."""
    ones = np.ones((1, 1))
    return ones, np.array([student]), ones, np.array([teacher])


TINY = np.exp(-69.0)
"""The probability of the second of the logits 69 and 0."""

LOG_PROB_EXTREMES = {
    "log_prob": (-TINY, -69.0, -1e30, -np.log(2), 0.0),
    "entropy": (70 * TINY, 70 * TINY, 0.0, np.log(2), 0.0),
    "lse": (69.0, 69.0, 1e30, 1e4 + np.log(2), 2.0),
}
EXTREME_ROWS = (
    of_logits(69.0, 0.0),
    of_logits(69.0, 0.0, label=1),
    of_logits(1e30, 0.0, label=1),
    of_logits(1e4, 1e4),
    of_logits(2.0),
)
DIVERGENCES = {
    losses.linear_kl_divergence: kl_divergence,
    losses.linear_js_divergence: js_divergence,
}
DIVERGENCE_EXTREMES = {
    losses.linear_kl_divergence: (0.0, 69.0, 1e30, 0.0, 0.0),
    losses.linear_js_divergence: (0.0, np.log(2), np.log(2), 0.0, 0.0),
}
EXTREME_HEADS = (
    of_heads([1.0, 0.0], [1.0, 0.0]),
    of_heads([69.0, 0.0], [0.0, 69.0]),
    of_heads([1e30, 0.0], [0.0, 1e30]),
    of_heads([1e4, 1e4], [0.0, 0.0]),
    of_heads([2.0], [3.0]),
)
OUT_OF_RANGE = np.ones((1, 2)), np.ones((2, 3)), np.array([-100])

CASES = [
    *(
        Case(
            losses.linear_cross_entropy,
            features_weights_labels,
            per_row(cross_entropy),
            hyperparams={
                "label_smoothing": (0.0, 0.2),
                "z_loss": (0.0, 1e-2),
                "softcap": (0.5, 30.0),
            },
            static_args={"block": block},
            has_jvp=False,
            ulps=32,
            id_suffix=f"block={block}",
            extremes=(
                Extreme(of_logits(69.0, 0.0), TINY),
                Extreme(of_logits(1e30, 0.0, label=1), 1e30),
                Extreme(of_logits(1e200, 0.0, label=1), 1e200),
                Extreme((np.ones((1, 2)), np.ones((2, 1)), np.array([0])), 0.0),
                Extreme(OUT_OF_RANGE, NAN),
            ),
        )
        for block in (4, None)
    ),
    *(
        Case(
            losses.linear_log_prob,
            features_weights_labels,
            per_row(truth),
            hyperparams={"temperature": (1.0, 0.3, 2.0), "softcap": (0.5, 30.0)},
            static_args={"block": block},
            has_jvp=False,
            ulps=32,
            adapter=field(losses.linear_log_prob, name),
            id_suffix=f"{name}, block={block}",
            extremes=(
                *map(Extreme, EXTREME_ROWS, LOG_PROB_EXTREMES[name]),
                Extreme(OUT_OF_RANGE, NAN),
            ),
        )
        for name, truth in LOG_PROB.items()
        for block in ((4, None) if name == "entropy" else (4,))
    ),
    *(
        Case(
            function,
            two_heads,
            per_pair(truth),
            hyperparams={"temperature": (1.0, 0.3, 2.0), "softcap": (0.5, 30.0)}
            | ({"beta": (0.5, 0.1, 0.9)} if truth is js_divergence else {}),
            static_args={"block": block},
            has_jvp=False,
            not_differentiated=(2, 3),
            ulps=64,
            id_suffix=f"block={block}",
            extremes=(*map(Extreme, EXTREME_HEADS, DIVERGENCE_EXTREMES[function]),),
        )
        for function, truth in DIVERGENCES.items()
        for block in (4, None)
    ),
]

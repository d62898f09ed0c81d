"""In-batch losses: the truth goes through the candidates of one anchor at a time."""

import numpy as np
from scipy import special

from cases import Case, Extreme
from jaxml import losses

LABELS = np.array([7, 7, -3, 7, -3, 0])


def batch(rng):
    """Six rows of three classes, of which one has a single row."""
    return rng.normal(size=(6, 4)), LABELS


def two(rng):
    return tuple(rng.normal(size=(2, 5, 4)))


def dot(x, y):
    return sum(a * b for a, b in zip(x, y))


def distance(x, y):
    return np.sqrt(sum((a - b) ** 2 for a, b in zip(x, y)))


def each_anchor(formula, measure=dot):
    """formula(positives, negatives) of the measured, for each anchor of a batch."""

    def truth(x, labels, references=None, reference_labels=None, where=None, **numbers):
        own = references is None
        others = x if own else references
        theirs = labels if own else reference_labels
        found = []
        for i, row in enumerate(x):
            positives, negatives = [], []
            for j, other in enumerate(others):
                if (own and i == j) or (where is not None and not where[i][j]):
                    continue
                group = positives if labels[i] == theirs[j] else negatives
                group.append(measure(row, other))
            found.append(formula(np.array(positives), np.array(negatives), **numbers))
        return np.array(found)

    return truth


def mean(values):
    values = list(values)
    return sum(values) / len(values) if values else 0.0


def rest(scores, i):
    """-log softmax(scores)[i], with its digits where that is near 0."""
    return np.logaddexp(0, special.logsumexp(np.delete(scores, i)) - scores[i])


@each_anchor
def nt_xent(p, n, temperature=0.07):
    return mean(rest(np.array([s, *n]) / temperature, 0) for s in p)


@each_anchor
def supcon(p, n, temperature=0.1):
    everything = np.concatenate([p, n]) / temperature
    return mean(rest(everything, i) for i in range(len(p)))


@each_anchor
def multi_similarity(p, n, alpha=2.0, beta=50.0, base=0.5):
    near = special.logsumexp([0.0, *(-alpha * (p - base))]) / alpha
    return near + special.logsumexp([0.0, *(beta * (n - base))]) / beta


@each_anchor
def circle(p, n, margin=0.4, gamma=80.0):
    near = [-gamma * max(0.0, 1 + margin - s) * (s - 1 + margin) for s in p]
    far = [gamma * max(0.0, s + margin) * (s - margin) for s in n]
    return special.logsumexp([0.0, *(a + b for a in near for b in far)])


@each_anchor
def smooth_ap(p, n, temperature=0.01):
    lacking = []
    for i, s in enumerate(p):
        right = sum(special.expit((q - s) / temperature) for q in np.delete(p, i))
        wrong = sum(special.expit((q - s) / temperature) for q in n)
        lacking.append(wrong / (1 + right + wrong))
    return mean(lacking)


def of_distance(formula):
    return each_anchor(formula, distance)


@of_distance
def contrastive(p, n, margin=1.0):
    return mean([d**2 for d in p] + [max(0.0, margin - d) ** 2 for d in n])


@of_distance
def margin_loss(p, n, margin=0.2, beta=1.2):
    near = [max(0.0, margin + d - beta) for d in p]
    return mean(near + [max(0.0, margin + beta - d) for d in n])


@of_distance
def hard(p, n, margin=0.2):
    return max(0.0, max(p) - min(n) + margin) if len(p) and len(n) else 0.0


@of_distance
def semihard(p, n, margin=0.2):
    if not len(n):
        return 0.0
    chosen = [min([d for d in n if d > near], default=max(n)) for near in p]
    return mean(max(0.0, near - far + margin) for near, far in zip(p, chosen))


@of_distance
def batch_all(p, n, margin=0.2):
    return mean(max(0.0, near - far + margin) for near in p for far in n)


@of_distance
def nca(p, n):
    if not len(p):
        return 0.0
    near, far = np.exp(-(p**2)), np.exp(-(n**2))
    return -np.log(near.sum() / (near.sum() + far.sum()))


def lifted(x, labels, references=None, reference_labels=None, margin=1.0):
    own = references is None
    others, theirs = (x, labels) if own else (references, reference_labels)

    def pull(row, label):
        far = [distance(row, y) for y, other in zip(others, theirs) if other != label]
        return sum(np.exp(margin - d) for d in far)

    found = []
    for i, row in enumerate(x):
        pairs = []
        for j, other in enumerate(others):
            if theirs[j] == labels[i] and not (own and i == j):
                far = np.log(pull(row, labels[i]) + pull(other, labels[i]))
                pairs.append(max(0.0, distance(row, other) + far) ** 2 / 2)
        found.append(mean(pairs))
    return np.array(found)


def angular(x, labels, references=None, reference_labels=None, angle=0.7):
    own = references is None
    others, theirs = (x, labels) if own else (references, reference_labels)
    t = np.tan(angle) ** 2
    found = []
    for i, a in enumerate(x):
        pairs = []
        for j, p in enumerate(others):
            if theirs[j] != labels[i] or (own and i == j):
                continue
            f = [
                4 * t * dot(a + p, n) - 2 * (1 + t) * dot(a, p)
                for n, other in zip(others, theirs)
                if other != labels[i]
            ]
            pairs.append(special.logsumexp([0.0, *f]))
        found.append(mean(pairs))
    return np.array(found)


def info_nce(q, k, temperature=0.1, where=None):
    found = []
    for i, row in enumerate(q):
        kept = [j for j in range(len(k)) if where is None or where[i][j]]
        s = np.array([dot(row, k[j]) / temperature for j in kept])
        found.append(rest(s, kept.index(i)) if i in kept else 0.0)
    return np.array(found)


def clip(a, b, temperature=0.07):
    return (info_nce(a, b, temperature) + info_nce(b, a, temperature)) / 2


def siglip(a, b, scale=10.0, bias=-5.0):
    found = np.zeros(len(a))
    for i, j in np.ndindex(len(a), len(b)):
        sign = 1 if i == j else -1
        found[i] += np.logaddexp(0, -sign * (scale * dot(a[i], b[j]) + bias))
    return found


def vicreg(a, b, invariance_weight=25.0, variance_weight=25.0, covariance_weight=1.0):
    total = invariance_weight * np.mean((a - b) ** 2)
    for x in (a, b):
        c = np.cov(x.T)
        spread = [max(0.0, 1 - np.sqrt(v + 1e-4)) for v in np.diag(c)]
        off = [c[i, j] ** 2 for i, j in np.ndindex(c.shape) if i != j]
        total += variance_weight * mean(spread)
        total += covariance_weight * sum(off) / len(c)
    return total


def barlow(a, b, off_diagonal_weight=5e-3):
    columns = range(a.shape[1])
    c = np.corrcoef(a.T, b.T)[: len(columns), len(columns) :]
    off = sum(c[i, j] ** 2 for i in columns for j in columns if i != j)
    return sum((1 - c[i, i]) ** 2 for i in columns) + off_diagonal_weight * off


def edges(*values):
    """Equal rows, zeros, one class, one row, no two rows of a class, and huge rows."""
    labels = np.array([1, 1, 2])
    return (
        Extreme((np.ones((3, 2)), labels), None),
        Extreme((np.zeros((3, 2)), labels), None),
        Extreme((np.array([[0.0, 1], [1, 0], [2, 0]]), np.ones(3, int)), None),
        Extreme((np.ones((1, 2)), np.array([5])), [0.0]),
        Extreme((np.array([[0.0, 1], [1, 0], [2, 0]]), np.arange(3)), None),
        *values,
    )


HUGE = Extreme((1e30 * np.eye(3), np.array([1, 1, 2])), None)
MARGIN = {"margin": (0.2, 0.0, 2.0)}
TEMPERATURE = {"temperature": (0.5, 2.0)}
EQUAL = Extreme((np.ones((3, 2)), np.ones((3, 2))), None)
ZERO = Extreme((np.zeros((3, 2)), np.zeros((3, 2))), None)
FAR = np.array([[1e90, -1e90], [0.0, 1e90], [1e90, 0.0]])
ONE = Extreme((np.ones((1, 2)), np.ones((1, 2))), [0.0])


def row(function, truth, numbers, *extremes, **more):
    more = {"ulps": 64, "tol_relative_to_max": True, **more}
    return Case(function, batch, truth, numbers, extremes=edges(*extremes), **more)


CASES = [
    Case(
        losses.in_batch,
        two,
        lambda q, k: (q @ k.T) @ np.arange(5.0) + np.sum(q * k, 1),
        adapter=lambda q, k: losses.in_batch(_ranked, q, k),
        tol_relative_to_max=True,
        ulps=16,
    ),
    Case(
        losses.info_nce,
        two,
        info_nce,
        TEMPERATURE,
        extremes=(EQUAL, ZERO, ONE, Extreme((1e30 * np.eye(3), np.eye(3)), [0.0] * 3)),
        adapter=lambda q, k, **numbers: losses.info_nce(
            q, k, **numbers
        ),  # k may be more
        has_jvp=False,
        ulps=64,
        tol_relative_to_max=True,
    ),
    Case(
        losses.clip_loss,
        two,
        clip,
        TEMPERATURE,
        extremes=(EQUAL, ZERO, ONE, Extreme((1e30 * np.eye(3), np.eye(3)), [0.0] * 3)),
        has_jvp=False,
        ulps=64,
        tol_relative_to_max=True,
    ),
    Case(
        losses.siglip_loss,
        two,
        siglip,
        {"scale": (10.0, 1.0), "bias": (-5.0, 0.0)},
        extremes=(EQUAL, ZERO),
        adapter=lambda a, b, scale=10.0, bias=-5.0: losses.siglip_loss(
            a, b, scale=scale, bias=bias
        ),
        ulps=64,
        tol_relative_to_max=True,
    ),
    row(losses.nt_xent, nt_xent, TEMPERATURE, HUGE),
    row(losses.supcon_loss, supcon, TEMPERATURE, HUGE),
    row(
        losses.multi_similarity_loss,
        multi_similarity,
        {"alpha": (1.0, 5.0), "beta": (3.0, 10.0), "base": (0.0, 1.0)},
        HUGE,
    ),
    row(
        losses.circle_loss,
        circle,
        {"margin": (0.25, 0.5), "gamma": (1.0, 20.0)},
        Extreme(
            (np.array([[1e200], [1e200], [-1e200]]), np.array([1, 1, 2])),
            [np.log(2), np.log(2), 0.0],
            check_grads_of=(),
        ),
        rtol=1e-11,
        dtypes=(),  # its derivative is not that of its value: test_metric.py has it
    ),
    row(losses.smooth_ap_loss, smooth_ap, {"temperature": (0.1, 1.0)}, HUGE),
    row(losses.batch_contrastive_loss, contrastive, {"margin": (1.0, 3.0)}, HUGE),
    row(losses.margin_loss, margin_loss, MARGIN | {"beta": (1.2, 2.5)}, HUGE),
    row(losses.batch_hard_triplet_loss, hard, MARGIN, HUGE),
    row(losses.batch_semihard_triplet_loss, semihard, MARGIN, HUGE),
    row(losses.batch_all_triplet_loss, batch_all, MARGIN, HUGE),
    row(losses.lifted_structure_loss, lifted, {"margin": (1.0, 0.0)}, HUGE),
    row(losses.angular_loss, angular, {"angle": (0.7, 0.3)}),
    row(losses.nca_loss, nca, {}),
    Case(
        losses.vicreg_loss,
        two,
        vicreg,
        {
            "invariance_weight": (1.0, 0.0),
            "variance_weight": (1.0, 0.0),
            "covariance_weight": (25.0, 0.0),
        },
        extremes=(EQUAL, ZERO, Extreme((FAR, FAR), 0.0, {"covariance_weight": 0.0})),
        ulps=64,
    ),
    Case(
        losses.barlow_twins_loss,
        two,
        barlow,
        {"off_diagonal_weight": (0.0, 1.0)},
        extremes=(EQUAL, ZERO),
        ulps=64,
        rtol=1e-11,
    ),
]


def _ranked(similarities, index):
    return (
        similarities @ np.arange(5.0).astype(similarities.dtype) + similarities[index]
    )

"""In-batch losses, whose truth loops over the candidates of one anchor at a time."""

import jax.numpy as jnp
import numpy as np
from scipy import special

from cases import Case, Extreme
from cases.losses.pairs import distance, dot
from jaxml import losses

LABELS = np.array([7, 7, -3, 7, -3, 0])


def embeddings_and_labels(rng):
    """Six embeddings of three classes, one of which has a single example."""
    return rng.normal(size=(6, 4)), LABELS


def two_views(rng):
    return tuple(rng.normal(size=(2, 5, 4)))


def for_each_anchor(formula, pairwise=dot):
    """The truth of a batch from formula(values of positives, values of negatives)."""

    def truth(
        x, labels, references=None, reference_labels=None, where=None, **hyperparams
    ):
        excludes_self = references is None
        candidates = x if excludes_self else references
        candidate_labels = labels if excludes_self else reference_labels
        result = []
        for i, anchor in enumerate(x):
            positives, negatives = [], []
            for j, candidate in enumerate(candidates):
                if (excludes_self and i == j) or (
                    where is not None and not where[i, j]
                ):
                    continue
                group = positives if labels[i] == candidate_labels[j] else negatives
                group.append(pairwise(anchor, candidate))
            p, n = np.array(positives), np.array(negatives)
            result.append(formula(p, n, **hyperparams))
        return np.array(result)

    return truth


def mean(values):
    values = list(values)
    return sum(values) / len(values) if values else 0.0


def softmax_nll(logits, i):
    """-log softmax(logits)[i], accurate near 0."""
    return np.logaddexp(0, special.logsumexp(np.delete(logits, i)) - logits[i])


@for_each_anchor
def nt_xent(p, n, temperature=0.07):
    return mean(softmax_nll(np.array([s, *n]) / temperature, 0) for s in p)


@for_each_anchor
def supcon(p, n, temperature=0.1):
    logits = np.concatenate([p, n]) / temperature
    return mean(softmax_nll(logits, i) for i in range(len(p)))


@for_each_anchor
def multi_similarity(p, n, alpha=2.0, beta=50.0, base=0.5):
    positive_term = special.logsumexp([0.0, *(-alpha * (p - base))]) / alpha
    return positive_term + special.logsumexp([0.0, *(beta * (n - base))]) / beta


@for_each_anchor
def circle(p, n, margin=0.4, gamma=80.0):
    logits_p = [-gamma * max(0.0, 1 + margin - s) * (s - 1 + margin) for s in p]
    logits_n = [gamma * max(0.0, s + margin) * (s - margin) for s in n]
    return special.logsumexp([0.0, *(a + b for a in logits_p for b in logits_n)])


@for_each_anchor
def smooth_ap(p, n, temperature=0.01):
    one_minus_precision = []
    for i, s in enumerate(p):
        p_above = sum(special.expit((q - s) / temperature) for q in np.delete(p, i))
        n_above = sum(special.expit((q - s) / temperature) for q in n)
        one_minus_precision.append(n_above / (1 + p_above + n_above))
    return mean(one_minus_precision)


def for_each_anchor_by_distance(formula):
    return for_each_anchor(formula, distance)


@for_each_anchor_by_distance
def contrastive(p, n, margin=1.0):
    return mean([d**2 for d in p] + [max(0.0, margin - d) ** 2 for d in n])


@for_each_anchor_by_distance
def margin_loss(p, n, margin=0.2, beta=1.2):
    positive_losses = [max(0.0, margin + d - beta) for d in p]
    return mean(positive_losses + [max(0.0, margin + beta - d) for d in n])


@for_each_anchor_by_distance
def batch_hard(p, n, margin=0.2):
    return max(0.0, max(p) - min(n) + margin) if len(p) and len(n) else 0.0


@for_each_anchor_by_distance
def semihard(p, n, margin=0.2):
    if not len(n):
        return 0.0
    chosen = [min([d for d in n if d > d_p], default=max(n)) for d_p in p]
    return mean(max(0.0, d_p - d_n + margin) for d_p, d_n in zip(p, chosen))


@for_each_anchor_by_distance
def batch_all(p, n, margin=0.2):
    return mean(max(0.0, d_p - d_n + margin) for d_p in p for d_n in n)


@for_each_anchor_by_distance
def nca(p, n):
    if not len(p):
        return 0.0
    exp_p, exp_n = np.exp(-(p**2)), np.exp(-(n**2))
    return -np.log(exp_p.sum() / (exp_p.sum() + exp_n.sum()))


def for_each_positive(formula):
    """The truth of a batch from formula(anchor, positive, its class's negatives)."""

    def truth(x, labels, references=None, reference_labels=None, **hyperparams):
        excludes_self = references is None
        candidates = x if excludes_self else references
        candidate_labels = labels if excludes_self else reference_labels
        result = []
        for i, anchor in enumerate(x):
            negatives = candidates[candidate_labels != labels[i]]
            result.append(
                mean(
                    formula(anchor, positive, negatives, **hyperparams)
                    for j, positive in enumerate(candidates)
                    if candidate_labels[j] == labels[i]
                    and not (excludes_self and i == j)
                )
            )
        return np.array(result)

    return truth


@for_each_positive
def lifted_structure(a, p, negatives, margin=1.0):
    terms = [np.exp(margin - distance(x, n)) for x in (a, p) for n in negatives]
    return max(0.0, distance(a, p) + np.log(sum(terms))) ** 2 / 2


@for_each_positive
def angular(a, p, negatives, angle=0.7):
    t = np.tan(angle) ** 2
    f = [4 * t * dot(a + p, n) - 2 * (1 + t) * dot(a, p) for n in negatives]
    return special.logsumexp([0.0, *f])


def info_nce(q, k, temperature=0.1, where=None):
    result = []
    for i, query in enumerate(q):
        unmasked = [j for j in range(len(k)) if where is None or where[i, j]]
        logits = np.array([dot(query, k[j]) / temperature for j in unmasked])
        has_positive = i in unmasked
        result.append(softmax_nll(logits, unmasked.index(i)) if has_positive else 0.0)
    return np.array(result)


def clip(a, b, temperature=0.07, where=None):
    transposed = None if where is None else where.T
    rows, columns = (
        info_nce(a, b, temperature, where),
        info_nce(b, a, temperature, transposed),
    )
    return (rows + columns) / 2


def siglip(a, b, scale=10.0, bias=-5.0, where=None):
    result = np.zeros(len(a))
    for i, j in np.ndindex(len(a), len(b)):
        if where is not None and not where[i, j]:
            continue
        sign = 1 if i == j else -1
        result[i] += np.logaddexp(0, -sign * (scale * dot(a[i], b[j]) + bias))
    return result


def vicreg(
    a,
    b,
    invariance_weight=25.0,
    variance_weight=25.0,
    covariance_weight=1.0,
    where=None,
):
    if where is not None:
        a, b = a[where], b[where]
    loss = invariance_weight * np.mean((a - b) ** 2)
    for x in (a, b):
        cov = np.cov(x.T)
        hinges = [max(0.0, 1 - np.sqrt(v + 1e-4)) for v in np.diag(cov)]
        off_diagonal = [cov[i, j] ** 2 for i, j in np.ndindex(cov.shape) if i != j]
        loss += variance_weight * mean(hinges)
        loss += covariance_weight * sum(off_diagonal) / len(cov)
    return loss


def barlow_twins(a, b, off_diagonal_weight=5e-3, where=None):
    if where is not None:
        a, b = a[where], b[where]
    features = range(a.shape[1])
    c = np.corrcoef(a.T, b.T)[: len(features), len(features) :]
    off_diagonal = sum(c[i, j] ** 2 for i in features for j in features if i != j)
    on_diagonal = sum((1 - c[i, i]) ** 2 for i in features)
    return on_diagonal + off_diagonal_weight * off_diagonal


def row_loss(similarities, index):
    """The loss of one query that the case of `in_batch` lifts to a batch."""
    weights = np.arange(len(similarities)).astype(similarities.dtype)
    return jnp.sum(similarities * weights) + similarities[index]


THREE = np.array([[0.0, 1], [1, 0], [2, 0]])
EXTREMES = (
    Extreme((np.ones((3, 2)), np.array([1, 1, 2])), None),  # equal rows
    Extreme((np.zeros((3, 2)), np.array([1, 1, 2])), None),
    Extreme((THREE, np.ones(3, int)), None),  # one class
    Extreme((THREE, np.arange(3)), None),  # no positives
    Extreme((np.ones((1, 2)), np.array([5])), [0.0]),  # one row
)
HUGE_EMBEDDINGS = Extreme((1e30 * np.eye(3), np.array([1, 1, 2])), None)
EQUAL_VIEWS = Extreme((np.ones((3, 2)), np.ones((3, 2))), None)
ZERO_VIEWS = Extreme((np.zeros((3, 2)), np.zeros((3, 2))), None)
ONE_PAIR = Extreme((np.ones((1, 2)), np.ones((1, 2))), [0.0])
NO_PAIR = Extreme(
    (np.full((3, 2), np.nan), np.full((3, 2), np.nan)),
    None,
    {"where": np.zeros(3, bool)},
)
HUGE_VIEW = Extreme((1e30 * np.eye(3), np.eye(3)), [0.0] * 3)
SQUARED_COV_OVERFLOWS = np.array([[1e90, -1e90], [0.0, 1e90], [1e90, 0.0]])

MARGIN = {"margin": (0.2, 0.0, 2.0)}
TEMPERATURE = {"temperature": (0.5, 2.0)}


def anchor_case(function, truth, hyperparams, *extremes, **fields):
    return Case(
        function,
        embeddings_and_labels,
        truth,
        hyperparams,
        extremes=(*EXTREMES, *extremes),
        **{"ulps": 64, "tol_relative_to_max": True, **fields},
    )


CASES = [
    Case(
        losses.in_batch,
        two_views,
        lambda q, k: (q @ k.T) @ np.arange(5.0) + np.sum(q * k, 1),
        adapter=lambda q, k, **keywords: losses.in_batch(row_loss, q, k, **keywords),
        tol_relative_to_max=True,
        ulps=16,
    ),
    Case(
        losses.info_nce,
        two_views,
        info_nce,
        TEMPERATURE,
        extremes=(EQUAL_VIEWS, ZERO_VIEWS, ONE_PAIR, HUGE_VIEW),
        # an adapter, because more keys than queries are allowed
        adapter=lambda q, k, **hyperparams: losses.info_nce(q, k, **hyperparams),
        has_jvp=False,
        ulps=64,
        tol_relative_to_max=True,
    ),
    Case(
        losses.clip_loss,
        two_views,
        clip,
        TEMPERATURE,
        extremes=(EQUAL_VIEWS, ZERO_VIEWS, ONE_PAIR, HUGE_VIEW),
        has_jvp=False,
        ulps=64,
        tol_relative_to_max=True,
    ),
    Case(
        losses.siglip_loss,
        two_views,
        siglip,
        {"scale": (10.0, 1.0), "bias": (-5.0, 0.0)},
        extremes=(EQUAL_VIEWS, ZERO_VIEWS),
        adapter=lambda a, b, scale=10.0, bias=-5.0, **keywords: losses.siglip_loss(
            a, b, scale=scale, bias=bias, **keywords
        ),
        ulps=64,
        tol_relative_to_max=True,
    ),
    anchor_case(losses.nt_xent, nt_xent, TEMPERATURE, HUGE_EMBEDDINGS),
    anchor_case(losses.supcon_loss, supcon, TEMPERATURE, HUGE_EMBEDDINGS),
    anchor_case(
        losses.multi_similarity_loss,
        multi_similarity,
        {"alpha": (1.0, 5.0), "beta": (3.0, 10.0), "base": (0.0, 1.0)},
        HUGE_EMBEDDINGS,
    ),
    anchor_case(
        losses.circle_loss,
        circle,
        {"margin": (0.25, 0.5), "gamma": (1.0, 20.0)},
        Extreme(
            (np.array([[1e200], [1e200], [-1e200]]), np.array([1, 1, 2])),
            [np.log(2), np.log(2), 0.0],
            check_grads_of=(),
        ),
        rtol=1e-11,
        dtypes=(),  # the gradient is not the value's derivative; test_metric checks it
    ),
    anchor_case(
        losses.smooth_ap_loss, smooth_ap, {"temperature": (0.1, 1.0)}, HUGE_EMBEDDINGS
    ),
    anchor_case(
        losses.batch_contrastive_loss,
        contrastive,
        {"margin": (1.0, 3.0)},
        HUGE_EMBEDDINGS,
    ),
    anchor_case(
        losses.margin_loss, margin_loss, MARGIN | {"beta": (1.2, 2.5)}, HUGE_EMBEDDINGS
    ),
    anchor_case(losses.batch_hard_triplet_loss, batch_hard, MARGIN, HUGE_EMBEDDINGS),
    anchor_case(losses.batch_semihard_triplet_loss, semihard, MARGIN, HUGE_EMBEDDINGS),
    anchor_case(losses.batch_all_triplet_loss, batch_all, MARGIN, HUGE_EMBEDDINGS),
    anchor_case(
        losses.lifted_structure_loss,
        lifted_structure,
        {"margin": (1.0, 0.0)},
        HUGE_EMBEDDINGS,
    ),
    anchor_case(losses.angular_loss, angular, {"angle": (0.7, 0.3)}),
    anchor_case(losses.nca_loss, nca, {}),
    Case(
        losses.vicreg_loss,
        two_views,
        vicreg,
        {
            "invariance_weight": (1.0, 0.0),
            "variance_weight": (1.0, 0.0),
            "covariance_weight": (25.0, 0.0),
        },
        mask=lambda rng: rng.permutation(5) < 3,
        extremes=(
            NO_PAIR._replace(value=2 * 25 * 0.99),
            EQUAL_VIEWS,
            ZERO_VIEWS,
            Extreme(
                (SQUARED_COV_OVERFLOWS, SQUARED_COV_OVERFLOWS),
                0.0,
                {"covariance_weight": 0.0},
            ),
        ),
        ulps=64,
    ),
    Case(
        losses.barlow_twins_loss,
        two_views,
        barlow_twins,
        {"off_diagonal_weight": (0.0, 1.0)},
        mask=lambda rng: rng.permutation(5) < 4,
        extremes=(EQUAL_VIEWS, ZERO_VIEWS, NO_PAIR._replace(value=2.0)),
        ulps=64,
        rtol=1e-11,
    ),
]

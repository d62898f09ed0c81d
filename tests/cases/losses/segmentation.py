"""The table of segmentation losses. Truths are loops over the pixels of one region."""

import itertools

import numpy as np

from cases import Case, Extreme
from cases.losses.truth import INF, NAN
from jaxml import losses


def per_region(truth):
    """The truth of a batch, from the pixels [(p, t), ...] of one image and class."""

    def batch(p, t, axis=(-3, -2), where=None, **hyperparams):
        axes = [a % p.ndim for a in np.atleast_1d(axis)]
        batch_axes = [a for a in range(p.ndim) if a not in axes]
        where = np.broadcast_to(True if where is None else where[..., None], p.shape)
        shape = [p.shape[a] for a in batch_axes]
        p, t, where = (
            x.transpose(*batch_axes, *axes).reshape(*shape, -1) for x in (p, t, where)
        )
        values = np.empty(shape)
        for i in np.ndindex(*shape):
            pixels = zip(p[i][where[i]], t[i][where[i]])
            values[i] = truth(list(pixels), **hyperparams)
        return values

    return batch


def total(terms):
    return float(sum(terms))


def divide(a, b):
    return a / b if b else 0.0


def confusion_counts(pixels):
    """TP, FP, FN and TN."""
    return (
        total(p * t for p, t in pixels),
        total(p * (1 - t) for p, t in pixels),
        total((1 - p) * t for p, t in pixels),
        total((1 - p) * (1 - t) for p, t in pixels),
    )


def dice(pixels, smooth=0.0):
    intersection = total(p * t for p, t in pixels)
    sizes = total(p + t for p, t in pixels)
    return 1 - (2 * intersection + smooth) / (sizes + smooth) if sizes else 0.0


def generalized_dice(p, t, smooth=0.0, axis=(-3, -2), where=None):
    def sums(term):
        truth = per_region(lambda pixels: total(term(p, t) for p, t in pixels))
        return truth(p, t, axis=axis, where=where)

    intersections = sums(lambda p, t: p * t)
    sizes = sums(lambda p, t: p + t)
    true_sizes = sums(lambda p, t: t)
    values = np.empty(intersections.shape[:-1])
    for i in np.ndindex(*values.shape):
        max_weight = max((1 / size**2 for size in true_sizes[i] if size), default=1.0)
        w = [1 / size**2 if size else max_weight for size in true_sizes[i]]
        numerator = 2 * total(w * intersections[i]) + smooth
        denominator = total(w * sizes[i]) + smooth
        values[i] = 1 - numerator / denominator if denominator else 0.0
    return values


def tversky(pixels, alpha=0.5, beta=0.5, smooth=0.0):
    tp, fp, fn, _ = confusion_counts(pixels)
    numerator = tp + smooth
    return 1 - numerator / (numerator + alpha * fp + beta * fn) if pixels else 0.0


def focal_tversky(pixels, gamma=0.75, **hyperparams):
    return tversky(pixels, **hyperparams) ** gamma


def jaccard(pixels, smooth=0.0):
    intersection = total(p * t for p, t in pixels)
    union = total(p + t - p * t for p, t in pixels)
    return 1 - (intersection + smooth) / (union + smooth) if union else 0.0


def sensitivity_specificity(pixels, sensitivity=0.5):
    inside, outside = total(t for _, t in pixels), total(1 - t for _, t in pixels)
    inside_error = divide(total((t - p) ** 2 * t for p, t in pixels), inside)
    outside_error = divide(total((t - p) ** 2 * (1 - t) for p, t in pixels), outside)
    return sensitivity * inside_error + (1 - sensitivity) * outside_error


def matthews(pixels):
    tp, fp, fn, tn = confusion_counts(pixels)
    root = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    return 1 - (tp * tn - fp * fn) / root


def present(labels, num_classes, axis=(-2, -1), where=None):
    where = np.ones(labels.shape, bool) if where is None else where
    return np.array(
        [
            [c in image[mask] for c in range(num_classes)]
            for image, mask in zip(labels, where)
        ]
    )


def lovasz(errors, inside):
    """Σ e (J(1 ... i) - J(1 ... i-1)) over the sorted pixels, with J from sets."""
    order = sorted(range(len(errors)), key=lambda i: -errors[i])
    loss, previous_jaccard = 0.0, 0.0
    for rank, i in enumerate(order, 1):
        wrong = set(order[:rank])
        intersection = sum(inside[j] for j in range(len(errors)) if j not in wrong)
        union = sum(inside[j] or j in wrong for j in range(len(errors)))
        jaccard = 1 - intersection / union
        loss += errors[i] * (jaccard - previous_jaccard)
        previous_jaccard = jaccard
    return loss


def lovasz_hinge(logits, targets, axis=(-2, -1), where=None):
    def image(pixels):
        errors = [max(0.0, 1 - z * (2 * t - 1)) for z, t in pixels]
        return lovasz(errors, [t > 0 for _, t in pixels])

    z, t = logits[..., None], targets[..., None]
    return per_region(image)(z, t, axis=[a - 1 for a in axis], where=where)[..., 0]


def lovasz_softmax(p, labels, axis=(-2, -1), where=None):
    def image(pixels):
        return lovasz([abs(t - p) for p, t in pixels], [t > 0 for _, t in pixels])

    t = (labels[..., None] == np.arange(p.shape[-1])).astype(float)
    return per_region(image)(p, t, axis=[a - 1 for a in axis], where=where)


def pool(x, reducer, offsets):
    """The minimum or maximum over the pixels at these offsets from each pixel."""
    pooled = np.empty_like(x)
    for i in np.ndindex(*x.shape):
        neighbors = [tuple(np.add(i, offset)) for offset in offsets]
        exist = [j for j in neighbors if all(0 <= a < n for a, n in zip(j, x.shape))]
        pooled[i] = reducer(x[j] for j in exist)
    return pooled


def soft_skeleton(x, iterations):
    square = list(itertools.product((-1, 0, 1), repeat=x.ndim))
    cross = [offset for offset in square if sum(map(abs, offset)) <= 1]

    def opening_residue(x):
        opening = pool(pool(x, min, cross), max, square)
        return np.maximum(x - opening, 0)

    skeleton = opening_residue(x)
    for _ in range(iterations):
        x = pool(x, min, cross)
        residue = opening_residue(x)
        skeleton = skeleton + np.maximum(residue - skeleton * residue, 0)
    return skeleton


def cldice(p, t, iterations, smooth=0.0, axis=(-3, -2), where=None):
    where = np.ones(p.shape[:-1], bool) if where is None else where
    p, t = (
        np.moveaxis(np.where(where[..., None], x, 0), axis, range(-len(axis), 0))
        for x in (p, t)
    )
    values = np.empty(p.shape[: -len(axis)])
    for i in np.ndindex(*values.shape):
        k_p, k_t = soft_skeleton(p[i], iterations), soft_skeleton(t[i], iterations)
        precision = (np.sum(k_p * t[i]) + smooth) / (np.sum(k_p) + smooth)
        sensitivity = (np.sum(k_t * p[i]) + smooth) / (np.sum(k_t) + smooth)
        values[i] = 1 - 2 * precision * sensitivity / (precision + sensitivity)
    return values


def boundary(pixels):
    return total(p * phi for p, phi in pixels) / len(pixels)


def logits_and_targets(rng):
    return 2 * rng.normal(size=(2, 4, 5)), rng.integers(0, 2, (2, 4, 5)).astype(float)


def probabilities_and_labels(rng):
    return rng.dirichlet(np.ones(3), (2, 4, 5)), rng.integers(0, 3, (2, 4, 5))


def probabilities_and_targets(rng):
    return rng.random((2, 4, 5, 3)), rng.random((2, 4, 5, 3)).round()


def with_an_absent_class(rng):
    p, t = probabilities_and_targets(rng)
    t[0, ..., 1] = 0.0
    return p, t


def pixel_mask(rng):
    return rng.random((2, 4, 5)) < 0.5


NONE, ALL = np.zeros((2, 2, 2, 1)), np.ones((2, 2, 2, 1))
HALF = np.concatenate([NONE, ALL], 1)
ALMOST_ALL = np.full((2, 2, 2, 1), 1 - 1e-7)
ALL_NAN = np.full((2, 2, 2, 1), NAN)
MASK_ALL = {"where": np.zeros((2, 2, 2), bool)}
LINE = np.zeros((1, 4, 5, 1))
LINE[:, 1] = 1.0


def region_row(
    function, truth, *extremes, disjoint=1.0, sample=probabilities_and_targets, **fields
):
    """A row of a loss: 0 for equal regions, `disjoint` for all against none."""
    return Case(
        function,
        sample,
        truth,
        mask=pixel_mask,
        extremes=(
            Extreme((NONE, NONE), 0.0),
            Extreme((ALL, ALL), 0.0),
            Extreme((HALF, HALF), 0.0),
            Extreme((ALL, NONE), disjoint),
            Extreme((NONE, ALL), disjoint),
            Extreme((ALMOST_ALL, ALL), None),
            Extreme((ALL, NONE), 0.0, MASK_ALL),
            Extreme((ALL_NAN, ALL_NAN), 0.0, MASK_ALL),
            *extremes,
        ),
        **{"ulps": 16, **fields},
    )


AXES = [(-3, -2), (0, 1, 2), 1]

CASES = [
    *(
        region_row(
            losses.dice_loss,
            per_region(dice),
            hyperparams={"smooth": (0.0, 1.0)},
            static_args={"axis": axis},
            id_suffix=f"axis={axis}",
        )
        for axis in AXES
    ),
    region_row(
        losses.generalized_dice_loss,
        generalized_dice,
        sample=with_an_absent_class,
        hyperparams={"smooth": (0.0, 1.0)},
        not_differentiated=(1,),  # the smallest class, and so the weights, may change
    ),
    region_row(
        losses.tversky_loss,
        per_region(tversky),
        hyperparams={
            "alpha": (0.5, 0.0, 0.3),
            "beta": (0.5, 0.0, 1.7),
            "smooth": (0.0, 1.0),
        },
    ),
    region_row(
        losses.focal_tversky_loss,
        per_region(focal_tversky),
        Extreme((HALF, HALF), 0.0, {"gamma": 0.25}),
        Extreme((HALF, HALF), 0.0, {"gamma": 1.5}),
        Extreme((HALF, HALF), 0.0, {"gamma": 1.0}),
        hyperparams={
            "gamma": (0.75, 1.0, 1.0 / 3, 2.0),
            "alpha": (0.5, 0.3),
            "beta": (0.5, 1.7),
            "smooth": (0.0, 1.0),
        },
    ),
    region_row(
        losses.jaccard_loss, per_region(jaccard), hyperparams={"smooth": (0.0, 1.0)}
    ),
    region_row(
        losses.sensitivity_specificity_loss,
        per_region(sensitivity_specificity),
        disjoint=0.5,
        hyperparams={"sensitivity": (0.5, 0.05, 1.0)},
    ),
    region_row(
        losses.matthews_loss,
        per_region(matthews),
        Extreme((HALF, 1 - HALF), 2.0),
        Extreme((np.full_like(HALF, 0.5), HALF), 1.0),
    ),
    Case(
        losses.present,
        lambda rng: (rng.integers(-1, 9, (2, 3, 4)),),
        present,
        static_args={"num_classes": 6},
        mask=lambda rng: rng.random((2, 3, 4)) < 0.5,
        dtypes=(),
    ),
    Case(
        losses.lovasz_hinge_loss,
        logits_and_targets,
        lovasz_hinge,
        mask=pixel_mask,
        not_differentiated=(1,),
        ulps=16,
        extremes=(
            Extreme((np.full((1, 2, 2), -9.0), np.zeros((1, 2, 2))), 0.0),
            Extreme((np.full((1, 2, 2), 9.0), np.ones((1, 2, 2))), 0.0),
            Extreme((np.zeros((1, 2, 2)), np.zeros((1, 2, 2))), 1.0),
            Extreme((np.full((1, 2, 2), 1e30), np.zeros((1, 2, 2))), 1e30),
            Extreme((np.full((1, 2, 2), INF), np.ones((1, 2, 2))), 0.0),
            Extreme((ALL_NAN[..., 0], ALL[..., 0]), 0.0, MASK_ALL),
        ),
    ),
    Case(
        losses.lovasz_softmax_loss,
        probabilities_and_labels,
        lovasz_softmax,
        mask=pixel_mask,
        ulps=16,
        extremes=(
            Extreme((np.full((1, 2, 2, 2), 0.5), np.zeros((1, 2, 2), int)), 0.5),
            Extreme(
                (
                    np.eye(2)[[[[0, 1]]] * 3],
                    np.array([[[0, 1]], [[1, 0]], [[0, 9]]]),
                ),
                [[0.0, 0.0], [1.0, 1.0], [NAN, NAN]],
            ),
            Extreme((ALL_NAN, np.full((2, 2, 2), 255)), 0.0, MASK_ALL),
        ),
    ),
    *(
        Case(
            function,
            sample,
            truth,
            static_args={"axis": (-3, -1)},
            not_differentiated=not_differentiated,
            ulps=16,
            id_suffix="axis=(-3, -1)",
        )
        for function, sample, truth, not_differentiated in [
            (losses.lovasz_hinge_loss, logits_and_targets, lovasz_hinge, (1,)),
            (losses.lovasz_softmax_loss, probabilities_and_labels, lovasz_softmax, ()),
        ]
    ),
    Case(
        losses.cldice_loss,
        lambda rng: tuple(rng.random((2, 2, 4, 5, 3))),
        cldice,
        hyperparams={"smooth": (0.0, 1.0)},
        static_args={"iterations": 1},
        mask=lambda rng: rng.random((2, 4, 5)) < 0.8,
        ulps=64,
        extremes=(
            Extreme(
                (
                    np.concatenate([0 * LINE, LINE, LINE, LINE]),
                    np.concatenate([0 * LINE, LINE, 0 * LINE, LINE[:, ::-1]]),
                ),
                [[0.0], [0.0], [1.0], [1.0]],
            ),
        ),
    ),
    Case(
        losses.cldice_loss,
        lambda rng: tuple(rng.random((2, 3, 3, 4, 2))),
        cldice,
        static_args={"iterations": 1, "axis": (-4, -3, -2)},
        dtypes=(),  # the row of images tests the derivatives
        id_suffix="volumes",
    ),
    Case(
        losses.boundary_loss,
        lambda rng: (rng.random((2, 4, 5, 3)), 4 * rng.normal(size=(2, 4, 5, 3))),
        per_region(boundary),
        mask=pixel_mask,
        tol_relative_to_max=True,
        extremes=(
            Extreme((ALL, np.full_like(ALL, 1e30)), 1e30),
            Extreme((NONE, ALL), 0.0),
            Extreme((NONE, np.full_like(ALL, np.inf)), 0.0),
            Extreme((ALL_NAN, ALL_NAN), 0.0, MASK_ALL),
        ),
    ),
]

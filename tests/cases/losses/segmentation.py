"""Segmentation: one image and one class at a time, one pixel after another."""

import itertools

import numpy as np

from cases import Case, Extreme
from cases.losses.truth import INF, NAN
from jaxml import losses


def by_region(truth):
    """The truth of a batch from that of the pixels [(p, t), ...] of one region."""

    def batch(p, t, axis=(-3, -2), where=None, **numbers):
        axes = [a % p.ndim for a in np.atleast_1d(axis)]
        others = [a for a in range(p.ndim) if a not in axes]
        where = np.broadcast_to(True if where is None else where[..., None], p.shape)
        shape = [p.shape[a] for a in others]
        p, t, where = (
            x.transpose(*others, *axes).reshape(*shape, -1) for x in (p, t, where)
        )
        result = np.empty(shape)
        for i in np.ndindex(*shape):
            pixels = [(x, y) for x, y, kept in zip(p[i], t[i], where[i]) if kept]
            result[i] = truth(pixels, **numbers)
        return result

    return batch


def total(terms):
    return float(sum(terms))


def over(a, b):
    return a / b if b else 0.0


def dice(pixels, smooth=0.0):
    common = total(p * t for p, t in pixels)
    sizes = total(p + t for p, t in pixels)
    return 1 - (2 * common + smooth) / (sizes + smooth) if sizes else 0.0


def tversky(pixels, alpha=0.5, beta=0.5, smooth=0.0):
    both = total(p * t for p, t in pixels) + smooth
    false = total(p * (1 - t) for p, t in pixels)
    missed = total((1 - p) * t for p, t in pixels)
    return 1 - both / (both + alpha * false + beta * missed) if pixels else 0.0


def focal_tversky(pixels, gamma=0.75, **numbers):
    return tversky(pixels, **numbers) ** gamma


def jaccard(pixels, smooth=0.0):
    common = total(p * t for p, t in pixels)
    union = total(p + t - p * t for p, t in pixels)
    return 1 - (common + smooth) / (union + smooth) if union else 0.0


def sensitivity_specificity(pixels, sensitivity=0.5):
    inside, outside = total(t for _, t in pixels), total(1 - t for _, t in pixels)
    found = over(total((t - p) ** 2 * t for p, t in pixels), inside)
    left = over(total((t - p) ** 2 * (1 - t) for p, t in pixels), outside)
    return sensitivity * found + (1 - sensitivity) * left


def matthews(pixels):
    tp, tn = (
        total(p * t for p, t in pixels),
        total((1 - p) * (1 - t) for p, t in pixels),
    )
    fp, fn = (
        total(p * (1 - t) for p, t in pixels),
        total((1 - p) * t for p, t in pixels),
    )
    root = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    return 1 - (tp * tn - fp * fn) / root


def generalized_dice(p, t, smooth=0.0, axis=(-3, -2), where=None):
    def of(term):
        return by_region(lambda pixels: total(term(*pixel) for pixel in pixels))(
            p, t, axis=axis, where=where
        )

    common, sizes, true = of(lambda p, t: p * t), of(lambda p, t: p + t), of(max_t)
    result = np.empty(common.shape[:-1])
    for i in np.ndindex(*result.shape):
        largest = max((1 / v**2 for v in true[i] if v), default=1.0)
        weights = [1 / v**2 if v else largest for v in true[i]]
        above = 2 * total(w * c for w, c in zip(weights, common[i])) + smooth
        below = total(w * s for w, s in zip(weights, sizes[i])) + smooth
        result[i] = 1 - above / below if below else 0.0
    return result


def max_t(p, t):
    return t


def lovasz(errors, inside):
    """Σ e (J(1 ... i) - J(1 ... i-1)), the pixels sorted, J from sets."""
    order = sorted(range(len(errors)), key=lambda i: -errors[i])
    result, before = 0.0, 0.0
    for rank, i in enumerate(order, 1):
        wrong = set(order[:rank])
        left = sum(inside[j] for j in range(len(errors)) if j not in wrong)
        union = sum(inside[j] or j in wrong for j in range(len(errors)))
        result += errors[i] * (1 - left / union - before)
        before = 1 - left / union
    return result


def lovasz_hinge(logits, targets, axis=(-2, -1), where=None):
    def image(pixels):
        errors = [max(0.0, 1 - z * (2 * t - 1)) for z, t in pixels]
        return lovasz(errors, [t > 0 for _, t in pixels])

    given = logits[..., None], targets[..., None]
    return by_region(image)(*given, axis=[a - 1 for a in axis], where=where)[..., 0]


def lovasz_softmax(p, labels, axis=(-2, -1), where=None):
    def image(pixels):
        return lovasz([abs(t - p) for p, t in pixels], [t > 0 for _, t in pixels])

    one_hot = labels[..., None] == np.arange(p.shape[-1])
    axis = [a - 1 for a in axis]
    return by_region(image)(p, one_hot.astype(float), axis=axis, where=where)


def pooled(x, pick, offsets):
    """Of each pixel, the extreme of those at the offsets that exist."""
    result = np.empty_like(x)
    for i in np.ndindex(*x.shape):
        near = [tuple(np.add(i, o)) for o in offsets]
        inside = [j for j in near if all(0 <= a < n for a, n in zip(j, x.shape))]
        result[i] = pick(x[j] for j in inside)
    return result


def skeleton(x, iterations):
    square = list(itertools.product((-1, 0, 1), repeat=x.ndim))
    cross = [o for o in square if sum(map(abs, o)) <= 1]

    def ridge(x):
        opened = pooled(pooled(x, min, cross), max, square)
        return np.maximum(x - opened, 0)

    found = ridge(x)
    for _ in range(iterations):
        x = pooled(x, min, cross)
        found = found + np.maximum(ridge(x) - found * ridge(x), 0)
    return found


def cldice(p, t, iterations, smooth=0.0, axis=(-3, -2), where=None):
    where = np.ones(p.shape[:-1], bool) if where is None else where
    p, t = (
        np.moveaxis(np.where(where[..., None], x, 0), axis, range(-len(axis), 0))
        for x in (p, t)
    )
    result = np.empty(p.shape[: -len(axis)])
    for i in np.ndindex(*result.shape):
        ours, true = skeleton(p[i], iterations), skeleton(t[i], iterations)
        precision = (np.sum(ours * t[i]) + smooth) / (np.sum(ours) + smooth)
        sensitivity = (np.sum(true * p[i]) + smooth) / (np.sum(true) + smooth)
        result[i] = 1 - 2 * precision * sensitivity / (precision + sensitivity)
    return result


def boundary(pixels):
    return total(p * phi for p, phi in pixels) / len(pixels)


def logits_and_marks(rng):
    return 2 * rng.normal(size=(2, 4, 5)), rng.integers(0, 2, (2, 4, 5)).astype(float)


def shares_and_labels(rng):
    return rng.dirichlet(np.ones(3), (2, 4, 5)), rng.integers(0, 3, (2, 4, 5))


def soft(rng):
    return rng.random((2, 4, 5, 3)), rng.random((2, 4, 5, 3)).round()


def with_an_absent_class(rng):
    p, t = soft(rng)
    t[0, ..., 1] = 0.0
    return p, t


def some(rng):
    return rng.random((2, 4, 5)) < 0.5


NONE, ALL = np.zeros((2, 2, 2, 1)), np.ones((2, 2, 2, 1))
HALF = np.concatenate([NONE, ALL], 1)
NOWHERE = {"where": np.zeros((2, 2, 2), bool)}
ALMOST = np.full((2, 2, 2, 1), 1 - 1e-7)
DIRTY = (np.full((2, 2, 2, 1), NAN),) * 2
LINE = np.zeros((1, 4, 5, 1))
LINE[:, 1] = 1.0


def region(function, truth, *extremes, missed=1.0, sample=soft, **options):
    """A row of a loss: 0 where the regions agree, `missed` for all against none."""
    return Case(
        function,
        sample,
        truth,
        mask=some,
        extremes=(
            Extreme((NONE, NONE), 0.0),
            Extreme((ALL, ALL), 0.0),
            Extreme((HALF, HALF), 0.0),
            Extreme((ALL, NONE), missed),
            Extreme((NONE, ALL), missed),
            Extreme((ALMOST, ALL), None),
            Extreme((ALL, NONE), 0.0, NOWHERE),
            Extreme(DIRTY, 0.0, NOWHERE),
            *extremes,
        ),
        **{"ulps": 16, **options},
    )


AXES = [(-3, -2), (0, 1, 2), 1]

CASES = [
    *(
        region(
            losses.dice_loss,
            by_region(dice),
            hyperparams={"smooth": (0.0, 1.0)},
            static_args={"axis": axis},
            id_suffix=f"axis={axis}",
        )
        for axis in AXES
    ),
    region(
        losses.generalized_dice_loss,
        generalized_dice,
        sample=with_an_absent_class,
        hyperparams={"smooth": (0.0, 1.0)},
        not_differentiated=(1,),  # the smallest class may change, and a weight with it
    ),
    region(
        losses.tversky_loss,
        by_region(tversky),
        hyperparams={
            "alpha": (0.5, 0.0, 0.3),
            "beta": (0.5, 0.0, 1.7),
            "smooth": (0.0, 1.0),
        },
    ),
    region(
        losses.focal_tversky_loss,
        by_region(focal_tversky),
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
    region(losses.jaccard_loss, by_region(jaccard), hyperparams={"smooth": (0.0, 1.0)}),
    region(
        losses.sensitivity_specificity_loss,
        by_region(sensitivity_specificity),
        missed=0.5,
        hyperparams={"sensitivity": (0.5, 0.05, 1.0)},
    ),
    region(
        losses.matthews_loss,
        by_region(matthews),
        Extreme((HALF, 1 - HALF), 2.0),
        Extreme((np.full_like(HALF, 0.5), HALF), 1.0),
    ),
    Case(
        losses.present,
        lambda rng: (rng.integers(-1, 9, (2, 3, 4)),),
        lambda labels, classes, axis=(-2, -1), where=None: np.array(
            [
                [
                    c in labels[i][where[i] if where is not None else ...]
                    for c in range(6)
                ]
                for i in range(len(labels))
            ]
        ),
        static_args={"classes": 6},
        mask=lambda rng: rng.random((2, 3, 4)) < 0.5,
        dtypes=(),
    ),
    Case(
        losses.lovasz_hinge_loss,
        logits_and_marks,
        lovasz_hinge,
        mask=some,
        not_differentiated=(1,),
        ulps=16,
        extremes=(
            Extreme((np.full((1, 2, 2), -9.0), np.zeros((1, 2, 2))), 0.0),
            Extreme((np.full((1, 2, 2), 9.0), np.ones((1, 2, 2))), 0.0),
            Extreme((np.zeros((1, 2, 2)), np.zeros((1, 2, 2))), 1.0),
            Extreme((np.full((1, 2, 2), 1e30), np.zeros((1, 2, 2))), 1e30),
            Extreme((np.full((1, 2, 2), INF), np.ones((1, 2, 2))), 0.0),
            Extreme((np.full((2, 2, 2), NAN), ALL[..., 0]), 0.0, NOWHERE),
        ),
    ),
    Case(
        losses.lovasz_softmax_loss,
        shares_and_labels,
        lovasz_softmax,
        mask=some,
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
            Extreme((DIRTY[0], np.full((2, 2, 2), 255)), 0.0, NOWHERE),
        ),
    ),
    *(
        Case(
            function,
            sample,
            truth,
            static_args={"axis": (-3, -1)},
            not_differentiated=constant,
            ulps=16,
            id_suffix="axis=(-3, -1)",
        )
        for function, sample, truth, constant in [
            (losses.lovasz_hinge_loss, logits_and_marks, lovasz_hinge, (1,)),
            (losses.lovasz_softmax_loss, shares_and_labels, lovasz_softmax, ()),
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
        dtypes=(),  # what is said of images, volumes need not say again
        id_suffix="volumes",
    ),
    Case(
        losses.boundary_loss,
        lambda rng: (rng.random((2, 4, 5, 3)), 4 * rng.normal(size=(2, 4, 5, 3))),
        by_region(boundary),
        mask=some,
        tol_relative_to_max=True,
        extremes=(
            Extreme((ALL, np.full_like(ALL, 1e30)), 1e30),
            Extreme((NONE, ALL), 0.0),
            Extreme((NONE, np.full_like(ALL, np.inf)), 0.0),
            Extreme(DIRTY, 0.0, NOWHERE),
        ),
    ),
]

"""Regression."""

import numpy as np

from cases import Case, Extreme
from cases.losses.truth import elements, rows, two_arrays
from jaxml import losses


def positive(rng):
    return rng.uniform(0.1, 3, (4, 3)), rng.uniform(0.1, 3, (4, 3))


def huber(x, y, delta=1.0):
    r = abs(x - y)
    return 0.5 * r**2 if r <= delta else delta * (r - 0.5 * delta)


def smooth_l1(x, y, beta=1.0):
    r = abs(x - y)
    return 0.5 * r**2 / beta if r < beta else r - 0.5 * beta


def quantile(x, y, quantile=0.3):
    return max(quantile * (y - x), (1 - quantile) * (x - y))


def gaussian(mean, y, variance):
    return 0.5 * (np.log(variance) + (y - mean) ** 2 / variance)


def cosine(x, y):
    return 1 - sum(x * y) / np.sqrt(sum(x**2) * sum(y**2))


def row(function, sample, truth, *extremes, **options):
    return Case(function, sample, truth, extremes=extremes, **options)


def two(first, second):
    return np.array([first]), np.array([second])


FAR, SAME = two(1e30, 0.0), two(1e30, 1e30)

CASES = [
    Case(
        losses.squared_error,
        two_arrays,
        elements(lambda x, y: (x - y) ** 2),
        extremes=(Extreme((np.array([1e15, 0.0]), np.array([-1e15, 0.0])), [4e30, 0]),),
    ),
    row(
        losses.absolute_error,
        two_arrays,
        elements(lambda x, y: abs(x - y)),
        Extreme(FAR, 1e30),
        Extreme(SAME, 0.0),
    ),
    row(
        losses.huber_loss,
        two_arrays,
        elements(huber),
        Extreme(FAR, 1e30),
        Extreme(SAME, 0.0),
        hyperparams={"delta": (0.1, 0.5, 3.0)},
    ),
    row(
        losses.smooth_l1_loss,
        two_arrays,
        elements(smooth_l1),
        Extreme(FAR, 1e30),
        Extreme(SAME, 0.0),
        Extreme(SAME, 0.0, {"beta": 0.0}),
        hyperparams={"beta": (0.0, 0.5, 3.0)},
    ),
    row(
        losses.log_cosh_loss,
        two_arrays,
        elements(lambda x, y: np.logaddexp(x - y, y - x) - np.log(2)),
        Extreme(FAR, 1e30),
        Extreme(SAME, 0.0),
        Extreme(two(1e-15, 0.0), 5e-31),
        ulps=8,
        rtol=1e-10,  # the plain form of the truth cancels
    ),
    row(
        losses.quantile_loss,
        two_arrays,
        elements(quantile),
        Extreme(FAR, 7e29, {"quantile": 0.3}),
        Extreme(SAME, 0.0, {"quantile": 0.3}),
        hyperparams={"quantile": (0.1, 0.5, 0.9)},
        adapter=lambda x, y, quantile=0.3: losses.quantile_loss(
            x, y, quantile=quantile
        ),
    ),
    row(
        losses.poisson_nll_loss,
        positive,
        elements(lambda r, k: np.exp(r) - k * r),
        Extreme(two(-1e30, 0.0), 0.0),
        Extreme(two(0.0, 1e30), 1.0),
        Extreme(two(-np.inf, 0.0), 0.0, check_grads_of=(0,)),
        tol_relative_to_max=True,
    ),
    row(
        losses.gaussian_nll_loss,
        lambda rng: (*two_arrays(rng), rng.uniform(0.2, 3, (4, 3))),
        elements(gaussian),
        Extreme((*two(0.0, 1e15), np.ones(1)), 5e29),
        Extreme((*two(2.0, 2.0), np.ones(1)), 0.0),
        adapter=lambda x, y, v: losses.gaussian_nll_loss(x, y, variance=v),
        tol_relative_to_max=True,
    ),
    row(
        losses.cosine_distance,
        two_arrays,
        rows(cosine),
        Extreme((np.zeros((1, 3)), np.ones((1, 3))), 1.0),
        Extreme((np.zeros((1, 3)), np.zeros((1, 3))), 1.0),
        Extreme((1e30 * np.ones((1, 3)), np.ones((1, 3))), 0.0),
        Extreme((np.ones((1, 2)), -np.ones((1, 2))), 2.0),
        ulps=16,
    ),
    row(
        losses.squared_log_error,
        positive,
        elements(lambda x, y: (np.log1p(x) - np.log1p(y)) ** 2),
        Extreme(two(0.0, 0.0), 0.0),
        Extreme(SAME, 0.0),
        Extreme(two(1e30, 0.0), np.log(1e30) ** 2),
        tol_relative_to_max=True,
    ),
    row(
        losses.absolute_percentage_error,
        positive,
        elements(lambda x, y: abs(x - y) / abs(y)),
        Extreme(two(0.0, 0.0), 0.0),
        Extreme(two(1e30, 1.0), 1e30),
        Extreme(two(2.0, -1.0), 3.0),
        ulps=8,
    ),
]

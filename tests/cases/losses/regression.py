"""Regression losses."""

import numpy as np

from cases import Case, Extreme
from cases.losses.truth import per_element, per_example, predicted_and_true
from jaxml import losses


def positive_pair(rng):
    return rng.uniform(0.1, 3, (4, 3)), rng.uniform(0.1, 3, (4, 3))


def mean_target_variance(rng):
    return (*predicted_and_true(rng), rng.uniform(0.2, 3, (4, 3)))


def huber_loss(x, y, delta=1.0):
    r = abs(x - y)
    return 0.5 * r**2 if r <= delta else delta * (r - 0.5 * delta)


def smooth_l1_loss(x, y, beta=1.0):
    r = abs(x - y)
    return 0.5 * r**2 / beta if r < beta else r - 0.5 * beta


def quantile_loss(x, y, quantile=0.3):
    return max(quantile * (y - x), (1 - quantile) * (x - y))


def gaussian_nll_loss(mean, y, variance):
    return 0.5 * (np.log(variance) + (y - mean) ** 2 / variance)


def cosine_distance(x, y):
    return 1 - sum(x * y) / np.sqrt(sum(x**2) * sum(y**2))


def row(function, sample, truth, *extremes, **fields):
    return Case(function, sample, truth, extremes=extremes, **fields)


def element(predicted, true):
    return np.array([predicted]), np.array([true])


HUGE_RESIDUAL, HUGE_EQUAL = element(1e30, 0.0), element(1e30, 1e30)

CASES = [
    row(
        losses.squared_error,
        predicted_and_true,
        per_element(lambda x, y: (x - y) ** 2),
        Extreme(element(1e15, -1e15), (2e15) ** 2),
        Extreme(element(0.0, 0.0), 0.0),
    ),
    row(
        losses.absolute_error,
        predicted_and_true,
        per_element(lambda x, y: abs(x - y)),
        Extreme(HUGE_RESIDUAL, 1e30),
        Extreme(HUGE_EQUAL, 0.0),
    ),
    row(
        losses.huber_loss,
        predicted_and_true,
        per_element(huber_loss),
        Extreme(HUGE_RESIDUAL, 1 * (1e30 - 0.5 * 1)),
        Extreme(HUGE_EQUAL, 0.0),
        hyperparams={"delta": (0.1, 0.5, 3.0)},
    ),
    row(
        losses.smooth_l1_loss,
        predicted_and_true,
        per_element(smooth_l1_loss),
        Extreme(HUGE_RESIDUAL, 1e30 - 0.5 * 1),
        Extreme(HUGE_EQUAL, 0.0),
        Extreme(HUGE_EQUAL, 0.0, {"beta": 0.0}),
        hyperparams={"beta": (0.0, 0.5, 3.0)},
    ),
    row(
        losses.log_cosh_loss,
        predicted_and_true,
        per_element(lambda x, y: np.logaddexp(x - y, y - x) - np.log(2)),
        Extreme(HUGE_RESIDUAL, 1e30 - np.log(2)),
        Extreme(HUGE_EQUAL, 0.0),
        Extreme(element(1e-15, 0.0), 0.5 * (1e-15) ** 2),
        ulps=8,
        rtol=1e-10,  # the truth is a difference of near-equal numbers
    ),
    row(
        losses.quantile_loss,
        predicted_and_true,
        per_element(quantile_loss),
        Extreme(HUGE_RESIDUAL, (1 - 0.3) * 1e30, {"quantile": 0.3}),
        Extreme(HUGE_EQUAL, 0.0, {"quantile": 0.3}),
        hyperparams={"quantile": (0.1, 0.5, 0.9)},
        adapter=lambda x, y, quantile=0.3, **keywords: losses.quantile_loss(
            x, y, quantile=quantile, **keywords
        ),
    ),
    row(
        losses.poisson_nll_loss,
        positive_pair,
        per_element(lambda r, k: np.exp(r) - k * r),
        Extreme(element(-1e30, 0.0), np.exp(-1e30) - 0),
        Extreme(element(0.0, 1e30), np.exp(0.0) - 1e30 * 0),
        Extreme(element(-np.inf, 0.0), 0.0, check_grads_of=(0,)),
        tol_relative_to_max=True,
    ),
    row(
        losses.poisson_loss,
        positive_pair,
        per_element(lambda r, k: r - k * np.log(r)),
        Extreme(element(0.0, 0.0), 0.0, check_grads_of=(0,)),
        Extreme(element(1e30, 0.0), 1e30),
        Extreme(element(1e-30, 1.0), 1e-30 - np.log(1e-30), check_grads_of=(1,)),
        tol_relative_to_max=True,
    ),
    row(
        losses.gaussian_nll_loss,
        mean_target_variance,
        per_element(gaussian_nll_loss),
        Extreme((*element(0.0, 1e15), np.ones(1)), 0.5 * (1e15) ** 2),
        Extreme((*element(2.0, 2.0), np.ones(1)), 0.5 * (np.log(1) + 0)),
        adapter=lambda mean, y, variance, **keywords: losses.gaussian_nll_loss(
            mean, y, variance=variance, **keywords
        ),
        tol_relative_to_max=True,
    ),
    row(
        losses.cosine_distance,
        predicted_and_true,
        per_example(cosine_distance),
        Extreme((np.zeros((1, 3)), np.ones((1, 3))), 1.0),
        Extreme((np.zeros((1, 3)), np.zeros((1, 3))), 1.0),
        Extreme((2.0**100 * np.ones((1, 3)), np.ones((1, 3))), 0.0),
        Extreme((np.ones((1, 2)), -np.ones((1, 2))), 1.0 - -1),
        ulps=16,
    ),
    row(
        losses.squared_log_error,
        positive_pair,
        per_element(lambda x, y: (np.log1p(x) - np.log1p(y)) ** 2),
        Extreme(element(0.0, 0.0), 0.0),
        Extreme(HUGE_EQUAL, 0.0),
        Extreme(element(1e30, 0.0), (np.log1p(1e30) - np.log1p(0)) ** 2),
        tol_relative_to_max=True,
    ),
    row(
        losses.absolute_percentage_error,
        positive_pair,
        per_element(lambda x, y: abs(x - y) / abs(y)),
        Extreme(element(0.0, 0.0), 0.0),
        Extreme(element(1e30, 1.0), (1e30 - 1) / 1),
        Extreme(element(2.0, -1.0), abs(2 - -1) / 1),
        ulps=8,
    ),
]

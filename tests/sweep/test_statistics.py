"""Statistics for few seeds: equal to plain loops, and calibrated."""

import math
import re

import numpy as np
import pytest
from scipy import stats

from jaxml import sweep

Z = stats.norm.ppf(0.975)


def draws(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize("n", [5, 6, 7, 10, 13, 20, 41])
def test_the_interval_of_the_median_interpolates_order_statistics(n) -> None:
    x = sorted(draws(n, seed=n).tolist())
    coverage = {
        d: 1 - 2 * sum(math.comb(n, k) for k in range(d)) / 2**n
        for d in range(1, n // 2 + 1)
    }
    estimate = sweep.median(np.array(x[::-1]))
    assert estimate.value == pytest.approx((x[(n - 1) // 2] + x[n // 2]) / 2)
    if coverage[1] < 0.95:
        assert estimate[1:] == (x[0], x[-1])
        return
    d = max(d for d, c in coverage.items() if c >= 0.95)
    inner = coverage.get(d + 1, 0.0)
    excess = (coverage[d] - 0.95) / (coverage[d] - inner)
    weight = (n - d) * excess / (d + (n - 2 * d) * excess)
    low = (1 - weight) * x[d - 1] + weight * x[d]
    high = (1 - weight) * x[n - d] + weight * x[n - d - 1]
    np.testing.assert_allclose(estimate[1:], [low, high], rtol=1e-12)


def middle_half(x):
    """The mean of the middle half, by repeating each value four times."""
    copies = sorted(list(x) * 4)
    return sum(copies[len(x) : 3 * len(x)]) / (2 * len(x))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 8, 11, 20])
def test_the_interquartile_mean_is_the_mean_of_the_middle_half(n) -> None:
    x = draws(n, seed=n)
    value, low, high = sweep.interquartile_mean(x)
    assert value == pytest.approx(middle_half(x), rel=1e-12)
    assert np.isnan(low) == np.isnan(high) == (n < 5)


def test_the_interval_of_the_interquartile_mean_is_a_bootstrap() -> None:
    x = np.sort(draws(8))
    resamples = np.random.default_rng(8).integers(0, 8, (2000, 8))
    means = sorted(middle_half(x[indices]) for indices in resamples)
    cut = int(2000 * stats.norm.cdf(-stats.t.ppf(0.975, 7)))
    truth = middle_half(x), means[cut], means[-1 - cut]
    np.testing.assert_allclose(sweep.interquartile_mean(x), truth, rtol=1e-12)


def test_the_probability_of_improvement_counts_pairs() -> None:
    x, y = np.round(draws(2, 12), 0)
    wins = sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in zip(x, y))
    p, low, high = sweep.probability_of_improvement(x, y)
    assert p == pytest.approx(wins / 12)
    for end in (low, high):  # Wilson: p is Z standard errors of the end away from it
        error = math.sqrt(end * (1 - end) / 12)
        assert abs(p - end) == pytest.approx(Z * error)


def test_tied_with_best_is_a_paired_t_test_with_holms_correction() -> None:
    scores = draws(6, 8) - np.array([[0], [0.1], [0.2], [2], [3], [4]])
    scores += 9 * draws(8, seed=1)  # the effect of the seed cancels in pairs
    best = max(range(6), key=lambda i: scores[i].mean())
    p_values = {
        i: stats.ttest_rel(scores[best], scores[i], alternative="greater").pvalue
        for i in range(6)
        if i != best
    }
    truth = [True] * 6
    for rank, i in enumerate(sorted(p_values, key=p_values.get)):
        if p_values[i] > 0.05 / (5 - rank):
            break
        truth[i] = False
    assert sweep.tied_with_best(scores).tolist() == truth
    assert 1 < sum(truth) < 6


def test_a_performance_profile_counts_solved_problems() -> None:
    costs = np.exp(draws(4, 9))
    costs[0, :4], costs[:, 8] = np.inf, np.inf
    ratios = np.array([1.0, 1.5, 3.0, 50.0])
    truth = [
        [
            sum(
                row[j] < np.inf and row[j] <= ratio * min(costs[:, j])
                for j in range(costs.shape[1])
            )
            / costs.shape[1]
            for ratio in ratios
        ]
        for row in costs
    ]
    np.testing.assert_allclose(sweep.performance_profile(costs, ratios), truth)


DISTRIBUTIONS = {  # draw(generator, size), median, interquartile mean
    "normal": (lambda g, size: g.normal(size=size), 0.0, 0.0),
    "exponential": (lambda g, size: g.exponential(size=size), math.log(2), 0.7383759),
    "heavy-tailed": (lambda g, size: g.standard_t(3, size=size), 0.0, 0.0),
}


@pytest.mark.parametrize("n", [5, 10, 20])
def test_intervals_cover_in_95_of_100_experiments(n) -> None:
    generator = np.random.default_rng(n)
    for estimate, column in ((sweep.median, 0), (sweep.interquartile_mean, 1)):
        covered = []
        for draw, *truths in DISTRIBUTIONS.values():
            for x in draw(generator, (1500, n)):
                _, low, high = estimate(x)
                covered.append(low <= truths[column] <= high)
        assert 0.93 <= np.mean(covered) <= 0.97, estimate.__name__


@pytest.mark.parametrize("n", [5, 10, 20])
def test_the_probability_of_improvement_covers(n) -> None:
    generator, covered = np.random.default_rng(n), []
    for truth in np.linspace(0.05, 0.95, 19):
        for wins in generator.uniform(size=(100, n)) < truth:
            _, low, high = sweep.probability_of_improvement(wins, np.full(n, 0.5))
            covered.append(low <= truth <= high)
    assert 0.93 <= np.mean(covered) <= 0.97


@pytest.mark.parametrize("gap", [0.0, 1.0])
def test_the_truly_best_row_is_tied_in_95_of_100_experiments(gap) -> None:
    tied = []
    for i in range(300):
        scores = draws(6, 5, seed=i) - gap * np.arange(6)[:, None] // 2
        tied.append(sweep.tied_with_best(scores)[0])
    assert np.mean(tied) >= 0.94  # 0.95, less one standard error of 300


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sweep.median([]), "median: values must be a number for each seed"),
        (
            lambda: sweep.interquartile_mean([np.nan]),
            "must be a number for each seed",
        ),
        (
            lambda: sweep.probability_of_improvement([1.0], [1.0, 2.0]),
            "others must be of the 1 seeds of values",
        ),
        (lambda: sweep.tied_with_best([1.0]), "scores must be of shape"),
        (lambda: sweep.performance_profile([[0.0]], [1.0]), "costs must be positive"),
    ],
)
def test_invalid_input_raises(call, message) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        call()
    assert str(error.value).count("\n") == 0

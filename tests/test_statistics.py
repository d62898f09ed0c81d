"""The statistics of few seeds: right against plain loops, and calibrated."""

import math
import re

import numpy as np
import pytest
from scipy import stats

from jaxml import sweep

NORMAL = stats.norm.ppf(0.975)


def draws(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize("n", [5, 6, 7, 10, 13, 20, 41])
def test_the_interval_of_a_median_is_interpolated_order_statistics(n) -> None:
    x = sorted(draws(n, seed=n).tolist())
    covers = {
        d: 1 - 2 * sum(math.comb(n, k) for k in range(d)) / 2**n
        for d in range(1, n // 2 + 1)
    }
    estimate = sweep.median(np.array(x[::-1]))
    assert estimate.value == pytest.approx((x[(n - 1) // 2] + x[n // 2]) / 2)
    if covers[1] < 0.95:
        assert estimate[1:] == (x[0], x[-1])
        return
    d = max(d for d, cover in covers.items() if cover >= 0.95)
    inner = covers.get(d + 1, 0.0)
    excess = (covers[d] - 0.95) / (covers[d] - inner)
    share = (n - d) * excess / (d + (n - 2 * d) * excess)
    low = (1 - share) * x[d - 1] + share * x[d]
    high = (1 - share) * x[n - d] + share * x[n - d - 1]
    np.testing.assert_allclose(estimate[1:], [low, high], rtol=1e-12)


def middle_half(x):
    """The mean of the middle half, of four copies of each value."""
    copies = sorted(list(x) * 4)
    return sum(copies[len(x) : 3 * len(x)]) / (2 * len(x))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 8, 11, 20])
def test_the_interquartile_mean_is_of_the_middle_half(n) -> None:
    x = draws(n, seed=n)
    value, low, high = sweep.interquartile_mean(x)
    assert value == pytest.approx(middle_half(x), rel=1e-12)
    assert np.isnan(low) == np.isnan(high) == (n < 5)


def test_the_interval_of_an_interquartile_mean_is_of_resamples() -> None:
    x = np.sort(draws(8))
    drawn = np.random.default_rng(8).integers(0, 8, (2000, 8))
    means = sorted(middle_half(x[row]) for row in drawn)
    cut = int(2000 * stats.norm.cdf(-stats.t.ppf(0.975, 7)))
    truth = middle_half(x), means[cut], means[-1 - cut]
    np.testing.assert_allclose(sweep.interquartile_mean(x), truth, rtol=1e-12)


def test_a_probability_of_improvement_counts_pairs() -> None:
    x, y = np.round(draws(2, 12), 0)
    wins = sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in zip(x, y))
    share, low, high = sweep.probability_of_improvement(x, y)
    assert share == pytest.approx(wins / 12)
    for end in (low, high):  # of Wilson's interval: as far from the share as its error
        error = math.sqrt(end * (1 - end) / 12)
        assert abs(share - end) == pytest.approx(NORMAL * error)


def test_who_is_tied_is_students_paired_test_after_holm() -> None:
    scores = draws(6, 8) - np.array([[0], [0.1], [0.2], [2], [3], [4]])
    scores += 9 * draws(8, seed=1)  # what all have of a seed cancels in pairs
    best = max(range(6), key=lambda i: scores[i].mean())
    chances = {
        i: stats.ttest_rel(scores[best], scores[i], alternative="greater").pvalue
        for i in range(6)
        if i != best
    }
    truth = [True] * 6
    for place, i in enumerate(sorted(chances, key=chances.get)):
        if chances[i] > 0.05 / (5 - place):
            break
        truth[i] = False
    assert sweep.tied_with_best(scores).tolist() == truth
    assert 1 < sum(truth) < 6


def test_a_profile_counts_problems() -> None:
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


SHAPES = {
    "normal": (lambda r, s: r.normal(size=s), 0.0, 0.0),
    "exponential": (lambda r, s: r.exponential(size=s), math.log(2), 0.7383759),
    "heavy": (lambda r, s: r.standard_t(3, size=s), 0.0, 0.0),
}


@pytest.mark.parametrize("n", [5, 10, 20])
def test_intervals_cover_in_95_of_100_experiments(n) -> None:
    random = np.random.default_rng(n)
    for estimate, place in ((sweep.median, 1), (sweep.interquartile_mean, 2)):
        inside = []
        for draw, *truths in SHAPES.values():
            truth = truths[place - 1]
            for x in draw(random, (1500, n)):
                _, low, high = estimate(x)
                inside.append(low <= truth <= high)
        assert 0.93 <= np.mean(inside) <= 0.97, estimate.__name__


@pytest.mark.parametrize("n", [5, 10, 20])
def test_the_probability_of_improvement_covers(n) -> None:
    random, inside = np.random.default_rng(n), []
    for truth in np.linspace(0.05, 0.95, 19):
        for wins in random.uniform(size=(100, n)) < truth:
            _, low, high = sweep.probability_of_improvement(wins, np.full(n, 0.5))
            inside.append(low <= truth <= high)
    assert 0.93 <= np.mean(inside) <= 0.97


@pytest.mark.parametrize("behind", [0.0, 1.0])
def test_the_best_in_truth_is_tied_in_95_of_100_experiments(behind) -> None:
    kept = []
    for i in range(300):
        scores = draws(6, 5, seed=i) - behind * np.arange(6)[:, None] // 2
        kept.append(sweep.tied_with_best(scores)[0])
    assert np.mean(kept) >= 0.94  # 0.95, less one standard error of 300


@pytest.mark.parametrize(
    ("ask", "sentence"),
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
def test_bad_input_is_refused_in_a_sentence(ask, sentence) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)) as refusal:
        ask()
    assert str(refusal.value).count("\n") == 0

"""What few seeds can say: estimates with intervals that cover, and who is tied.

`values` and `others` are one number for each seed; the first of one and the first of
the other are of the same seed. ±inf is a value like any other, beyond all numbers. An
interval is of 95 %, and NaN where there are too few seeds for one.
"""

import functools
from typing import NamedTuple

import numpy as np
from scipy import stats

from jaxml._core.checks import refuse

LEVEL = 0.95
_FEWEST = 5  # seeds; the widest interval of four covers a median in 87.5 %
_RESAMPLES = 2000


class Estimate(NamedTuple):
    """A number, and its 95 % interval."""

    value: float
    low: float
    high: float


def median(values: np.ndarray) -> Estimate:
    """The value that half of all seeds would reach.

    The interval lies between order statistics, which cover the median of any
    distribution with a binomial probability; it is interpolated between the two pairs
    whose probabilities enclose 95 %. Of five seeds it is their range, which covers in
    93.75 %; of fewer than five there is none.

    Reference:
        Hettmansperger and Sheather, "Confidence intervals based on interpolated order
        statistics", Statistics & Probability Letters 1986,
        https://doi.org/10.1016/0167-7152(86)90021-0

    Example:
        >>> median(np.array([0.90, 0.91, 0.93, 0.92, 0.95]))
        Estimate(value=0.92, low=0.9, high=0.95)
    """
    x = np.sort(_one_each("median", "values", values))
    n = len(x)
    if n < _FEWEST:
        return Estimate(float(np.median(x)), np.nan, np.nan)
    d, share = _depth(n)
    low = _between(x[d - 1], x[d], share)
    high = _between(x[n - d], x[n - d - 1], share)
    return Estimate(float(np.median(x)), float(low), float(high))


@functools.cache
def _depth(n: int) -> tuple[int, float]:
    """How many order statistics the interval of a median lies inside each end."""
    depths = np.arange(1, (n + 1) // 2 + 1)
    covers = 1 - 2 * stats.binom.cdf(depths - 1, n, 0.5)
    if covers[0] <= LEVEL:
        return 1, 0.0
    d = int(np.sum(covers >= LEVEL))
    excess = (covers[d - 1] - LEVEL) / (covers[d - 1] - covers[d])
    return d, float((n - d) * excess / (d + (n - 2 * d) * excess))


def _between(near: float, far: float, share: float) -> float:
    return near if share == 0 else (1 - share) * near + share * far


def interquartile_mean(values: np.ndarray) -> Estimate:
    """The mean of the middle half of the seeds.

    A quarter of the weight is cut from each end; a value that the cut goes through
    counts in part. The interval is the percentile bootstrap's at the tail probability
    Φ(-t), t the quantile of Student with n - 1 degrees of freedom: the plain one covers
    in 90 % at five seeds, and Hesterberg's, with √(n / (n - 1)) t, in 97 % at ten. Of
    fewer than five there is none.

    Reference:
        Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical
        Precipice", NeurIPS 2021, https://arxiv.org/abs/2108.13264; Hesterberg, "What
        Teachers Should Know About the Bootstrap", The American Statistician 2015,
        https://doi.org/10.1080/00031305.2015.1089789

    Example:
        >>> print(f"{interquartile_mean(np.arange(8.0)).value:.2f}")
        3.50
    """
    x = np.sort(_one_each("interquartile_mean", "values", values))
    n = len(x)
    if n < _FEWEST:
        return Estimate(float(_middle(x)), np.nan, np.nan)
    drawn, cut = _resamples(n)
    means = np.sort(_middle(x[drawn]))
    return Estimate(float(_middle(x)), float(means[cut]), float(means[-1 - cut]))


@functools.cache
def _resamples(n: int) -> tuple[np.ndarray, int]:
    """Places drawn from n sorted values, always the same, and how many to cut off."""
    drawn = np.random.default_rng(n).integers(0, n, (_RESAMPLES, n))
    tail = stats.norm.sf(stats.t.ppf((1 + LEVEL) / 2, n - 1))
    return np.sort(drawn, axis=1), int(_RESAMPLES * tail)


def _middle(x: np.ndarray) -> np.ndarray:
    """The mean of the middle half of x, sorted along its last axis."""
    n = x.shape[-1]
    ends = np.arange(n + 1) / n
    weights = np.minimum(ends[1:], 0.75) - np.maximum(ends[:-1], 0.25)
    inside = weights > 0
    return 2 * np.einsum("...n,n->...", x[..., inside], weights[inside])


def probability_of_improvement(values: np.ndarray, others: np.ndarray) -> Estimate:
    """How probable it is that a seed's value exceeds its other; a tie counts half.

    The interval is Wilson's score interval of a share of n pairs.

    Reference:
        Wilson, "Probable Inference, the Law of Succession, and Statistical Inference",
        JASA 1927, https://doi.org/10.1080/01621459.1927.10502953

    Example:
        >>> better, worse = np.array([0.9, 0.8, 0.9]), np.array([0.7, 0.8, 0.8])
        >>> print(f"{probability_of_improvement(better, worse).value:.3f}")
        0.833
    """
    values = _one_each("probability_of_improvement", "values", values)
    others = _one_each("probability_of_improvement", "others", others)
    if len(values) != len(others):
        rule = f"be of the {len(values)} seeds of values"
        refuse(ValueError, "probability_of_improvement", "others", rule, others)
    n = len(values)
    p = float(np.mean((values > others) + 0.5 * (values == others)))
    z = stats.norm.ppf((1 + LEVEL) / 2)
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return Estimate(p, float(centre - reach), float(centre + reach))


def tied_with_best(scores: np.ndarray, *, best: int | None = None) -> np.ndarray:
    """Which rows may be the best one: no paired difference says that they are not.

    Each row is held against the best by Student's test, one-sided, of their
    differences on the same seeds of the same task, with Holm's correction for the
    number of rows. The row that is best in truth is among them in 95 % of experiments.
    A row with ±inf, which diverged, is tied with none that has not.

    Args:
        scores: [rows seeds] or [rows tasks seeds], larger is better; NaN where there
            is none.
        best: The row that stands first; that of the highest mean by default.

    Returns:
        [rows], True for the best and all that are tied with it.

    Reference:
        Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian
        Journal of Statistics 1979, https://www.jstor.org/stable/4615733

    Example:
        >>> seeds = np.array([0.90, 0.92, 0.91, 0.93, 0.92])
        >>> tied_with_best(np.stack([seeds, seeds[::-1], seeds - [5, 6, 5, 6, 5]]))
        array([ True,  True, False])
    """
    scores = np.asarray(scores, float)
    if scores.ndim not in (2, 3) or not scores.size:
        rule = "be of shape [rows seeds] or [rows tasks seeds]"
        refuse(ValueError, "tied_with_best", "scores", rule, scores)
    tasks = scores.reshape(len(scores), -1, scores.shape[-1])
    if best is None:
        means = [mean_over_strata(row).value for row in tasks]
        best = int(np.argmax(np.nan_to_num(means, nan=-np.inf)))
    chances = np.array([_chance(tasks[best], row) for row in tasks])
    chances[best] = np.inf
    tied = np.ones(len(scores), bool)
    for place, row in enumerate(np.argsort(chances)[:-1]):
        if chances[row] > (1 - LEVEL) / (len(scores) - 1 - place):
            break
        tied[row] = False
    return tied


def performance_profile(costs: np.ndarray, ratios: np.ndarray) -> np.ndarray:
    """The share of problems that each solver solves at so many times the lowest cost.

        ρ(τ) = (1/n) · number of problems with cost <= τ · lowest cost of the problem

    Args:
        costs: [solvers problems], positive; inf where a solver fails.
        ratios: [ratios], the values of τ.

    Returns:
        [solvers ratios]; a problem that none solves counts against all.

    Reference:
        Dolan and Moré, "Benchmarking optimization software with performance profiles",
        Mathematical Programming 2002, https://arxiv.org/abs/cs/0102001

    Example:
        >>> costs = np.array([[10.0, 40.0], [20.0, 20.0]])
        >>> performance_profile(costs, np.array([1.0, 2.0]))
        array([[0.5, 1. ],
               [0.5, 1. ]])
    """
    costs = np.asarray(costs, float)
    if costs.ndim != 2 or not costs.size or not np.all(costs > 0):
        rule = "be positive, of shape [solvers problems]"
        refuse(ValueError, "performance_profile", "costs", rule, costs)
    lowest = costs.min(axis=0)
    solved = np.isfinite(costs)
    within = costs[:, :, None] <= np.asarray(ratios, float) * lowest[:, None]
    return np.mean(within & solved[:, :, None], axis=1)


def mean_over_strata(values: np.ndarray) -> Estimate:
    """The mean over tasks of the mean over seeds of [tasks seeds]; NaN is left out.

    The interval is Student's, of variances that add up over tasks.
    """
    mean, error, freedom = _moments(values)
    reach = stats.t.ppf((1 + LEVEL) / 2, freedom) * error
    return Estimate(float(mean), float(mean - reach), float(mean + reach))


def _moments(values: np.ndarray) -> tuple[float, float, float]:
    """Mean, standard error and Welch's degrees of freedom; NaN of a task's one seed."""
    tasks = [row[~np.isnan(row)] for row in values]
    tasks = [row for row in tasks if len(row)]
    if not tasks:
        return np.nan, np.nan, np.nan
    mean = float(np.mean([row.mean() for row in tasks]))
    if min(map(len, tasks)) < 2 or not np.isfinite(mean):
        return mean, np.nan, np.nan
    parts = np.array([row.var(ddof=1) / len(row) for row in tasks])
    ends = np.array([len(row) - 1 for row in tasks])
    if not parts.any():
        return mean, 0.0, float(ends.sum())
    freedom = parts.sum() ** 2 / np.sum(parts**2 / ends)
    return mean, float(np.sqrt(parts.sum())) / len(tasks), float(freedom)


def _chance(best: np.ndarray, row: np.ndarray) -> float:
    """How probable such differences are if `row` is not worse than `best`."""
    if np.isinf(row).any() and not np.isinf(best).any():
        return 0.0
    known = np.isfinite(best) & np.isfinite(row)
    gaps = np.where(known, best, np.nan) - np.where(known, row, np.nan)
    mean, error, freedom = _moments(gaps)
    if np.isnan(error) or mean <= 0:
        return 1.0
    if error <= 1e-6 * mean:  # differences too alike for Student's: the test of signs
        return 0.5 ** float(known.sum())
    return float(stats.t.sf(mean / error, freedom))


def _one_each(function: str, name: str, values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, float)
    if values.ndim != 1 or not len(values) or np.isnan(values).any():
        refuse(ValueError, function, name, "be a number for each seed", values)
    return values

"""Statistics for few seeds: estimates with 95 % intervals, and significance tests.

`values` and `others` hold one number per seed, with the seeds in the same order. ±inf
is a valid value, below or above all finite ones. An interval is NaN where there are too
few seeds for one.
"""

import functools
from typing import NamedTuple

import numpy as np
from scipy import stats

from jaxml._core.contract import raise_invalid
from jaxml._core.public import checked

LEVEL = 0.95
MIN_SEEDS = 5  # the range of four seeds covers the median in only 87.5 % of cases
NUM_RESAMPLES = 2000


class Estimate(NamedTuple):
    """A number and its 95 % interval."""

    value: float
    low: float
    high: float


@checked
def median(values: np.ndarray) -> Estimate:
    """The median over seeds, with a distribution-free 95 % interval.

    A pair of order statistics covers the median of any distribution with a binomial
    probability. The interval interpolates between the two pairs whose probabilities
    enclose 95 %. For five seeds it is their range, which covers in 93.75 % of cases;
    for fewer it is NaN.

    Reference:
        Hettmansperger and Sheather, "Confidence intervals based on interpolated order
        statistics", Statistics & Probability Letters 1986,
        https://doi.org/10.1016/0167-7152(86)90021-0

    Example:
        >>> median(np.array([0.90, 0.91, 0.93, 0.92, 0.95]))
        Estimate(value=0.92, low=0.9, high=0.95)
    """
    x = np.sort(_as_scores("values", values))
    n = len(x)
    if n < MIN_SEEDS:
        return Estimate(float(np.median(x)), np.nan, np.nan)
    d, weight = _median_interval(n)
    low = _lerp(x[d - 1], x[d], weight)
    high = _lerp(x[n - d], x[n - d - 1], weight)
    return Estimate(float(np.median(x)), float(low), float(high))


@functools.cache
def _median_interval(n: int) -> tuple[int, float]:
    """d and w: a limit is (1 - w) x_d + w x_(d + 1), with x sorted from its side."""
    depths = np.arange(1, (n + 1) // 2 + 1)
    coverage = 1 - 2 * stats.binom.cdf(depths - 1, n, 0.5)
    if coverage[0] <= LEVEL:
        return 1, 0.0
    d = int(np.sum(coverage >= LEVEL))
    excess = (coverage[d - 1] - LEVEL) / (coverage[d - 1] - coverage[d])
    return d, float((n - d) * excess / (d + (n - 2 * d) * excess))


def _lerp(start: float, end: float, weight: float) -> float:
    if weight == 0:  # 0 · ∞ is NaN
        return start
    return (1 - weight) * start + weight * end


@checked
def interquartile_mean(values: np.ndarray) -> Estimate:
    """The mean of the middle half of the seeds, with a 95 % bootstrap interval.

    A quarter of the weight is trimmed at each end; a value on the border counts in
    part. The interval is a percentile bootstrap with tail probability Φ(-t), where Φ is
    the normal distribution function and t the 0.975 quantile of Student's distribution
    with n - 1 degrees of freedom. The plain bootstrap covers in 90 % of cases at five
    seeds, and Hesterberg's, with √(n / (n - 1)) t, in 97 % at ten. For fewer than five
    seeds the interval is NaN.

    Reference:
        Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical
        Precipice", NeurIPS 2021, https://arxiv.org/abs/2108.13264; Hesterberg, "What
        Teachers Should Know About the Bootstrap", The American Statistician 2015,
        https://doi.org/10.1080/00031305.2015.1089789

    Example:
        >>> print(f"{interquartile_mean(np.arange(8.0)).value:.2f}")
        3.50
    """
    x = np.sort(_as_scores("values", values))
    n = len(x)
    if n < MIN_SEEDS:
        return Estimate(float(_interquartile(x)), np.nan, np.nan)
    indices, cut = _bootstrap_indices(n)
    means = np.sort(_interquartile(x[indices]))
    return Estimate(float(_interquartile(x)), float(means[cut]), float(means[-1 - cut]))


@functools.cache
def _bootstrap_indices(n: int) -> tuple[np.ndarray, int]:
    """[resamples n], fixed by n, and the number of resamples to cut at each end."""
    indices = np.random.default_rng(n).integers(0, n, (NUM_RESAMPLES, n))
    tail = stats.norm.sf(stats.t.ppf((1 + LEVEL) / 2, n - 1))
    return np.sort(indices, axis=1), int(NUM_RESAMPLES * tail)


def _interquartile(x: np.ndarray) -> np.ndarray:
    """The mean of the middle half of x, which is sorted along its last axis."""
    n = x.shape[-1]
    edges = np.arange(n + 1) / n
    weights = np.minimum(edges[1:], 0.75) - np.maximum(edges[:-1], 0.25)
    inside = weights > 0
    return 2 * np.einsum("...n,n->...", x[..., inside], weights[inside])


@checked
def probability_of_improvement(values: np.ndarray, others: np.ndarray) -> Estimate:
    """The fraction of seeds on which `values` exceeds `others`; a tie counts half.

    The interval is Wilson's score interval for a proportion of n pairs.

    Reference:
        Wilson, "Probable Inference, the Law of Succession, and Statistical Inference",
        JASA 1927, https://doi.org/10.1080/01621459.1927.10502953

    Example:
        >>> better, worse = np.array([0.9, 0.8, 0.9]), np.array([0.7, 0.8, 0.8])
        >>> print(f"{probability_of_improvement(better, worse).value:.3f}")
        0.833
    """
    values = _as_scores("values", values)
    others = _as_scores("others", others)
    if len(values) != len(others):
        requirement = f"be of the {len(values)} seeds of values"
        raise_invalid(ValueError, "others", requirement, others)
    n = len(values)
    p = float(np.mean((values > others) + 0.5 * (values == others)))
    z = stats.norm.ppf((1 + LEVEL) / 2)
    center = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half_width = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return Estimate(p, float(center - half_width), float(center + half_width))


@checked
def tied_with_best(scores: np.ndarray, *, best: int | None = None) -> np.ndarray:
    """Rows not significantly worse than the best (paired t-tests, Holm-corrected).

    Each row is compared with the best by a one-sided t-test of their differences on the
    same seeds of the same task, at the 5 % level over all rows. The row that is truly
    best is among the result in 95 % of experiments. A row with ±inf, from a model that
    diverged, is never tied with a best row without one.

    Args:
        scores: [rows seeds] or [rows tasks seeds], higher is better; NaN where there is
            no score.
        best: The row to compare with; by default the one with the highest mean.

    Returns:
        [rows], True for the best row and all rows that are tied with it.

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
        requirement = "be of shape [rows seeds] or [rows tasks seeds]"
        raise_invalid(ValueError, "scores", requirement, scores)
    by_task = scores.reshape(len(scores), -1, scores.shape[-1])
    if best is None:
        means = [stratified_mean(row).value for row in by_task]
        best = int(np.argmax(np.nan_to_num(means, nan=-np.inf)))
    p_values = np.array([_p_value(by_task[best], row) for row in by_task])
    p_values[best] = np.inf
    tied = np.ones(len(scores), bool)
    for i, row in enumerate(np.argsort(p_values)[:-1]):
        if p_values[row] > (1 - LEVEL) / (len(scores) - 1 - i):
            break
        tied[row] = False
    return tied


@checked
def performance_profile(costs: np.ndarray, ratios: np.ndarray) -> np.ndarray:
    """The fraction of problems that each solver solves within τ times the lowest cost.

        ρ(τ) = (1/n) · #{problems: cost ≤ τ · lowest cost of any solver}

    n is the number of problems; one that no solver solves counts as unsolved for all.

    Args:
        costs: [solvers problems], positive; inf where a solver fails.
        ratios: [ratios], the values of τ.

    Returns:
        [solvers ratios], the values of ρ.

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
        requirement = "be positive, of shape [solvers problems]"
        raise_invalid(ValueError, "costs", requirement, costs)
    lowest = costs.min(axis=0)
    within = costs[:, :, None] <= np.asarray(ratios, float) * lowest[:, None]
    return np.mean(within & np.isfinite(costs)[:, :, None], axis=1)


def stratified_mean(values: np.ndarray) -> Estimate:
    """The mean over tasks of the mean over seeds of [tasks seeds], ignoring NaN.

    The interval is Student's, with the variances of the tasks added.
    """
    mean, error, dof = _moments(values)
    half_width = stats.t.ppf((1 + LEVEL) / 2, dof) * error
    return Estimate(float(mean), float(mean - half_width), float(mean + half_width))


def _moments(values: np.ndarray) -> tuple[float, float, float]:
    """Mean, standard error and Welch–Satterthwaite degrees of freedom.

    The latter two are NaN if a task has only one seed.
    """
    tasks = [row[~np.isnan(row)] for row in values]
    tasks = [row for row in tasks if len(row)]
    if not tasks:
        return np.nan, np.nan, np.nan
    mean = float(np.mean([row.mean() for row in tasks]))
    if min(map(len, tasks)) < 2 or not np.isfinite(mean):
        return mean, np.nan, np.nan
    variances = np.array([row.var(ddof=1) / len(row) for row in tasks])
    dofs = np.array([len(row) - 1 for row in tasks])
    if not variances.any():
        return mean, 0.0, float(dofs.sum())
    dof = variances.sum() ** 2 / np.sum(variances**2 / dofs)
    return mean, float(np.sqrt(variances.sum())) / len(tasks), float(dof)


def _p_value(best: np.ndarray, row: np.ndarray) -> float:
    """Of the hypothesis that `row` is not worse than `best`."""
    if np.isinf(row).any() and not np.isinf(best).any():
        return 0.0
    paired = np.isfinite(best) & np.isfinite(row)
    differences = np.where(paired, best, np.nan) - np.where(paired, row, np.nan)
    mean, error, dof = _moments(differences)
    if np.isnan(error) or mean <= 0:
        return 1.0
    if error <= 1e-6 * mean:  # constant differences have no t statistic: sign test
        return 0.5 ** float(paired.sum())
    return float(stats.t.sf(mean / error, dof))


def _as_scores(name: str, values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, float)
    if values.ndim != 1 or not len(values) or np.isnan(values).any():
        raise_invalid(ValueError, name, "be a number for each seed", values)
    return values

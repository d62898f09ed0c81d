"""Figures that compare methods: standings on one task, ranks and profiles on several.

The column `by` names what is compared, for example "optimizer"; its values are called
methods. Each is at its best configuration.
"""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from jaxml.sweep._record import Record
from jaxml.sweep.analysis._comparison import Standing, standings
from jaxml.sweep.analysis._ranks import profiles, ranks
from jaxml.sweep.report._plots import STYLE, format_value, humanize, line_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TIED_COLOR, WORSE_COLOR = "#1f5fa8", "#8a8a8a"


def plot_standings(
    record: Record,
    metric: str,
    *,
    by: str = "optimizer",
    tuned_on: str | None = None,
    higher_is_better: bool = True,
    title: str = "",
) -> "Figure":
    """The interquartile mean of every method, its 95 % interval, and its seeds.

    Methods in blue are not significantly worse than the first. A method far below at
    least three quarters of the methods is marked at the edge, with its value.

    Args:
        record: The record of a run of one task.
        metric: A column of `record.final`.
        by: The column whose values are compared.
        tuned_on: The column that selects the configuration; the metric by default.
        higher_is_better: Whether a higher number is better.
        title: The title of the figure.

    Example:
        >>> points = grid(optimizer=["sgd", "adam"], seed=[0])
        >>> final = {"valid_accuracy": np.array([0.9, 0.95])}
        >>> record = Record(points, np.array(["ok", "ok"]), final, np.array([1]), {})
        >>> figure = plot_standings(record, "valid_accuracy")
        >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
        ['adam', 'sgd']
    """
    results = standings(
        record, metric, by=by, tuned_on=tuned_on, higher_is_better=higher_is_better
    )
    return draw_standings(results, metric, higher_is_better, title)


def draw_standings(
    results: list[Standing], metric: str, higher_is_better: bool, title: str = ""
) -> "Figure":
    """The figure of `plot_standings`."""
    limits = _axis_limits(results, higher_is_better)
    names = [format_value(standing.name) for standing in results]
    with _figure(9, 1.4 + 0.34 * len(results), title) as (figure, axes):
        axes.grid(axis="y", visible=False)
        axes.set(xlim=limits, xlabel=humanize(metric))
        axes.set(yticks=range(len(results)), yticklabels=names)
        axes.set_ylim(len(results) - 0.4, -0.6)
        for y, standing in enumerate(results):
            _draw_standing(axes, y, standing, limits)
    return figure


@contextlib.contextmanager
def _figure(
    width: float, height: float, title: str
) -> Iterator[tuple["Figure", "Axes"]]:
    """A figure with one panel, and the project's style while it is drawn."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
        figure.suptitle(title, x=0.01, ha="left")
        yield figure, figure.subplots()


def _axis_limits(
    results: list[Standing], higher_is_better: bool
) -> tuple[float, float]:
    """The range of the scores of the best three quarters of the methods, and a margin.

    The margin is wider on the side of the worse methods.
    """
    best = results[: -(-3 * len(results) // 4)]
    scores = np.array([score for s in best for score in s.scores.values()])
    scores = scores[np.isfinite(scores)]
    low, high = (scores.min(), scores.max()) if len(scores) else (0.0, 1.0)
    spread = max(high - low, 1e-6)
    if higher_is_better:
        return low - 0.5 * spread, high + 0.05 * spread
    return low - 0.05 * spread, high + 0.5 * spread


def _draw_standing(
    axes: "Axes", y: int, standing: Standing, limits: tuple[float, float]
) -> None:
    color = TIED_COLOR if standing.tied else WORSE_COLOR
    value, low, high = standing.interquartile_mean
    left, right = limits
    if not left <= value <= right:
        text = f"{value:.3g}" if np.isfinite(value) else "diverged"
        x, text, side = (
            (left, f" ◂ {text}", "left")
            if value < left
            else (right, f"{text} ▸ ", "right")
        )
        axes.text(x, y, text, color=color, ha=side, va="center")
        return
    seeds = np.array([s for s in standing.scores.values() if np.isfinite(s)])
    axes.plot(
        seeds, np.full(len(seeds), y + 0.24), "o", color=color, ms=3, alpha=0.5, mew=0
    )
    interval = np.clip([low, high], left, right)
    axes.plot(interval, [y, y], color=color, lw=2.2, solid_capstyle="butt")
    axes.plot(value, y, "o", color=color, ms=7)
    if standing.diverged:
        note = f"{standing.diverged} of {len(standing.scores)} diverged"
        axes.text(right, y, note, color=color, ha="right", va="center")


def plot_ranks(
    record: Record,
    metric: str,
    *,
    by: str = "optimizer",
    tuned_on: str | None = None,
    higher_is_better: bool = True,
    title: str = "",
) -> "Figure":
    """A heat map of the mean rank of every method, over all tasks and on each task.

    Methods in bold are not significantly worse than the first.

    Args:
        record: The record of a run; the column `task` separates the tasks.
        metric: A column of `record.final`.
        by: The column whose values are compared.
        tuned_on: The column that selects the configuration; the metric by default.
        higher_is_better: Whether a higher number is better.
        title: The title of the figure.

    Example:
        >>> points = grid(optimizer=["sgd", "adam"], task=["iris"], seed=[0])
        >>> final = {"valid_accuracy": np.array([0.9, 0.95])}
        >>> record = Record(points, np.array(["ok", "ok"]), final, np.array([1]), {})
        >>> [t.get_text() for t in plot_ranks(record, "valid_accuracy").axes[0].texts]
        ['1.0', '1.0', '2.0', '2.0']
    """
    result = ranks(
        record, metric, by=by, tuned_on=tuned_on, higher_is_better=higher_is_better
    )
    overall = np.array([[estimate.value] for estimate in result.overall])
    cells = np.concatenate([overall, result.task_ranks], axis=1)
    tasks = [format_value(task) or "the task" for task in result.tasks]
    columns = ["all tasks", *tasks]
    names = [format_value(name) for name in result.names]
    size = 2.4 + 1.15 * len(columns), 1.3 + 0.34 * len(cells)
    with _figure(*size, title) as (figure, axes):
        axes.grid(visible=False)
        axes.imshow(cells, cmap="YlGnBu_r", aspect="auto", vmin=1, vmax=len(cells))
        for (y, x), rank in np.ndenumerate(cells):
            color = "white" if rank < 0.5 * (1 + len(cells)) else "#222222"
            axes.text(x, y, f"{rank:.1f}", color=color, ha="center", va="center")
        axes.axvline(0.5, color="white", lw=6)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0, top=False, labeltop=True, labelbottom=False)
        axes.set(xticks=range(len(columns)), xticklabels=columns)
        axes.set(yticks=range(len(cells)), yticklabels=names)
        for label, tied in zip(axes.get_yticklabels(), result.tied):
            label.set_fontweight("bold" if tied else "normal")
    return figure


def plot_profiles(
    record: Record,
    metric: str,
    *,
    by: str = "optimizer",
    higher_is_better: bool = True,
    title: str = "",
) -> "Figure":
    """The performance profiles of all methods; higher and further left is better.

    The legend is ordered by the area under the profile, largest first.

    Args:
        record: The record of a run; the column `task`, if any, separates the tasks.
        metric: A column of `record.final` and of `record.curves`.
        by: The column whose values are compared.
        higher_is_better: Whether a higher metric is better.
        title: The title of the figure.

    Example:
        >>> points = grid(optimizer=["sgd", "adam"], seed=[0])
        >>> final = {"valid_accuracy": np.array([0.5, 0.5])}
        >>> curves = {"valid_accuracy": np.array([[0.2, 0.5], [0.5, 0.5]])}
        >>> steps, status = np.array([10, 20]), np.array(["ok", "ok"])
        >>> record = Record(points, status, final, steps, curves)
        >>> len(plot_profiles(record, "valid_accuracy").axes[0].lines)
        2
    """
    result = profiles(record, metric, by=by, higher_is_better=higher_is_better)
    height = max(4.5, 1 + 0.29 * len(result.names))
    with _figure(9, height, title) as (figure, axes):
        for i, (name, profile) in enumerate(zip(result.names, result.fractions)):
            style = {"label": format_value(name), **line_style(i)}
            axes.step(result.ratios, profile, where="post", **style)
        axes.set(xlim=(1, result.ratios[-1] + 0.05), ylim=(0, 1.02))
        axes.set_xlabel("steps, relative to the fewest")
        axes.set_ylabel(f"fraction of {result.problems} problems solved")
        figure.legend(loc="outside right upper")
    return figure

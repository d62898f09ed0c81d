"""Pictures of who is best: standings on one task, ranks and profiles over several."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from jaxml.sweep._record import Record
from jaxml.sweep.analysis._comparison import Standing, standings
from jaxml.sweep.analysis._ranks import profiles, ranks
from jaxml.sweep.report._plots import STYLE, look, shown, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TIED, BEHIND = "#1f5fa8", "#8a8a8a"


def plot_standings(
    record: Record,
    metric: str,
    *,
    by: str = "optimizer",
    tuned_on: str | None = None,
    higher_is_better: bool = True,
    title: str = "",
) -> "Figure":
    """Where each competitor stands: interquartile mean, 95 % interval and every seed.

    Blue ones are tied with the best. Who is far behind the other three quarters stands
    at the edge with its number.

    Args:
        record: Of a run of one task.
        metric: A column of `record.final`.
        by: The column whose values are compared.
        tuned_on: The column that chooses the setting; the metric itself by default.
        higher_is_better: Whether a higher number is better.
        title: Above the picture.

    Example:
        >>> points = {"optimizer": np.array(["sgd", "adam"]), "seed": np.array([0, 0])}
        >>> final = {"valid_accuracy": np.array([0.9, 0.95])}
        >>> record = Record(points, np.array(["ok", "ok"]), final, np.array([1]), {})
        >>> figure = plot_standings(record, "valid_accuracy")
        >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
        ['adam', 'sgd']
    """
    board = standings(
        record, metric, by=by, tuned_on=tuned_on, higher_is_better=higher_is_better
    )
    low, high = window(board, higher_is_better)
    with _drawing(9, 1.4 + 0.34 * len(board), title) as (figure, axes):
        axes.grid(axis="y", visible=False)
        axes.set(xlim=(low, high), xlabel=words(metric))
        axes.set(yticks=range(len(board)), yticklabels=[shown(s.name) for s in board])
        axes.set_ylim(len(board) - 0.4, -0.6)
        for place, own in enumerate(board):
            _draw_standing(axes, place, own, (low, high))
    return figure


@contextlib.contextmanager
def _drawing(
    width: float, height: float, title: str
) -> Iterator[tuple["Figure", "Axes"]]:
    """A figure with one panel, in the style of all, while it is drawn."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
        figure.suptitle(title, x=0.01, ha="left")
        yield figure, figure.subplots()


def window(board: list[Standing], higher_is_better: bool) -> tuple[float, float]:
    """The range of the metric that shows at least three quarters of the standings."""
    near = board[: -(-3 * len(board) // 4)]
    numbers = np.array([score for own in near for score in own.scores.values()])
    numbers = numbers[np.isfinite(numbers)]
    low, high = (numbers.min(), numbers.max()) if len(numbers) else (0.0, 1.0)
    reach = max(high - low, 1e-6)
    wide = 0.5 * reach  # room for those a little behind
    return (
        (low - wide, high + 0.05 * reach)
        if higher_is_better
        else (low - 0.05 * reach, high + wide)
    )


def _draw_standing(
    axes: "Axes", place: int, own: Standing, window: tuple[float, float]
) -> None:
    colour = TIED if own.tied else BEHIND
    value, low, high = own.interquartile_mean
    if not window[0] <= value <= window[1]:
        beyond = window[0] if value < window[0] or not np.isfinite(value) else window[1]
        text = f"{value:.3g}" if np.isfinite(value) else "diverged"
        text = f" ◂ {text}" if beyond == window[0] else f"{text} ▸ "
        side = "left" if beyond == window[0] else "right"
        axes.text(beyond, place, text, color=colour, ha=side, va="center")
        return
    seeds = np.array([score for score in own.scores.values() if np.isfinite(score)])
    places = np.full(len(seeds), place + 0.24)
    axes.plot(seeds, places, "o", color=colour, ms=3, alpha=0.5, mew=0)
    ends = np.clip([low, high], *window)
    axes.plot(ends, [place, place], color=colour, lw=2.2, solid_capstyle="butt")
    axes.plot(value, place, "o", color=colour, ms=7)
    if own.diverged:
        note = f"{own.diverged} of {len(own.scores)} diverged"
        axes.text(window[1], place, note, color=colour, ha="right", va="center")


def plot_ranks(
    record: Record,
    metric: str,
    *,
    by: str = "optimizer",
    tuned_on: str | None = None,
    higher_is_better: bool = True,
    title: str = "",
) -> "Figure":
    """The place of each competitor on each task and over all, as a heat map.

    Bold ones are tied with the best.

    Args:
        record: Of a run; its column `task` tells the tasks apart.
        metric: A column of `record.final`.
        by: The column whose values are compared.
        tuned_on: The column that chooses the setting; the metric itself by default.
        higher_is_better: Whether a higher number is better.
        title: Above the picture.

    Example:
        >>> points = {"optimizer": np.array(["sgd", "adam"]), "seed": np.array([0, 0])}
        >>> points["task"] = np.array(["iris", "iris"])
        >>> final = {"valid_accuracy": np.array([0.9, 0.95])}
        >>> record = Record(points, np.array(["ok", "ok"]), final, np.array([1]), {})
        >>> [t.get_text() for t in plot_ranks(record, "valid_accuracy").axes[0].texts]
        ['1.0', '1.0', '2.0', '2.0']
    """
    found = ranks(
        record, metric, by=by, tuned_on=tuned_on, higher_is_better=higher_is_better
    )
    overall = np.array([[estimate.value] for estimate in found.overall])
    cells = np.concatenate([overall, found.places], axis=1)
    columns = ["all tasks", *(shown(task) or "the task" for task in found.tasks)]
    size = 2.4 + 1.15 * len(columns), 1.3 + 0.34 * len(cells)
    with _drawing(*size, title) as (figure, axes):
        axes.grid(visible=False)
        axes.imshow(cells, cmap="YlGnBu_r", aspect="auto", vmin=1, vmax=len(cells))
        for (row, column), cell in np.ndenumerate(cells):
            colour = "white" if cell < 0.5 * (1 + len(cells)) else "#222222"
            axes.text(
                column, row, f"{cell:.1f}", color=colour, ha="center", va="center"
            )
        axes.axvline(0.5, color="white", lw=6)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0, top=False, labeltop=True, labelbottom=False)
        axes.set(xticks=range(len(columns)), xticklabels=columns)
        axes.set(yticks=range(len(cells)), yticklabels=[*map(shown, found.names)])
        for label, tied in zip(axes.get_yticklabels(), found.tied):
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
    """Performance profiles: further up and left is faster on more problems.

    The legend is in the order of the area under the profile, the best first.

    Args:
        record: Of a run; its column `task`, if there is one, tells the tasks apart.
        metric: A column of `record.final` and of `record.curves`.
        by: The column whose values are compared.
        higher_is_better: Whether a higher metric is better.
        title: Above the picture.

    Example:
        >>> points = {"optimizer": np.array(["sgd", "adam"]), "seed": np.array([0, 0])}
        >>> curves = {"valid_accuracy": np.array([[0.2, 0.5], [0.5, 0.5]])}
        >>> final = {"valid_accuracy": np.array([0.5, 0.5])}
        >>> ended = np.array(["ok", "ok"])
        >>> record = Record(points, ended, final, np.array([10, 20]), curves)
        >>> len(plot_profiles(record, "valid_accuracy").axes[0].lines)
        2
    """
    found = profiles(record, metric, by=by, higher_is_better=higher_is_better)
    with _drawing(9, max(4.5, 1 + 0.29 * len(found.names)), title) as (figure, axes):
        for i, (name, share) in enumerate(zip(found.names, found.shares)):
            axes.step(found.ratios, share, where="post", label=shown(name), **look(i))
        axes.set(xlim=(1, found.ratios[-1] + 0.05), ylim=(0, 1.02))
        axes.set_xlabel("steps, as a multiple of the fewest")
        axes.set_ylabel(f"share of {found.problems} problems solved")
        figure.legend(loc="outside right upper")
    return figure

"""Pictures of a record's models: rates, curves and outputs."""

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxml.sweep._record import Record
from jaxml.sweep.analysis._leaderboard import Row, firsts, leaderboard

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Series = tuple[Any, Any, Any, Any]  # x, the line, and its band from low to high

_FEW = 8  # lines that an eye can tell apart in one panel
STYLE: dict[Any, Any] = {
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}


def plot_sensitivity(
    record: Record,
    metric: str,
    *,
    by: str = "optimizer",
    higher_is_better: bool = True,
    title: str = "",
) -> "Figure":
    """The metric over the learning rate: how well a rate must be tuned.

    A line for each optimizer, with the rest of its best setting: the mean over
    seeds, and its 95 % interval as a band. It breaks where a model diverged. More than
    eight have a panel each, in which the others are grey.

    Args:
        record: Of a run whose points have a `learning_rate`.
        metric: A column of `record.final`.
        by: The column whose values are compared, each at its best setting.
        higher_is_better: Whether a higher metric is better.
        title: Above the picture.

    Example:
        >>> points = {"optimizer": np.array(["sgd", "adam"]), "seed": np.array([0, 0])}
        >>> points["learning_rate"] = np.array([0.1, 0.1])
        >>> final = {"valid_accuracy": np.array([0.9, 0.95])}
        >>> record = Record(points, np.array(["ok", "ok"]), final, np.array([1]), {})
        >>> figure = plot_sensitivity(record, "valid_accuracy")
        >>> figure.axes[0].get_xlabel()
        'learning rate'
    """
    rows = leaderboard(record, metric, higher_is_better=higher_is_better)
    return draw_sensitivity(rows, metric, by, title)


def draw_sensitivity(
    rows: list[Row], metric: str, by: str, title: str = ""
) -> "Figure":
    """The picture of a whole leaderboard."""

    def over_rates(best: Row) -> Series:
        fixed = {n: v for n, v in best.settings.items() if n != "learning_rate"}
        line = [row for row in rows if fixed.items() <= row.settings.items()]
        line.sort(key=lambda row: row.settings["learning_rate"])
        numbers = [
            [np.nan] * 3 if r.diverged else [r.mean, r.low, r.high] for r in line
        ]
        rates = [row.settings["learning_rate"] for row in line]
        return rates, *np.array(numbers).T

    best = firsts(rows, [by])
    lines = [over_rates(row) for row in best]
    figure, panels = _panels(best, [lines], by, title)
    means = np.concatenate([line[1] for line in lines])
    for axes in panels:
        axes.set_xscale("log")
        axes.minorticks_off()
        if np.isfinite(means).any():  # the bands of few seeds reach beyond what can be
            low, high = np.nanmin(means), np.nanmax(means)
            axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low) + 1e-6)
    if len(panels) == 1:
        panels[0].set(xlabel="learning rate", ylabel=words(metric))
    else:
        figure.supxlabel("learning rate")
        figure.supylabel(words(metric))
    return figure


def plot_curves(
    record: Record,
    metric: str,
    *,
    by: str = "optimizer",
    higher_is_better: bool = True,
    title: str = "",
) -> "Figure":
    """The training loss and a metric over the steps, at each optimizer's best setting.

    A line is the mean over seeds, its band the range of the seeds, of up to eight.

    Args:
        record: Of a run.
        metric: A column of `record.final` and of `record.curves`.
        by: The column whose values are compared, each at its best setting.
        higher_is_better: Whether a higher metric is better.
        title: Above the picture.

    Example:
        >>> points = {"optimizer": np.array(["sgd", "adam"]), "seed": np.array([0, 0])}
        >>> points["learning_rate"] = np.array([0.1, 0.1])
        >>> final = {"valid_accuracy": np.array([0.9, 0.95])}
        >>> record = Record(
        ...     points,
        ...     np.array(["ok", "ok"]),
        ...     final,
        ...     np.array([1]),
        ...     {"train_loss": np.ones((2, 1)), "valid_accuracy": np.ones((2, 1))},
        ... )
        >>> len(plot_curves(record, "valid_accuracy").axes)
        2
    """
    rows = leaderboard(record, metric, higher_is_better=higher_is_better)
    return draw_curves(record, rows, metric, by, title)


def draw_curves(
    record: Record, rows: list[Row], metric: str, by: str, title: str = ""
) -> "Figure":
    """The picture of the best settings of a leaderboard."""

    def over_steps(name: str, best: Row) -> Series:
        curves = record.curves[name][best.members]
        return record.steps, curves.mean(0), curves.min(0), curves.max(0)

    best = firsts(rows, [by])
    names = ["train_loss", metric]
    lines = [[over_steps(name, row) for row in best] for name in names]
    figure, panels = _panels(best, lines, by, title)
    panels[0].set_yscale("log")
    for axes, name in zip(panels, names):
        axes.set(xlabel="steps", ylabel=words(name))
    return figure


def plot_images(rows: Mapping[str, np.ndarray], *, title: str = "") -> "Figure":
    """Pictures in rows, each row under its name.

    Args:
        rows: [images height width] by name; floats are grey, integers labels in colour.
        title: Above the picture.

    Example:
        >>> rows = {"input": np.zeros((2, 8, 8)), "truth": np.zeros((2, 8, 8), int)}
        >>> len(plot_images(rows).axes)
        4
    """
    from matplotlib.figure import Figure

    count = len(next(iter(rows.values())))
    size = 1.5 * count + 2.4, 1.5 * len(rows) + 0.5
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    panels = figure.subplots(len(rows), count, squeeze=False)
    for line, (name, images) in zip(panels, rows.items()):
        labels = np.issubdtype(images.dtype, np.integer)
        for axes, image in zip(line, images):
            if labels:
                axes.imshow(image, cmap="tab20", vmin=0, vmax=19, interpolation="none")
            else:
                axes.imshow(image, cmap="gray", interpolation="none")
            axes.set(xticks=[], yticks=[])
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
    figure.suptitle(title)
    return figure


def _panels(
    best: list[Row], lines: list[list[Series]], by: str, title: str
) -> tuple["Figure", list["Axes"]]:
    """A panel for each list of lines, one of each row; or for each of too many lines.

    What all rows have in common stands in the title.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    common = [n for n in best[0].settings if n != by and _shared(best, n)]
    labels = [_named(row, by, common) for row in best]
    with mpl.rc_context(STYLE):
        figure = Figure(dpi=120, layout="constrained")
        if len(lines) == 1 and len(best) > _FEW:
            panels = _one_each(figure, lines[0], labels)
        else:
            panels = _together(figure, lines, labels)
        shared = ", ".join(shown(best[0].settings[n]) for n in common)
        heading = "\n".join(filter(None, [title, shared]))
        figure.suptitle(heading, x=0.01, ha="left")
    return figure, panels


def _together(
    figure: "Figure", lines: list[list[Series]], labels: list[str]
) -> list["Axes"]:
    figure.set_size_inches(4 + 4.5 * len(lines), max(5, 1 + 0.36 * len(labels)))
    panels = list(figure.subplots(1, len(lines), squeeze=False)[0])
    for axes, each in zip(panels, lines):
        for i, (label, series) in enumerate(zip(labels, each)):
            marker = {} if len(lines) > 1 else {"marker": "o", "ms": 4}
            _line(
                axes, series, band=len(labels) <= _FEW, label=label, **look(i), **marker
            )
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper")
    return panels


def _one_each(figure: "Figure", lines: list[Series], labels: list[str]) -> list["Axes"]:
    rows = -(-len(lines) // 5)
    figure.set_size_inches(11, 1 + 1.8 * rows)
    grid = list(figure.subplots(rows, 5, sharex=True, sharey=True).flat)
    panels = grid[: len(lines)]
    broken = [np.concatenate([[*part, np.nan] for part in p]) for p in zip(*lines)]
    for i, (axes, label) in enumerate(zip(panels, labels)):
        axes.plot(*broken[:2], color="#d8d8d8", lw=0.8)
        _line(axes, lines[i], band=True, color="#1f5fa8", marker="o", ms=3)
        axes.set_title(label.replace(": ", "\n"), fontsize=9, loc="left")
        axes.tick_params(labelsize=9, labelbottom=i + 5 >= len(lines))
    for axes in grid[len(lines) :]:
        axes.set_axis_off()
    return panels


def _line(
    axes: "Axes", series: Series, *, band: bool, color: str, **style: Any
) -> None:
    x, middle, low, high = series
    axes.plot(x, middle, color=color, **style)
    if band:
        axes.fill_between(x, low, high, color=color, alpha=0.12, lw=0)


def look(i: int) -> dict[str, Any]:
    """How the i-th line is drawn."""
    return {"color": f"C{i % 10}", "ls": ("-", "--", ":")[i // 10 % 3]}


def _shared(rows: list[Row], name: str) -> bool:
    return len({row.settings[name] for row in rows}) == 1


def _named(row: Row, by: str, common: list[str]) -> str:
    """What the line is of, with what it was combined with; the best stands first."""
    own = [n for n in row.settings if n != by and n not in common]
    rest = ", ".join(shown(row.settings[n]) for n in own)
    return f"{shown(row.settings[by])}: {rest}" if rest else shown(row.settings[by])


def shown(value: Any) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)


def png(figure: "Figure") -> bytes:
    written = io.BytesIO()
    figure.savefig(written, format="png")
    return written.getvalue()


def words(name: str) -> str:
    first, *rest = name.split("_")
    full = {"valid": "validation", "train": "training"}.get(first, first)
    return " ".join([full, *rest])

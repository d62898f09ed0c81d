"""Figures of single models: learning-rate sensitivity, learning curves and images."""

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxml.sweep._record import Record
from jaxml.sweep.analysis._leaderboard import Row, best_per_group, leaderboard

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Series = tuple[Any, Any, Any, Any]  # x, y, and the lower and upper end of its band

MAX_LINES = 8  # that a reader can tell apart in one panel
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
    """The metric over the learning rate, with the other settings at their best.

    Each optimizer has a line, the mean over seeds, with its 95 % interval as a band. A
    line breaks where a model diverged. More than eight optimizers get a panel each,
    with the others in gray.

    Args:
        record: The record of a run whose points have a `learning_rate`.
        metric: A column of `record.final`.
        by: The column whose values are compared, each at its best configuration.
        higher_is_better: Whether a higher metric is better.
        title: The title of the figure.

    Example:
        >>> points = grid(optimizer=["sgd", "adam"], learning_rate=[0.1], seed=[0])
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
    """The figure of `plot_sensitivity`, from the whole leaderboard."""

    def sensitivity(best: Row) -> Series:
        fixed = {n: v for n, v in best.settings.items() if n != "learning_rate"}
        line = [row for row in rows if fixed.items() <= row.settings.items()]
        line.sort(key=lambda row: row.settings["learning_rate"])
        rates = [row.settings["learning_rate"] for row in line]
        estimates = [
            [np.nan] * 3 if r.diverged else [r.mean, r.low, r.high] for r in line
        ]
        return rates, *np.array(estimates).T

    best_rows = best_per_group(rows, [by])
    lines = [sensitivity(row) for row in best_rows]
    figure, panels = _panels(best_rows, [lines], by, title)
    means = np.concatenate([line[1] for line in lines])
    for axes in panels:
        axes.set_xscale("log")
        axes.minorticks_off()
        if np.isfinite(means).any():  # the bands of few seeds exceed any useful range
            low, high = np.nanmin(means), np.nanmax(means)
            axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low) + 1e-6)
    if len(panels) == 1:
        panels[0].set(xlabel="learning rate", ylabel=humanize(metric))
    else:
        figure.supxlabel("learning rate")
        figure.supylabel(humanize(metric))
    return figure


def plot_curves(
    record: Record,
    metric: str,
    *,
    by: str = "optimizer",
    higher_is_better: bool = True,
    title: str = "",
) -> "Figure":
    """The training loss and a metric over the steps, at each best configuration.

    A line is the mean over seeds. With at most eight lines, a band shows the range of
    the seeds.

    Args:
        record: The record of a run.
        metric: A column of `record.final` and of `record.curves`.
        by: The column whose values are compared, each at its best configuration.
        higher_is_better: Whether a higher metric is better.
        title: The title of the figure.

    Example:
        >>> points = grid(optimizer=["sgd", "adam"], seed=[0])
        >>> final = {"valid_accuracy": np.array([0.9, 0.95])}
        >>> curves = {"train_loss": np.ones((2, 1)), "valid_accuracy": np.ones((2, 1))}
        >>> steps, status = np.array([1]), np.array(["ok", "ok"])
        >>> record = Record(points, status, final, steps, curves)
        >>> len(plot_curves(record, "valid_accuracy").axes)
        2
    """
    rows = leaderboard(record, metric, higher_is_better=higher_is_better)
    return draw_curves(record, rows, metric, by, title)


def draw_curves(
    record: Record, rows: list[Row], metric: str, by: str, title: str = ""
) -> "Figure":
    """The figure of `plot_curves`, from the whole leaderboard."""

    def curve(name: str, best: Row) -> Series:
        curves = record.curves[name][best.model_ids]
        return record.steps, curves.mean(0), curves.min(0), curves.max(0)

    best_rows = best_per_group(rows, [by])
    names = ["train_loss", metric]
    lines = [[curve(name, row) for row in best_rows] for name in names]
    figure, panels = _panels(best_rows, lines, by, title)
    panels[0].set_yscale("log")
    for axes, name in zip(panels, names):
        axes.set(xlabel="steps", ylabel=humanize(name))
    return figure


def plot_images(rows: Mapping[str, np.ndarray], *, title: str = "") -> "Figure":
    """Rows of images, each with its name.

    Args:
        rows: [images height width] by name. Floats are drawn in gray, integers as
            labels in color.
        title: The title of the figure.

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
    for panel_row, (name, images) in zip(panels, rows.items()):
        labels = np.issubdtype(images.dtype, np.integer)
        for axes, image in zip(panel_row, images):
            if labels:
                axes.imshow(image, cmap="tab20", vmin=0, vmax=19, interpolation="none")
            else:
                axes.imshow(image, cmap="gray", interpolation="none")
            axes.set(xticks=[], yticks=[])
        panel_row[0].set_ylabel(name, rotation=0, ha="right", va="center")
    figure.suptitle(title)
    return figure


def _panels(
    best_rows: list[Row], lines: list[list[Series]], by: str, title: str
) -> tuple["Figure", list["Axes"]]:
    """A panel for each list of lines; or, if one list is too long, for each line.

    Settings that all rows share go into the title.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    settings = best_rows[0].settings
    shared = [n for n in settings if n != by and _is_shared(best_rows, n)]
    labels = [_label(row, by, shared) for row in best_rows]
    with mpl.rc_context(STYLE):
        figure = Figure(dpi=120, layout="constrained")
        if len(lines) == 1 and len(best_rows) > MAX_LINES:
            panels = _small_multiples(figure, lines[0], labels)
        else:
            panels = _overlaid(figure, lines, labels)
        subtitle = ", ".join(format_value(settings[n]) for n in shared)
        heading = "\n".join(filter(None, [title, subtitle]))
        figure.suptitle(heading, x=0.01, ha="left")
    return figure, panels


def _overlaid(
    figure: "Figure", lines: list[list[Series]], labels: list[str]
) -> list["Axes"]:
    figure.set_size_inches(4 + 4.5 * len(lines), max(5, 1 + 0.36 * len(labels)))
    panels = list(figure.subplots(1, len(lines), squeeze=False)[0])
    marker = {"marker": "o", "ms": 4} if len(lines) == 1 else {}
    band = len(labels) <= MAX_LINES
    for axes, panel_lines in zip(panels, lines):
        for i, (label, series) in enumerate(zip(labels, panel_lines)):
            _draw_line(axes, series, band=band, label=label, **line_style(i), **marker)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper")
    return panels


def _small_multiples(
    figure: "Figure", lines: list[Series], labels: list[str]
) -> list["Axes"]:
    num_rows = -(-len(lines) // 5)
    figure.set_size_inches(11, 1 + 1.8 * num_rows)
    grid = list(figure.subplots(num_rows, 5, sharex=True, sharey=True).flat)
    panels = grid[: len(lines)]
    # all lines as one, which NaNs break apart
    joined = [np.concatenate([[*part, np.nan] for part in p]) for p in zip(*lines)]
    for i, (axes, label) in enumerate(zip(panels, labels)):
        axes.plot(*joined[:2], color="#d8d8d8", lw=0.8)
        _draw_line(axes, lines[i], band=True, color="#1f5fa8", marker="o", ms=3)
        axes.set_title(label.replace(": ", "\n"), fontsize=9, loc="left")
        axes.tick_params(labelsize=9, labelbottom=i + 5 >= len(lines))
    for axes in grid[len(lines) :]:
        axes.set_axis_off()
    return panels


def _draw_line(
    axes: "Axes", series: Series, *, band: bool, color: str, **style: Any
) -> None:
    x, y, low, high = series
    axes.plot(x, y, color=color, **style)
    if band:
        axes.fill_between(x, low, high, color=color, alpha=0.12, lw=0)


def line_style(i: int) -> dict[str, Any]:
    """Color and dashes of the i-th line."""
    return {"color": f"C{i % 10}", "ls": ("-", "--", ":")[i // 10 % 3]}


def _is_shared(rows: list[Row], name: str) -> bool:
    return len({row.settings[name] for row in rows}) == 1


def _label(row: Row, by: str, shared: list[str]) -> str:
    """The compared value, with the settings that not all rows share."""
    settings = row.settings
    other = [format_value(v) for n, v in settings.items() if n not in (by, *shared)]
    name = format_value(settings[by])
    return f"{name}: {', '.join(other)}" if other else name


def format_value(value: Any) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)


def humanize(name: str) -> str:
    """A column in words: "validation accuracy" for "valid_accuracy"."""
    first, *rest = name.split("_")
    split = {"valid": "validation", "train": "training"}.get(first, first)
    return " ".join([split, *rest])


def to_png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()

"""Pictures of a record: the only file that knows matplotlib, and only when it draws."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxml.sweep._record import Record
from jaxml.sweep._report import Row, leaderboard

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STYLE: dict[Any, Any] = {
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}


def plot_sensitivity(
    record: Record, metric: str, *, by: str = "optimizer", title: str = ""
) -> "Figure":
    """The metric over the learning rate: how well a rate must be tuned.

    A line for each optimizer, with the rest of its best setting: the mean over
    seeds, and its 95 % interval as a band. It breaks where a model diverged.

    Args:
        record: Of a run whose points have a `learning_rate`.
        metric: A column of `record.final`; larger is better.
        by: The column whose values are compared, each at its best setting.
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
    rows = leaderboard(record, metric)

    def draw(axes: "Axes", best: Row, look: dict[str, Any]) -> None:
        fixed = {n: v for n, v in best.settings.items() if n != "learning_rate"}
        line = [row for row in rows if fixed.items() <= row.settings.items()]
        line.sort(key=lambda row: row.settings["learning_rate"])
        rates = [row.settings["learning_rate"] for row in line]
        mean, low, high = np.array(
            [[np.nan] * 3 if r.diverged else [r.mean, r.low, r.high] for r in line]
        ).T
        axes.plot(rates, mean, marker="o", ms=4, **look)
        _band(axes, rates, low, high, look)

    figure, (axes,) = _panels(record, metric, [draw], by, title)
    axes.set(xscale="log", xlabel="learning rate", ylabel=_words(metric))
    means = np.concatenate([line.get_ydata() for line in axes.lines])
    if np.isfinite(means).any():  # the bands of few seeds reach beyond what can be
        low, high = np.nanmin(means), np.nanmax(means)
        axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low) + 1e-6)
    return figure


def plot_curves(
    record: Record, metric: str, *, by: str = "optimizer", title: str = ""
) -> "Figure":
    """The training loss and a metric over the steps, at each optimizer's best setting.

    A line is the mean over seeds, its band the range of the seeds.

    Args:
        record: Of a run.
        metric: A column of `record.final` and of `record.curves`; larger is better.
        by: The column whose values are compared, each at its best setting.
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

    def over_steps(name: str) -> Callable[["Axes", Row, dict[str, Any]], None]:
        def draw(axes: "Axes", best: Row, look: dict[str, Any]) -> None:
            curves = record.curves[name][best.members]
            axes.plot(record.steps, curves.mean(0), **look)
            _band(axes, record.steps, curves.min(0), curves.max(0), look)
            axes.set(xlabel="steps", ylabel=_words(name))

        return draw

    draws = [over_steps("train_loss"), over_steps(metric)]
    figure, (loss, _) = _panels(record, metric, draws, by, title)
    loss.set_yscale("log")
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
    record: Record, metric: str, draws: list, by: str, title: str
) -> tuple["Figure", list["Axes"]]:
    """A panel for each drawing, in which the best setting of each `by` is drawn.

    What all lines have in common stands in the title.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    best = leaderboard(record, metric, by=[by])
    common = [n for n in best[0].settings if n != by and _shared(best, n)]
    with mpl.rc_context(_STYLE):
        size = 4 + 4.5 * len(draws), max(5, 1 + 0.36 * len(best))
        figure = Figure(figsize=size, dpi=120, layout="constrained")
        panels = list(figure.subplots(1, len(draws), squeeze=False)[0])
        for axes, draw in zip(panels, draws):
            for i, row in enumerate(best):
                style = ("-", "--", ":")[i // 10 % 3]
                label = _named(row, by, common)
                draw(axes, row, {"color": f"C{i % 10}", "ls": style, "label": label})
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper")
        shared = ", ".join(_shown(best[0].settings[n]) for n in common)
        heading = "\n".join(filter(None, [title, shared]))
        figure.suptitle(heading, x=0.01, ha="left")
    return figure, panels


def _band(axes: "Axes", x: Any, low: Any, high: Any, look: dict[str, Any]) -> None:
    axes.fill_between(x, low, high, color=look["color"], alpha=0.08, lw=0)


def _shared(rows: list[Row], name: str) -> bool:
    return len({row.settings[name] for row in rows}) == 1


def _named(row: Row, by: str, common: list[str]) -> str:
    """What the line is of, with what it was combined with; the best stands first."""
    own = [n for n in row.settings if n != by and n not in common]
    rest = ", ".join(_shown(row.settings[n]) for n in own)
    return f"{_shown(row.settings[by])}: {rest}" if rest else _shown(row.settings[by])


def _shown(value: Any) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)


def _words(name: str) -> str:
    return {"valid": "validation", "train": "training"}[name.split("_")[0]] + (
        " " + " ".join(name.split("_")[1:])
    )

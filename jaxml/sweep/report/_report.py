"""The report: one page with its tables and pictures inside, which opens anywhere."""

import contextlib
import importlib.metadata
import os
import pathlib
import platform
from collections.abc import Iterator
from string import Template
from typing import Any

import jax
import numpy as np

from jaxml.sweep._record import Record
from jaxml.sweep.analysis._comparison import standings
from jaxml.sweep.analysis._leaderboard import check_columns, leaderboard
from jaxml.sweep.analysis._ranks import by_task, ranks
from jaxml.sweep.report import _html as page
from jaxml.sweep.report._plots import draw_curves, draw_sensitivity, png, words
from jaxml.sweep.report._plots_comparison import plot_profiles, plot_ranks

_PACKAGES = "jaxml", "jax", "jaxlib", "optax", "numpy", "scipy"
_RANKS = (
    "Mean place over the seeds, 1 the best; each is tuned on each task. Bold: tied "
    "with the best over all tasks."
)
_PROFILES = (
    "Performance profiles: the share of problems, which are a task, a seed and a "
    "target, that each solves within so many times the fewest steps of any. The legend "
    "is in the order of the area below."
)
_RATES = (
    "How well the learning rate must be tuned: the mean over seeds and its 95 % "
    "interval, with the rest of each one's best setting. A line ends where a model "
    "diverged."
)
_CURVES = "Learning curves at the best setting of each, the mean over seeds."


def report(
    record: Record,
    metric: str,
    *,
    by: str = "optimizer",
    tuned_on: str | None = None,
    higher_is_better: bool = True,
    title: str = "Which one?",
    path: str | os.PathLike[str] | None = None,
) -> str:
    """A page of HTML that says which value of a column is best, and how surely.

    Of several tasks it begins with ranks and performance profiles over all of them;
    each task has its standings, learning-rate sensitivity and learning curves. It ends
    with how to read it, and what it was made with. It needs no network and no script.

    Args:
        record: Of a run; its column `task`, if there is one, tells the tasks apart.
        metric: A column of `record.final`, and of `record.curves` for the curves.
        by: The column whose values are compared.
        tuned_on: The column that chooses the setting; the metric itself by default.
        higher_is_better: Whether a higher number is better.
        title: Of the page.
        path: A file that it is written to as well.

    Example:
        >>> points = {"optimizer": np.array(["sgd", "adam"]), "seed": np.array([0, 0])}
        >>> final = {"valid_accuracy": np.array([0.9, 0.95])}
        >>> record = Record(points, np.array(["ok", "ok"]), final, np.array([1]), {})
        >>> report(record, "valid_accuracy")[:15]
        '<!DOCTYPE html>'
    """
    check_columns("report", record, metric=[metric, tuned_on or metric], by=[by])
    tasks = by_task(record)
    asked = {"by": by, "higher_is_better": higher_is_better}
    sections = {}
    if len(tasks) > 1:
        sections["All tasks"] = _over_tasks(record, metric, tuned_on, asked)
    for task, part in tasks.items():
        sections[task or "Standings"] = _of_task(part, metric, tuned_on, asked)
    environment = [f"<dt>{n}</dt><dd>{page.escaped(v)}</dd>" for n, v in _environment()]
    text = Template(page.FRAME).substitute(
        title=page.escaped(title),
        summary=_summary(record, tasks, metric, by),
        contents="\n".join(page.link(n) for n in sections if len(sections) > 1),
        sections="\n".join(
            "\n".join([page.heading(name), *parts]) for name, parts in sections.items()
        ),
        caveats="\n".join(f"<li>{line}</li>" for line in _caveats(record, tuned_on)),
        environment="\n".join(environment),
    )
    if path is not None:
        part = pathlib.Path(f"{os.fspath(path)}.part")
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    return text


def _over_tasks(
    record: Record, metric: str, tuned_on: str | None, asked: dict[str, Any]
) -> Iterator[str]:
    try:
        found = ranks(record, metric, tuned_on=tuned_on, **asked)
        heat = plot_ranks(record, metric, tuned_on=tuned_on, **asked)
        pictures = [page.picture(png(heat), _RANKS)]
        if metric in record.curves:
            profiles = plot_profiles(record, metric, **asked)
            pictures += [page.picture(png(profiles), _PROFILES)]
    except ValueError:  # of a run that was interrupted early
        yield f"<p>No seed is finished by every {page.escaped(asked['by'])} yet.</p>"
        return
    first = found.overall[0]
    yield (
        f"<p>{page.names(found.names[:1])} has the best mean rank, "
        f"{first.value:.1f} of {len(found.names)}{page.interval(first, 1)}. "
        f"{_tied(dict(zip(found.names, found.tied)))}</p>"
    )
    yield from pictures


def _of_task(
    record: Record, metric: str, tuned_on: str | None, asked: dict[str, Any]
) -> Iterator[str]:
    board = standings(record, metric, tuned_on=tuned_on, **asked)
    middle = board[0].interquartile_mean
    yield (
        f"<p>{page.names([board[0].name])} reaches {page.number(middle.value)}"
        f"{page.interval(middle)}. {_tied({own.name: own.tied for own in board})}</p>"
    )
    several = [name for name in _varied(record) if name != asked["by"]]
    yield page.table(board, several, metric=page.escaped(words(metric)), **asked)
    by, rows = (
        asked["by"],
        leaderboard(record, metric, higher_is_better=asked["higher_is_better"]),
    )
    if "learning_rate" in _varied(record):
        yield page.picture(png(draw_sensitivity(rows, metric, by)), _RATES)
    if {"train_loss", metric} <= set(record.curves):
        yield page.picture(png(draw_curves(record, rows, metric, by)), _CURVES)


def _tied(tied: dict[Any, bool]) -> str:
    """Who is tied with the first, or who is not, whichever is the shorter list."""
    _, *others = tied
    near = [name for name in others if tied[name]]
    far = [name for name in others if not tied[name]]
    if not others:
        return ""
    if not near:
        return "These seeds tell all others from it."
    if not far:
        return "These seeds tell none of the others from it."
    if len(near) > len(far):
        return f"Of the others, these seeds tell only {page.names(far)} from it."
    return f"These seeds do not tell {page.names(near)} from it."


def _varied(record: Record) -> list[str]:
    """The columns of settings that have several values."""
    return [
        name
        for name, column in record.points.items()
        if name not in ("seed", "task") and len(set(column.tolist())) > 1
    ]


def _summary(record: Record, tasks: dict[Any, Record], metric: str, by: str) -> str:
    count = {
        "models": np.sum(record.status != "unfinished"),
        "tasks": len(tasks),
        f"values of {page.escaped(by.replace('_', ' '))}": len(
            set(record.points[by].tolist())
        ),
        "seeds": len(set(record.points["seed"].tolist())),
        "steps": record.steps[-1] if len(record.steps) else 0,
    }
    counted = " · ".join(f"{n:,} {name}" for name, n in count.items() if n > 1)
    fixed = [
        f"{page.escaped(name.replace('_', ' '))} {page.escaped(column[0].item())}"
        for name, column in record.points.items()
        if name not in (by, "seed", "task") and name not in _varied(record)
    ]
    return " · ".join([counted, f"judged by {page.escaped(words(metric))}", *fixed])


def _caveats(record: Record, tuned_on: str | None) -> Iterator[str]:
    yield (
        "The score of a seed is that of the setting which was best over the other half "
        "of the seeds, so that no seed chooses what it judges. The settings in the "
        "table are the best over all seeds."
    )
    if tuned_on is None:
        yield (
            "Settings are chosen and judged on the same examples: the scores are what "
            "tuning reaches on them, a little above what new examples would show."
        )
    seeds = len(set(record.points["seed"].tolist()))
    if seeds < 5:
        yield f"{seeds} seeds have no 95 % interval of a median; five are the fewest."
    elif seeds < 10:
        yield f"With {seeds} seeds and many settings intervals may cover in 90 % only."
    yield (
        "The interquartile mean is that of the middle half of the seeds; bars are its "
        "95 % interval, small dots the seeds, arrows point to what is beyond the scale."
    )
    yield (
        "<i>First is better</i>: the share of seeds at which the first is better, and "
        "its 95 % interval; a tie counts half."
    )
    yield (
        "Blue: tied with the first. Others differ from it on the same seeds by "
        "Student's one-sided test, at 5 % after Holm's correction. Tied is not equal: "
        "more seeds tell more apart."
    )
    for status, meaning in (
        ("diverged", "diverged; they count as the worst"),
        ("stopped", "were stopped early and stand behind those that were not"),
        ("unfinished", "are not finished and are left out"),
    ):
        count = int(np.sum(record.status == status))
        if count:
            yield f"{count:,} of {len(record.status):,} models {meaning}."
    yield (
        "These are small models on small data: an order found here is a reason to "
        "try, not a proof for a large one."
    )


def _environment() -> Iterator[tuple[str, str]]:
    devices = jax.devices()
    yield "devices", f"{len(devices)} of {devices[0].device_kind}"
    yield (
        "machine",
        f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
    )
    yield "Python", platform.python_version()
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            yield name, importlib.metadata.version(name)

"""The report: one self-contained HTML page with tables and figures."""

import contextlib
import importlib.metadata
import os
import pathlib
import platform
from collections.abc import Iterator, Mapping
from string import Template
from typing import Any

import jax
import numpy as np

from jaxml._core.public import checked
from jaxml.sweep._record import Record
from jaxml.sweep.analysis._comparison import standings
from jaxml.sweep.analysis._leaderboard import check_columns, leaderboard
from jaxml.sweep.analysis._ranks import ranks, split_tasks
from jaxml.sweep.analysis._targets import Target, TargetScore, target_scores
from jaxml.sweep.report import _html as html
from jaxml.sweep.report._plots import draw_curves, draw_sensitivity, humanize, to_png
from jaxml.sweep.report._plots_comparison import (
    draw_standings,
    plot_profiles,
    plot_ranks,
)

PACKAGES = "jaxml", "jax", "jaxlib", "optax", "numpy", "scipy"

# Captions, with the compared column for {by}.
RANKS_CAPTION = (
    "Mean rank over the seeds, 1 the best; every {by} is tuned on each task. Bold: not "
    "significantly worse than the best over all tasks."
)
PROFILES_CAPTION = (
    "Performance profiles: the fraction of problems that each {by} solves within a "
    "multiple of the fewest steps of any. A problem is a task, a seed and a target. "
    "The legend is ordered by the area under the profile."
)
STANDINGS_CAPTION = (
    "Interquartile mean of each {by} (large dot), its 95 % interval (bar), and its "
    "seeds (small dots). Blue: not significantly worse than the first. Arrows mark "
    "values off the scale."
)
SENSITIVITY_CAPTION = (
    "Sensitivity to the learning rate: the mean over seeds and its 95 % interval, with "
    "the other settings of the best configuration of each {by}. A line breaks where a "
    "model diverged."
)
TARGETS_CAPTION = (
    "Steps to the target: the median over seeds of the fewest steps of any setting of "
    "each {by}; inf if it is never reached. The score is the area under the "
    "performance profile up to four times the steps of the fastest, 1 the best."
)
CURVES_CAPTION = (
    "Learning curves of the best configuration of each {by}, averaged over seeds."
)


@checked
def report(
    record: Record,
    metric: str,
    *,
    by: str = "optimizer",
    tuned_on: str | None = None,
    higher_is_better: bool = True,
    target: Target | Mapping[Any, Target] | None = None,
    title: str = "Sweep report",
    path: str | os.PathLike[str] | None = None,
) -> str:
    """An HTML page that says which value of a column is best, and how surely.

    Each task has its standings, learning-rate sensitivity and learning curves. With
    several tasks the page begins with ranks and performance profiles over all of them.
    It ends with notes on how to read it, and with the devices and package versions. It
    needs no network and no scripts.

    Args:
        record: The record of a run; the column `task`, if any, separates the tasks.
        metric: A column of `record.final`, and of `record.curves` for the curves.
        by: The column whose values are compared.
        tuned_on: The column that selects the configuration; the metric by default.
        higher_is_better: Whether a higher number is better.
        target: What `target_scores` takes, for a table of steps to the target.
        title: The title of the page.
        path: A file to write the page to.

    Example:
        >>> points = grid(optimizer=["sgd", "adam"], seed=[0])
        >>> final = {"valid_accuracy": np.array([0.9, 0.95])}
        >>> record = Record(points, np.array(["ok", "ok"]), final, np.array([1]), {})
        >>> report(record, "valid_accuracy")[:15]
        '<!DOCTYPE html>'
    """
    check_columns(record, metric=[metric, tuned_on or metric], by=[by])
    tasks = split_tasks(record)
    compare_kwargs = {"by": by, "higher_is_better": higher_is_better}
    sections = {}
    if len(tasks) > 1:
        sections["All tasks"] = _overview(record, metric, tuned_on, compare_kwargs)
    for task, part in tasks.items():
        sections[task or "Results"] = _task(part, metric, tuned_on, compare_kwargs)
    if target is not None:
        sections["Time to target"] = _targets(target_scores(record, target, by=by), by)
    environment = [f"<dt>{n}</dt><dd>{html.escape(v)}</dd>" for n, v in _environment()]
    text = Template(html.PAGE_TEMPLATE).substitute(
        title=html.escape(title),
        summary=_summary(record, tasks, metric, by),
        contents="\n".join(html.link(n) for n in sections if len(sections) > 1),
        sections="\n".join(
            "\n".join([html.heading(name), *parts]) for name, parts in sections.items()
        ),
        notes="\n".join(f"<li>{note}</li>" for note in _notes(record, tuned_on)),
        environment="\n".join(environment),
    )
    if path is not None:
        part = pathlib.Path(f"{os.fspath(path)}.part")
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    return text


def _overview(
    record: Record, metric: str, tuned_on: str | None, compare_kwargs: dict[str, Any]
) -> Iterator[str]:
    """Ranks and performance profiles over all tasks."""
    by = compare_kwargs["by"].replace("_", " ")
    try:
        result = ranks(record, metric, tuned_on=tuned_on, **compare_kwargs)
        rank_figure = plot_ranks(record, metric, tuned_on=tuned_on, **compare_kwargs)
        figures = [html.figure(to_png(rank_figure), RANKS_CAPTION.format(by=by))]
        if metric in record.curves:
            profiles = plot_profiles(record, metric, **compare_kwargs)
            figures += [html.figure(to_png(profiles), PROFILES_CAPTION.format(by=by))]
    except ValueError:  # of a run that was interrupted early
        yield f"<p>No seed is finished by every {html.escape(by)} yet.</p>"
        return
    first = result.overall[0]
    yield (
        f"<p>{html.join_names(result.names[:1])} has the best mean rank, "
        f"{first.value:.1f} of {len(result.names)}{html.format_interval(first, 1)}. "
        f"{_significance_sentence(dict(zip(result.names, result.tied)))}</p>"
    )
    yield from figures


def _task(
    record: Record, metric: str, tuned_on: str | None, compare_kwargs: dict[str, Any]
) -> Iterator[str]:
    """Standings, learning-rate sensitivity and learning curves of one task."""
    by, higher_is_better = compare_kwargs["by"], compare_kwargs["higher_is_better"]
    label, varied = by.replace("_", " "), _varied_columns(record)
    results = standings(record, metric, tuned_on=tuned_on, **compare_kwargs)
    first, tied = results[0], {standing.name: standing.tied for standing in results}
    yield (
        f"<p>{html.join_names([first.name])} reaches "
        f"{html.format_number(first.interquartile_mean.value)}"
        f"{html.format_interval(first.interquartile_mean)}. "
        f"{_significance_sentence(tied)}</p>"
    )
    figure = draw_standings(results, metric, higher_is_better)
    yield html.figure(to_png(figure), STANDINGS_CAPTION.format(by=label))
    yield html.table(results, [name for name in varied if name != by], by=by)
    rows = leaderboard(record, metric, higher_is_better=higher_is_better)
    if "learning_rate" in varied:
        figure = draw_sensitivity(rows, metric, by)
        yield html.figure(to_png(figure), SENSITIVITY_CAPTION.format(by=label))
    if {"train_loss", metric} <= set(record.curves):
        figure = draw_curves(record, rows, metric, by)
        yield html.figure(to_png(figure), CURVES_CAPTION.format(by=label))


def _targets(scores: list[TargetScore], by: str) -> Iterator[str]:
    """The score of AlgoPerf, and the steps to the target on each task."""
    tasks = [*scores[0].steps]
    header = [by.replace("_", " "), "AlgoPerf score", *(t or "steps" for t in tasks)]
    rows = [
        [score.name, f"{score.score:.3f}", *(f"{score.steps[t]:,.0f}" for t in tasks)]
        for score in scores
    ]
    yield html.plain_table(header, rows)
    yield f"<p>{TARGETS_CAPTION.format(by=html.escape(by.replace('_', ' ')))}</p>"


def _significance_sentence(tied: dict[Any, bool]) -> str:
    """Names the ties with the first, or the worse methods if they are fewer."""
    _, *others = tied
    ties = [name for name in others if tied[name]]
    worse = [name for name in others if not tied[name]]
    if not others:
        return ""
    if not ties:
        return "All others are significantly worse."
    if not worse:
        return "None of the others is significantly worse."
    if len(ties) > len(worse):
        verb = "is" if len(worse) == 1 else "are"
        names = html.join_names(worse)
        return f"Of the others, only {names} {verb} significantly worse."
    return f"All others except {html.join_names(ties)} are significantly worse."


def _varied_columns(record: Record) -> list[str]:
    """The columns of a configuration that have several values."""
    return [
        name
        for name, column in record.points.items()
        if name not in ("seed", "task") and len(set(column.tolist())) > 1
    ]


def _summary(record: Record, tasks: dict[Any, Record], metric: str, by: str) -> str:
    """The size of the sweep, the metric, and the settings that do not vary."""
    counts = {
        "models": np.sum(record.status != "unfinished"),
        "tasks": len(tasks),
        f"values of {html.escape(by.replace('_', ' '))}": len(
            set(record.points[by].tolist())
        ),
        "seeds": len(set(record.points["seed"].tolist())),
        "steps": record.steps[-1] if len(record.steps) else 0,
    }
    varied = _varied_columns(record)
    fixed = [
        f"{html.escape(name.replace('_', ' '))} {html.escape(column[0].item())}"
        for name, column in record.points.items()
        if name not in (by, "seed", "task") and name not in varied
    ]
    return " · ".join(
        [
            *(f"{n:,} {name}" for name, n in counts.items() if n > 1),
            f"metric: {html.escape(humanize(metric))}",
            *fixed,
        ]
    )


def _notes(record: Record, tuned_on: str | None) -> Iterator[str]:
    """How to read the page, and what limits its conclusions."""
    yield (
        "Each seed is scored with the configuration that is best over the other half "
        "of the seeds, so no seed selects the configuration that it scores. The table "
        "lists the configurations that are best over all seeds."
    )
    if tuned_on is None:
        yield (
            "Configurations are selected and scored on the same examples, so the "
            "scores are slightly better than they would be on new examples."
        )
    seeds = len(set(record.points["seed"].tolist()))
    if seeds < 5:
        yield f"A 95 % interval needs at least five seeds; this sweep has {seeds}."
    elif seeds < 10:
        yield (
            f"With {seeds} seeds and many configurations, the 95 % intervals may cover "
            "in only 90 % of cases."
        )
    yield "The interquartile mean is the mean of the middle half of the seeds."
    yield (
        "<i>P(first is better)</i> is the fraction of seeds on which the first is "
        "better, with its 95 % interval; a tie counts half."
    )
    yield (
        "Blue: not significantly worse than the first, by one-sided t-tests of the "
        "differences on the same seeds, at the 5 % level after Holm's correction. With "
        "more seeds, smaller differences become significant."
    )
    for status, meaning in (
        ("diverged", "diverged; they count as the worst"),
        ("stopped", "were stopped early and rank below those that ran to the end"),
        ("unfinished", "are not finished and are left out"),
    ):
        count = int(np.sum(record.status == status))
        if count:
            yield f"{count:,} of {len(record.status):,} models {meaning}."
    yield (
        "The order holds for models and data of this size; larger ones may rank "
        "differently."
    )


def _environment() -> Iterator[tuple[str, str]]:
    """The devices, the machine, and the versions of the packages."""
    devices = jax.devices()
    yield "devices", f"{len(devices)} × {devices[0].device_kind}"
    yield (
        "machine",
        f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
    )
    yield "Python", platform.python_version()
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            yield name, importlib.metadata.version(name)

"""What the command line shows: a progress bar, then a table and figures."""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from jaxml import sweep


def compilation_bar(console: Console) -> Progress:
    """Shows how many plans are compiled and for how long; it vanishes at the end."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    return Progress(*columns, TimeElapsedColumn(), console=console, transient=True)


class ProgressBar:
    """Shows how many models are trained, how fast, the best so far and the time left.

    Args:
        num_models: Number of models in all.
        console: Where the bar is drawn.
        start_time: When compilation began, by `time.monotonic`.
    """

    def __init__(self, num_models: int, console: Console, start_time: float) -> None:
        self.start_time = start_time
        self.first: tuple[float, float] | None = None  # (time, models) of an update
        self.last: tuple[float, float] = start_time, 0.0
        self.progress: Progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:,.0f}/{task.total:,} models"),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=console,
        )
        compiled = f"compiled in {time.monotonic() - start_time:.1f} s, training"
        self.task: TaskID = self.progress.add_task(compiled, total=num_models, note="")

    def __enter__(self) -> "ProgressBar":
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def update(self, num_done: float, record: sweep.Record, metric: str) -> None:
        """Shows the number of trained models and the best metric in the record."""
        self.last = time.monotonic(), num_done
        self.first = self.first or self.last
        values = record.curves.get(metric, np.array([]))
        best = np.fmax.reduce(values, axis=None, initial=-np.inf)
        note = f"{self.models_per_second():,.0f}/s"
        if np.isfinite(best):
            note += f"  best {best:.1%}"
        self.progress.update(self.task, completed=num_done, note=note)

    def models_per_second(self) -> float:
        """Throughput since the first update, so that compilation does not count."""
        (first_time, first_done), (now, num_done) = self.first or self.last, self.last
        elapsed = now - first_time
        return (num_done - first_done) / elapsed if elapsed > 0 else 0.0

    def summary(self) -> str:
        if not self.first:
            return "No model was trained."
        first_time, (last_time, num_done) = self.first[0], self.last
        return (
            f"{num_done:,.0f} models in {last_time - self.start_time:.1f} s: "
            f"{self.models_per_second():,.0f} models/s after "
            f"{first_time - self.start_time:.1f} s of compilation."
        )


def leaderboard_table(record: sweep.Record, metric: str, compare_by: str) -> Table:
    """The best setting of each value of a column, with the columns that vary."""
    optional = ("batch_size", "schedule", *_optimizer_hyperparams(record))
    varied = [
        name
        for name in optional
        if len(set(record.points.get(name, np.array([])).tolist())) > 1
    ]
    table = Table(title=f"Best setting of each {compare_by}", box=box.SIMPLE)
    for column in ("", "optimizer", "rate", *varied, "activation", "loss"):
        table.add_column(column.replace("_", " "), no_wrap=True)
    metric_words = metric.removeprefix("valid_").replace("_", " ")
    for column in (f"validation {metric_words}", "seeds", "diverged"):
        table.add_column(column, no_wrap=True, justify="right")
    rows = sweep.leaderboard(record, metric, by=[compare_by])
    for rank, row in enumerate(rows, 1):
        settings = row.settings
        interval = f" ± {row.high - row.mean:.2%}" if row.seeds > 1 else ""
        table.add_row(
            str(rank),
            settings["optimizer"],
            f"{settings['learning_rate']:.2g}",
            *("" if settings[n] is None else str(settings[n]) for n in varied),
            settings["activation"],
            settings["loss"],
            f"{row.mean:.2%}{interval}",
            str(row.seeds),
            str(row.diverged),
        )
    table.caption = "Mean over seeds ± half the width of its 95% confidence interval."
    return table


def rank_table(record: sweep.Record, metric: str, compare_by: str) -> Table:
    """The mean rank over the tasks and the rank on each task, the best first."""
    ranks = sweep.ranks(record, metric, by=compare_by)
    table = Table(title=f"Rank of each {compare_by}, tuned", box=box.SIMPLE)
    for column in ("", compare_by, "mean rank", "95% interval", *ranks.tasks):
        is_text = column in ("", compare_by)
        table.add_column(column, no_wrap=True, justify="left" if is_text else "right")
    for i, name in enumerate(ranks.names):
        overall = ranks.overall[i]
        table.add_row(
            "=" if ranks.tied[i] else "",
            str(name),
            f"{overall.value:.1f}",
            f"{overall.low:.1f} to {overall.high:.1f}",
            *(f"{rank:.1f}" for rank in ranks.task_ranks[i]),
        )
    table.caption = "= not significantly worse than the best."
    return table


def _optimizer_hyperparams(record: sweep.Record) -> list[str]:
    """The columns that only some optimizers have."""
    common = {"optimizer", "schedule", "activation", "loss", "learning_rate", "seed"}
    common |= {"task", "batch_size"}
    return [name for name in record.points if name not in common]


def figures(
    plan: sweep.Plan, record: sweep.Record, metric: str, compare_by: str, name: str
) -> Iterator[tuple[str, Any]]:
    """The figures of a record, each with the name of its file."""
    if "task" in record.points:
        yield "ranks", sweep.plot_ranks(record, metric, by=compare_by)
        yield "profiles", sweep.plot_profiles(record, metric, by=compare_by)
        return
    title = f"{name}: best setting of each {compare_by}"
    compare: dict[str, Any] = {"by": compare_by, "title": title}
    yield "learning_rates", sweep.plot_sensitivity(record, metric, **compare)
    yield "curves", sweep.plot_curves(record, metric, **compare)
    if "batch_size" in record.points:
        size_title = f"{name}: best setting of each batch size"
        yield (
            "batch_sizes",
            sweep.plot_curves(record, metric, by="batch_size", title=size_title),
        )
    if record.outputs:
        rows = _prediction_rows(plan.spec.task, record, metric, compare_by)
        yield "predictions", sweep.plot_images(rows, title=title)


def _prediction_rows(
    task: sweep.Task, record: sweep.Record, metric: str, compare_by: str
) -> dict[str, np.ndarray]:
    """Inputs, true labels, and the labels that the best models predict."""
    predictions = record.outputs["labels"]
    x, y = (np.asarray(array[: predictions.shape[1]]) for array in task.valid)
    rows = {"input": x[..., 0], "truth": y}
    for setting in sweep.leaderboard(record, metric, by=[compare_by]):
        values = record.final[metric][setting.model_ids]
        best = setting.model_ids[np.argmax(np.nan_to_num(values, nan=-np.inf))]
        name = f"{setting.settings[compare_by]}\n{record.final[metric][best]:.1%}"
        rows[name] = predictions[best]
    return rows

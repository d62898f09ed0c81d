"""What a sweep shows: a bar while it runs, a table and pictures when it is over."""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from jaxml import sweep


class Bar:
    """Models done, their rate, the best so far and the time left.

    Args:
        models: How many there are.
        console: Where it is drawn.
        begun: When compiling began, by the monotonic clock.
    """

    def __init__(self, models: int, console: Console, begun: float) -> None:
        self.start = begun
        self.first: tuple[float, float] | None = None
        self.last = self.start, 0.0
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:,.0f}/{task.total:,} models"),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=console,
        )
        self.task = self.progress.add_task("training ", total=models, note="")

    def __enter__(self) -> "Bar":
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def watch(self, done: float, record: sweep.Record, metric: str) -> None:
        """Takes in how many models are done, and how good the record's best one is."""
        self.last = time.monotonic(), done
        self.first = self.first or self.last
        values = record.curves.get(metric, np.array([]))
        best = np.fmax.reduce(values, axis=None, initial=-np.inf)
        note = f"{self.rate():,.0f}/s"
        if np.isfinite(best):
            note += f"  best {best:.1%}"
        self.progress.update(self.task, completed=done, note=note)

    def rate(self) -> float:
        """Models per second since the first chunk, which waits for the compiler."""
        (start, before), (now, done) = self.first or self.last, self.last
        return (done - before) / (now - start) if now > start else 0.0

    def summary(self) -> str:
        if not self.first:
            return "No model was trained."
        total = self.last[0] - self.start
        return (
            f"{self.last[1]:,.0f} models in {total:.1f} s: {self.rate():,.0f} models/s "
            f"after {self.first[0] - self.start:.1f} s of compiling."
        )


def leaderboard(record: sweep.Record, metric: str, compared: str) -> Table:
    """The best setting of each, with the axes that have several values."""
    several = [
        name
        for name in ("batch_size", "schedule", *_own_numbers(record))
        if len(set(record.points.get(name, np.array([])).tolist())) > 1
    ]
    table = Table(title=f"Best setting of each {compared}", box=box.SIMPLE)
    for column in ("", "optimizer", "rate", *several, "activation", "loss"):
        table.add_column(column.replace("_", " "), no_wrap=True)
    words = metric.removeprefix("valid_").replace("_", " ")
    for column in (f"validation {words}", "seeds", "diverged"):
        table.add_column(column, no_wrap=True, justify="right")
    for place, row in enumerate(sweep.leaderboard(record, metric, by=[compared]), 1):
        settings = row.settings
        interval = f" ± {row.high - row.mean:.2%}" if row.seeds > 1 else ""
        table.add_row(
            str(place),
            settings["optimizer"],
            f"{settings['learning_rate']:.2g}",
            *("" if settings[n] is None else str(settings[n]) for n in several),
            settings["activation"],
            settings["loss"],
            f"{row.mean:.2%}{interval}",
            str(row.seeds),
            str(row.diverged),
        )
    table.caption = "Mean over seeds ± half the 95 % interval."
    return table


def ranking(record: sweep.Record, metric: str, compared: str) -> Table:
    """The ranks over several tasks, the best first, with that on each task."""
    ranks = sweep.ranks(record, metric, by=compared)
    table = Table(title=f"Ranks of each {compared}, tuned", box=box.SIMPLE)
    for column in ("", compared, "mean rank", "95 % interval", *ranks.tasks):
        right = column not in ("", compared)
        table.add_column(column, no_wrap=True, justify="right" if right else "left")
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


def _own_numbers(record: sweep.Record) -> list[str]:
    """The numbers that only some optimizers have."""
    named = {"optimizer", "schedule", "activation", "loss", "learning_rate", "seed"}
    return [
        name for name in record.points if name not in named | {"task", "batch_size"}
    ]


def pictures(
    plan: sweep.Plan, record: sweep.Record, metric: str, compared: str, name: str
) -> Iterator[tuple[str, Any]]:
    """The figures of a record, by the names of their files."""
    if "task" in record.points:
        yield "ranks", sweep.plot_ranks(record, metric, by=compared)
        yield "profiles", sweep.plot_profiles(record, metric, by=compared)
        return
    title = f"{name}: best setting of each {compared}"
    of_best: dict[str, Any] = {"by": compared, "title": title}
    yield "learning_rates", sweep.plot_sensitivity(record, metric, **of_best)
    yield "curves", sweep.plot_curves(record, metric, **of_best)
    if "batch_size" in record.points:
        title_of_sizes = f"{name}: best setting of each batch size"
        yield (
            "batch_sizes",
            sweep.plot_curves(record, metric, by="batch_size", title=title_of_sizes),
        )
    if record.outputs:
        rows = _predictions(plan.design.task, record, metric, compared)
        yield "predictions", sweep.plot_images(rows, title=title)


def _predictions(
    task: sweep.Task, record: sweep.Record, metric: str, compared: str
) -> dict[str, np.ndarray]:
    """What went in, what is true, and what the best models make of it."""
    guesses = record.outputs["labels"]
    x, y = (np.asarray(part[: guesses.shape[1]]) for part in task.valid)
    rows = {"input": x[..., 0], "truth": y}
    for best in sweep.leaderboard(record, metric, by=[compared]):
        values = record.final[metric][best.model_ids]
        member = best.model_ids[np.argmax(np.nan_to_num(values, nan=-np.inf))]
        name = f"{best.settings[compared]}\n{record.final[metric][member]:.1%}"
        rows[name] = guesses[member]
    return rows

"""The results of a sweep: what `run` returns, saved and loaded."""

import csv
import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxml._core.contract import raise_invalid
from jaxml._core.public import checked
from jaxml._core.types import PyTree

Columns = dict[str, np.ndarray]
ARRAY_FIELDS = "status", "steps"  # of a record; the others are columns by name


class Best(NamedTuple):
    """The best model of a record: its parameters, settings, final metrics and state."""

    params: PyTree
    settings: dict[str, Any]
    final: dict[str, float]
    state: PyTree


class Record(NamedTuple):
    """The results of every model, in the order of the points.

    Args:
        points: The settings, one column each.
        status: "ok", "diverged" (a loss or metric is not finite), "stopped" (by
            halving), or "unfinished".
        final: The metrics after training, one column each; NaN while unfinished.
            `trained` counts the steps before the first non-finite loss.
        steps: The steps after which curves were recorded.
        curves: [models steps] for each curve: `train_loss`, the mean loss since the
            previous point, and the metrics on the validation data.
        outputs: [models ...] for each array of the task's outputs.
        params: [models ...] for each array of the parameters, by its path.
        state: The same for the state of a task that has one.
    """

    points: Columns
    status: np.ndarray
    final: Columns
    steps: np.ndarray
    curves: Columns
    outputs: Columns = {}  # noqa: RUF012
    params: Columns = {}  # noqa: RUF012
    state: Columns = {}  # noqa: RUF012

    @checked
    def best(
        self,
        metric: str,
        *,
        higher_is_better: bool = True,
        like: PyTree = None,
        like_state: PyTree = None,
    ) -> Best:
        """The best finished model by a column of `final`.

        Args:
            metric: A column of `final`.
            higher_is_better: Whether a higher metric is better.
            like: A tree with the structure of the parameters, in which they are
                returned; without it they are a dict by path.
            like_state: The same for the state.

        Raises:
            ValueError: If no model is finished, the column does not exist, or the
                parameters were not kept.
        """
        if "ok" not in self.status:
            raise ValueError("best: a model must be finished, got none.")
        if metric not in self.final:
            requirement = f"name one of {', '.join(self.final)}"
            raise_invalid(ValueError, "metric", requirement, metric)
        if not self.params:
            raise ValueError("best: params must be kept by run, got none.")
        values = np.where(self.status == "ok", self.final[metric], np.nan)
        i = int(np.nanargmax(values) if higher_is_better else np.nanargmin(values))
        settings = {name: column[i].item() for name, column in self.points.items()}
        final = {name: float(column[i]) for name, column in self.final.items()}
        params = _take_tree(self.params, i, like)
        return Best(params, settings, final, _take_tree(self.state, i, like_state))

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes `table.csv`, one row per model, and `record.npz`, each atomically."""
        folder = pathlib.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        columns = {**self.points, "status": self.status, **self.final}
        part = folder / "table.csv.part"
        with open(part, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(zip(*(c.astype(str) for c in columns.values())))
        write_npz(folder / "record.npz", self.flatten())
        part.replace(folder / "table.csv")

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "Record":
        """The record that `save` wrote into a folder."""
        return cls.unflatten(read_npz(pathlib.Path(folder) / "record.npz"))

    def flatten(self) -> Columns:
        """All columns in one dict, by `field:name`."""
        columns = {}
        for field, value in self._asdict().items():
            named = value if isinstance(value, dict) else {"": value}
            columns |= {f"{field}:{name}": column for name, column in named.items()}
        return columns

    @classmethod
    def unflatten(cls, columns: Mapping[str, np.ndarray]) -> "Record":
        """The inverse of `flatten`."""
        fields: dict[str, Any] = {name: {} for name in cls._fields}
        for path, column in columns.items():
            field, _, name = path.partition(":")
            if field in ARRAY_FIELDS:
                fields[field] = column
            else:  # the name is empty if the parameters are one array
                fields[field][name] = column
        return cls(**fields)


def _take_tree(columns: Columns, i: int, like: PyTree) -> PyTree:
    """The arrays of one model, in the structure of `like` or as a dict by path."""
    arrays = {path: column[i] for path, column in columns.items()}
    if like is None:
        return arrays
    return jax.tree.unflatten(jax.tree.structure(like), [*arrays.values()])


def write_npz(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays by name, atomically: a crash leaves no partial file at `path`."""
    part = path.with_name(path.name + ".part")
    with open(part, "wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def read_npz(path: pathlib.Path) -> Columns:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}

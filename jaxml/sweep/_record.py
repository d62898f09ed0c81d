"""What a run returns, and how it is saved and loaded."""

import csv
import os
import pathlib
from typing import NamedTuple

import numpy as np


class Record(NamedTuple):
    """The outcome of every model, in the order of the points.

    Args:
        points: The settings, a column for each.
        status: "ok", "diverged" (a number is not finite), or "unfinished".
        final: The outcome at the end, a column for each number; NaN while unfinished.
        steps: The steps after which curves were taken.
        curves: [models steps] for each number: the mean loss over the steps since the
            last point, and the metrics on the validation data.
        outputs: [models ...] for each array of the task's outputs.
    """

    points: dict[str, np.ndarray]
    status: np.ndarray
    final: dict[str, np.ndarray]
    steps: np.ndarray
    curves: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray] = {}  # noqa: RUF012

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes `table.csv`, a row for each model, and `curves.npz`; each at once."""
        folder = pathlib.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        columns = {**self.points, "status": self.status, **self.final}

        part = folder / "table.csv.part"
        with open(part, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(zip(*(c.astype(str) for c in columns.values())))
        part.replace(folder / "table.csv")

        part = folder / "curves.npz.part"
        with open(part, "wb") as file:
            np.savez(file, allow_pickle=False, steps=self.steps, **self.curves)
        part.replace(folder / "curves.npz")

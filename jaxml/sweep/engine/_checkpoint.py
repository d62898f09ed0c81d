"""A folder that keeps what is finished, so that a run may stop at any moment."""

import hashlib
import json
import os
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxml._core.types import Tree
from jaxml.sweep._record import Columns, read, write
from jaxml.sweep.engine._plan import Plan

OFTEN = 1.0  # seconds of work that are lost at most, or a chunk that takes longer


class Folder:
    """Finished blocks and the state of the running ones.

    Raises:
        ValueError: If the folder holds a run of other settings, or any without
            `resume`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        plan: Plan,
        *,
        resume: bool,
        keep_params: bool,
    ) -> None:
        self.path = pathlib.Path(path)
        file = self.path / f"settings-{jax.process_index()}.json"
        settings = _settings(plan) | {"keep_params": keep_params}
        if file.exists():
            if not resume:
                raise ValueError(
                    f"run: folder must have no results unless resumed, got {path}."
                )
            found = json.loads(file.read_text())
            for name, value in settings.items():
                if found.get(name) != value:
                    raise ValueError(
                        f"run: {name} must be as in the run that {path} holds, "
                        f"{_short(found.get(name))}, got {_short(value)}."
                    )
        else:
            self.path.mkdir(parents=True, exist_ok=True)
            part = file.with_suffix(".part")
            part.write_text(json.dumps(settings, indent=1))
            part.replace(file)
        self.saved = time.monotonic()

    def finished(self, name: str) -> Columns | None:
        return self._read(f"done-{name}.npz")

    def finish(self, name: str, columns: Columns) -> None:
        write(self.path / f"done-{name}.npz", columns)
        (self.path / f"running-{name}.npz").unlink(missing_ok=True)
        self.saved = time.monotonic()

    def due(self) -> bool:
        return time.monotonic() - self.saved > OFTEN

    def pause(self, name: str, chunk: int, state: Tree, curves: Columns) -> None:
        """Keeps where a running block stands before a chunk."""
        leaves = {f"state:{i:04}": x for i, x in enumerate(jax.tree.leaves(state))}
        columns = {
            "chunk": chunk,
            **leaves,
            **{f"curve:{n}": c for n, c in curves.items()},
        }
        write(
            self.path / f"running-{name}.npz",
            {name: np.asarray(column) for name, column in columns.items()},
        )
        self.saved = time.monotonic()

    def paused(self, name: str, like: Tree) -> tuple[int, Tree, Columns] | None:
        found = self._read(f"running-{name}.npz")
        if found is None:
            return None
        leaves = [found[path] for path in sorted(found) if path.startswith("state:")]
        curves = {
            path.removeprefix("curve:"): column
            for path, column in found.items()
            if path.startswith("curve:")
        }
        state = jax.tree.unflatten(jax.tree.structure(like), leaves)
        return int(found["chunk"]), state, curves

    def _read(self, name: str) -> Columns | None:
        path = self.path / name
        return read(path) if path.exists() else None


def _settings(plan: Plan) -> dict[str, Any]:
    """All that a result depends on, but for the code of the functions."""
    design = plan.design
    return {
        "points": _digest([[n, c] for n, c in plan.points.items()]),
        "data": _digest(jax.tree.leaves((design.task.train, design.task.valid))),
        "optimizers": [*design.optimizers],
        "choices": {name: [*known] for name, known in design.choices.items()},
        "selections": {name: [*known] for name, known in design.selections.items()},
        "steps": [int(step) for step in plan.steps],
        "batch_size": design.batch_size,
        "shared_batches": design.shared_batches,
        "halving": None if plan.halving is None else [*plan.halving],
        "shape": [int(length) for length in plan.shape],
        "devices": len(plan.devices),
        "processes": jax.process_count(),
        "jax": jax.__version__,
    }


def _digest(arrays: Sequence[Any]) -> str:
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(arrays):
        array = np.asarray(leaf)
        digest.update(f"{array.dtype} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."

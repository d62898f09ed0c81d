"""A directory of results and training states, from which a run resumes."""

import hashlib
import json
import os
import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from jaxml._core.types import PyTree
from jaxml.sweep._record import Columns, read_npz, write_npz
from jaxml.sweep.engine._plan import Plan

MODEL_IDS = "model_ids"
CHECKPOINT_SECONDS = 1.0  # a kill loses this much work, or one chunk if that is longer


class CheckpointDir:
    """The results of finished blocks and the states of running ones.

    Files are named after the models of a block, so that a run with another number of
    devices or processes, whose blocks differ, finds the models that are finished.

    Raises:
        ValueError: If the directory holds a run of other settings, or any run without
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
        if file.exists() and not resume:
            requirement = "checkpoint_dir must have no results unless resumed"
            raise ValueError(f"run: {requirement}, got {path}.")
        for other in self.path.glob("settings-*.json"):  # of any process
            saved = json.loads(other.read_text())
            for name, value in settings.items():
                if saved.get(name) != value:
                    raise ValueError(
                        f"run: {name} must be as in the run that {path} holds, "
                        f"{_abbreviate(saved.get(name))}, got {_abbreviate(value)}."
                    )
        if not file.exists():
            self.path.mkdir(parents=True, exist_ok=True)
            part = file.with_suffix(".part")
            part.write_text(json.dumps(settings, indent=1))
            part.replace(file)
        self.last_saved = time.monotonic()

    def should_save(self) -> bool:
        return time.monotonic() - self.last_saved > CHECKPOINT_SECONDS

    def save_done(self, name: str, model_ids: np.ndarray, columns: Columns) -> None:
        write_npz(self.path / f"done-{name}.npz", columns | {MODEL_IDS: model_ids})
        (self.path / f"running-{name}.npz").unlink(missing_ok=True)
        self.last_saved = time.monotonic()

    def load_done(self) -> Iterator[tuple[np.ndarray, Columns]]:
        """The models of every finished block, and their results."""
        for path in sorted(self.path.glob("done-*.npz")):
            columns = read_npz(path)
            yield columns.pop(MODEL_IDS), columns

    def save_running(
        self, name: str, chunk: int, state: PyTree, curves: Columns
    ) -> None:
        """Saves the state before a chunk of steps, and the curves up to it."""
        leaves = {f"state:{i:04}": x for i, x in enumerate(jax.tree.leaves(state))}
        arrays = {
            "chunk": chunk,
            **leaves,
            **{f"curve:{n}": c for n, c in curves.items()},
        }
        write_npz(
            self.path / f"running-{name}.npz",
            {path: np.asarray(array) for path, array in arrays.items()},
        )
        self.last_saved = time.monotonic()

    def load_running(
        self, name: str, like: PyTree
    ) -> tuple[int, PyTree, Columns] | None:
        """The chunk, the state with the structure of `like`, and the curves."""
        path = self.path / f"running-{name}.npz"
        if not path.exists():
            return None
        arrays = read_npz(path)
        leaves = [arrays[path] for path in sorted(arrays) if path.startswith("state:")]
        curves = {
            path.removeprefix("curve:"): array
            for path, array in arrays.items()
            if path.startswith("curve:")
        }
        state = jax.tree.unflatten(jax.tree.structure(like), leaves)
        return int(arrays["chunk"]), state, curves


def block_name(first: int, model_ids: np.ndarray) -> str:
    """The name of a block that starts at an evaluation, with a model in each lane."""
    digest = hashlib.sha256(f"{model_ids.shape}".encode() + model_ids.tobytes())
    return f"{first}-{digest.hexdigest()[:16]}"


def _settings(plan: Plan) -> dict[str, Any]:
    """Everything that a result depends on, except the code of the functions."""
    spec = plan.spec
    return {
        "points": _digest([[n, c] for n, c in plan.points.items()]),
        "data": _digest(jax.tree.leaves((spec.task.train, spec.task.valid))),
        "optimizers": [*spec.optimizers],
        "choices": {name: [*functions] for name, functions in spec.choices.items()},
        "selections": {
            name: [*functions] for name, functions in spec.selections.items()
        },
        "steps": [int(step) for step in plan.steps],
        "batch_size": spec.batch_size,
        "shared_batches": spec.shared_batches,
        "halving": _describe_search(plan.halving),
        "population": _describe_search(plan.population),
        "jax": jax.__version__,
    }


def _describe_search(search: Any) -> list[Any] | None:
    """Its kind and its numbers; functions by name."""
    if search is None:
        return None
    fields = (getattr(value, "__name__", value) for value in search)
    return [type(search).__name__, *fields]


def _digest(arrays: Sequence[Any]) -> str:
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(arrays):
        array = np.asarray(leaf)
        digest.update(f"{array.dtype} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def _abbreviate(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."

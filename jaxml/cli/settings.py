"""The file `settings.json` of a run: the command that reproduces it, and versions."""

import argparse
import importlib.metadata
import json
import pathlib
import platform
import shlex
from typing import Any

PACKAGES = "jaxml", "jax", "jaxlib", "optax", "numpy", "scikit-learn"
OPTIONS = (  # those on which the results depend
    *("optimizer", "schedule", "activation", "loss", "learning_rate", "seeds"),
    *("batch_size", "steps", "shared_batches", "halving", "hyperband", "target"),
)


def write_settings(path: pathlib.Path, options: argparse.Namespace) -> None:
    """Writes the command with every default spelled out, and the versions."""
    words = ["jaxml", "sweep", options.task]
    for name in OPTIONS:
        words += _words(f"--{name.replace('_', '-')}", getattr(options, name))
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    settings = {
        "command": shlex.join(words),
        "versions": {"python": platform.python_version(), **versions},
    }
    part = path.with_suffix(".part")
    part.write_text(json.dumps(settings, indent=1) + "\n")
    part.replace(path)


def _words(option: str, value: Any) -> list[str]:
    """The words of the command that give an option this value."""
    if value is None:
        return []
    if isinstance(value, bool):
        return [option if value else option.replace("--", "--no-", 1)]
    if isinstance(value, dict):  # optimizers and the values of their hyperparameters
        value = [f"{name}{_assignments(h)}" for name, h in value.items()]
    if isinstance(value, list):
        value = ",".join("full" if item is None else str(item) for item in value)
    return [option, str(value)]


def _assignments(hyperparams: dict[str, list[float]]) -> str:
    """`:b1=0.9,0.95,b2=0.99`, or nothing."""
    texts = [f"{n}={','.join(map(str, values))}" for n, values in hyperparams.items()]
    return ":" * bool(texts) + ",".join(texts)

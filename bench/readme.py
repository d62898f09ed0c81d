"""README's figures, from the last run of each bench: `python -m bench.readme`."""

import ast
import itertools
import json
import pathlib
from typing import Any, NamedTuple

from bench.__main__ import CHAPTERS
from bench.measure import RESULTS, shown

README = pathlib.Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- figures: python -m bench.readme -->\n", "<!-- end of figures -->"
ONE_BY_ONE = ("accuracy.exhaustive",)  # minutes for each function
STAMP = ("time", "device", "jax", "optax", "bench")

Rows = list[dict[str, Any]]


class Claim(NamedTuple):
    """A line of the overview: the largest of a column in the rows that match.

    What stands beside it is another column, or another row.
    """

    what: str
    bench: str
    match: dict[str, Any]
    ours: str
    rival: str
    theirs: str | dict[str, Any]


LOOP, PML = {"way": "loop of jitted runs"}, "pytorch-metric-learning"
OVERVIEW = [
    Claim(
        "ulp, the worst value of an activation, sampled inputs",
        *("accuracy", {}, "value", "jax.nn", "jax.nn value"),
    ),
    Claim(
        "ulp, the worst derivative of an activation, sampled inputs",
        *("accuracy", {}, "derivative", "jax.nn", "jax.nn derivative"),
    ),
    Claim(
        "ms, `cross_entropy` and its gradient",
        *("losses", {"loss": "cross_entropy"}, "ours_ms", "optax", "optax_ms"),
    ),
    Claim(
        "MiB held by `info_nce` and its gradient, n = 8192",
        *("metric", {"loss": "info_nce"}, "ours_MiB", "dense, optax", "dense_MiB"),
    ),
    Claim(
        "seconds, `info_nce` and its gradient, n = 8192",
        *("metric", {"loss": "info_nce"}, "ours_s", "dense, optax", "dense_s"),
    ),
    Claim(
        "ms, `batch_all_triplet_loss` and its gradient, n = 512",
        *("metric.pml", {"loss": "batch_all_triplet_loss"}, "ours_ms", PML, "pml_ms"),
    ),
    Claim(
        "error of the Lovász gradient, 16 M pixels",
        *("segmentation.lovasz_gradient", {"pixels": 2**24}, "ours"),
        *("the published code, PyTorch", "torch"),
    ),
    Claim(
        "ms, logistic regression to a gradient of 1e-7",
        *("second_order.logistic", {"solver": "newton"}, "ms"),
        *("optax.lbfgs", {"solver": "optax.lbfgs"}),
    ),
    Claim(
        "networks trained per second (task R)",
        *("sweep.R", {"way": "sweep, own batches"}, "models_per_s"),
        *("a loop of jitted runs", LOOP),
    ),
    Claim(
        "tiny networks trained per second (task T)",
        *("sweep.T", {"way": "sweep, own batches"}, "models_per_s"),
        *("a loop of jitted runs", LOOP),
    ),
    Claim(
        "the same (task T), models of one seed sharing their batches",
        *("sweep.T", {"way": "sweep, shared batches"}, "models_per_s"),
        *("a loop of jitted runs", LOOP),
    ),
]


def figures() -> str:
    """An overview of each device, and every table of each bench."""
    lines = [
        json.loads(line)
        for path in sorted(RESULTS.glob("*.jsonl"))
        for line in path.read_text().splitlines()
    ]
    lines.sort(key=lambda line: (line["device"], line["bench"], line["time"]))
    devices = itertools.groupby(lines, key=lambda line: line["device"])
    return "\n".join(_of_device(device, list(group)) for device, group in devices)


def filled(text: str) -> str:
    """README with its figures as they are in the results."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{figures()}\n{END}{after}"


def _of_device(device: str, lines: Rows) -> str:
    last = {
        bench: _last(bench, list(group))
        for bench, group in itertools.groupby(lines, key=lambda line: line["bench"])
    }
    overview = _overview(last)
    parts = [f"On {device}:\n", *([_table(overview)] if overview else [])]
    for chapter in CHAPTERS:
        own = {b: rows for b, rows in last.items() if b.split(".")[0] == chapter}
        parts += [_chapter(chapter, own)] if own else []
    return "\n".join(parts)


def _last(bench: str, rows: Rows) -> Rows:
    """The rows of the last run, or of each function's."""
    if bench in ONE_BY_ONE:
        return [*{row["name"]: row for row in rows}.values()]
    return [row for row in rows if row["time"] == rows[-1]["time"]]


def _overview(last: dict[str, Rows]) -> Rows:
    return [
        {
            "measured": claim.what,
            "jaxml": _largest(last[claim.bench], claim.match, claim.ours),
            "beside it": _beside(last[claim.bench], claim),
            "what stands beside it": claim.rival,
        }
        for claim in OVERVIEW
        if claim.bench in last
    ]


def _beside(rows: Rows, claim: Claim) -> float:
    if isinstance(claim.theirs, str):
        return _largest(rows, claim.match, claim.theirs)
    return _largest(rows, claim.theirs, claim.ours)


def _largest(rows: Rows, match: dict[str, Any], column: str) -> float:
    matched = [row[column] for row in rows if match.items() <= row.items()]
    return max(value for value in matched if isinstance(value, int | float))


def _chapter(name: str, tables: dict[str, Rows]) -> str:
    """What the bench says of itself, and its tables."""
    source = pathlib.Path(__file__).with_name(f"{name}.py").read_text()
    title, *about = (ast.get_docstring(ast.parse(source)) or "").split("\n\n")
    about = [text for text in about if not text.startswith(" ")]
    parts = [f"<details><summary>{title}</summary>\n", *(f"{t}\n" for t in about)]
    for bench, rows in tables.items():
        taken = f"{rows[0]['time'][:10]}, jax {rows[0]['jax']}"
        parts += [f"`{bench}`, {taken}:\n", _table(rows)]
    return "\n".join([*parts, "</details>\n"])


def _table(rows: Rows) -> str:
    columns = [column for column in rows[0] if column not in STAMP]
    body = [[shown(row[column]) for column in columns] for row in rows]
    lines = [columns, ["---"] * len(columns), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    README.write_text(filled(README.read_text()))

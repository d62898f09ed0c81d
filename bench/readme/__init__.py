"""Fills in the figures of the READMEs from the last run of each bench.

    python -m bench.readme

The README of the project gets the headline figures, the README of this folder the
headline figures and every table. `tests/test_readme.py` fails when they differ.
"""

import ast
import itertools
import json
import pathlib
from typing import Any

from bench.__main__ import CHAPTERS
from bench.measure import RESULTS, format_value
from bench.readme.headlines import HEADLINES, Headline

BENCH = pathlib.Path(__file__).parent.parent
FRONT_PAGE = BENCH.parent / "README.md"
ALL_FIGURES = BENCH / "README.md"
BEGIN, END = "<!-- figures: python -m bench.readme -->\n", "<!-- end of figures -->"
DEVICES = ("devices.h100", "devices.v5e", "devices.gpu")
ONE_BY_ONE = {
    "accuracy.exhaustive": "name",
    **dict.fromkeys(DEVICES, "program"),
    **dict.fromkeys((f"{bench}.mesh" for bench in DEVICES), "program"),
    **dict.fromkeys((f"{bench}.sweep" for bench in DEVICES), "program"),
}
"""Benches that record each row when it is done, and the column that names a row."""
STAMP = ("time", "device", "how", "jax", "optax", "bench")

Rows = list[dict[str, Any]]


def front_page() -> str:
    """The README of the project with its headline figures."""
    tables = filter(None, map(headlines, by_device()))
    return filled(FRONT_PAGE.read_text(), "\n".join(tables))


def all_figures() -> str:
    """The README of this folder with every table."""
    return filled(ALL_FIGURES.read_text(), "\n".join(map(device_section, by_device())))


def filled(text: str, figures: str) -> str:
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{figures}\n{END}{after}"


def by_device() -> list[dict[str, Rows]]:
    """The last rows of each bench, for each device; one for all programs not run."""
    lines = [
        json.loads(line)
        for path in sorted(RESULTS.glob("*.jsonl"))
        for line in path.read_text().splitlines()
    ]
    lines.sort(key=lambda line: (place(line), line["bench"], line["time"]))
    lines.sort(key=lambda line: line.get("how", "run") != "run")
    devices = itertools.groupby(lines, key=place)
    return [
        {
            bench: last_rows(bench, list(rows))
            for bench, rows in itertools.groupby(group, key=lambda line: line["bench"])
        }
        for _, group in devices
    ]


def last_rows(bench: str, rows: Rows) -> Rows:
    """The rows of the last run, or of the last run of each function."""
    if column := ONE_BY_ONE.get(bench):
        return [*{row[column]: row for row in rows}.values()]
    return [row for row in rows if row["time"] == rows[-1]["time"]]


def headlines(benches: dict[str, Rows]) -> str:
    rows = [
        {
            "measured": headline.measured,
            "jaxml": largest(benches, headline, headline.match, headline.column),
            "baseline": largest(
                benches,
                headline,
                headline.baseline_match or headline.match,
                headline.baseline_column or headline.column,
            ),
            "baseline is": headline.baseline,
        }
        for headline in HEADLINES
        if headline.bench in benches
    ]
    return f"{heading(benches)}:\n\n{table(rows)}" if rows else ""


def largest(
    benches: dict[str, Rows], headline: Headline, match: dict[str, Any], column: str
) -> float:
    matching = (row for row in benches[headline.bench] if match.items() <= row.items())
    values = (row[column] for row in matching)
    return max(value for value in values if isinstance(value, int | float))


def heading(benches: dict[str, Rows]) -> str:
    return place(next(iter(benches.values()))[0])


def place(row: dict[str, Any]) -> str:
    """The device that ran a bench; one place for all programs that were not run."""
    how = row.get("how", "run")
    return f"On {row['device']}" if how == "run" else how.capitalize()


def device_section(benches: dict[str, Rows]) -> str:
    chapters = [
        chapter_section(chapter, tables)
        for chapter in (*CHAPTERS, "devices")
        if (
            tables := {
                b: rows for b, rows in benches.items() if b.split(".")[0] == chapter
            }
        )
    ]
    return "\n".join([headlines(benches) or f"{heading(benches)}:\n", *chapters])


def chapter_section(chapter: str, tables: dict[str, Rows]) -> str:
    """The docstring of a bench, and its tables."""
    source = (BENCH / f"{chapter}.py").read_text()
    title, *about = (ast.get_docstring(ast.parse(source)) or "").split("\n\n")
    about = [text for text in about if not text.startswith(" ")]
    parts = [f"<details><summary>{title}</summary>\n", *(f"{t}\n" for t in about)]
    for bench, rows in tables.items():
        date = f"{rows[0]['time'][:10]}, jax {rows[0]['jax']}"
        parts += [f"`{bench}`, {date}:\n", table(rows)]
    return "\n".join([*parts, "</details>\n"])


def table(rows: Rows) -> str:
    columns = [column for column in rows[0] if column not in STAMP]
    body = [[format_value(row[column]) for column in columns] for row in rows]
    lines = [columns, ["---"] * len(columns), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)

"""Writes the tables of names of every chapter's README from the docstrings.

    python tests/name_tables.py

A table has one row per public name, grouped by the file that defines it: the first
sentence, the first line of the formula and the reference of its docstring.
`test_readme.py` fails when a table and the docstrings differ.
"""

import importlib
import inspect
import pathlib
import re
from collections.abc import Iterator
from itertools import groupby
from typing import Any

CHAPTERS = (
    "losses",
    "mining",
    "activations",
    "optimizers",
    "schedules",
    "sweep",
    "tasks",
)
ROOT = pathlib.Path(__file__).parent.parent
BEGIN = "<!-- names: python tests/name_tables.py -->\n"
END = "<!-- end of names -->"
WITHOUT_FORMULAS = "sweep", "tasks"


def readme(chapter: str) -> pathlib.Path:
    return ROOT / "jaxml" / chapter / "README.md"


def with_tables(chapter: str) -> str:
    """The chapter's README with its tables made anew."""
    before, rest = readme(chapter).read_text().split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{tables(chapter)}\n{END}{after}"


def tables(chapter: str) -> str:
    module = importlib.import_module(f"jaxml.{chapter}")
    entries = [
        (name, *home_and_doc(chapter, name, v)) for name, v in public_names(module)
    ]
    return "\n".join(
        f"**{title(family)}**\n\n{table(chapter, list(group))}"
        for family, group in groupby(entries, key=lambda entry: entry[1])
    )


def public_names(module: Any) -> Iterator[tuple[str, Any]]:
    for name, value in vars(module).items():
        if not name.startswith("_") and not inspect.ismodule(value):
            yield name, value


def home_and_doc(chapter: str, name: str, value: Any) -> tuple[str, str]:
    """The module that defines a name, and its docstring."""
    if inspect.isfunction(value) or inspect.isclass(value):
        return value.__module__, inspect.getdoc(value) or ""
    for path in (ROOT / "jaxml" / chapter).rglob("*.py"):  # a type alias
        found = re.search(
            rf'^{name}\b.*= .*\n"""(.+)"""', path.read_text(), re.MULTILINE
        )
        if found:
            return ".".join(path.relative_to(ROOT).with_suffix("").parts), found[1]
    raise LookupError(f"{name} has no docstring")


def title(family: str) -> str:
    """The first sentence of the family's module docstring, without the period."""
    doc = inspect.getdoc(importlib.import_module(family)) or ""
    return paragraph(doc).split(". ")[0].rstrip(".:")


def table(chapter: str, entries: list[tuple[str, str, str]]) -> str:
    docs = [(name, doc) for name, _, doc in entries]
    columns = {
        "name": lambda name, _: f"`{name}`",
        "what it is": lambda _, d: paragraph(d),
    }
    if chapter not in WITHOUT_FORMULAS:
        columns["formula"] = lambda _, doc: formula(doc)
    if chapter == "activations":
        columns["range"] = lambda _, doc: fact(doc, "Range")
        columns["derivative at 0"] = lambda _, doc: fact(doc, "Derivative at 0")
    if chapter not in WITHOUT_FORMULAS:
        columns["reference"] = lambda _, doc: reference(doc)
    rows = [tuple(column(*entry) for column in columns.values()) for entry in docs]
    return markdown(tuple(columns), rows)


def markdown(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "".join(f"| {' | '.join(map(cell, line))} |\n" for line in lines)


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def paragraph(doc: str) -> str:
    return " ".join(doc.split("\n\n")[0].split()).rstrip(":")


def formula(doc: str) -> str:
    """The first indented line before the arguments."""
    found = re.search(r"^    +(\S.*)$", doc.split("\nArgs:")[0], re.MULTILINE)
    return f"`{re.sub(' {2,}', '  ', found[1])}`" if found else ""


def fact(doc: str, name: str) -> str:
    """What a docstring states as `name: ... .`"""
    found = re.search(rf"\b{name}: (.+?)\.(?: |$)", doc, re.MULTILINE)
    return found[1] if found else ""


def reference(doc: str) -> str:
    """The authors and the year, linked."""
    found = re.search(r"^Reference:\n((?:    .*\n?)+)", doc, re.MULTILINE)
    if not found:
        return ""
    text = " ".join(found[1].split())
    authors, link = text.split(",")[0], re.search(r"https?://[^\s,;)]+", text)
    years = re.findall(r"\b(?:19|20)\d\d\b", text.split("http")[0])
    label = f"{authors} {years[-1]}" if years else authors
    return f"[{label}]({link[0].rstrip('.')})" if link else label


if __name__ == "__main__":
    for chapter in CHAPTERS:
        readme(chapter).write_text(with_tables(chapter))

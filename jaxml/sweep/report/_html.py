"""The parts of an HTML page: its template, a table of standings, figures, numbers."""

import base64
import html
from collections.abc import Iterable
from typing import Any

import numpy as np

from jaxml.sweep.analysis._comparison import Standing
from jaxml.sweep.analysis._statistics import Estimate
from jaxml.sweep.report._plots import format_value

PAGE_TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
body { margin: 0 auto; max-width: 68rem; padding: 2.5rem 1.5rem 5rem; background: #fff;
  color: #1c1c1e; font: 16px/1.55 system-ui, "Segoe UI", Helvetica, Arial, sans-serif; }
h1 { font-size: 2.1rem; line-height: 1.2; letter-spacing: -0.02em; margin: 0 0 .4rem; }
h2 { font-size: 1.4rem; letter-spacing: -0.01em; margin: 3.5rem 0 .5rem;
  padding-top: 1rem; border-top: 1px solid #e2e2e5; }
p { max-width: 46rem; margin: .5rem 0 1rem; }
.summary, figcaption, dl, .notes { color: #5b5b60; }
nav a { color: #1f5fa8; margin-right: 1.1rem; text-decoration: none; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .87rem;
  font-variant-numeric: tabular-nums; white-space: nowrap; }
th { text-align: left; font-weight: 600; color: #5b5b60; padding: .3rem .55rem;
  border-bottom: 2px solid #1c1c1e; vertical-align: bottom; }
td { padding: .22rem .55rem; border-bottom: 1px solid #ececef; }
td:first-child { color: #8a8a8e; text-align: right; }
.name { font-weight: 600; }
.number { text-align: right; }
small { color: #77777b; font-weight: 400; }
.tied td { background: #f1f6fc; }
.tied .name { color: #1f5fa8; }
figure { margin: 2rem 0; }
figure img { max-width: 100%; height: auto; }
figcaption { font-size: .9rem; max-width: 46rem; margin-top: .4rem; }
.notes li { margin: .4rem 0; max-width: 46rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.2rem;
  font-size: .9rem; }
dt { font-weight: 600; }
dd { margin: 0; }
figure, tr { break-inside: avoid; }
</style>
</head>
<body>
<h1>$title</h1>
<p class="summary">$summary</p>
<nav>$contents</nav>
$sections
<h2 id="reading">How to read this</h2>
<ul class="notes">
$notes
</ul>
<h2 id="environment">Environment</h2>
<dl>
$environment
</dl>
</body>
</html>
"""


def table(results: list[Standing], columns: list[str], *, by: str) -> str:
    """Standings, with these columns of their settings."""
    header = [
        ("", ""),
        *(("", escape(name.replace("_", " "))) for name in (by, *columns)),
        ("number", "interquartile<br>mean"),
        ("number", "median"),
        ("number", "P(first is<br>better)"),
    ]
    rows = []
    for rank, standing in enumerate(results, 1):
        name = escape(standing.name)
        if standing.diverged:
            count = f"{standing.diverged} of {len(standing.scores)}"
            name += f" <small>{count} diverged</small>"
        cells = [
            ("", str(rank)),
            ("name", name),
            *(("", escape(standing.settings[column])) for column in columns),
            ("number", format_number(standing.interquartile_mean.value)),
            ("number", format_number(standing.median.value)),
            ("number", _percentage(standing.improvement) if rank > 1 else ""),
        ]
        rows.append(_table_row("td", cells, "tied" if standing.tied else ""))
    return (
        f'<div class="scroll"><table>\n<thead>{_table_row("th", header)}</thead>\n'
        f"<tbody>\n{chr(10).join(rows)}\n</tbody>\n</table></div>"
    )


def plain_table(header: list[Any], rows: list[list[Any]]) -> str:
    """A table of texts, the first of each row to the left."""
    head = _table_row("th", [("", escape(cell)) for cell in header])
    body = [_table_row("td", [("", escape(cell)) for cell in row]) for row in rows]
    return "\n".join(["<table>", head, *body, "</table>"])


def figure(png: bytes, caption: str) -> str:
    data = base64.b64encode(png).decode()
    return (
        f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def heading(text: Any) -> str:
    name = escape(text)
    return f'<h2 id="{name.replace(" ", "-")}">{name}</h2>'


def link(text: Any) -> str:
    """A link to the heading with this text."""
    name = escape(text)
    return f'<a href="#{name.replace(" ", "-")}">{name}</a>'


def escape(value: Any) -> str:
    """A name or number from the record, as HTML text."""
    return html.escape(format_value(value))


def join_names(values: Iterable[Any]) -> str:
    """The names in bold, as "a, b and c"."""
    *others, last = (f"<b>{escape(value)}</b>" for value in values)
    return f"{', '.join(others)} and {last}" if others else last


def format_number(value: float, digits: int = 4) -> str:
    if not np.isfinite(value):
        return "–"
    fixed_point = 1e-3 <= abs(value) < 1e4 or not value
    return f"{value:.{digits}f}" if fixed_point else f"{value:.{digits}g}"


def format_interval(estimate: Estimate, digits: int = 4) -> str:
    """The interval in parentheses, or "" if it is NaN."""
    _, low, high = estimate
    if np.isnan(low):
        return ""
    low, high = format_number(low, digits), format_number(high, digits)
    return f" (95 % interval {low} to {high})"


def _percentage(estimate: Estimate) -> str:
    value, low, high = estimate
    return f"{value:.0%} <small>({100 * low:.0f}–{100 * high:.0f})</small>"


def _table_row(tag: str, cells: list[tuple[str, str]], row_class: str = "") -> str:
    """A row of (class, content) cells."""
    content = "".join(f"<{tag}{_class(c)}>{cell}</{tag}>" for c, cell in cells)
    return f"<tr{_class(row_class)}>{content}</tr>"


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""

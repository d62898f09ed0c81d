"""The parts of a page of HTML: its frame, a table of standings, a picture, numbers."""

import base64
import html
from collections.abc import Iterable
from typing import Any

import numpy as np

from jaxml.sweep.analysis._comparison import Standing
from jaxml.sweep.analysis._statistics import Estimate
from jaxml.sweep.report._plots import shown
from jaxml.sweep.report._plots_comparison import BEHIND, TIED, window

_WIDTH = 220  # of a bar, in pixels of the page

FRAME = """<!DOCTYPE html>
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
.summary, figcaption, dl, .caveats { color: #5b5b60; }
nav a { color: #1f5fa8; margin-right: 1.1rem; text-decoration: none; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .87rem;
  font-variant-numeric: tabular-nums; white-space: nowrap; }
th { text-align: left; font-weight: 600; color: #5b5b60; padding: .3rem .55rem;
  border-bottom: 2px solid #1c1c1e; vertical-align: bottom; }
td { padding: .22rem .55rem; border-bottom: 1px solid #ececef; }
td:first-child { color: #8a8a8e; text-align: right; }
.name { font-weight: 600; }
.number { text-align: right; }
small { color: #77777b; font-weight: 400; }
.ends { display: flex; justify-content: space-between; font-weight: 400; }
svg { display: block; }
.tied td { background: #f1f6fc; }
.tied .name { color: #1f5fa8; }
figure { margin: 2rem 0; }
figure img { max-width: 100%; height: auto; }
figcaption { font-size: .9rem; max-width: 46rem; margin-top: .4rem; }
.caveats li { margin: .4rem 0; max-width: 46rem; }
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
<ul class="caveats">
$caveats
</ul>
<h2 id="environment">Environment</h2>
<dl>
$environment
</dl>
</body>
</html>
"""


def table(
    board: list[Standing],
    columns: list[str],
    *,
    by: str,
    metric: str,
    higher_is_better: bool,
) -> str:
    """Standings, with these columns of their settings, and a bar each on one scale."""
    low, high = window(board, higher_is_better)
    ends = f"<span>{low:.3g}</span><span>{metric}</span><span>{high:.3g}</span>"
    heads = [
        ("", ""),
        *(("", escaped(name.replace("_", " "))) for name in (by, *columns)),
        ("", f'<span class="ends">{ends}</span>'),
        ("number", "interquartile<br>mean"),
        ("number", "median"),
        ("number", "first is<br>better"),
    ]
    rows = []
    for place, own in enumerate(board, 1):
        failed = f" <small>{own.diverged} of {len(own.scores)} diverged</small>"
        cells = [
            ("", str(place)),
            ("name", escaped(own.name) + (failed if own.diverged else "")),
            *(("", escaped(own.settings[name])) for name in columns),
            ("", _bar(own, low, high)),
            ("number", number(own.interquartile_mean.value)),
            ("number", number(own.median.value)),
            ("number", _share(own.improvement) if place > 1 else ""),
        ]
        rows.append(_row("td", cells, "tied" if own.tied else ""))
    return (
        f'<div class="wide"><table>\n<thead>{_row("th", heads)}</thead>\n'
        f"<tbody>\n{chr(10).join(rows)}\n</tbody>\n</table></div>"
    )


def picture(png: bytes, caption: str) -> str:
    data = base64.b64encode(png).decode()
    return (
        f'<figure><img alt="{escaped(caption)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escaped(caption)}</figcaption></figure>"
    )


def heading(text: Any) -> str:
    name = escaped(text)
    return f'<h2 id="{name.replace(" ", "-")}">{name}</h2>'


def link(text: Any) -> str:
    name = escaped(text)
    return f'<a href="#{name.replace(" ", "-")}">{name}</a>'


def escaped(value: Any) -> str:
    """A name or number of the user's, as text of a page."""
    return html.escape(shown(value))


def names(values: Iterable[Any]) -> str:
    """The names, with commas and an `and`."""
    *most, last = (f"<b>{escaped(value)}</b>" for value in values)
    return f"{', '.join(most)} and {last}" if most else last


def number(value: float, digits: int = 4) -> str:
    if not np.isfinite(value):
        return "–"
    plain = 1e-3 <= abs(value) < 1e4 or not value
    return f"{value:.{digits}f}" if plain else f"{value:.{digits}g}"


def interval(estimate: Estimate, digits: int = 4) -> str:
    """In brackets, or nothing where there is none."""
    _, low, high = estimate
    if np.isnan(low):
        return ""
    return f" (95 % interval {number(low, digits)} to {number(high, digits)})"


def _share(estimate: Estimate) -> str:
    value, low, high = estimate
    return f"{value:.0%} <small>({100 * low:.0f}–{100 * high:.0f})</small>"


def _row(tag: str, cells: list[tuple[str, str]], kind: str = "") -> str:
    each = "".join(
        f'<{tag} class="{of}">{cell}</{tag}>' if of else f"<{tag}>{cell}</{tag}>"
        for of, cell in cells
    )
    return f'<tr class="{kind}">{each}</tr>' if kind else f"<tr>{each}</tr>"


def _bar(own: Standing, low: float, high: float) -> str:
    """Interval, interquartile mean and seeds; an arrow where they are beyond."""

    def at(value: float) -> float:
        inside = np.clip(value, low, high)
        return round(6 + (_WIDTH - 12) * float((inside - low) / (high - low)), 1)

    value, left, right = own.interquartile_mean
    parts = []
    if not low <= value <= high:
        arrow, x = ("◂", 0) if at(value) < _WIDTH / 2 else ("▸", _WIDTH - 10)
        parts = [f'<text x="{x}" y="13" font-size="11">{arrow}</text>']
    else:
        if not np.isnan(left):
            x = at(left)
            parts += [f'<rect x="{x}" y="6" width="{at(right) - x:.1f}" height="2.5"/>']
        parts += [f'<circle cx="{at(value)}" cy="7" r="4"/>']
        parts += [
            f'<circle cx="{at(score)}" cy="15" r="1.7" opacity="0.55"/>'
            for score in own.scores.values()
            if low <= score <= high
        ]
    colour = TIED if own.tied else BEHIND
    return f'<svg width="{_WIDTH}" height="18" fill="{colour}">{"".join(parts)}</svg>'

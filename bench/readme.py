"""README's figures, from the last run of each bench: `python -m bench.readme`."""

import itertools
import json
import pathlib

from bench.measure import RESULTS, shown

README = pathlib.Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- figures: python -m bench.readme -->\n", "<!-- end of figures -->"
STAMP = ("time", "device", "jax", "optax", "bench")


def figures() -> str:
    """A table for each bench and device, from the lines of its last run."""
    lines = [
        json.loads(line)
        for path in sorted(RESULTS.glob("*.jsonl"))
        for line in path.read_text().splitlines()
    ]
    lines.sort(key=lambda line: (line["bench"], line["device"], line["time"]))
    tables = []
    for (bench, device), group in itertools.groupby(
        lines, key=lambda line: (line["bench"], line["device"])
    ):
        rows = list(group)
        last = [row for row in rows if row["time"] == rows[-1]["time"]]
        module, _, part = bench.partition(".")
        title = f"`python -m bench.{module}`{part and ', ' + part} on {device}, "
        title += f"{last[0]['time'][:10]}, jax {last[0]['jax']}"
        tables.append(
            f"<details><summary>{title}</summary>\n\n{_table(last)}\n</details>\n"
        )
    return "\n".join(tables)


def filled(text: str) -> str:
    """README with its figures as they are in the results."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{figures()}\n{END}{after}"


def _table(rows: list[dict]) -> str:
    columns = [column for column in rows[0] if column not in STAMP]
    body = [[shown(row[column]) for column in columns] for row in rows]
    lines = [columns, ["---"] * len(columns), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    README.write_text(filled(README.read_text()))

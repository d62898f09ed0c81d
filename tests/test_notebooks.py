"""The notebooks: short, executed without an error, public names only, in README."""

import ast
import json
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parent.parent
NOTEBOOKS = sorted(ROOT.glob("notebooks/*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> pathlib.Path:
    return request.param


@pytest.fixture
def cells(path: pathlib.Path) -> list[dict]:
    return json.loads(path.read_text())["cells"]


def code(cells: list[dict]) -> list[dict]:
    return [cell for cell in cells if cell["cell_type"] == "code"]


def test_it_is_short(path: pathlib.Path, cells: list[dict]) -> None:
    assert len(cells) <= 20
    assert path.stat().st_size < 400_000, "its pictures should be small"


def test_it_was_executed_from_top_to_bottom(cells: list[dict]) -> None:
    counts = [cell["execution_count"] for cell in code(cells)]
    assert counts == [*range(1, len(counts) + 1)]
    outputs = [output for cell in code(cells) for output in cell["outputs"]]
    kinds = {output["output_type"] for output in outputs}
    assert "error" not in kinds
    assert any("image/png" in output.get("data", {}) for output in outputs)


def test_it_imports_public_names(cells: list[dict]) -> None:
    lines = [line for cell in code(cells) for line in cell["source"]]
    text = "\n".join(line.rstrip("\n") for line in lines if not line.startswith("%"))
    names = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    assert not [name for name in names if re.match(r"jaxml\b.*\._", name)]


def test_readme_says_what_it_shows(path: pathlib.Path) -> None:
    assert f"](notebooks/{path.name})" in (ROOT / "README.md").read_text()

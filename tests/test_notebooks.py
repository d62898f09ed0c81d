"""Notebooks: short, executed, free of private imports, and linked by their README."""

import ast
import json
import pathlib
import re

import pytest

NOTEBOOKS_DIR = pathlib.Path(__file__).parent.parent / "notebooks"
MAX_CELLS, MAX_BYTES = 20, 400_000


@pytest.fixture(
    params=sorted(NOTEBOOKS_DIR.glob("*.ipynb")), ids=lambda path: path.stem
)
def path(request: pytest.FixtureRequest) -> pathlib.Path:
    return request.param


@pytest.fixture
def cells(path: pathlib.Path) -> list[dict]:
    return json.loads(path.read_text())["cells"]


@pytest.fixture
def code_cells(cells: list[dict]) -> list[dict]:
    return [cell for cell in cells if cell["cell_type"] == "code"]


def test_notebook_is_short(path: pathlib.Path, cells: list[dict]) -> None:
    assert len(cells) <= MAX_CELLS
    assert path.stat().st_size < MAX_BYTES, "reduce the size of the figures"


def test_notebook_was_executed_from_top_to_bottom(code_cells: list[dict]) -> None:
    counts = [cell["execution_count"] for cell in code_cells]
    assert counts == [*range(1, len(counts) + 1)]


def test_notebook_shows_figures_and_no_errors(code_cells: list[dict]) -> None:
    outputs = [output for cell in code_cells for output in cell["outputs"]]
    assert "error" not in {output["output_type"] for output in outputs}
    assert any("image/png" in output.get("data", {}) for output in outputs)


def test_notebook_imports_public_names_only(code_cells: list[dict]) -> None:
    lines = [line for cell in code_cells for line in [*cell["source"], "\n"]]
    source = "".join(line for line in lines if not line.startswith("%"))
    imports = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imports += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            imports += [f"{node.module}.{alias.name}" for alias in node.names]
    assert not [name for name in imports if re.match(r"jaxml\b.*\._", name)]


def test_readme_links_notebook(path: pathlib.Path) -> None:
    assert f"]({path.name})" in (NOTEBOOKS_DIR / "README.md").read_text()

"""The house: floors, one address for each name, files that fit on a page."""

import ast
import importlib
import inspect
import pathlib
import re

import cases
import pytest

ROOT = pathlib.Path(__file__).parent.parent
FILES = sorted(ROOT.glob("jaxml/**/*.py"))
FUNCTIONS = ("losses", "mining", "activations", "optimizers", "schedules")
FLOORS = {
    "_core": 0,
    **dict.fromkeys(FUNCTIONS, 1),
    "sweep": 2,
    "tasks": 3,
    "cli": 6,
    "__main__": 7,
    "__init__": 7,
}
ONLY_IN = {
    "matplotlib": {"sweep/report/_plots.py", "sweep/report/_plots_comparison.py"},
    "optax": {"optimizers/_per_leaf.py", "sweep/engine/_train.py"},
    "torch": set(),
    "monai": set(),
    "pytorch_metric_learning": set(),
}
CHAPTERS = {
    name: importlib.import_module(f"jaxml.{name}")
    for name in (*FUNCTIONS, "sweep", "tasks")
}
PUBLIC = [
    (chapter, name)
    for chapter, module in CHAPTERS.items()
    for name, value in vars(module).items()
    if not name.startswith("_") and not inspect.ismodule(value)
]


def imports(path: pathlib.Path) -> list[str]:
    """The modules that a file imports, in full."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            module = node.module or ""
            found += [module]
            if module == "jaxml":
                found += [f"jaxml.{alias.name}" for alias in node.names]
    return found


def room(module: str) -> str:
    return module.split(".")[1]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_breaks_a_floor(path: pathlib.Path) -> None:
    inside = path.relative_to(ROOT / "jaxml")
    own = inside.parts[0].removesuffix(".py")
    for module in imports(path):
        if module.startswith("jaxml.") and room(module) != own:
            assert FLOORS[room(module)] < FLOORS[own], f"{own} imports {module}"
        top = module.split(".")[0]
        assert str(inside) in ONLY_IN.get(top, {str(inside)}), f"{inside} imports {top}"


@pytest.mark.parametrize("path", sorted(ROOT.glob("[jtb]*/**/*.py")), ids=str)
def test_a_file_is_a_chapter_not_a_book(path: pathlib.Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


def test_outside_the_package_only_public_names_are_imported() -> None:
    for folder in ("tests", "bench", "notebooks"):
        for path in ROOT.glob(f"{folder}/**/*.py"):
            private = [m for m in imports(path) if re.match(r"jaxml\b.*\._", m)]
            assert not private, f"{path} imports {private}"


def test_every_name_has_one_public_address() -> None:
    names = [name for chapter, name in PUBLIC]
    names.remove(
        "linear"
    )  # a schedule and the axis of a space: the field's word for both
    assert len(names) == len(set(names))


@pytest.mark.parametrize("chapter", FUNCTIONS)
def test_every_function_is_in_the_table_of_cases(chapter: str) -> None:
    public = {name for room, name in PUBLIC if room == chapter}
    rows = {case.name.split(".")[1] for case in cases.cases() if chapter in case.name}
    assert rows == public


@pytest.mark.parametrize(("chapter", "name"), PUBLIC)
def test_every_name_is_in_the_readme(chapter: str, name: str) -> None:
    section = (ROOT / "README.md").read_text().split(f"### `jaxml.{chapter}`")[1]
    assert f"| `{name}`" in section.split("\n### ")[0]

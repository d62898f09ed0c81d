"""The layout: who may import whom, where each name lives, how large a file may be."""

import ast
import importlib
import inspect
import pathlib
import re
from collections.abc import Iterator

import cases
import pytest
from name_tables import CHAPTERS as CHAPTER_NAMES
from name_tables import public_names

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / "jaxml"
FILES = sorted(PACKAGE.rglob("*.py"))
FUNCTIONS = ("losses", "mining", "activations", "optimizers", "schedules")
MAY_IMPORT = {
    "_core": set(),
    **{chapter: {"_core"} for chapter in FUNCTIONS},
    "sweep": {"_core"},  # it is given functions and imports none
    "tasks": {"_core", *FUNCTIONS, "sweep"},
    "cli": {"_core", *FUNCTIONS, "sweep", "tasks"},
    "__main__": {"cli"},
    "__init__": set(FUNCTIONS),
}
ONLY_IN = {
    "matplotlib": "sweep/report/",
    "optax": ("optimizers/_per_leaf.py", "sweep/engine/_train.py", "tasks/", "cli/"),
    "torch": (),
    "monai": (),
    "pytorch_metric_learning": (),
}
TREE = {
    "_core": """blocks collectives contract linear masking matmul public safe sharding
        softmax sorting trees types special""",
    "_core/linear": "tiles softmax divergence running_kl",
    "_core/special": "divergence exp extended_range log1p logistic partials",
    "losses": """_mean _labels _information _cross_entropy _classification _binary
        _margin _regression _likelihood _linear_head _linear_divergences _ctc _experts
        _scoring_rules metric segmentation""",
    "losses/metric": """_per_anchor _pairs _pair_sums _similarity _angular _distance
        _triplets _contrastive _off_diagonal _redundancy _self_distillation _proxies""",
    "losses/segmentation": "_confusion _regions _lovasz _contour",
    "mining": "_distances _masks _miners",
    "activations": "_saturating _rectified _smooth _gated _learned _axis _kernels",
    "optimizers": """_per_leaf _sgd _adaptive _adam _adam_variants _averaging _objective
        _line_search _newton _trust_region _least_squares
        _muon _soap _compressed""",
    "schedules": "_decay _warmup _join",
    "sweep": "_search_space _record _adapters engine analysis report",
    "sweep/engine": """_task _validation _plan _layout _blocks _compilation _programs
        _train _run _states _checkpoint _halving _population""",
    "sweep/analysis": "_leaderboard _comparison _ranks _statistics _targets",
    "sweep/report": "_report _html _plots",
    "tasks": """_network _convolution _digits _tables _embedding _segmentation _convnet
        _text""",
    "cli": "options registry console settings compilation_cache",
}
CHAPTERS = {name: importlib.import_module(f"jaxml.{name}") for name in CHAPTER_NAMES}
PUBLIC = [
    (chapter, name)
    for chapter, module in CHAPTERS.items()
    for name, _ in public_names(module)
]


def imports(path: pathlib.Path) -> Iterator[str]:
    """The full names of the modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield node.module or ""
            if node.module == "jaxml":
                yield from (f"jaxml.{alias.name}" for alias in node.names)


def private_addresses(path: pathlib.Path) -> Iterator[str]:
    """What a file reaches by import, attribute or string inside a private module."""
    tree = ast.parse(path.read_text())
    yield from (m for m in imports(path) if re.match(r"jaxml\b.*\._", m))
    names = {"jaxml", *CHAPTERS, "cli"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if re.fullmatch(r"jaxml(\.\w+)*\._[a-z]\w*(\.\w+)*", node.value):
                yield node.value
        elif isinstance(node, ast.Attribute) and re.match(r"_[a-z]", node.attr):
            base = ast.unparse(node.value)
            if base.split(".")[0] in names and re.fullmatch(r"[\w.]+", base):
                yield f"{base}.{node.attr}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down(path: pathlib.Path) -> None:
    inside = path.relative_to(PACKAGE)
    room = inside.parts[0].removesuffix(".py")
    for module in imports(path):
        top, *rest = module.split(".")
        if top == "jaxml" and rest and rest[0] != room:
            assert rest[0] in MAY_IMPORT[room], f"{room} imports {module}"
        if top == "jaxml" and rest and rest[0] not in (room, "_core"):
            assert not any(name.startswith("_") for name in rest), (
                f"{module} is private"
            )
        if top in ONLY_IN:
            assert str(inside).startswith(ONLY_IN[top]), f"{inside} imports {top}"


@pytest.mark.parametrize("families", ["metric", "segmentation"])
def test_families_of_losses_do_not_import_each_other(families: str) -> None:
    other = {"metric": "segmentation", "segmentation": "metric"}[families]
    for path in (PACKAGE / "losses" / families).glob("*.py"):
        assert not [m for m in imports(path) if m.startswith(f"jaxml.losses.{other}")]


@pytest.mark.parametrize("folder", TREE)
def test_the_layout_is_as_designed(folder: str) -> None:
    entries = {path.name.removesuffix(".py") for path in (PACKAGE / folder).iterdir()}
    assert set(TREE[folder].split()) <= entries


@pytest.mark.parametrize("path", sorted(ROOT.glob("[jtb]*/**/*.py")), ids=str)
def test_a_file_has_at_most_400_lines(path: pathlib.Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


@pytest.mark.parametrize("top", ["jaxml", "tests", "bench", "notebooks"])
def test_a_folder_has_at_most_15_files(top: str) -> None:
    for folder in (ROOT / top, *(ROOT / top).rglob("*/")):
        files = [path for path in folder.iterdir() if path.suffix in (".py", ".ipynb")]
        assert len(files) <= 15, f"{folder} has {len(files)} files"


@pytest.mark.parametrize("folder", ["tests", "bench"])
def test_only_public_names_are_used_outside_the_package(folder: str) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        if path != pathlib.Path(__file__):  # which names a planted one
            assert not list(private_addresses(path)), path


def test_a_private_address_is_found(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "test_planted.py"
    path.write_text(
        "from jaxml.sweep.engine._run import x\n"
        "from jaxml import sweep\n"
        "sweep._run.y\n"
        'patch("jaxml.sweep.engine._run.z")\n'
        "point._replace()\n"
    )
    assert set(private_addresses(path)) == {
        "jaxml.sweep.engine._run",
        "sweep._run",
        "jaxml.sweep.engine._run.z",
    }


def test_every_name_has_one_public_address() -> None:
    names = [name for _, name in PUBLIC]
    names.remove("linear")  # a schedule, and a range of a search space
    assert len(names) == len(set(names))


@pytest.mark.parametrize("chapter", FUNCTIONS)
def test_every_decorated_function_is_exported(chapter: str) -> None:
    public = {name for room, name in PUBLIC if room == chapter}
    for path in (PACKAGE / chapter).rglob("_*.py"):
        address = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        module = importlib.import_module(address.removesuffix(".__init__"))
        for name, value in vars(module).items():
            is_own = getattr(value, "__module__", None) == module.__name__
            if is_own and inspect.isfunction(value) and hasattr(value, "__wrapped__"):
                assert name in public or name.startswith("_"), f"{name} of {path}"


def test_every_tiled_function_is_measured() -> None:
    bench = "".join(path.read_text() for path in (ROOT / "bench").rglob("*.py"))
    for name, function in public_names(CHAPTERS["losses"]):
        if "block" in inspect.signature(function).parameters:
            assert re.search(rf"\b{name}\b", bench), name


@pytest.mark.parametrize("chapter", FUNCTIONS)
def test_every_function_is_in_the_table_of_cases(chapter: str) -> None:
    names = public_names(CHAPTERS[chapter])
    public = {name for name, value in names if inspect.isfunction(value)}
    rows = {case.name.split(".")[1] for case in cases.cases() if chapter in case.name}
    assert rows == public


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_public_function_is_exported_under_its_own_name(chapter: str) -> None:
    for name, value in public_names(CHAPTERS[chapter]):
        if inspect.isfunction(value):
            assert value.__name__ == name

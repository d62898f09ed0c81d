"""READMEs: examples run, tables and figures are up to date, links resolve."""

import pathlib
import re
import textwrap

import jax
import pytest
from name_tables import CHAPTERS, readme, with_tables

from bench import readme as figures
from jaxml import cli

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [
    path
    for path in sorted(ROOT.rglob("README.md"))
    if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
]
EXAMPLES = [
    pytest.param(example, id=f"{page.parent.name}-{i}")
    for page in PAGES
    for i, example in enumerate(
        re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)
    )
]


def page_id(path: pathlib.Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.usefixtures("no_xla_optimizations")
@pytest.mark.parametrize("example", EXAMPLES)
def test_the_example_runs(example: str) -> None:
    with (
        jax.enable_x64(False),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        exec(compile(textwrap.dedent(example), "README.md", "exec"), {})


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_the_tables_of_names_are_generated(chapter: str) -> None:
    page = readme(chapter)
    assert with_tables(chapter) == page.read_text(), "run python tests/name_tables.py"


def test_every_figure_is_a_line_of_the_results() -> None:
    message = "run python -m bench.readme"
    assert figures.front_page() == figures.FRONT_PAGE.read_text(), message
    assert figures.all_figures() == figures.ALL_FIGURES.read_text(), message


def test_the_front_page_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 250


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_relative_link_resolves(page: pathlib.Path) -> None:
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith("http"):
            file, _, anchor = target.partition("#")
            linked = page.parent / file if file else page
            assert linked.exists(), target
            assert not anchor or anchor in anchors(linked), target


def anchors(page: pathlib.Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in headings
    }


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_command_line_option_exists(
    page: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["sweep", "--help"])
    known = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    text = page.read_text().replace("\\\n", " ")
    commands = re.findall(r"jaxml sweep .*", text)
    if page.parent.name == "sweep":  # every option in its prose is one of the command's
        prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        commands += [prose.replace("`--ntasks-per-node=8 --gpus-per-node=8`", "")]
    used = {option for c in commands for option in re.findall(r"--[a-z][a-z-]+", c)}
    assert used <= known

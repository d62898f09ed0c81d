"""README: its examples run, and its figures are lines of the bench's results."""

import pathlib
import re

import jax
import pytest

from bench import readme

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize(
    "example", EXAMPLES, ids=lambda text: text.split("\n")[-2][:30]
)
def test_the_example_runs(example: str) -> None:
    with (
        jax.enable_x64(False),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        exec(compile(example, "README.md", "exec"), {})


def test_every_figure_is_a_line_of_the_results() -> None:
    assert readme.filled(README) == README, "run python -m bench.readme"

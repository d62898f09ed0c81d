"""Docstrings are complete and short, and their examples run."""

import doctest
import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_architecture import CHAPTERS, PUBLIC

import jaxml

FUNCTIONS = [
    (chapter, name)
    for chapter, name in PUBLIC
    if inspect.isfunction(getattr(CHAPTERS[chapter], name))
]


@pytest.mark.slow
@pytest.mark.parametrize(("chapter", "name"), FUNCTIONS)
def test_the_example_runs(chapter: str, name: str) -> None:
    function = getattr(CHAPTERS[chapter], name)
    names = {"jax": jax, "jnp": jnp, "np": np, "jaxml": jaxml}
    names |= vars(CHAPTERS[chapter])
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    with jax.enable_x64(False):
        for test in doctest.DocTestFinder().find(function, name, globs=names):
            runner.run(test)
    assert runner.summarize().failed == 0
    assert runner.tries > 0, "there is no example"


@pytest.mark.parametrize(("chapter", "name"), FUNCTIONS)
def test_the_docstring_is_complete(chapter: str, name: str) -> None:
    function = getattr(CHAPTERS[chapter], name)
    text = inspect.getdoc(function) or ""
    sentence = text.split("\n\n")[0]
    assert sentence.endswith((".", ":")), "the first paragraph is one sentence"
    assert len(text.splitlines()) <= 30
    family_doc = inspect.getmodule(function).__doc__ or ""  # of shared arguments
    for argument in inspect.signature(function).parameters:
        if argument != "where" and f"`{argument}`" not in family_doc:
            explained = re.search(rf"\n    \**{argument}: ", text)
            assert explained, f"{argument} is not explained"

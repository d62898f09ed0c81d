"""Arrays without rows, classes, features, pixels or samples, for every row."""

import inspect
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases.axes import axis_names
from compilation import jit_without_fusion_emitters
from jax import Array
from test_contract import (
    Case,
    as_function_of_floats,
    for_rows,
    is_first_row,
    samples,
)

from jaxml import losses, optimizers

REFUSED = {
    (losses.vicreg_loss, "n"): "a must have at least two rows, got ",
    (losses.barlow_twins_loss, "n"): "a must have at least two rows, got ",
    (losses.ctc_loss, "classes"): r"blank must be in \[0, 0\), got 0",
    (losses.load_balance_loss, "experts"): "top_k must be at most 0, got 1",
    (losses.info_nce, "m"): "keys must be at least as many as queries, got ",
    (losses.in_batch, "m"): "out of bounds",  # in the row's own loss
}
"""The axes that may not be empty, and the sentence that says so."""

FIRST_ORDER = [
    function
    for function in filter(inspect.isfunction, vars(optimizers).values())
    if next(iter(inspect.signature(function).parameters)) == "learning_rate"
]


def takes_arrays(case: Case) -> bool:
    arrays = samples(case)[0]
    is_optimizer = case.name.startswith("optimizers.")
    return bool(not is_optimizer and case.dtypes and arrays and np.ndim(arrays[0]))


@pytest.mark.slow
@pytest.mark.usefixtures("no_xla_optimizations")
@for_rows(lambda case: is_first_row(case) and takes_arrays(case))
def test_an_empty_axis(case: Case) -> None:
    """The result has no NaN, and no gradient if it is empty itself."""
    arrays = samples(case)[0]
    names = axis_names(case, arrays)
    for name in {name: None for row in names for name in row}:
        emptied = tuple(
            np.zeros([0 if n == name else k for n, k in zip(row, a.shape)], a.dtype)
            if name in row
            else a
            for row, a in zip(names, arrays)
        )
        if (case.function, name) in REFUSED:
            message = REFUSED[case.function, name]
            with pytest.raises((TypeError, ValueError, IndexError), match=message):
                value_and_gradients(case, emptied)
            continue
        value, gradients = value_and_gradients(case, emptied)
        has_no_class = name == "classes"  # every label is out of range
        assert has_no_class or not np.any(np.isnan(value)), name
        for gradient in gradients:
            assert np.all(np.isfinite(gradient)), name
            assert value.size or not np.any(gradient), name


def value_and_gradients(case: Case, arrays: tuple) -> tuple[Array, Any]:
    function, floats = as_function_of_floats(case, arrays)

    @jit_without_fusion_emitters
    def call(floats: list[Array]) -> tuple[Array, Any]:
        value, vjp = jax.vjp(function, *floats)
        return value, vjp(jnp.ones_like(value))

    return call(floats)


@pytest.mark.parametrize("make", FIRST_ORDER, ids=lambda make: make.__name__)
def test_parameters_without_elements(make) -> None:
    optimizer, w = make(0.1), jnp.ones((2, 3))
    params = {"w": w, "no_rows": w[:0], "no_columns": w[:, :0]}
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    expected, _ = optimizer.update(w, optimizer.init(w), w)
    chex.assert_trees_all_close(updates, params | {"w": expected})

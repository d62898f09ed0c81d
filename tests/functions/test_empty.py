"""Arrays without rows, classes, features, pixels or samples, for every row."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from axes import axis_names
from compilation import jit_without_fusion_emitters
from jax import Array
from test_contract import (
    Case,
    as_function_of_floats,
    for_rows,
    is_first_row,
    samples,
)

from jaxml import losses

REFUSED = {
    (losses.vicreg_loss, "n"): "a must have at least two rows, got ",
    (losses.barlow_twins_loss, "n"): "a must have at least two rows, got ",
    (losses.ctc_loss, "classes"): r"blank must be in \[0, 0\), got 0",
    (losses.load_balance_loss, "experts"): "top_k must be at most 0, got 1",
    (losses.info_nce, "m"): "keys must be at least as many as queries, got ",
    (losses.in_batch, "m"): "out of bounds",  # in the row's own loss
}
"""The axes that may not be empty, and the sentence that says so."""


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

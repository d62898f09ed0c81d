"""Every function in JAX's debugging modes, and with other random number generators."""

import gc
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from test_contract import (
    CASES,
    Case,
    as_function_of_floats,
    for_rows,
    is_first_row,
    samples,
)

from jaxml import activations, losses, mining


@pytest.mark.slow
@pytest.mark.usefixtures("no_xla_optimizations")
@for_rows(is_first_row)
def test_debug_nans_changes_nothing(case: Case) -> None:
    """Outside jit, where every result is checked."""
    (arrays,) = samples(case)
    function, floats = as_function_of_floats(case, arrays)

    with jax.debug_nans(True):
        value, vjp = jax.vjp(function, *floats)
        if case.dtypes:
            vjp(jnp.cos(value))
    np.testing.assert_allclose(value, case.expected(*arrays), rtol=case.rtol)


@pytest.mark.slow
def test_no_function_leaks_a_tracer() -> None:
    jax.clear_caches()  # a function that is traced already cannot leak
    gc.collect()
    leaks = []
    for case in filter(is_first_row, CASES):
        gc.freeze()  # each trace is followed by a search of all other objects
        function, floats = as_function_of_floats(case, samples(case)[0])
        try:
            with jax.checking_leaks():
                jax.eval_shape(function, *floats)
        except Exception as error:
            leaks.append(f"{case.name}: {error}")
    gc.unfreeze()
    assert not leaks, "\n".join(leaks)


@pytest.mark.parametrize(
    "loss",
    [
        losses.cross_entropy,
        losses.focal_loss,
        losses.poly_loss,
        losses.generalized_cross_entropy,
        losses.multi_margin_loss,
        losses.sparsemax_loss,
    ],
    ids=lambda loss: loss.__name__,
)
def test_debug_nans_passes_labels_that_are_masked_later(loss: Any) -> None:
    logits, labels = jnp.zeros((2, 3)), jnp.array([0, -100])

    def mean(logits: Array) -> Array:
        return losses.mean(loss(logits, labels), where=labels >= 0)

    with jax.debug_nans(True):
        value, gradient = jax.value_and_grad(mean)(logits)
        with pytest.raises(FloatingPointError):
            losses.mean(loss(logits, labels))
    np.testing.assert_array_equal(value, loss(logits[0], labels[0]))
    assert np.any(gradient[0]) and not np.any(gradient[1])


@pytest.mark.parametrize("implementation", ["rbg", "unsafe_rbg", "threefry2x32"])
@pytest.mark.parametrize("is_default", [False, True])
def test_any_random_number_generator(implementation: str, is_default: bool) -> None:
    key = jax.random.key(0, impl=implementation)
    if is_default:
        with jax.default_prng_impl(implementation):
            key = jax.random.key(0)
    x, labels = jnp.full(4096, -1.0), jnp.array([0, 1, 1])
    slopes = -activations.rrelu(key, x)
    assert 1 / 8 <= slopes.min() < 0.13 and 0.33 < slopes.max() <= 1 / 3
    is_zero = activations.stochastic_gelu(key, x) == 0
    np.testing.assert_allclose(np.mean(is_zero), 0.841, atol=0.03)  # 1 - Φ(-1)
    distances = jnp.array([[0.1, 1.0, 1.2]])
    chosen = mining.distance_weighted(key, distances, labels[:1], labels, dimension=4)
    assert chosen[0, 0] and np.sum(chosen) == 2

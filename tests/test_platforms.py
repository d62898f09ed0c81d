"""What every function does on a GPU or a TPU, as far as a CPU can tell.

A program that JAX lowers for another platform is run here: only its matrix products are
slower. So the forms that `lax.platform_dependent` chooses there are tested too.
"""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilation import jit_without_fusion_emitters
from jax import export
from test_contract import Case, as_function_of_floats, cast, for_rows, samples

ANY_PLATFORM = [export.DisabledSafetyCheck.platform()]


def value_and_gradient(case: Case, dtype: Any) -> tuple[Any, list[jax.Array]]:
    """The function with its derivative along itself, and a sample of its arrays."""
    function, floats = as_function_of_floats(case, cast(samples(case)[0], dtype))

    def call(*xs: jax.Array) -> Any:
        value, vjp = jax.vjp(function, *xs)
        return value, vjp(value)

    return call, floats


def differs_by_platform(case: Case) -> bool:
    function, floats = value_and_gradient(case, jnp.float32)
    return "platform_index" in str(jax.make_jaxpr(function)(*floats))


@pytest.mark.slow
@pytest.mark.usefixtures("no_xla_optimizations")
@for_rows(lambda case: case.dtypes)
def test_the_form_of_an_accelerator_is_as_exact(case: Case) -> None:
    if not differs_by_platform(case):
        return
    function, floats = value_and_gradient(case, jnp.float32)
    expected = jax.tree.leaves(jit_without_fusion_emitters(function)(*floats))
    # only the distances have a form of their own on a TPU
    is_distance = case.name.startswith("mining.")
    for platform in ("cuda", "tpu") if is_distance else ("cuda",):
        with jax.default_matmul_precision("highest"):  # as a CPU can multiply
            exported = export.export(
                jax.jit(function), platforms=[platform], disabled_checks=ANY_PLATFORM
            )(*floats)
        got = jax.tree.leaves(jit_without_fusion_emitters(exported.call)(*floats))
        for a, b in zip(got, expected, strict=True):
            atol = 1e-5 * float(jnp.max(jnp.abs(b), initial=0.0))
            np.testing.assert_allclose(a, b, 1e-5, atol, err_msg=platform)


@pytest.mark.slow
@pytest.mark.usefixtures("no_xla_optimizations")
@for_rows(
    lambda case: jnp.bfloat16 in case.dtypes and ".metric." in case.function.__module__
)
def test_gradients_of_bfloat16_embeddings_are_within_an_ulp(case: Case) -> None:
    function, floats = value_and_gradient(case, jnp.bfloat16)
    gradients = jit_without_fusion_emitters(function)(*floats)[1]
    wide = [x.astype(jnp.float64) for x in floats]
    expected = jit_without_fusion_emitters(function)(*wide)[1]
    for a, b in zip(gradients, expected):
        error = np.linalg.norm(np.float64(a) - b)
        assert error <= 2**-7 * np.linalg.norm(b) + 1e-6, error / np.linalg.norm(b)


PRODUCT = re.compile(r"stablehlo\.dot_general.*: \(tensor<(\S+)>, tensor<(\S+)>\)")


COMPUTED_FACTORS = {
    *("angular_loss", "barlow_twins_loss", "vicreg_loss", "energy_score"),
    *("muon", "soap", "ctc_loss"),
}
"""Their factors are float32 results: exponentials, differences, momentum."""


@pytest.mark.slow
@for_rows(
    lambda case: (
        jnp.bfloat16 in case.dtypes and case.function.__name__ not in COMPUTED_FACTORS
    )
)
def test_no_product_of_widened_16_bit_factors(case: Case) -> None:
    function, floats = value_and_gradient(case, jnp.bfloat16)
    text = jax.jit(function).lower(*floats).as_text()
    for factors in PRODUCT.findall(text):
        assert not any(factor.endswith("f32") for factor in factors), factors


def test_the_pattern_finds_products() -> None:
    x = jnp.ones((2, 2), jnp.float32)
    text = jax.jit(jnp.matmul).lower(x, x).as_text()
    assert PRODUCT.findall(text) == [("2x2xf32", "2x2xf32")]

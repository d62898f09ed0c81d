"""Functions of logits do not change when a common offset is added to a row."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import Array

from jaxml import activations, losses

pytestmark = pytest.mark.usefixtures("no_xla_optimizations")
LABELS = jnp.array([2, 0], jnp.int32)
TARGETS = jnp.array([[0.5, 0.25, 0.25, 0.0], [0.0, 1.0, 0.0, 0.0]], jnp.float32)


def with_labels(loss: Callable[..., Array], **hyperparams: float):
    return pytest.param(
        lambda z: loss(z, LABELS, **hyperparams), id=f"{loss.__name__} {hyperparams}"
    )


FUNCTIONS = [
    with_labels(losses.cross_entropy),
    with_labels(losses.cross_entropy, label_smoothing=0.1),
    with_labels(losses.focal_loss, gamma=2.0),
    with_labels(losses.focal_loss, gamma=0.5),
    with_labels(losses.poly_loss, epsilon=2.0),
    with_labels(losses.generalized_cross_entropy, q=0.7),
    with_labels(losses.generalized_cross_entropy, q=0.0),
    with_labels(losses.sparsemax_loss),
    with_labels(losses.multiclass_hinge_loss),
    with_labels(losses.multi_margin_loss, p=2),
    pytest.param(
        lambda z: losses.soft_cross_entropy(z, TARGETS.astype(z.dtype)),
        id="soft_cross_entropy",
    ),
    *(
        pytest.param(activation, id=activation.__name__)
        for activation in (
            activations.softmax,
            activations.log_softmax,
            activations.sparsemax,
        )
    ),
]


def value_and_gradient(function: Callable[[Array], Array], z: Array) -> list[Array]:
    value, vjp = jax.vjp(function, z)
    return [
        value,
        *vjp(jnp.arange(1, value.size + 1, dtype=value.dtype).reshape(value.shape)),
    ]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(
    ("dtype", "limit", "tolerance"),
    # multiples of 1/8 up to 2²⁰ and of 1 up to 2¹⁰ are exact, so the sums are too
    [(jnp.float32, 2**20, 1e-6), (jnp.float16, 2**10, 1e-3)],
    ids=["float32", "float16"],
)
def test_a_common_offset_changes_nothing(
    function: Callable[[Array], Array], dtype: type, limit: int, tolerance: float
) -> None:
    compute = jax.jit(partial(value_and_gradient, function))
    step = 1 if dtype == jnp.float16 else 8

    @settings(max_examples=20, deadline=None)
    @given(
        st.lists(st.integers(-20 * step, 20 * step), min_size=8, max_size=8),
        st.integers(-limit, limit),
    )
    def check(logits: list[int], offset: int) -> None:
        z = (np.array(logits) / step).reshape(2, 4)
        expected = compute(jnp.asarray(z, dtype))
        for a, b in zip(compute(jnp.asarray(z + offset, dtype)), expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=1e-30)

    check()

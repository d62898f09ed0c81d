"""What a loss and its gradient hold on a CPU besides their arguments and results."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import pytest

from jaxml import losses

SHAPE = (256, 512)
ARRAY_BYTES = 4 * 256 * 512
ROWS_BYTES = 64 * 256
"""A few numbers for each row."""

X = jax.ShapeDtypeStruct(SHAPE, jnp.float32)
LABELS = jax.ShapeDtypeStruct(SHAPE[:1], jnp.int32)
ONE_ARRAY = (
    losses.binary_cross_entropy_with_logits,
    losses.hinge_loss,
    losses.huber_loss,
    losses.log_cosh_loss,
    losses.logistic_loss,
    losses.perceptron_loss,
    losses.smooth_l1_loss,
    losses.squared_hinge_loss,
    losses.kl_divergence,
    losses.js_divergence,
)
NO_ARRAY = (
    (losses.squared_error, X),
    (losses.absolute_error, X),
    (losses.cross_entropy, LABELS),
    (losses.focal_loss, LABELS),
    (losses.poly_loss, LABELS),
    (losses.soft_cross_entropy, X),
    (losses.cosine_distance, X),
)


def temporaries(loss: Callable[..., jax.Array], *arrays: jax.ShapeDtypeStruct) -> int:
    def mean(*arrays: jax.Array) -> jax.Array:
        return jnp.mean(loss(*arrays))

    compiled = jax.jit(jax.value_and_grad(mean)).lower(*arrays).compile()
    analysis = compiled.memory_analysis()
    assert analysis is not None
    return analysis.temp_size_in_bytes


@pytest.mark.parametrize("loss", ONE_ARRAY, ids=lambda loss: loss.__name__)
def test_one_array_at_a_time(loss: Callable[..., jax.Array]) -> None:
    assert temporaries(loss, X, X) <= ARRAY_BYTES + ROWS_BYTES


@pytest.mark.parametrize(
    ("loss", "truth"), [pytest.param(*row, id=row[0].__name__) for row in NO_ARRAY]
)
def test_no_array(loss: Callable[..., jax.Array], truth: jax.ShapeDtypeStruct) -> None:
    assert temporaries(loss, X, truth) <= ROWS_BYTES

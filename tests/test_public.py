"""The decorators of public functions: what a signature enforces."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxml import activations, losses, optimizers

INTEGERS = [
    jnp.int8,
    jnp.int16,
    jnp.int32,
    jnp.int64,
    jnp.uint8,
    jnp.uint16,
    jnp.uint32,
    jnp.uint64,
]


def test_a_traceback_shows_the_call_one_frame_of_ours_and_the_formula() -> None:
    def broken_row_loss(similarities: jax.Array, index: jax.Array) -> jax.Array:
        raise RuntimeError("my own mistake")

    x = jnp.ones((3, 2))
    with pytest.raises(RuntimeError, match="my own mistake") as error:
        losses.in_batch(broken_row_loss, x, x)
    files = [pathlib.Path(str(frame.path)).name for frame in error.traceback]
    assert files[:3] == ["test_public.py", "public.py", "_per_anchor.py"]
    assert files.count("public.py") == 1
    assert files[-1] == "test_public.py"


@pytest.mark.usefixtures("no_xla_optimizations")
@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("num_classes", [3, 300])
def test_labels_of_any_integer_dtype_are_labels(dtype: type, num_classes: int) -> None:
    logits = jnp.sin(jnp.arange(2.0 * num_classes)).reshape(2, num_classes)
    loss = losses.cross_entropy(logits, jnp.array([2, 100], dtype))
    log_p = jax.nn.log_softmax(logits)
    np.testing.assert_allclose(loss[0], -log_p[0, 2], rtol=1e-12)
    if num_classes > 100:
        np.testing.assert_allclose(loss[1], -log_p[1, 100], rtol=1e-12)
    else:
        assert jnp.isnan(loss[1])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bool_])
def test_other_labels_are_refused(dtype: type) -> None:
    with pytest.raises(TypeError, match="labels must be an integer array of shape"):
        losses.cross_entropy(jnp.ones((2, 3)), jnp.zeros(2, dtype))


@pytest.mark.parametrize(
    "call",
    [
        lambda: losses.focal_loss(jnp.ones((1, 2)), jnp.array([0]), gamma=-1.0),
        lambda: activations.elu(jnp.ones(2), alpha=-1.0),
        lambda: activations.prelu_init(0),
        lambda: optimizers.adam(-1.0),
    ],
)
def test_a_python_number_out_of_range_is_refused(call) -> None:
    with pytest.raises(ValueError, match=r"^\w+: \w+ must be .+, got -?\d.*\.$"):
        call()


def test_a_traced_number_is_not_checked() -> None:
    gamma = jnp.array([-1.0, 2.0])
    loss = jax.vmap(
        lambda g: losses.focal_loss(jnp.ones((1, 2)), jnp.array([0]), gamma=g)
    )
    assert loss(gamma).shape == (2, 1)


@pytest.mark.usefixtures("no_xla_optimizations")
def test_numpy_inputs_run_eagerly() -> None:
    logits, labels = np.ones((2, 3), np.float32), np.array([0, 5])
    with jax.disable_jit():
        loss = losses.cross_entropy(logits, labels)
        smoothed = losses.cross_entropy(logits, labels, label_smoothing=np.float32(0.1))
    np.testing.assert_allclose(loss, [np.log(3), np.nan], rtol=1e-6)
    np.testing.assert_allclose(smoothed, [np.log(3), np.nan], rtol=1e-6)


def test_only_a_learning_rate_may_be_a_schedule() -> None:
    optimizers.adam(lambda step: 0.1)
    with pytest.raises(TypeError, match=r"adam: eps must be a number, got a function"):
        optimizers.adam(0.1, eps=lambda step: 1e-8)

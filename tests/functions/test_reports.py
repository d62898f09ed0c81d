"""What users of other libraries reported as bugs, with the right values here.

Each test names the report. The inputs are ours.
"""

from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import Array
from scipy import special

from jaxml import activations, losses, mining, optimizers, schedules

pytestmark = pytest.mark.usefixtures("no_xla_optimizations")
F32, F16, BF16 = jnp.float32, jnp.float16, jnp.bfloat16
RNG = np.random.default_rng(0)


def is_finite(tree: Any) -> bool:
    return all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves(tree))


def test_a_zero_embedding_among_normalized_ones() -> None:
    """google-deepmind/optax 946: NT-Xent's gradient was NaN."""
    x = jnp.array([[0.0, 0.0], [1.0, 2.0], [2.0, 1.0]], F32)

    def loss(x: Array) -> Array:
        rows = activations.l2_normalize(x)
        return jnp.sum(losses.nt_xent(rows, jnp.array([0, 0, 1])))

    assert is_finite(jax.value_and_grad(loss)(x))


def test_the_cosine_of_a_masked_row() -> None:
    """tensorflow/tensorflow 56305: gradients of 1e6 at rows times 0."""
    x = jnp.asarray(RNG.normal(size=(3, 5)), F32)
    keep = jnp.array([[1.0], [0.0], [0.0]], F32)

    def loss(x: Array) -> Array:
        rows = x * keep
        a, b = (jnp.broadcast_to(r, (3, 3, 5)) for r in (rows[:, None], rows[None]))
        return jnp.sum(losses.cosine_distance(a, b))

    np.testing.assert_allclose(jax.grad(loss)(x), 0, atol=1e-6)


@pytest.mark.parametrize("x", [[0.0, 2.0, 3.0], [1e-3, 7.0, 0.1], [3.0, 3.0, 3.0]])
def test_a_cosine_of_equal_rows_is_at_most_1(x: list[float]) -> None:
    """tensorflow/tensorflow 58031: -1.0000001."""
    row = jnp.array(x, F32)
    assert 0 <= losses.cosine_distance(row, row) < 1e-14
    assert losses.cosine_distance(row, -row) <= 2
    rows = jnp.asarray(RNG.normal(size=(500, 5)), F32)
    for sign in 1, -1:
        assert jnp.max(losses.cosine_distance(rows, sign * rows)) <= 2
        assert jnp.max(jnp.abs(mining.cosine_similarity(rows, sign * rows))) <= 1


def test_the_maximum_that_is_subtracted_has_no_gradient() -> None:
    """KevinMusgrave/pytorch-metric-learning 282: NT-Xent's maximum had one."""
    x = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])  # ties
    labels = jnp.array([0, 0, 1, 1])

    def loss(x: Array) -> Array:
        return jnp.sum(losses.nt_xent(x, labels, temperature=1.0))

    def truth(x: np.ndarray) -> float:
        s = x @ x.T
        pairs = [(0, 1), (1, 0), (2, 3), (3, 2)]
        negatives = {0: [2, 3], 1: [2, 3], 2: [0, 1], 3: [0, 1]}
        return sum(
            np.log1p(np.sum(np.exp(s[i, negatives[i]] - s[i, j]))) for i, j in pairs
        )

    h, gradient = 1e-6, np.zeros((4, 2))
    for i in np.ndindex(4, 2):
        step = np.zeros((4, 2))
        step[i] = h
        gradient[i] = (truth(x + step) - truth(x - step)) / (2 * h)
    np.testing.assert_allclose(jax.grad(loss)(x), gradient, rtol=1e-7, atol=1e-9)


def test_dice_of_ignored_pixels_alone_is_0() -> None:
    """open-mmlab/mmsegmentation 2996: 0.5."""
    p, t = jnp.zeros((1, 3, 1)), jnp.array([[[0.0], [0.0], [1.0]]])
    where = jnp.zeros((1, 3), bool)
    for loss in losses.dice_loss, losses.jaccard_loss, losses.tversky_loss:
        assert loss(p[..., None, :], t[..., None, :], where=where[..., None]) == 0


def dense_head(x: Array, w: Array, labels: Array, softcap: Any, epsilon: Any) -> Array:
    z = softcap * jnp.tanh(x @ w / softcap)
    log_p = jax.nn.log_softmax(z)
    nll = -jnp.take_along_axis(log_p, labels[:, None], -1)[:, 0]
    return (1 - epsilon) * nll - epsilon * jnp.mean(log_p, -1)


def test_the_head_with_weighted_rows_smoothing_and_a_cap() -> None:
    """linkedin/Liger-Kernel 678 (weights of rows lost the gradient) and 243 (label
    smoothing was ignored), ServiceNow/Fast-LLM 228 (the cap's gradient)."""
    x, w = jnp.asarray(RNG.normal(size=(6, 4))), jnp.asarray(RNG.normal(size=(4, 9)))
    labels = jnp.array([0, 8, 3, 3, 5, 1])
    weights = jnp.array([0.0, 1.0, 0.5, 2.0, 0.0, 3.0])

    def tiled(x: Array, w: Array) -> Array:
        loss = losses.linear_cross_entropy(
            x, w, labels, softcap=2.0, label_smoothing=0.1
        )
        return jnp.sum(weights * loss)

    def dense(x: Array, w: Array) -> Array:
        return jnp.sum(weights * dense_head(x, w, labels, 2.0, 0.1))

    got = jax.value_and_grad(tiled, (0, 1))(x, w)
    expected = jax.value_and_grad(dense, (0, 1))(x, w)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


def test_class_weights_smoothing_and_ignored_labels_together() -> None:
    """pytorch/pytorch 69339, 72056 and 91383: index -100 is out of bounds."""
    z = np.array([[1.0, 2.0], [3.0, 0.4], [0.5, 0.1]])
    labels, class_weights = jnp.array([-100, 1, 0]), jnp.array([0.2, 0.3])
    loss = losses.cross_entropy(jnp.asarray(z), labels, label_smoothing=0.1)
    got = losses.mean(loss, weights=class_weights[labels], where=labels >= 0)
    nll = -special.log_softmax(z, -1)
    rows = 0.9 * np.array([nll[1, 1], nll[2, 0]]) + 0.1 * nll[1:].mean(-1)
    np.testing.assert_allclose(got, (0.3 * rows[0] + 0.2 * rows[1]) / 0.5, rtol=1e-12)


def test_an_ignored_label_is_not_a_number_in_its_row_alone() -> None:
    """pytorch/pytorch 20406 and 12670: NaN in another row, other labels ignored."""
    log_p = jax.nn.log_softmax(jnp.asarray(RNG.normal(size=(24, 2))))
    labels = jnp.where(jnp.arange(24) % 5 == 4, -1, jnp.arange(24) % 2)
    loss = losses.nll_loss(log_p, labels)
    np.testing.assert_array_equal(np.isnan(loss), labels == -1)
    assert jnp.isnan(losses.nll_loss(log_p[:1], jnp.array([-4])))


def test_weight_decay_survives_bfloat16_updates() -> None:
    """Nerogar/OneTrainer 996: lr · decay · p was added to the parameter in bfloat16,
    where it vanished. An update holds both terms, computed in float32."""
    params = jnp.ones(3, BF16)
    grads = jnp.zeros(3, BF16)
    optimizer = optimizers.adamw(1e-4, weight_decay=0.01)
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    np.testing.assert_allclose(np.float64(updates), -1e-6, rtol=2**-8)


def test_weight_decay_uses_the_parameter_before_the_update() -> None:
    """bitsandbytes-foundation/bitsandbytes 2010: two orders in two backends."""
    optimizer = optimizers.adamw(0.5, weight_decay=0.1)
    params, grads = jnp.array(2.0), jnp.array(3.0)
    update, _ = optimizer.update(grads, optimizer.init(params), params)
    np.testing.assert_allclose(update, -0.5 * (1 + 0.1 * 2), rtol=1e-7)


def test_adam_moves_bfloat16_parameters_of_tiny_gradients() -> None:
    """keras-team/keras-hub 2629: v underflowed and the weights never changed."""
    params = jnp.zeros(4, BF16)
    optimizer = optimizers.adam(1e-3)
    state = optimizer.init(params)
    for _ in range(3):
        grads = jnp.full(4, 1e-6, BF16)
        updates, state = optimizer.update(grads, state, params)
        np.testing.assert_allclose(np.float64(updates), -1e-3, rtol=0.02)


@pytest.mark.parametrize("dtype", [BF16, F16, F32])
@pytest.mark.parametrize(
    "name", ["adam", "adamw", "lion", "momentum", "rmsprop", "adagrad", "yogi"]
)
def test_a_state_does_not_change_its_dtypes(name: str, dtype: Any) -> None:
    """AI-Hypercomputer/maxtext 495: donated buffers of another dtype."""
    for state_dtype in None, BF16:
        optimizer = getattr(optimizers, name)(0.1, state_dtype=state_dtype)
        params = jnp.ones(3, dtype)
        init = optimizer.init(params)
        _, state = jax.jit(optimizer.update)(params, init, params)
        chex.assert_trees_all_equal_shapes_and_dtypes(init, state)


def test_cosine_restarts_at_its_restarts() -> None:
    """pytorch/pytorch 23480: every restart came one step late."""
    schedule = schedules.cosine_restarts(0.5, 1, period_factor=2.0)
    got = [float(schedule(step)) for step in range(9)]
    # periods of 1, 2, 4, ... steps, of which each starts at the initial value
    fractions = [0, 0, 1 / 2, 0, 1 / 4, 2 / 4, 3 / 4, 0, 1 / 8]
    expected = [0.25 * (1 + np.cos(np.pi * f)) for f in fractions]
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-8)


def test_schedules_without_warmup_or_decay() -> None:
    """pytorch/pytorch 32898 (one cycle without warmup failed) and 17913 (a cosine past
    its end divided by 0)."""
    one_cycle = schedules.one_cycle(1.0, 10, warmup_fraction=0.0)
    assert one_cycle(0) == 1 and one_cycle(5) < 1
    for decay_steps in 0, 10:
        assert schedules.cosine(1.0, decay_steps)(11) == 0
    assert schedules.cosine(1.0, 10)(jnp.array(20)) == 0


def test_the_first_update_takes_the_schedule_at_step_0() -> None:
    """google-deepmind/optax 1744: it took step 1."""
    optimizer = optimizers.sgd(lambda step: jnp.where(step == 0, 7.0, 0.0))
    updates, state = optimizer.update(jnp.ones(()), optimizer.init(jnp.ones(())))
    assert updates == -7
    assert optimizer.update(jnp.ones(()), state)[0] == 0


@pytest.mark.parametrize("name", ["adam", "shadow_weights"])
def test_multi_steps_around_a_state_in_bfloat16(name: str) -> None:
    """google-deepmind/optax 1038: branches of other dtypes."""
    inner = optimizers.adam(schedules.constant(0.1), state_dtype=BF16)
    if name == "shadow_weights":
        inner = optimizers.shadow_weights(inner)
    optimizer = optax.MultiSteps(inner, every_k_schedule=2)
    params = jnp.ones(3, F32)
    state = optimizer.init(params)
    update = jax.jit(optimizer.update)
    for expected in 0, -0.1, 0, -0.1:
        with jax.numpy_dtype_promotion("standard"):  # for optax's mean of gradients
            updates, state = update(jnp.ones(3, F32), state, params)
        np.testing.assert_allclose(updates, expected, rtol=0.01, atol=1e-8)


def test_float16_activations_of_large_inputs() -> None:
    """facebookresearch/fairseq 2235 (GELU's gradient was NaN from x = 256),
    pytorch/pytorch 187235 and tracel-ai/burn 5373 (softplus overflowed)."""
    for x in 256.0, 60000.0, -60000.0:
        for name in "gelu_tanh", "gelu", "mish", "swish", "softplus":
            value, derivative = jax.value_and_grad(getattr(activations, name))(F16(x))
            assert value == max(x, 0) and derivative == float(x > 0)
    value, derivative = jax.value_and_grad(partial(activations.softplus, beta=5.0))(
        F32(50)
    )
    assert value == 50 and derivative == 1


def test_the_gradient_of_log_softmax_of_many_float16_scores() -> None:
    """jax-ml/jax 40409: NaN from 2¹⁶ scores on."""
    x = np.float16(RNG.normal(size=2**17))
    gradient = jax.grad(lambda x: jnp.sum(activations.log_softmax(x)))(jnp.asarray(x))
    expected = 1 - x.size * special.softmax(np.float64(x))
    np.testing.assert_allclose(np.float64(gradient), expected, rtol=2e-3, atol=2e-3)


def test_a_saturated_probability_that_is_right() -> None:
    """keras-team/keras 198: NaN once the accuracy is 1."""
    p, t = jnp.array([0.0, 1.0], F32), jnp.array([0.0, 1.0], F32)
    value, gradient = jax.value_and_grad(
        lambda p: jnp.sum(losses.binary_cross_entropy(p, t))
    )(p)
    assert value == 0 and is_finite(gradient)


def test_labels_beyond_the_whole_numbers_of_float16() -> None:
    """tensorflow/tensorflow 50964: labels were cast to the logits' float16."""
    logits = jnp.zeros((2, 5000), F16).at[0, 4099].set(8).at[1, 2049].set(8)
    loss = losses.cross_entropy(logits, jnp.array([4099, 2049]))
    expected = np.log1p(4999 * np.exp(-8.0))
    np.testing.assert_allclose(loss, expected, rtol=1e-3)

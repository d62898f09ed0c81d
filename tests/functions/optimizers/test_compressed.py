"""Compressed accumulators: unbiased rounding, bytes, and training as in float32."""

import inspect
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxml import optimizers
from jaxml.optimizers import compressed

pytestmark = pytest.mark.slow

SHAPE = 16, 300
"""Its last block of each row is not full."""
FIRST_ORDER = {
    name: make
    for name, make in vars(optimizers).items()
    if callable(make) and "state_dtype" in inspect.signature(make).parameters
}
all_bits = pytest.mark.parametrize("bits", [8, 16])


@pytest.fixture(autouse=True)
def standard_promotion() -> Any:
    """optax's own arithmetic mixes dtypes."""
    with jax.numpy_dtype_promotion("standard"):
        yield


STORE = optax.GradientTransformation(
    lambda params: jnp.zeros_like(params), lambda g, state, params=None: (state, g)
)
"""Returns what it has stored, and stores the gradient."""


def stored(x: Any, bits: int, num_steps: int = 1) -> np.ndarray:
    """x after compression, once for each step."""
    optimizer, x = compressed(STORE, bits=bits), jnp.asarray(x, jnp.float32)

    def step(state: Any, _: None) -> Any:
        value, state = optimizer.update(x, state)
        return state, value

    _, state = optimizer.update(x, optimizer.init(x))
    return np.asarray(
        jax.jit(lambda s: jax.lax.scan(step, s, length=num_steps))(state)[1]
    )


def normal(shape: tuple[int, ...] = SHAPE, seed: int = 0) -> np.ndarray:
    return np.float32(np.random.default_rng(seed).normal(size=shape))


@pytest.mark.parametrize(("bits", "relative"), [(8, 1 / 8), (16, 1 / 128)])
@pytest.mark.parametrize("is_signed", [False, True])
def test_rounding_is_to_a_neighbor_and_right_on_average(
    bits, relative, is_signed
) -> None:
    x = normal() if is_signed else normal() ** 2
    num_steps = 2000
    values = np.float64(stored(x, bits, num_steps))
    smallest = 4.0 * 2.0 ** (-14 if is_signed else -30)
    bound = relative * (np.abs(x) + (smallest if bits == 8 else 0))
    assert np.all(np.abs(values - x) <= bound)
    levels = np.sort(values, 0)
    assert np.all((values == levels[0]) | (values == levels[-1]))  # two at most
    low, high = levels[0], levels[-1]
    is_between = (low <= x) & (x <= high)
    assert np.all(is_between | ((low == high) & (np.abs(x - low) < 0.01 * bound)))
    std = np.sqrt(np.maximum(0, (high - x) * (x - low)) / num_steps)
    z = (np.mean(values, 0) - x)[std > 0] / std[std > 0]
    assert len(z) > 4000
    assert abs(np.mean(z)) < 5 / np.sqrt(len(z)) and 0.9 < np.std(z) < 1.1


def test_leaves_steps_and_positions_have_other_random_bits() -> None:
    x = jnp.full((2, *SHAPE), 1.03, jnp.float32)
    values = stored(x, 8, 2)
    for a, b in (values, values.swapaxes(0, 1), values[..., ::2, :].swapaxes(0, 2)[:2]):
        assert 0.05 < np.mean(a != b) < 0.6


@all_bits
def test_zeros_and_powers_of_2_are_exact_and_infinities_are_visible(bits) -> None:
    x = np.zeros(SHAPE, np.float32)
    np.testing.assert_array_equal(stored(x, bits)[0], 0)
    for scale in (1e-37, 1e38):
        x[:, ::3] = scale
        np.testing.assert_allclose(stored(x, bits)[0], x, rtol=1 / 8)
    for value in (np.inf, np.nan):
        x[0, 0] = value
        got = stored(x, bits)[0]
        assert not np.isfinite(got[0, 0]) and np.isfinite(got[1:]).all()


@all_bits
def test_small_second_moments_do_not_make_large_updates(bits) -> None:
    """Of gradients in one block whose scales differ by a factor of 10¹²."""
    grads = normal((100, 16, 256)) * np.geomspace(1, 1e-12, 256, dtype=np.float32)
    optimizer = compressed(optimizers.adam(1.0), bits=bits)

    def step(state: Any, g: Any) -> Any:
        updates, state = optimizer.update(g, state)
        return state, updates

    state = optimizer.init(jnp.zeros((16, 256)))
    _, updates = jax.jit(lambda s: jax.lax.scan(step, s, grads))(state)
    assert np.max(np.abs(updates)) < 10
    x = np.ones((16, 256), np.float32)
    x[:, 1:] = 1e-25
    assert np.all(stored(x, bits, 20) > 0)


@pytest.mark.parametrize(("bits", "at_most"), [(8, 2.1), (16, 4.0)])
def test_bytes_of_the_state_of_adam(bits, at_most) -> None:
    params = jnp.ones((64, 1024), jnp.float32)
    state = compressed(optimizers.adam(0.1), bits=bits).init(params)
    nbytes = sum(leaf.nbytes for leaf in jax.tree.leaves(state) if leaf.shape)
    assert nbytes <= at_most * params.size


@all_bits
def test_small_leaves_are_exact(bits) -> None:
    params = {"short": jnp.ones((4095,)), "thin": jnp.ones((1000, 15))}
    plain, packed = optimizers.adam(0.1), compressed(optimizers.adam(0.1), bits=bits)
    states = plain.init(params), packed.init(params)
    grads = jax.tree.map(lambda x: jnp.cos(jnp.arange(x.size)).reshape(x.shape), params)
    for _ in range(3):
        expected, plain_state = plain.update(grads, states[0])
        got, packed_state = packed.update(grads, states[1])
        states = plain_state, packed_state
        for name in params:
            np.testing.assert_array_equal(got[name], expected[name])


@all_bits
@pytest.mark.parametrize("name", FIRST_ORDER)
def test_updates_of_every_optimizer_are_close(name, bits) -> None:
    """Square parameters, so that SOAP's bases have their shape, but stay float32."""
    rng = np.random.default_rng(0)
    signal = rng.normal(size=(64, 64))
    grads = jnp.asarray(signal + rng.normal(size=(10, 64, 64)), jnp.float32)

    def final_params(optimizer: Any) -> Any:
        def step(carry: Any, g: Any) -> Any:
            params, state = carry
            updates, state = optimizer.update(g, state, params)
            return (optax.apply_updates(params, updates), state), None

        params = jnp.zeros((64, 64), jnp.float32)
        run = jax.jit(lambda c: jax.lax.scan(step, c, grads)[0])
        return run((params, optimizer.init(params)))

    expected, _ = final_params(FIRST_ORDER[name](0.1))
    got, state = final_params(compressed(FIRST_ORDER[name](0.1), bits=bits))
    error = np.linalg.norm(got - expected) / np.linalg.norm(expected)
    assert error < (0.15 if bits == 8 else 0.02)
    narrow = [x for x in jax.tree.leaves(state) if x.shape == (64, 64)]
    assert narrow or name == "sgd"
    assert {x.dtype.itemsize for x in narrow[:1]} <= {bits // 8}
    if name == "soap":
        wide = jax.tree.leaves(state.inner_state.sides)
        assert {x.dtype for x in wide} == {jnp.dtype(jnp.float32)}


@all_bits
def test_a_slow_average_neither_stalls_nor_drifts(bits) -> None:
    """Rounded to the nearest, v would stay where its first gradients left it."""
    optimizer = compressed(optimizers.adam(1e-3), bits=bits)
    scales = jnp.where(jnp.arange(3000) < 50, 1.0, 0.01)

    def step(state: Any, scale: Any) -> Any:
        return optimizer.update(jnp.full((16, 256), scale), state)[1], None

    state = optimizer.init(jnp.zeros((16, 256)))
    state, _ = jax.jit(lambda s: jax.lax.scan(step, s, scales))(state)
    reader = compressed(
        optax.GradientTransformation(
            lambda params: None, lambda g, state, params=None: (state.nu, state)
        ),
        bits=bits,
    )
    nu, _ = reader.update(jnp.zeros((16, 256)), state)
    expected = 0.0
    for scale in np.asarray(scales):
        expected = 0.999 * expected + 0.001 * scale**2
    np.testing.assert_allclose(jnp.mean(nu), expected, rtol=0.05)


def test_it_composes_with_optax_and_checkpoints() -> None:
    params = {"w": jnp.ones((64, 64)), "b": jnp.ones(64)}
    inner = compressed(optimizers.adamw(0.1))
    wrapped = [
        inner,
        optax.chain(optax.clip_by_global_norm(1.0), inner),
        optax.MultiSteps(inner, 2),
        optimizers.shadow_weights(inner),
        compressed(optax.chain(optax.scale_by_adam(), optax.scale(-0.1))),
        optax.partition({"w": inner, "b": optimizers.sgd(0.1)}, {"w": "w", "b": "b"}),
    ]
    for optimizer in wrapped:
        state = optimizer.init(params)
        update = jax.jit(optimizer.update, donate_argnums=1)
        for _ in range(3):
            updates, state = update(params, state, params)
        assert all(jnp.isfinite(u).all() for u in jax.tree.leaves(updates))
        leaves, structure = jax.tree.flatten(state)
        assert any(leaf.dtype == jnp.uint8 for leaf in leaves)
        saved = pickle.dumps([np.asarray(leaf) for leaf in leaves])
        restored = structure.unflatten(pickle.loads(saved))
        expected, got = (
            jax.jit(optimizer.update)(params, s, params) for s in (state, restored)
        )
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
            np.testing.assert_array_equal(a, b)
    state = inner.init(params)
    mapped = optax.tree.map_params(inner, lambda leaf: leaf, state)
    assert jax.tree.structure(mapped) == jax.tree.structure(state)

    lookahead = optax.lookahead(inner, 2, 0.5)
    both = optax.LookaheadParams.init_synced(params)
    updates, state = lookahead.update(params, lookahead.init(both), both)
    assert any(leaf.dtype == jnp.uint8 for leaf in jax.tree.leaves(state))


def test_vmap_over_learning_rates_is_the_loop() -> None:
    g = jnp.asarray(normal((64, 64)))

    def updates(rate: Any) -> Any:
        optimizer = compressed(optimizers.adam(rate))
        _, state = optimizer.update(g, optimizer.init(g))
        return optimizer.update(g, state)[0]

    rates = jnp.array([0.1, 0.3])
    got = jax.vmap(updates)(rates)
    for rate, update in zip(rates, got):
        np.testing.assert_allclose(update, updates(rate), rtol=1e-6)


@pytest.mark.slow
@all_bits
@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
def test_the_same_bits_on_a_mesh(bits, axis_type) -> None:
    grads = jnp.asarray(normal((3, 64, 1024)))
    optimizer = compressed(optimizers.adam(0.1), bits=bits)

    @jax.jit
    def steps(grads: Any) -> Any:
        state = optimizer.init(grads[0])

        def step(state: Any, g: Any) -> Any:
            updates, state = optimizer.update(g, state)
            return state, updates

        return jax.lax.scan(step, state, grads)

    expected_state, expected = steps(grads)
    mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=(axis_type,) * 2)
    with jax.set_mesh(mesh):
        sharding = NamedSharding(mesh, P(None, "data", "model"))
        state, updates = steps(jax.device_put(grads, sharding))
        codes = state.inner_state.nu.codes
        assert codes.sharding.shard_shape(codes.shape) == (32, 256)
        eager = optimizer.init(jax.device_put(grads[0], NamedSharding(mesh, P("data"))))
        codes = eager.inner_state.nu.codes
        assert codes.sharding.shard_shape(codes.shape) == (32, 1024)
    np.testing.assert_allclose(updates, expected, rtol=1e-5, atol=1e-6)
    same = np.mean(codes_of(state) == codes_of(expected_state))
    assert same > 0.999  # sums of other orders may differ in the last bit


def codes_of(state: Any) -> np.ndarray:
    return np.asarray(state.inner_state.nu.codes.astype(jnp.float32))


@pytest.mark.slow
@all_bits
def test_the_training_loss_of_the_digits_is_within_1_percent(bits) -> None:
    """The mean over 500 steps and 5 seeds."""
    plain = digits_loss(optimizers.adam(1e-3))
    packed = digits_loss(compressed(optimizers.adam(1e-3), bits=bits))
    np.testing.assert_allclose(packed, plain, rtol=0.01)


def digits_loss(optimizer: Any) -> float:
    datasets = pytest.importorskip("sklearn.datasets")
    features, labels = datasets.load_digits(return_X_y=True)
    features, labels = jnp.asarray(features / 16, jnp.float32), jnp.asarray(labels)
    widths = 64, 128, 128, 10

    def init(key: Any) -> Any:
        def layer(key: Any, n: int, m: int) -> Any:
            weights = jax.random.normal(key, (n, m), jnp.float32) * np.sqrt(2 / n)
            return weights.astype(jnp.float32), jnp.zeros(m, jnp.float32)

        return [*map(layer, jax.random.split(key, 3), widths, widths[1:])]

    def loss(params: Any, rows: Any) -> Any:
        h = features[rows]
        for weights, bias in params[:-1]:
            h = jax.nn.relu(h @ weights + bias[None])
        logits = h @ params[-1][0] + params[-1][1][None]
        return jnp.mean(
            optax.softmax_cross_entropy_with_integer_labels(logits, labels[rows])
        )

    @jax.jit
    @jax.vmap
    def train(key: Any) -> Any:
        def step(carry: Any, key: Any) -> Any:
            params, state = carry
            rows = jax.random.randint(key, (64,), 0, len(labels))
            value, grads = jax.value_and_grad(loss)(params, rows)
            updates, state = optimizer.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), value

        params = init(key)
        carry = params, optimizer.init(params)
        values = jax.lax.scan(step, carry, jax.random.split(key, 600))[1]
        return jnp.mean(values[100:])

    return float(jnp.mean(train(jax.random.split(jax.random.key(0), 5))))


def test_other_numbers_of_bits_are_refused() -> None:
    with pytest.raises(ValueError, match=r"compressed: bits must be 8 or 16, got 4\."):
        compressed(optimizers.adam(0.1), bits=4)

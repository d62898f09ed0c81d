"""Shadow weights: exact in 16 bits, in chains, checkpoints and under vmap."""

import pickle

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxml import optimizers

PARAMS = {"w": jnp.array([1.0, -2.0]), "b": jnp.array(0.5)}


def train(optimizer, params, num_steps=5):
    """The parameters and the state after steps with gradient 1."""
    with jax.disable_jit(), jax.numpy_dtype_promotion("standard"):
        state = optimizer.init(params)
        for _ in range(num_steps):
            grads = jax.tree.map(jnp.ones_like, params)
            updates, state = optimizer.update(grads, state, params)
            params = optax.apply_updates(params, updates)
        return params, state


def test_updates_do_not_change_and_chains_may_contain_it() -> None:
    inner = optimizers.momentum(0.1)
    shadow = optimizers.shadow_weights(inner, decay=0.5)
    chain = optax.chain(optax.clip(10.0), shadow)
    expected, _ = train(inner, PARAMS)
    for optimizer in (shadow, chain, optimizers.shadow_weights(optax.sgd(0.1, 0.9))):
        params, _ = train(optimizer, PARAMS)
        chex.assert_trees_all_close(params, expected, rtol=1e-7)
    average = optimizers.averaged_params(train(shadow, PARAMS)[1])
    average_in_chain = optimizers.averaged_params(train(chain, PARAMS)[1])
    chex.assert_trees_all_equal(average_in_chain, average)


def test_the_average_of_bfloat16_parameters_is_float32() -> None:
    """The mean of two neighboring bfloat16 numbers lies between them."""
    low, high = jnp.ones(1, jnp.bfloat16), jnp.array([1.0078125], jnp.bfloat16)
    optimizer = optimizers.shadow_weights(optax.identity(), decay=0.99)
    state = optimizer.init(low)
    for x in [low, high] * 20:
        _, state = optimizer.update(jnp.zeros_like(x), state, x)
    average = optimizers.averaged_params(state)
    assert average.dtype == jnp.float32
    np.testing.assert_allclose(average, 1.0039, atol=1e-4)
    assert optimizers.averaged_params(state, low).dtype == jnp.bfloat16


def test_the_average_is_0_before_the_first_update() -> None:
    state = optimizers.shadow_weights(optimizers.sgd(0.1)).init(PARAMS)
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    chex.assert_trees_all_equal(optimizers.averaged_params(state), zeros)


def test_the_state_survives_a_checkpoint() -> None:
    optimizer = optimizers.shadow_weights(optimizers.adam(0.1), decay=0.9)
    params, state = train(optimizer, PARAMS)
    leaves, structure = jax.tree.flatten(state)
    saved = pickle.dumps([np.asarray(leaf) for leaf in leaves])
    restored = structure.unflatten(pickle.loads(saved))
    _, expected = optimizer.update(PARAMS, state, params)
    chex.assert_trees_all_equal(optimizer.update(PARAMS, restored, params)[1], expected)


def test_vmap_over_decays_equals_the_loop() -> None:
    starts = jnp.array([[1.0], [3.0]])
    decays = jnp.array([0.5, 0.9])

    @jax.jit
    @jax.vmap
    def average(start, decay):
        optimizer = optimizers.shadow_weights(optimizers.sgd(0.1), decay=decay)

        def step(carry, _):
            x, state = carry
            update, state = optimizer.update(jnp.ones_like(x), state, x)
            return (x + update, state), None

        carry = start, optimizer.init(start)
        (_, state), _ = jax.lax.scan(step, carry, length=5)
        return optimizers.averaged_params(state)

    for start, decay, result in zip(starts, decays, average(starts, decays)):
        shadow = optimizers.shadow_weights(optimizers.sgd(0.1), decay=float(decay))
        expected = optimizers.averaged_params(train(shadow, start)[1])
        np.testing.assert_allclose(result, expected, rtol=1e-14)


def test_complex_parameters_keep_their_imaginary_part() -> None:
    start = jnp.array([1.0 + 2.0j])
    optimizer = optimizers.shadow_weights(optimizers.sgd(0.0), decay=0.9)
    _, state = train(optimizer, start, num_steps=3)
    np.testing.assert_allclose(optimizers.averaged_params(state), start, rtol=1e-14)


def test_a_state_with_two_averages_is_refused() -> None:
    shadow = optimizers.shadow_weights(optimizers.sgd(0.1))
    state = optax.chain(shadow, shadow).init(PARAMS)
    message = "must contain exactly one shadow_weights state, got 2"
    with pytest.raises(ValueError, match=message):
        optimizers.averaged_params(state)

"""Shadow weights: an average that is right in half precision, and goes anywhere."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxml import optimizers

START = {"w": jnp.array([1.0, -2.0]), "b": jnp.array(0.5)}


def descend(optimizer, params, steps=5):
    """The parameters and the state after steps along a gradient of 1."""
    with jax.disable_jit(), jax.numpy_dtype_promotion("standard"):
        state = optimizer.init(params)
        for _ in range(steps):
            gradient = jax.tree.map(jnp.ones_like, params)
            updates, state = optimizer.update(gradient, state, params)
            params = optax.apply_updates(params, updates)
        return params, state


def test_it_changes_no_update_and_stands_inside_a_chain() -> None:
    inner = optimizers.momentum(0.1)
    shadow = optimizers.shadow_weights(inner, decay=0.5)
    chained = optax.chain(optax.clip(10.0), shadow)
    plain, _ = descend(inner, START)
    for optimizer in (shadow, chained, optimizers.shadow_weights(optax.sgd(0.1, 0.9))):
        params, _ = descend(optimizer, START)
        jax.tree.map(np.testing.assert_allclose, params, plain)
    average = optimizers.averaged_params(descend(shadow, START)[1])
    inside = optimizers.averaged_params(descend(chained, START)[1])
    jax.tree.map(np.testing.assert_array_equal, inside, average)


def test_the_average_is_finer_than_the_parameters() -> None:
    """Two numbers of bfloat16 in turn have a mean that is between them."""
    low, high = jnp.ones(1, jnp.bfloat16), jnp.array([1.0078125], jnp.bfloat16)
    optimizer = optimizers.shadow_weights(optax.identity(), decay=0.99)
    state = optimizer.init(low)
    for x in [low, high] * 20:
        _, state = optimizer.update(jnp.zeros_like(x), state, x)
    average = optimizers.averaged_params(state)
    assert average.dtype == jnp.float32
    np.testing.assert_allclose(average, 1.0039, atol=1e-4)
    assert optimizers.averaged_params(state, low).dtype == jnp.bfloat16


def test_before_the_first_update_it_is_zero() -> None:
    state = optimizers.shadow_weights(optimizers.sgd(0.1)).init(START)
    assert not any(x.any() for x in jax.tree.leaves(optimizers.averaged_params(state)))


def test_a_checkpoint_is_a_plain_tree() -> None:
    optimizer = optimizers.shadow_weights(optimizers.adam(0.1), decay=0.9)
    params, state = descend(optimizer, START)
    leaves, structure = jax.tree.flatten(state)
    saved = pickle.dumps([np.asarray(leaf) for leaf in leaves])
    restored = structure.unflatten(pickle.loads(saved))
    one, other = (optimizer.update(START, s, params)[1] for s in (state, restored))
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_many_at_once_are_what_each_is_alone() -> None:
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

    for start, decay, got in zip(starts, decays, average(starts, decays)):
        shadow = optimizers.shadow_weights(optimizers.sgd(0.1), decay=float(decay))
        _, state = descend(shadow, start)
        np.testing.assert_allclose(got, optimizers.averaged_params(state), rtol=1e-14)


def test_complex_parameters_keep_both_parts() -> None:
    start = jnp.array([1.0 + 2.0j])
    optimizer = optimizers.shadow_weights(optimizers.sgd(0.0), decay=0.9)
    _, state = descend(optimizer, start, steps=3)
    np.testing.assert_allclose(optimizers.averaged_params(state), start, rtol=1e-14)


def test_two_averages_are_refused() -> None:
    twice = optimizers.shadow_weights(optimizers.sgd(0.1))
    state = optax.chain(twice, twice).init(START)
    with pytest.raises(
        ValueError, match="must contain exactly one shadow_weights state, got 2"
    ):
        optimizers.averaged_params(state)

"""The first state of every optimizer may be donated, as every later one."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from jaxml import optimizers

PARAMS = {"w": jnp.ones((64, 64)), "b": jnp.ones(64)}
SMALL = jnp.array([1.0, 2.0])
FIRST_ORDER = {
    name: make
    for name, make in vars(optimizers).items()
    if callable(make) and "state_dtype" in inspect.signature(make).parameters
}
WRAPPED: dict[str, Callable[..., Any]] = {
    "shadow_weights": lambda rate: optimizers.shadow_weights(optimizers.adam(rate)),
    "compressed": lambda rate: optimizers.compressed(optimizers.soap(rate)),
}
SECOND_ORDER = {
    "newton": "value_fn",
    "newton_cg": "value_fn",
    "gauss_newton": "residual_fn",
    "levenberg_marquardt": "residual_fn",
}


def assert_no_shared_buffers(state: Any) -> None:
    pointers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(state)]
    assert len(set(pointers)) == len(pointers)


@pytest.mark.parametrize("name", FIRST_ORDER | WRAPPED)
def test_first_order(name: str) -> None:
    optimizer = (FIRST_ORDER | WRAPPED)[name](0.1)
    assert_no_shared_buffers(optimizer.init(PARAMS))


@pytest.mark.parametrize("name", SECOND_ORDER)
def test_second_order(name: str) -> None:
    optimizer = getattr(optimizers, name)()
    state = optimizer.init(SMALL)
    assert_no_shared_buffers(state)
    is_least_squares = SECOND_ORDER[name] == "residual_fn"
    functions = {SECOND_ORDER[name]: jnp.square if is_least_squares else square_sum}

    def update(state: Any) -> Any:
        return optimizer.update(SMALL, state, SMALL, **functions)

    updates, _ = jax.jit(update, donate_argnums=0)(state)
    assert jnp.isfinite(updates).all()


def square_sum(x: jax.Array) -> jax.Array:
    return jnp.sum(x**2)

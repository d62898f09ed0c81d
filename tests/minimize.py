"""Steps of a second-order optimizer, many in one compiled program."""

from typing import Any

import jax
import optax


def descent(optimizer: Any, f: Any, steps: int, **functions: Any) -> Any:
    """(x, **data) -> where the steps lead, and the states on the way."""

    @jax.jit
    def run(x: Any, **data: Any) -> tuple[Any, Any]:
        def step(carry: Any, _: Any) -> Any:
            x, state = carry
            gradient = jax.grad(f)(x, **data)
            with jax.numpy_dtype_promotion("standard"):  # optax's members of a chain
                updates, state = optimizer.update(
                    gradient, state, x, **functions, **data
                )
            return (optax.apply_updates(x, updates), state), state

        (x, _), states = jax.lax.scan(step, (x, optimizer.init(x)), length=steps)
        return x, states

    return run


def descend(optimizer: Any, f: Any, x: Any, steps: int, **functions: Any) -> Any:
    return descent(optimizer, f, steps, **functions)(x)

"""Minimization loops: many steps of an optimizer in one compiled program."""

from typing import Any

import jax
import optax
from compilation import jit_without_fusion_emitters


def make_minimizer(optimizer: Any, f: Any, num_steps: int, **functions: Any) -> Any:
    """(x, **data) -> the last parameters, and the state after each step.

    `f` gives the gradient; `functions` and the data are passed to `optimizer.update`.
    """

    @jit_without_fusion_emitters
    def run(x: Any, **data: Any) -> tuple[Any, Any]:
        def step(carry: Any, _: Any) -> Any:
            x, state = carry
            grads = jax.grad(f)(x, **data)
            with jax.numpy_dtype_promotion("standard"):  # for optax's transformations
                updates, state = optimizer.update(grads, state, x, **functions, **data)
            return (optax.apply_updates(x, updates), state), state

        (x, _), states = jax.lax.scan(step, (x, optimizer.init(x)), length=num_steps)
        return x, states

    return run


def minimize(optimizer: Any, f: Any, x: Any, num_steps: int, **functions: Any) -> Any:
    return make_minimizer(optimizer, f, num_steps, **functions)(x)

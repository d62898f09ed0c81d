"""A formula with its partial derivatives."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero


def with_partials(*partials: Callable[..., Any]) -> Callable[[Callable], Callable]:
    """Gives an elementwise formula its partial derivatives, one for each argument.

        @with_partials(lambda x: sigmoid(x) * sigmoid(-x))
        def sigmoid(x): ...

    The partial derivatives take the same arguments and are differentiable themselves,
    in forward and reverse mode. The backward pass saves only the arguments and
    recomputes the derivative (`jax.checkpoint`). A boolean derivative (0 or 1) is saved
    itself: one byte per element instead of four.

    The formula itself must be differentiable too, because a second derivative through
    `lax.scan` ignores the rule (JAX 0.10 inlines it).
    """

    def decorate(formula: Callable) -> Callable:
        value = jax.custom_jvp(formula)

        def value_jvp(primals: tuple, tangents: tuple) -> tuple:
            active = [
                i for i, t in enumerate(tangents) if not isinstance(t, SymbolicZero)
            ]
            result = value(*primals)
            cast = functools.partial(jnp.asarray, dtype=result.dtype)
            masks = [_boolean_partial(partials[i], primals) for i in active]

            @functools.partial(jax.checkpoint, prevent_cse=False)
            def tangent(primals: tuple, tangents: list, masks: list) -> Any:
                terms = (
                    cast(partials[i](*primals)) * cast(t)
                    if mask is None
                    else jnp.where(mask, cast(t), 0)
                    for i, t, mask in zip(active, tangents, masks)
                )
                return functools.reduce(jnp.add, terms)

            return result, tangent(primals, [tangents[i] for i in active], masks)

        value.defjvp(value_jvp, symbolic_zeros=True)
        return value

    return decorate


def _boolean_partial(partial: Callable[..., Any], primals: tuple) -> Any:
    """The partial derivative if it is boolean, else None."""
    is_boolean = jax.eval_shape(partial, *primals).dtype == jnp.bool
    return partial(*primals) if is_boolean else None

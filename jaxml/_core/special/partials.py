"""A formula beside its partial derivatives."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero


def with_derivatives(*partials: Callable[..., Any]) -> Callable[[Callable], Callable]:
    """Gives an elementwise formula its partial derivatives, one for each argument.

        @with_derivatives(lambda x: sigmoid(x) * sigmoid(-x))
        def sigmoid(x): ...

    The derivatives are formulas of the same arguments, so they may be differentiated
    again, forward and reverse. Between a forward and a backward pass the arguments
    alone are kept: `jax.checkpoint` has the derivative computed again from them. A
    boolean derivative, 0 or 1, is kept itself: a byte where the argument has four.

    A second derivative through `lax.scan` forgets the rule (JAX 0.10 inlines it), so
    the formula itself has to be differentiable too.
    """

    def decorate(formula: Callable) -> Callable:
        value = jax.custom_jvp(formula)

        def rule(primals: tuple, tangents: tuple) -> tuple:
            moving = [
                i for i, t in enumerate(tangents) if not isinstance(t, SymbolicZero)
            ]

            result = value(*primals)
            cast = functools.partial(jnp.asarray, dtype=result.dtype)
            masks = [_mask(partials[i], primals) for i in moving]

            @functools.partial(jax.checkpoint, prevent_cse=False)
            def slope(primals: tuple, tangents: list, masks: list) -> Any:
                terms = (
                    cast(partials[i](*primals)) * cast(t)
                    if mask is None
                    else jnp.where(mask, cast(t), 0)
                    for i, t, mask in zip(moving, tangents, masks)
                )
                return functools.reduce(jnp.add, terms)

            return result, slope(primals, [tangents[i] for i in moving], masks)

        value.defjvp(rule, symbolic_zeros=True)
        return value

    return decorate


def _mask(partial: Callable[..., Any], primals: tuple) -> Any:
    """A boolean derivative, and None for any other."""
    boolean = jax.eval_shape(partial, *primals).dtype == jnp.bool
    return partial(*primals) if boolean else None

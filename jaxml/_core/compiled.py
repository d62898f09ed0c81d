"""The decorators of every public function: checked and compiled, both while tracing.

A call whose shapes and dtypes were seen before runs the compiled program and nothing
else.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, get_args

import jax
import jax.numpy as jnp

from jaxml._core.checks import check_signature, check_traceable
from jaxml._core.dtypes import promoted, widened
from jaxml._core.special.partials import with_derivatives

P = ParamSpec("P")
R = TypeVar("R")


def compiled(
    *, static: tuple[str, ...] = (), widen: bool = True, recompute: bool = False
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Compiles a function, its signature checked, its arithmetic in f32 or wider.

    `static` names the arguments that are structure (an axis, a count); every other
    number is traced. float16 and bfloat16 arguments are widened, and the result is
    rounded once; with `widen=False` the function sees to that itself. With `recompute`
    the backward pass keeps the arguments in their own dtype, and nothing else.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)
        formula = _by_position(function)
        if widen:
            formula = _rounded(_widened(formula, signature), signature)
        if recompute:
            places = tuple(i for i, p in enumerate(signature.parameters) if p in static)
            formula = jax.checkpoint(formula, prevent_cse=False, static_argnums=places)
        return _program(function, formula, static)

    return decorate


def elementwise(
    *partials: Callable[..., Any],
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """`compiled`, for an elementwise formula beside its partial derivatives.

    The derivatives take the formula's arguments in the order of its signature. What is
    kept for the backward pass are the arguments in their own dtype, or a byte where a
    derivative is 0 or 1.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)
        slopes = [_widened(partial, signature) for partial in partials]
        formula = with_derivatives(*slopes)(_widened(_by_position(function), signature))
        return _program(function, _rounded(formula, signature), ())

    return decorate


def _program(
    function: Callable[P, R], body: Callable[..., R], static: tuple[str, ...]
) -> Callable[P, R]:
    """`body`, which takes the arguments by position, checked and compiled."""
    signature = inspect.signature(function)

    def bind(*args: P.args, **kwargs: P.kwargs) -> inspect.BoundArguments:
        try:
            arguments = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{function.__name__}: {error}.") from None
        arguments.apply_defaults()
        return arguments

    @functools.partial(jax.jit, static_argnames=static)
    @functools.wraps(function)
    def program(*args: P.args, **kwargs: P.kwargs) -> R:
        arguments = bind(*args, **kwargs)
        check_signature(function.__name__, arguments)
        return body(*arguments.arguments.values())

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return program(*args, **kwargs)
        except (TypeError, ValueError):
            check_traceable(function.__name__, bind(*args, **kwargs), static)
            raise

    return call


def _by_position(function: Callable) -> Callable[..., Any]:
    """`function` with its keyword-only arguments taken by position too."""
    parameters = inspect.signature(function).parameters.values()
    named = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    split = len(parameters) - len(named)
    return lambda *values: function(*values[:split], **dict(zip(named, values[split:])))


def _widened(function: Callable, signature: inspect.Signature) -> Callable[..., Any]:
    """`function`, with its numbers and float arrays in one dtype, f32 or wider."""

    def run(*values: Any) -> Any:
        wide = widened(_float_dtype(signature, values))
        numbers = _are_numbers(signature)
        return function(*(_cast(v, wide, n) for v, n in zip(values, numbers)))

    return run


def _rounded(body: Callable, signature: inspect.Signature) -> Callable[..., Any]:
    """`body`, with its result in the dtype of the float arrays given."""

    def run(*values: Any) -> Any:
        return _cast(body(*values), _float_dtype(signature, values))

    return run


def _are_numbers(signature: inspect.Signature) -> list[bool]:
    """Which parameters are a `Scalar`, or None: a Python float may stand there."""
    return [float in get_args(p.annotation) for p in signature.parameters.values()]


def _float_dtype(signature: inspect.Signature, values: tuple) -> Any:
    """What the float arrays among `values` promote to; numbers have no say."""
    arrays = [v for v, number in zip(values, _are_numbers(signature)) if not number]
    return promoted(
        *(leaf.dtype for leaf in jax.tree.leaves(arrays) if _is_float(leaf))
    )


def _cast(tree: Any, dtype: Any, integers_too: bool = False) -> Any:
    return jax.tree.map(
        lambda leaf: (
            jnp.asarray(leaf, dtype) if integers_too or _is_float(leaf) else leaf
        ),
        tree,
    )


def _is_float(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jnp.floating)

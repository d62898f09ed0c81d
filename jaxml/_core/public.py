"""The decorators of public functions: the signature is the contract.

`public` checks a call while JAX traces it, runs the formula in float32 or wider, rounds
an elementwise result once to the dtype of the input, and compiles. `elementwise` also
attaches partial derivatives. `factory` is for functions that return functions:
optimizers and schedules. `checked` is for functions of Python objects.
"""

import contextlib
import functools
import types
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, overload

import jax

from jaxml._core import sharding
from jaxml._core.collectives import check_bound, vary_together
from jaxml._core.contract import (
    Contract,
    InvalidArgumentError,
    broadcast,
    cast_floats,
    reports_as,
)
from jaxml._core.fusion import in_one_loop
from jaxml._core.masking import apply_mask
from jaxml._core.special.partials import with_partials
from jaxml._core.types import AxisName, compute_dtype

INTERNAL_FILES = {__file__, sharding.__file__}
P = ParamSpec("P")
R = TypeVar("R")


@overload
def public(function: Callable[P, R]) -> Callable[P, R]: ...


@overload
def public(
    *,
    upcast: bool = True,
    keep_dtype: bool = False,
    remat: bool = False,
    masked: bool = False,
    shards_rows: bool = False,
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...


def public(
    function: Callable[..., Any] | None = None,
    *,
    upcast: bool = True,
    keep_dtype: bool = False,
    remat: bool = False,
    masked: bool = False,
    shards_rows: bool = False,
) -> Any:
    """Checks and compiles a function of arrays.

    Args:
        function: The formula. Its arguments arrive as arrays that fit the signature.
        upcast: Whether 16-bit arrays become float32. False leaves them to the formula;
            hyperparameters are float32 or wider in any case.
        keep_dtype: Whether a result of another shape than the first float array is
            rounded to 16 bits too. By default only a result of the same shape is.
        remat: Whether the backward pass saves only the arguments, in their own dtype.
        masked: Whether `where`, which has the shape of the result, is applied here:
            masked entries of the arrays become ½, and those of the result 0.
        shards_rows: Whether the formula is one of all pairs of rows, which the devices
            of a mesh divide among them.
    """
    if function is None:
        return functools.partial(
            public,
            upcast=upcast,
            keep_dtype=keep_dtype,
            remat=remat,
            masked=masked,
            shards_rows=shards_rows,
        )
    contract = Contract(function)

    def body(static: dict[str, Any], traced: dict[str, Any]) -> Any:
        result = function(**contract.upcast(traced, arrays=upcast), **static)  # pyright: ignore[reportCallIssue]
        dtype = contract.float_dtype(traced)
        if contract.reduces and not keep_dtype:
            dtype = compute_dtype(dtype)
        return cast_floats(result, dtype)

    body = _with_mask(contract, body) if masked else body
    return _compile(function, contract, body, remat, shards_rows)


def elementwise(
    *partials: Callable[..., Any], one_loop: bool = True
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """`public`, for an elementwise formula with its partial derivatives.

    The derivatives take the formula's arguments by position. The backward pass saves
    the arguments in their own dtype, or one byte where a derivative is 0 or 1. An
    argument `where` is applied as by `public(masked=True)`, and is none of them.

    A formula with `where` is a loss, of which one takes the mean (`in_one_loop`);
    `one_loop=False` is for those whose few operations XLA:CPU fuses with the mean.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        contract = Contract(function)
        is_loss = "where" in contract.parameters
        names = [name for name in contract.parameters if name != "where"]

        def named(values: tuple) -> dict[str, Any]:
            return dict(zip(names, values, strict=True))

        def upcast(f: Callable[..., Any]) -> Callable[..., Any]:
            def call(*values: Any) -> Any:
                return f(*contract.upcast(named(values)).values())

            return call

        def by_position(*values: Any) -> Any:
            result = function(**named(values))  # pyright: ignore[reportCallIssue]
            return in_one_loop(result) if is_loss and one_loop else result

        formula = with_partials(*map(upcast, partials))(upcast(by_position))

        def body(_: dict[str, Any], traced: dict[str, Any]) -> Any:
            like = next(iter(traced.values()))
            values = (
                broadcast(n, traced[n], like)
                if contract.parameters[n].is_per_element
                else traced[n]
                for n in names
            )
            result = formula(*values)
            return cast_floats(result, contract.float_dtype(traced))

        if is_loss:
            return _compile(function, contract, _with_mask(contract, body))
        return _compile(function, contract, body)

    return decorate


def _with_mask(contract: Contract, body: Callable[[dict, dict], R]) -> Callable:
    """The body, to whose result masked entries of its arguments do not matter."""

    def masked_body(static: dict[str, Any], traced: dict[str, Any]) -> Any:
        if traced["where"] is None:
            return body(static, traced)
        result = body(static, contract.mask_arrays(traced))
        return jax.tree.map(lambda values: apply_mask(values, traced["where"]), result)

    return masked_body


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Checks the ranges of a Python function, and reports errors under its name."""
    contract = Contract(function)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        with reports_as(contract.name):
            contract.check_ranges(contract.bind(args, kwargs))
            return function(*args, **kwargs)

    return call


def factory(function: Callable[P, R]) -> Callable[P, R]:
    """`checked`, for a function that returns functions.

    The functions it returns (a schedule, or `init` and `update`) report invalid input
    under its name too.
    """
    make = checked(function)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return _report_as(function.__name__, make(*args, **kwargs))

    return call


def _compile(
    function: Callable[P, R],
    contract: Contract,
    body: Callable[[dict, dict], R],
    remat: bool = False,
    shards_rows: bool = False,
) -> Callable[P, R]:
    """A body of (static, traced) arguments, checked and compiled."""

    @functools.partial(jax.jit, static_argnames=contract.static_argnames)
    @functools.wraps(function)
    def traced(*args: P.args, **kwargs: P.kwargs) -> R:
        arguments = contract.as_arrays(contract.bind(args, kwargs))
        contract.check(arguments)
        static = {n: arguments.pop(n) for n in contract.static_argnames}
        names = tuple(arguments)
        axis_name = static.get("axis_name")
        check_bound(axis_name)

        def formula(traced: dict[str, Any], axis_name: AxisName | None) -> Any:
            traced = vary_together(traced, axis_name)
            given = {"axis_name": axis_name} if "axis_name" in static else {}
            # in their order: JAX sorts the keys of a dict
            return body(static | given, {name: traced[name] for name in names})

        if remat:
            formula = jax.checkpoint(formula, static_argnums=1, prevent_cse=False)
        return sharding.on_mesh(
            contract, formula, arguments, axis_name, static.get("axis"), shards_rows
        )

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            contract.check_given_ranges(args, kwargs)
            with _debug_nans_of(contract):
                return traced(*args, **kwargs)
        except InvalidArgumentError as invalid:
            raise invalid.error(f"{contract.name}: {invalid}") from None
        except Exception as error:
            if isinstance(error, TypeError | ValueError):  # jit refuses an argument
                with reports_as(contract.name):
                    contract.check_traceable(contract.bind(args, kwargs))
            error.__traceback__ = _without_own_frames(error.__traceback__)
            raise

    return call


def _debug_nans_of(contract: Contract) -> contextlib.AbstractContextManager[Any]:
    """`jax.debug_nans`, off for losses: a label out of range is meant to give NaN."""
    if "labels" in contract.parameters and getattr(jax.config, "jax_debug_nans", 0):
        return jax.debug_nans(False)
    return contextlib.nullcontext()


def _without_own_frames(
    traceback: types.TracebackType | None,
) -> types.TracebackType | None:
    """A traceback with one frame of ours: the user's call, then the formula."""
    frames = []
    while traceback:
        if not frames or traceback.tb_frame.f_code.co_filename not in INTERNAL_FILES:
            frames.append(traceback)
        traceback = traceback.tb_next
    for frame, following in zip(frames, [*frames[1:], None]):
        frame.tb_next = following
    return frames[0] if frames else None


def _report_as(name: str, result: Any) -> Any:
    """A function, or a named tuple of functions, that reports under this name."""
    if isinstance(result, tuple):
        return type(result)(*(_report_as(name, function) for function in result))

    @functools.wraps(result)
    def call(*args: Any, **kwargs: Any) -> Any:
        with reports_as(name):
            return result(*args, **kwargs)

    return call

"""Arguments held against their signature, and refused in one sentence.

The sentence is always `<function>: <argument> must <rule>, got <what>.`
"""

import inspect
import types
import typing
from collections.abc import Hashable

import jax
from beartype.door import is_bearable
from jaxtyping import AbstractArray, jaxtyped

_KINDS = {
    "Float": "a float array",
    "Int": "an integer array",
    "Bool": "a boolean array",
    "Key": "a random key",
}


def check_signature(function: str, arguments: inspect.BoundArguments) -> None:
    """Raises a TypeError for the first argument that its annotation does not admit."""
    accepted: dict[str, object] = {}
    with jaxtyped("context"):
        for name, value in arguments.arguments.items():
            annotation = arguments.signature.parameters[name].annotation
            if not is_bearable(value, annotation):
                beside = _beside(annotation, arguments, accepted)
                refuse(
                    TypeError, function, name, f"be {_rule(annotation)}{beside}", value
                )
            accepted[name] = value


def check_traceable(
    function: str, arguments: inspect.BoundArguments, static: tuple[str, ...]
) -> None:
    """Raises a TypeError for the first argument that JAX cannot take at all."""
    for name, value in arguments.arguments.items():
        rule = _rule(arguments.signature.parameters[name].annotation)
        if name in static:
            if not isinstance(value, Hashable):
                refuse(TypeError, function, name, f"be {rule}", value)
        elif not all(map(_is_traceable, jax.tree.leaves(value))):
            refuse(TypeError, function, name, f"be {rule}", value)


def check_range(
    function: str,
    name: str,
    value: object,
    rule: str,
    holds: typing.Callable[..., bool],
) -> None:
    """Raises unless `value` is one number, for which `holds` if it is still Python's.

    A traced number is not looked at; a function, which is a schedule, and None pass.
    """
    if isinstance(value, int | float):
        if not holds(value):
            refuse(ValueError, function, name, rule, value)
    elif callable(value) or value is None:
        return
    elif not _is_traceable(value) or getattr(value, "shape", ()) != ():
        refuse(TypeError, function, name, "be a number", value)


def _all(rule: str, holds: typing.Callable[..., bool]) -> typing.Callable[..., None]:
    """`check_range` with one rule, for numbers given by name."""

    def check(function: str, **numbers: object) -> None:
        for name, value in numbers.items():
            check_range(function, name, value, rule, holds)

    return check


check_non_negative = _all("be non-negative", lambda v: v >= 0)
check_positive = _all("be positive", lambda v: v > 0)
check_unit = _all("be in [0, 1)", lambda v: 0 <= v < 1)


def check_count(function: str, **numbers: object) -> None:
    """Raises unless what is given by name are whole numbers from 1."""
    for name, value in numbers.items():
        if isinstance(value, float | bool):
            refuse(TypeError, function, name, "be a whole number", value)
        check_range(function, name, value, "be at least 1", lambda v: v >= 1)


def check_axis(function: str, x: jax.Array, axis: int) -> None:
    """Raises a ValueError unless x has this axis."""
    if axis not in range(-x.ndim, x.ndim):
        refuse(ValueError, function, "axis", f"name an axis of {describe(x)}", axis)


def check_pixel_axes(
    function: str, axis: int | tuple[int, ...], array: jax.Array, *, last: bool = False
) -> None:
    """Raises a ValueError unless `axis` names different axes; `last` may be one too."""
    axes = (axis,) if isinstance(axis, int) else axis
    allowed = range(-array.ndim, array.ndim)
    named = {a % array.ndim for a in axes if a in allowed}
    if not last:
        named -= {array.ndim - 1}
    if not axes or len(named) < len(axes):
        rule = f"name different axes of {describe(array)}"
        rule += "" if last else ", not the last"
        refuse(ValueError, function, "axis", rule, axis)


def refuse(
    error: type[Exception], function: str, name: str, rule: str, found: object
) -> typing.NoReturn:
    raise error(f"{function}: {name} must {rule}, got {describe(found)}.")


def describe(value: object) -> str:
    """`float32[3,4]` for an array, the type and a short repr for anything else."""
    if isinstance(value, jax.Array) or hasattr(value, "dtype"):
        shape = ",".join(map(str, getattr(value, "shape", ())))
        return f"{getattr(value, 'dtype', '?')}[{shape}]"
    if value is None or isinstance(value, int | float | complex | str):
        return repr(value)
    if isinstance(value, tuple):
        return f"({', '.join(map(describe, value))})"
    return f"a {type(value).__name__}"


def _is_traceable(leaf: object) -> bool:
    try:
        jax.typeof(leaf)
    except TypeError:
        return False
    return True


def _rule(annotation: object) -> str:
    if float in typing.get_args(annotation):  # a Scalar, or None
        return "a number"
    if _is_array(annotation):
        kind = _KINDS[annotation.__name__.split("[")[0]]
        return f"{kind} of shape [{_dimensions(annotation)}]"
    members = [m for m in typing.get_args(annotation) if m is not type(None)]
    if members and isinstance(annotation, types.UnionType):
        return " or ".join(map(_rule, members))
    return f"of type {getattr(annotation, '__name__', annotation)}"


def _beside(
    annotation: object, arguments: inspect.BoundArguments, accepted: dict[str, object]
) -> str:
    """The first argument before this one that has one of its dimensions."""
    dimensions = set(_dimensions(annotation).split())
    for name, value in accepted.items():
        shape = _dimensions(arguments.signature.parameters[name].annotation)
        if isinstance(value, jax.Array) and dimensions & set(shape.split()):
            return f" where {name} is [{shape}] = {describe(value)}"
    return ""


def _dimensions(annotation: object) -> str:
    members = (annotation, *typing.get_args(annotation))
    return next((member.dim_str for member in members if _is_array(member)), "")


def _is_array(annotation: object) -> typing.TypeGuard[type[AbstractArray]]:
    return isinstance(annotation, type) and issubclass(annotation, AbstractArray)

"""What a signature promises, read once, and the messages of calls that break it.

Annotations give the shape and dtype of each array, the range of each hyperparameter,
and whether an argument is traced (arrays, `Scalar`) or static (everything else).

Every message reads `<function>: <argument> must <requirement>, got <value>.`
"""

import contextlib
import inspect
import itertools
import types
import typing
from collections.abc import Callable, Hashable, Iterator
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from beartype.door import is_bearable
from jax import Array
from jaxtyping import AbstractArray, jaxtyped

from jaxml._core.masking import apply_mask, expand_dims_like
from jaxml._core.types import Range, compute_dtype, result_dtype

_KINDS = {
    "Float": "a float array",
    "Integer": "an integer array",
    "Bool": "a boolean array",
    "Key": "a random key",
}


class InvalidArgumentError(Exception):
    """An invalid argument of a function whose name the decorator adds."""

    def __init__(self, error: type[Exception], message: str) -> None:
        super().__init__(message)
        self.error = error


def raise_invalid(
    error: type[Exception], argument: str, requirement: str, value: object
) -> NoReturn:
    """Raises `error` for an argument, under the name of the public function."""
    message = f"{argument} must {requirement}, got {describe(value)}."
    raise InvalidArgumentError(error, message)


def check_number(argument: str, value: object, range_: Range | None = None) -> None:
    """Raises unless the value is one number, and in range if it is a Python number."""
    if isinstance(value, int | float):
        if range_ and not range_.contains(value):
            raise_invalid(ValueError, argument, range_.requirement, value)
    elif not _is_traceable(value) or getattr(value, "shape", ()):
        raise_invalid(TypeError, argument, "be a number", value)


def broadcast(argument: str, value: Any, like: Array) -> Array:
    """A number, or one for each element, in the shape of the data."""
    array = jnp.asarray(value, compute_dtype(like.dtype))
    if array.ndim <= like.ndim and all(
        k in (1, n) for k, n in zip(array.shape[::-1], like.shape[::-1])
    ):
        return jnp.broadcast_to(array, like.shape)
    requirement = f"have a shape that broadcasts to {describe(like)}"
    raise_invalid(TypeError, argument, requirement, value)


@contextlib.contextmanager
def reports_as(function: str) -> Iterator[None]:
    """Raises what `raise_invalid` raises as an error of this function."""
    try:
        yield
    except InvalidArgumentError as invalid:
        raise invalid.error(f"{function}: {invalid}") from None


def describe(value: object) -> str:
    """`float32[3,4]` for an array, the type or a short repr for anything else."""
    if hasattr(value, "dtype"):
        shape = ",".join(map(str, getattr(value, "shape", ())))
        return f"{getattr(value, 'dtype', '?')}[{shape}]"
    if value is None or isinstance(value, int | float | complex | str):
        return repr(value)
    if isinstance(value, tuple):
        return f"({', '.join(map(describe, value))})"
    return f"a {type(value).__name__}"


class Parameter:
    """What the annotation of one parameter says."""

    def __init__(self, parameter: inspect.Parameter) -> None:
        self.name = parameter.name
        self.annotation = parameter.annotation
        self.range: Range | None = None
        members = list(self._members(parameter.annotation))
        self.arrays = [m for m in members if _is_array(m)]
        self.is_scalar = float in members
        self.is_optional = type(None) in members
        self.takes_schedule = self.is_scalar and any(
            typing.get_origin(m) is not None for m in members
        )
        self.is_static = not (self.arrays or Any in members)
        self.is_per_element = self.is_scalar and "..." in (
            array.dim_str for array in self.arrays
        )

    def _members(self, annotation: Any) -> Iterator[Any]:
        """The members of a union, and the range of an annotated type."""
        if typing.get_origin(annotation) is typing.Annotated:
            annotation, self.range = typing.get_args(annotation)
        if typing.get_origin(annotation) in (typing.Union, types.UnionType):
            for member in typing.get_args(annotation):
                yield from self._members(member)
        else:
            yield annotation

    def admits(self, value: Any) -> bool:
        """Whether the type, shape and dtype fit. Shapes fix the named dimensions."""
        if value is None:
            return self.is_optional
        if self.is_static:
            return is_bearable(value, self.annotation)
        if not self.arrays or (self.is_scalar and isinstance(value, int | float)):
            return True
        return any(isinstance(value, array) for array in self.arrays)

    def check_range(self, value: Any) -> None:
        """Raises unless a hyperparameter is one number, or None, or a schedule."""
        if value is None and self.is_optional:
            return
        if not self.is_scalar and isinstance(value, float | bool):
            raise_invalid(TypeError, self.name, "be a whole number", value)
        is_array = self.is_per_element and hasattr(value, "dtype")
        if not (is_array or (self.takes_schedule and callable(value))):
            check_number(self.name, value, self.range)

    @property
    def dimensions(self) -> str:
        return "" if self.is_scalar or not self.arrays else self.arrays[0].dim_str

    @property
    def is_float_array(self) -> bool:
        return not self.is_scalar and _kind(self.arrays) == "Float"

    @property
    def requirement(self) -> str:
        """Its type as the verb phrase of a message."""
        if self.is_scalar:
            return "be a number"
        if self.arrays:
            kind = _KINDS[_kind(self.arrays)]
            return f"be {kind} of shape [{self.dimensions}]"
        members = [m for m in self._members(self.annotation) if m is not type(None)]
        names = [f"of type {getattr(member, '__name__', member)}" for member in members]
        return f"be {' or '.join(names)}"


class Contract:
    """What the signature of a function promises."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.name = function.__name__
        self.signature = inspect.signature(function)
        self.parameters = {
            name: Parameter(parameter)
            for name, parameter in self.signature.parameters.items()
        }
        self.static_argnames = [n for n, p in self.parameters.items() if p.is_static]
        self.reduces = self._reduces()
        self.ranged = [
            (i, p) for i, p in enumerate(self.parameters.values()) if p.range
        ]

    def bind(self, args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
        """All arguments by name, with defaults."""
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}: {error}.") from None
        bound.apply_defaults()
        return bound.arguments

    def as_arrays(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments with NumPy arrays converted, as `jax.jit` would do.

        A hyperparameter that is a Python number stays one.
        """

        def convert(name: str, value: Any) -> Any:
            parameter = self.parameters[name]
            is_number = parameter.is_scalar and isinstance(value, int | float)
            if parameter.is_static or is_number:
                return value
            return jax.tree.map(
                lambda x: x if isinstance(x, jax.Array) else jnp.asarray(x), value
            )

        return {name: convert(name, value) for name, value in arguments.items()}

    def check(self, arguments: dict[str, Any]) -> None:
        """Raises a TypeError for the first argument that does not fit."""
        with jaxtyped("context"):
            for name, value in arguments.items():
                parameter = self.parameters[name]
                if not parameter.admits(value):
                    where = self._conflicting_argument(parameter, arguments)
                    requirement = f"{parameter.requirement}{where}"
                    raise_invalid(TypeError, name, requirement, value)

    def check_ranges(self, arguments: dict[str, Any]) -> None:
        """Raises for the first hyperparameter that is out of its range."""
        for name, parameter in self.parameters.items():
            if name in arguments and (parameter.range or parameter.is_scalar):
                parameter.check_range(arguments[name])

    def check_given_ranges(self, args: tuple, kwargs: dict[str, Any]) -> None:
        """`check_ranges` for the arguments of a call, which runs on every call."""
        for position, parameter in self.ranged:
            if parameter.name in kwargs:
                parameter.check_range(kwargs[parameter.name])
            elif position < len(args):
                parameter.check_range(args[position])

    def check_traceable(self, arguments: dict[str, Any]) -> None:
        """Raises a TypeError for the first argument that `jax.jit` cannot take."""
        for name, value in arguments.items():
            parameter = self.parameters[name]
            if parameter.is_static:
                is_valid = isinstance(value, Hashable)
            else:
                is_valid = all(map(_is_traceable, jax.tree.leaves(value)))
            if not is_valid:
                raise_invalid(TypeError, name, parameter.requirement, value)

    def float_dtype(self, arguments: dict[str, Any]) -> Any:
        """The dtype that the float arrays promote to; hyperparameters have no say."""
        arrays = [v for n, v in arguments.items() if not self.parameters[n].is_scalar]
        leaves = list(filter(_is_float, jax.tree.leaves(arrays)))
        return result_dtype(*(x.dtype for x in leaves)) if leaves else jnp.float32

    def upcast(self, arguments: dict[str, Any], arrays: bool = True) -> dict[str, Any]:
        """Hyperparameters and float arrays in one dtype, float32 or wider.

        Python's numbers stay known while tracing, so that a formula may omit a term.
        Without `arrays`, only hyperparameters are cast.
        """
        dtype = compute_dtype(self.float_dtype(arguments))

        def cast(name: str, value: Any) -> Any:
            if value is None or not self.parameters[name].is_scalar:
                return cast_floats(value, dtype) if arrays else value
            if isinstance(value, int | float):
                return np.asarray(value, dtype)
            return jnp.asarray(value, dtype)

        return {name: cast(name, value) for name, value in arguments.items()}

    @property
    def result_dimensions(self) -> str:
        result = self._result_array()
        return result.dim_str if result else ""

    def mask_arrays(
        self, arguments: dict[str, Any], fill: float = 0.5
    ) -> dict[str, Any]:
        """The arguments, with `fill` where `where` masks an element or a row.

        It masks the float arrays whose axes begin with those of `where`.
        """
        where = arguments["where"]
        axes = self.parameters["where"].dimensions.split()

        def mask(name: str, value: Any) -> Any:
            parameter = self.parameters[name]
            is_masked = parameter.dimensions.split()[: len(axes)] == axes
            if value is None or not (parameter.is_float_array and is_masked):
                return value
            return apply_mask(value, expand_dims_like(where, value), fill)

        return {name: mask(name, value) for name, value in arguments.items()}

    def _reduces(self) -> bool:
        """Whether the result has another shape than the first float array."""
        arrays = (p.dimensions for p in self.parameters.values() if p.is_float_array)
        is_array = self._result_array() is not None
        return is_array and self.result_dimensions != next(arrays, None)

    def _result_array(self) -> Any:
        """The annotation of the result, or of the first field of a named tuple."""
        result = self.signature.return_annotation
        if isinstance(result, type) and hasattr(result, "_fields"):
            result = next(iter(vars(result).get("__annotations__", {}).values()), None)
        return result if _is_array(result) else None

    def _conflicting_argument(
        self, parameter: Parameter, arguments: dict[str, Any]
    ) -> str:
        """The argument before this one that fixed the dimension that does not fit."""
        lengths = self._lengths(parameter.name, arguments)
        result = ""
        for name in itertools.takewhile(lambda name: name != parameter.name, arguments):
            value, shape = arguments[name], self.parameters[name].dimensions
            others = self._lengths(name, arguments)
            shared = lengths.keys() & others if isinstance(value, jax.Array) else ()
            differs = any(lengths[axis] != others[axis] for axis in shared)
            if differs or (shared and not result):
                result = f" where {name} is [{shape}] = {describe(value)}"
            if differs:
                break
        return result

    def _lengths(self, name: str, arguments: dict[str, Any]) -> dict[str, int | None]:
        """The length of each named axis of an argument, None if it is not known."""
        names = self.parameters[name].dimensions.split()
        shape = getattr(arguments[name], "shape", ())
        if len(shape) != len(names):
            return dict.fromkeys(names)
        return dict(zip(names, shape))


def cast_floats(tree: Any, dtype: Any) -> Any:
    """The tree with its float arrays in this dtype."""
    return jax.tree.map(
        lambda leaf: jnp.asarray(leaf, dtype) if _is_float(leaf) else leaf, tree
    )


def _is_float(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jnp.floating)


def _kind(arrays: list) -> str:
    """The kind of array that an annotation names: "Float" for `Float[Array, "n"]`."""
    return arrays[0].__name__.split("[")[0] if arrays else ""


def _is_array(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, AbstractArray)


def _is_traceable(leaf: object) -> bool:
    try:
        jax.typeof(leaf)
    except TypeError:
        return False
    return True

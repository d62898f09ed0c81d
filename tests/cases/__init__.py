"""The table of cases: one row per public function, one file per chapter.

A row says how to sample the arrays of a function, what the true result is (float64
NumPy, plain loops written from the paper), which hyperparameters vary, and what the
result is at the extremes. `test_contract.py` checks every promise for every row, and
`tests/README.md` explains the fields by an example.
"""

import dataclasses
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

FLOATS = (jnp.float64, jnp.float32, jnp.bfloat16, jnp.float16)


class Extreme(NamedTuple):
    """Arrays and keyword arguments at an extreme, and the result there."""

    arrays: tuple[Any, ...]
    value: Any
    """None: any finite value."""
    keywords: Mapping[str, Any] = {}
    check_grads_of: tuple[int, ...] | None = None
    """Differentiated arrays whose derivatives must be finite; None: all."""


@dataclass(frozen=True, eq=False)
class Case:
    """One row of the table."""

    function: Callable[..., Any]
    sample: Callable[[np.random.Generator], tuple[np.ndarray, ...]]
    """Draws the positional arrays."""
    truth: Callable[..., Any]
    """The true result for these arrays and the keyword arguments, in float64."""
    hyperparams: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """The values of each hyperparameter that the tests vary."""
    static_args: Mapping[str, Any] = field(default_factory=dict)
    """Static keyword arguments of this row, for function and truth."""
    mask: Callable[[np.random.Generator], np.ndarray] | None = None
    """Draws `where`, for functions that take it."""
    masks_result: bool = False
    """Whether `where` has the shape of the result, whose masked entries are 0."""
    extremes: tuple[Extreme, ...] = ()
    dtypes: tuple[Any, ...] = FLOATS
    """The float dtypes that the function takes; if none, no gradient is tested."""
    rtol: float = 1e-12
    """The tolerance in float64."""
    ulps: float = 4.0
    """The tolerance in float32."""
    has_jvp: bool = True
    """False for functions with a reverse-mode rule only."""
    not_differentiated: tuple[int, ...] = ()
    """Positions of float arrays that have no derivative."""
    any_num_rows: tuple[int, ...] = ()
    """Positions of arrays whose first axis may have any length."""
    tol_relative_to_max: bool = False
    """Whether float32 errors are relative to the largest result, not to each."""
    adapter: Callable[..., Any] | None = None
    """Makes a function of arrays of one that is not, or fixes a required argument."""
    id_suffix: str = ""
    """Distinguishes several rows of one function."""

    @property
    def name(self) -> str:
        chapter = self.function.__module__.split(".")[1]
        return f"{chapter}.{self.function.__name__}"

    def __call__(self, *arrays: Any, **keywords: Any) -> jax.Array:
        return (self.adapter or self.function)(*arrays, **self.static_args, **keywords)

    def keeps_dtype(self, result: jax.Array, arrays: tuple) -> bool:
        """Whether a 16-bit result is promised, as for all but reducing losses."""
        is_loss = self.name.startswith("losses.")
        return not is_loss or result.shape == np.shape(arrays[0])

    def expected(self, *arrays: Any, **keywords: Any) -> np.ndarray:
        if self.masks_result and "where" in keywords:
            where = keywords.pop("where")
            return np.where(where, self.expected(*arrays, **keywords), 0.0)
        arrays = tuple(
            np.asarray(a, np.float64) if _is_float(a) else np.asarray(a) for a in arrays
        )
        with np.errstate(all="ignore"):
            return np.asarray(self.truth(*arrays, **self.static_args, **keywords))

    def variations(self) -> list[dict[str, float]]:
        """No hyperparameter given; then all, each at each of its values in turn."""
        first = {name: values[0] for name, values in self.hyperparams.items()}
        return [{}] + [
            first | {name: value}
            for name, values in self.hyperparams.items()
            for value in values
        ]


def _is_float(array: Any) -> bool:
    return jnp.issubdtype(jnp.asarray(array).dtype, jnp.floating)


def cases() -> list[Case]:
    from cases import (
        activations,
        losses,
        matrices,
        mining,
        mining_batches,
        optimizers,
        schedules,
        second_order,
    )

    of_losses = losses, mining, mining_batches, activations
    of_optimizers = optimizers, matrices, second_order
    chapters = *of_losses, *of_optimizers, schedules
    return [with_mask(case) for chapter in chapters for case in chapter.CASES]


def with_mask(case: Case) -> Case:
    """The case with a mask of the result, if its `where` is one."""
    where = inspect.signature(case.function).parameters.get("where")
    if case.mask or where is None or not case.name.startswith("losses."):
        return case
    annotation = typing.get_args(where.annotation)[0]
    if annotation.dim_str not in ("*shape", "*batch"):
        return case
    num_event_axes = 0 if annotation.dim_str == "*shape" else 1

    def mask(rng: np.random.Generator) -> np.ndarray:
        first = case.sample(np.random.default_rng(0))[0]
        return rng.random(first.shape[: first.ndim - num_event_axes]) < 0.6

    return dataclasses.replace(case, mask=mask, masks_result=True)

"""The types that all signatures share, and the dtypes in which formulas run.

A hyperparameter is a `Scalar`: a Python number or a traced one. Its subtypes state the
range, which `_core.public` checks while the value is a Python number. Only a `Rate` may
be a schedule. An `int`, a `tuple`, a `str` or a function is static.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Real


@dataclass(frozen=True)
class Range:
    """A range in words, as in "must be positive", and as a predicate."""

    requirement: str
    contains: Callable[[Any], bool]


Scalar: TypeAlias = float | int | Real[Array, ""]
"""A real number that may be traced, differentiated and swept."""

PerElement: TypeAlias = float | int | Real[Array, "..."]
"""A real number, or one for each element: its shape broadcasts to that of the data."""

Weights: TypeAlias = Annotated[PerElement, Range("be non-negative", lambda x: x >= 0)]
Fractions: TypeAlias = Annotated[
    PerElement, Range("be in [0, 1]", lambda x: 0 <= x <= 1)
]

NonNegative: TypeAlias = Annotated[Scalar, Range("be non-negative", lambda x: x >= 0)]
Positive: TypeAlias = Annotated[Scalar, Range("be positive", lambda x: x > 0)]
UnitInterval: TypeAlias = Annotated[Scalar, Range("be in [0, 1)", lambda x: 0 <= x < 1)]
"""A decay rate: 1 is excluded."""

Fraction: TypeAlias = Annotated[Scalar, Range("be in [0, 1]", lambda x: 0 <= x <= 1)]

Count: TypeAlias = Annotated[int, Range("be at least 1", lambda n: n >= 1)]
"""A static whole number from 1."""

Axes: TypeAlias = int | tuple[int, ...]
"""One axis or several; static."""

AxisName: TypeAlias = str | tuple[str, ...]
"""One mesh axis or several; static."""

Schedule: TypeAlias = Callable[[Array], Array]
"""A number as a function of the step 0, 1, ..."""

Rate: TypeAlias = Annotated[
    Scalar | Schedule, Range("be non-negative", lambda x: x >= 0)
]
"""A learning rate: a number or a schedule."""

DecayRate: TypeAlias = Annotated[
    Scalar | Schedule, Range("be in [0, 1)", lambda x: 0 <= x < 1)
]
"""The decay of an average: a number or a schedule."""

PyTree: TypeAlias = Any
"""Nested containers of arrays."""


def result_dtype(*dtypes: Any) -> Any:
    """The dtype to which these promote, under strict dtype promotion too."""
    with jax.numpy_dtype_promotion("standard"):
        return jnp.result_type(*dtypes)


def compute_dtype(*dtypes: Any) -> Any:
    """The dtype in which a formula of these runs: float32 or wider."""
    return result_dtype(*dtypes, jnp.float32)

"""The types that every chapter spells the same way."""

from collections.abc import Callable
from typing import Any, TypeAlias

from jax import Array
from jaxtyping import Real

Scalar: TypeAlias = float | int | Real[Array, ""]
"""A number that may be traced: no Python `if` looks at it, and a sweep may vary it."""

Schedule: TypeAlias = Callable[[Array], Array]
"""A number as a function of the step, which counts 0, 1, ..."""

Tree: TypeAlias = Any
"""Nested containers of arrays, as JAX understands them."""

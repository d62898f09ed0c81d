"""The table of cases: one row for every public function, one file for every chapter.

A row says how to sample a function's arrays, what their true value is (float64 NumPy,
written from the paper with plain loops), which numbers may vary, and what happens at
the extremes. `test_contract.py` holds every row to every promise.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

FLOATS = (jnp.float64, jnp.float32, jnp.bfloat16, jnp.float16)


class Extreme(NamedTuple):
    """Arrays and keywords at an extreme, and the value there (None: only finite)."""

    arrays: tuple[Any, ...]
    value: Any
    keywords: Mapping[str, Any] = {}
    check_grads_of: tuple[int, ...] | None = (
        None  # arrays with finite derivatives; None: all
    )


@dataclass(frozen=True, eq=False)
class Case:
    function: Callable[..., Any]
    sample: Callable[[np.random.Generator], tuple[np.ndarray, ...]]
    truth: Callable[..., Any]
    hyperparams: Mapping[str, tuple[float, ...]] = field(
        default_factory=dict
    )  # each one's values; defaults first
    static_args: Mapping[str, Any] = field(
        default_factory=dict
    )  # static arguments of this row
    mask: Callable[[np.random.Generator], np.ndarray] | None = None
    extremes: tuple[Extreme, ...] = ()
    dtypes: tuple[Any, ...] = FLOATS
    rtol: float = 1e-12  # of float64
    ulps: float = 4.0  # of float32
    has_jvp: bool = True  # has a forward derivative; tiled functions have none
    not_differentiated: tuple[int, ...] = ()  # arrays that are not differentiated
    any_num_rows: tuple[int, ...] = ()  # arrays of which any number of rows is welcome
    tol_relative_to_max: bool = (
        False  # rounding is relative to the largest result, not to each
    )
    adapter: Callable[..., Any] | None = None  # how the function is made one of arrays
    id_suffix: str = ""

    @property
    def name(self) -> str:
        chapter = self.function.__module__.split(".")[1]
        return f"{chapter}.{self.function.__name__}"

    def __call__(self, *arrays: Any, **numbers: Any) -> jax.Array:
        return (self.adapter or self.function)(*arrays, **self.static_args, **numbers)

    def expected(self, *arrays: Any, **numbers: Any) -> np.ndarray:
        arrays = tuple(
            np.asarray(a, np.float64) if _is_float(a) else np.asarray(a) for a in arrays
        )
        with np.errstate(all="ignore"):
            return np.asarray(self.truth(*arrays, **self.static_args, **numbers))

    def variations(self) -> list[dict[str, float]]:
        """No number given, then all of them, each at each of its values in turn."""
        given = {name: values[0] for name, values in self.hyperparams.items()}
        return [{}] + [
            given | {n: v} for n, values in self.hyperparams.items() for v in values
        ]


def _is_float(array: Any) -> bool:
    return jnp.issubdtype(jnp.asarray(array).dtype, jnp.floating)


def cases() -> list[Case]:
    from cases import activations, losses, mining, optimizers, schedules, second_order

    chapters = losses, mining, activations, optimizers, second_order, schedules
    return [case for chapter in chapters for case in chapter.CASES]

"""Compilation for tests that do not depend on the last bits."""

from collections.abc import Callable
from functools import cache
from typing import Any

import jax


def jit_without_fusion_emitters(function: Callable[..., Any]) -> Any:
    """`jax.jit` with XLA:CPU's older kernels, which compile in half the time."""
    return jax.jit(function, compiler_options=older_kernels())


@cache
def older_kernels() -> dict[str, bool]:
    options = {"xla_cpu_use_fusion_emitters": False}
    try:
        jax.jit(lambda: 0, compiler_options=options)()
    except jax.errors.JaxRuntimeError:  # this jaxlib has only the older kernels
        return {}
    return options

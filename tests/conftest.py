"""The strictest JAX: 64 bits on, no promotion of dtypes or ranks behind one's back."""

from collections.abc import Iterator

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture
def quick_compilation() -> Iterator[None]:
    """For promises that do not hang on the last bits: compiled without optimization."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def compilations() -> Iterator[list[str]]:
    """The compilations since the list was last cleared."""
    seen: list[str] = []

    def listen(event: str, *_: object, **__: object) -> None:
        if "compile" in event:
            seen.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield seen
    jax.monitoring.clear_event_listeners()

"""The strictest JAX: 64 bits, no promotion of dtypes or ranks, eight devices."""

import gc
import itertools
from collections.abc import Iterator

import chex
import jax
import pytest

chex.set_n_cpu_devices(8)
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_enable_compilation_cache", False)
gc.set_threshold(10_000, 20, 100)  # JAX keeps millions of objects, slow to search


@pytest.fixture
def no_xla_optimizations() -> Iterator[None]:
    """Compiles faster, for tests that do not depend on the last bits."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def compilations() -> Iterator[list[str]]:
    """The compilation events since the list was last cleared."""
    events: list[str] = []

    def listen(event: str, *_: object, **__: object) -> None:
        if "compile" in event:
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield events
    jax.monitoring.clear_event_listeners()


TESTS = itertools.count(1)


@pytest.fixture(autouse=True)
def few_programs() -> Iterator[None]:
    """JAX keeps every program, and tests slow down as they accumulate."""
    yield
    if next(TESTS) % 100 == 0:
        jax.clear_caches()
        gc.collect()
        gc.freeze()

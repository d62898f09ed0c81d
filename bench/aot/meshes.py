"""Programs for eight devices: the same losses, with their arrays divided by a mesh.

Each way to divide them is a row: under `jax.jit`, where the compiler communicates, and
inside `jax.shard_map` with `axis_name`, where the loss does.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import PartitionSpec as P

from bench.aot.forms import Program, Sizes, loss
from bench.aot.hardware import Layout
from bench.aot.programs import (
    CLASSES,
    HEAD,
    HEADS,
    IN_BATCH,
    PROXIES,
    VIEWS,
)

ROWS, REPLICATED = P("data"), P()
BY_CLASS, PROXIES_BY_CLASS = P(None, "model"), P("model")


def mesh_programs() -> list[Program]:
    """A row for each usual way to lay out the arrays."""
    vocabulary = (2, 4), ROWS, BY_CLASS, ROWS
    rows_of_heads = ROWS, REPLICATED, ROWS, REPLICATED
    classes_of_heads = (2, 4), ROWS, BY_CLASS, ROWS, BY_CLASS
    return [
        on_mesh("cross_entropy", "rows", CLASSES, (8, 1), ROWS, ROWS),
        on_mesh(
            "cross_entropy", "rows x classes", CLASSES, (2, 4), P("data", "model"), ROWS
        ),
        in_shard_map(
            "cross_entropy", "classes", CLASSES, (2, 4), P("data", "model"), ROWS
        ),
        on_mesh("linear_cross_entropy", "rows", HEAD, (8, 1), ROWS, REPLICATED, ROWS),
        on_mesh("linear_cross_entropy", "FSDP", HEAD, (8, 1), ROWS, ROWS, ROWS),
        on_mesh("linear_cross_entropy", "classes", HEAD, *vocabulary),
        in_shard_map("linear_cross_entropy", "classes", HEAD, *vocabulary),
        on_mesh("linear_log_prob", "rows", HEAD, (8, 1), ROWS, REPLICATED, ROWS),
        in_shard_map("linear_log_prob", "classes", HEAD, *vocabulary),
        on_mesh("linear_kl_divergence", "rows", HEADS, (8, 1), *rows_of_heads),
        in_shard_map("linear_kl_divergence", "classes", HEADS, *classes_of_heads),
        on_mesh("linear_js_divergence", "rows", HEADS, (8, 1), *rows_of_heads),
        in_shard_map("linear_js_divergence", "classes", HEADS, *classes_of_heads),
        *both_ways("info_nce"),
        *both_ways("clip_loss"),
        *both_ways("siglip_loss", scale=10.0, bias=-10.0),
        *both_ways("supcon_loss"),
        *both_ways("batch_hard_triplet_loss"),
        on_mesh("arcface_loss", "rows", PROXIES, (8, 1), ROWS, REPLICATED, ROWS),
        on_mesh(
            "arcface_loss", "classes", PROXIES, (2, 4), ROWS, PROXIES_BY_CLASS, ROWS
        ),
        in_shard_map(
            "arcface_loss", "classes", PROXIES, (2, 4), ROWS, PROXIES_BY_CLASS, ROWS
        ),
        in_shard_map("vicreg_loss", "rows", VIEWS, (8, 1), ROWS, ROWS),
        in_shard_map("barlow_twins_loss", "rows", VIEWS, (8, 1), ROWS, ROWS),
    ]


def both_ways(name: str, **keywords: Any) -> list[Program]:
    """A loss of all pairs in a batch that is divided by eight."""
    arguments = name, "rows", IN_BATCH, (8, 1), ROWS, ROWS
    return [on_mesh(*arguments, **keywords), in_shard_map(*arguments, **keywords)]


def on_mesh(
    name: str,
    suffix: str,
    sizes: Sizes,
    shape: tuple[int, int],
    *specs: P,
    **keywords: Any,
) -> Program:
    """The loss under `jax.jit`, and its gradient for all float arrays."""
    is_labeled = name in ("cross_entropy", "supcon_loss", "batch_hard_triplet_loss")
    argnums = (0,) if is_labeled else (0, 1)
    program = loss(name, sizes, argnums=argnums, suffix=suffix, **keywords)
    return program._replace(layout=Layout(shape, specs))


def in_shard_map(
    name: str,
    suffix: str,
    sizes: Sizes,
    shape: tuple[int, int],
    *specs: P,
    **keywords: Any,
) -> Program:
    """The loss inside `jax.shard_map`, with the axis that its event is divided by."""
    axis_name = "model" if suffix == "classes" else "data"
    is_scalar = name in ("vicreg_loss", "barlow_twins_loss")
    result = REPLICATED if is_scalar else ROWS

    def divided(function: Callable[..., Any]) -> Callable[..., Any]:
        # at each call, because `shard_map` keeps the mesh of its first
        return lambda *arrays: jax.shard_map(
            function, in_specs=specs, out_specs=result
        )(*arrays)

    return on_mesh(
        name,
        f"{suffix} in shard_map",
        sizes,
        shape,
        *specs,
        transform=divided,
        axis_name=axis_name,
        **keywords,
    )

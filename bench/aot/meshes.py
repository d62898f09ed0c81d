"""Programs for eight devices: the same losses, with their arrays divided by a mesh."""

from jax.sharding import PartitionSpec as P

from bench.aot.hardware import Layout
from bench.aot.programs import (
    CLASSES,
    HEAD,
    IN_BATCH,
    PROXIES,
    Program,
    Sizes,
    loss,
)

ROWS, CLASS_BLOCKS = P("data"), P(None, "model")


def mesh_programs() -> list[Program]:
    """A row for each usual way to lay out the arrays."""
    return [
        on_mesh("cross_entropy", "rows", CLASSES, (8, 1), ROWS, ROWS),
        on_mesh(
            "cross_entropy", "rows x classes", CLASSES, (2, 4), P("data", "model"), ROWS
        ),
        on_mesh("linear_cross_entropy", "rows", HEAD, (8, 1), ROWS, P(), ROWS),
        on_mesh("linear_cross_entropy", "FSDP", HEAD, (8, 1), ROWS, ROWS, ROWS),
        on_mesh(
            "linear_cross_entropy", "classes", HEAD, (2, 4), ROWS, CLASS_BLOCKS, ROWS
        ),
        on_mesh("info_nce", "rows", IN_BATCH, (8, 1), ROWS, ROWS),
        on_mesh("clip_loss", "rows", IN_BATCH, (8, 1), ROWS, ROWS),
        on_mesh("siglip_loss", "rows", IN_BATCH, (8, 1), ROWS, ROWS),
        on_mesh("supcon_loss", "rows", IN_BATCH, (8, 1), ROWS, ROWS),
        on_mesh("batch_hard_triplet_loss", "rows", IN_BATCH, (8, 1), ROWS, ROWS),
        on_mesh("arcface_loss", "rows", PROXIES, (8, 1), ROWS, P(), ROWS),
        on_mesh("arcface_loss", "classes", PROXIES, (2, 4), ROWS, P("model"), ROWS),
    ]


def on_mesh(
    name: str, suffix: str, sizes: Sizes, shape: tuple[int, int], *specs: P
) -> Program:
    has_two = name in (
        "linear_cross_entropy",
        "info_nce",
        "clip_loss",
        "siglip_loss",
        "arcface_loss",
    )
    argnums = (0, 1) if has_two else (0,)
    keywords = {"scale": 10.0, "bias": -10.0} if name == "siglip_loss" else {}
    program = loss(name, sizes, argnums=argnums, suffix=suffix, **keywords)
    return program._replace(layout=Layout(shape, specs))

"""Programs for eight devices: the same losses, with their arrays divided by a mesh."""

from jax.sharding import PartitionSpec as P

from bench.aot.hardware import Layout
from bench.aot.programs import CLASSES, HEAD, IN_BATCH, Program, Sizes, loss

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
    ]


def on_mesh(
    name: str, suffix: str, sizes: Sizes, shape: tuple[int, int], *specs: P
) -> Program:
    argnums = (0,) if name == "cross_entropy" else (0, 1)
    program = loss(name, sizes, argnums=argnums, suffix=suffix)
    return program._replace(layout=Layout(shape, specs))

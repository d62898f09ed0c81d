"""Matrix products in a compiled program: their operations, and in what arithmetic."""

import functools
import math
import re

import numpy as np

from bench.aot.hlo import Computation, Instruction

GEMM = re.compile("gemm|matmul", re.IGNORECASE)
"""The targets of custom calls that are products."""


def flops(instruction: Instruction, computation: Computation) -> int:
    """The floating-point operations of a product, 0 for any other instruction."""
    opcode = instruction.opcode
    is_gemm = opcode == "custom-call" and GEMM.search(instruction.attributes)
    if opcode not in ("dot", "convolution") and not is_gemm:
        return 0
    left, right = (computation[o].arrays[0].dims for o in instruction.operands[:2])
    result = instruction.arrays[0].dims
    if opcode == "convolution":
        return 2 * _convolution_products(instruction.attributes, left, right, result)
    key = "lhs_contracting_dims" if opcode == "dot" else "lhs_contracting_dimensions"
    contracted = (left[int(axis)] for axis in instruction.attribute_list(key))
    return 2 * math.prod(result) * math.prod(contracted)


def arithmetic(instruction: Instruction, computation: Computation) -> str:
    """The kind of a product's arithmetic, which decides the speed of the device.

    Either "16-bit", or the name of an algorithm, or "float32" or "mixed" (one factor
    has 16 bits) with the precision, "default", "high" or "highest".
    """
    algorithm = instruction.attribute("algorithm").lower().removeprefix("dot_")
    if algorithm and algorithm != "alg_unset":
        return algorithm
    dtypes = [computation[o].arrays[0].dtype for o in instruction.operands[:2]]
    is_narrow = [dtype in ("bf16", "f16") or "8" in dtype for dtype in dtypes]
    if all(is_narrow):
        return "16-bit"
    stated = instruction.attribute_list("operand_precision")
    precisions = {precision.lower() for precision in stated}
    precision = next((p for p in ("highest", "high") if p in precisions), "default")
    return f"{'mixed' if any(is_narrow) else 'float32'} {precision}"


def _convolution_products(
    attributes: str,
    left: tuple[int, ...],
    right: tuple[int, ...],
    result: tuple[int, ...],
) -> int:
    """The products of numbers in a convolution, without those with padding.

    TPUs compile a matrix product to a convolution, and a batch of products to one whose
    window slides over the batch, where only one position of each window counts.
    """
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", attributes)
    window = re.search(r"window=\{([^}]*)\}", attributes)
    assert labels, "a convolution names its axes"
    fields = dict(field.split("=") for field in window[1].split()) if window else {}
    left_axes, right_axes, result_axes = labels.groups()
    count = right[right_axes.index("i")]
    count *= result[result_axes.index("b")] * result[result_axes.index("f")]
    for axis in range(len(result) - 2):
        of_axis = {name: value.split("x")[axis] for name, value in fields.items()}
        count *= _positions(
            left[left_axes.index(str(axis))],
            right[right_axes.index(str(axis))],
            result[result_axes.index(str(axis))],
            int(of_axis.get("stride", 1)),
            int(of_axis.get("pad", "0_0").split("_")[0]),
            int(of_axis.get("lhs_dilate", 1)),
            int(of_axis.get("rhs_dilate", 1)),
        )
    return count


@functools.cache
def _positions(
    size: int,
    window: int,
    result: int,
    stride: int,
    pad_low: int,
    dilation: int,
    window_dilation: int,
) -> int:
    """The pairs of a result and a window position that meet an element, on one axis."""
    if window == size and result == 1 and pad_low == 0:
        return window  # the axis is contracted
    starts = np.arange(result) * stride - pad_low
    total = 0
    for position in range(window):
        at = starts + position * window_dilation
        is_inside = (at >= 0) & (at <= (size - 1) * dilation)
        total += int(np.sum(is_inside & (at % dilation == 0)))
    return total

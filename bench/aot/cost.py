"""What one run of a compiled program costs: launches, bytes, products, collectives."""

import dataclasses

from bench.aot import products
from bench.aot.hlo import Array, Computation, Instruction, Kernel, Module, parse

COLLECTIVES = {
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
}
SLICES = {"slice", "dynamic-slice", "gather"}
PASS_THROUGH = {"bitcast", "reshape", "transpose", "copy", "convert"}
"""Instructions of a fusion of which a slice needs only a slice of the operand."""


@dataclasses.dataclass(frozen=True)
class Collective:
    operation: str
    times: int
    nbytes: int
    """Bytes of one run, per device."""
    is_in_loop: bool


@dataclasses.dataclass(frozen=True)
class Cost:
    launches: int
    """Kernels, copies and collectives."""
    moved_bytes: int
    """Bytes that the kernels read from the main memory and write to it."""
    flops: dict[str, int]
    """Operations of matrix products, by their arithmetic."""
    collectives: tuple[Collective, ...]
    cycles: int
    """The estimate of the compiler, which only TPUs print."""


def read_cost(text: str) -> Cost:
    """The cost of one run of a compiled program, from its text."""
    module = parse(text)
    launches = moved_bytes = cycles = 0
    flops: dict[str, int] = {}
    collectives = []
    for kernel in module.kernels():
        instruction, times = kernel.instruction, kernel.times
        launches += times
        cycles += times * int(instruction.attribute("estimated_cycles") or 0)
        if instruction.operation in COLLECTIVES:
            collectives.append(_collective(kernel))
            continue
        moved_bytes += times * _moved_bytes(module, kernel)
        for kind, count in _products(module, instruction, kernel.computation):
            flops[kind] = flops.get(kind, 0) + times * count
    return Cost(launches, moved_bytes, flops, tuple(collectives), cycles)


def _products(
    module: Module, instruction: Instruction, computation: Computation
) -> list[tuple[str, int]]:
    """The arithmetic and the operations of each product in a kernel."""
    if instruction.operation == "fusion":
        fused = module.callee(instruction)
        return [pair for i in fused.values() for pair in _products(module, i, fused)]
    count = products.flops(instruction, computation)
    return [(products.arithmetic(instruction, computation), count)] if count else []


def _collective(kernel: Kernel) -> Collective:
    """Its bytes are those that it takes or those that it returns, if they are more."""
    instruction = kernel.instruction
    taken = sum(operand.nbytes for operand in _operands(kernel))
    returned = sum(array.nbytes for array in _results(instruction))
    is_in_loop = kernel.loop_depth > 0
    nbytes = max(taken, returned)
    return Collective(instruction.operation, kernel.times, nbytes, is_in_loop)


def _operands(kernel: Kernel) -> list[Instruction]:
    names = kernel.instruction.operands
    return [kernel.computation[name] for name in names if name in kernel.computation]


# Bytes


def _moved_bytes(module: Module, kernel: Kernel) -> int:
    """The bytes that one run of a kernel reads and writes."""
    instruction, operands = kernel.instruction, _operands(kernel)
    operation = instruction.operation
    if operation == "fusion":
        return _fusion_bytes(module, instruction, operands)
    results = _results(instruction)
    written = sum(array.nbytes for array in results if not array.is_on_chip)
    if operation in SLICES:
        source, size = operands[0], sum(array.nbytes for array in results)
        return min(source.main_memory_bytes, size) + written
    if operation == "dynamic-update-slice":
        update = operands[1]
        return update.main_memory_bytes + min(update.nbytes, written)
    return written + sum(operand.main_memory_bytes for operand in operands)


def _results(instruction: Instruction) -> list[Array]:
    """The arrays that an instruction makes; a start returns its operands too."""
    arrays = instruction.arrays
    if instruction.opcode == "copy-start":
        return arrays[:1]
    if instruction.opcode == instruction.operation:
        return arrays
    count = len(instruction.operands)
    return arrays[count : 2 * count]


def _fusion_bytes(
    module: Module, fusion: Instruction, operands: list[Instruction]
) -> int:
    fused = module.callee(fusion)
    parameters = {
        int(i.operands[0]): i for i in fused.values() if i.opcode == "parameter"
    }
    moved = 0
    for number, operand in enumerate(operands):
        if parameter := parameters.get(number):
            num_read = _elements_read(module, fused, parameter)
            fraction = num_read / max(1, parameter.size)
            moved += min(operand.main_memory_bytes, round(fraction * parameter.nbytes))
    root = next(i for i in fused.values() if i.is_root)
    return moved + min(fusion.main_memory_bytes, _bytes_written(fused, root))


def _elements_read(module: Module, fused: Computation, source: Instruction) -> int:
    """How many elements of an instruction the other instructions of a fusion read."""
    count = 0
    for user in fused.values():
        if source.name not in user.operands:
            continue
        is_source = [name == source.name for name in user.operands]
        is_only_first = is_source[0] and sum(is_source) == 1
        if user.opcode in PASS_THROUGH:
            count += _elements_read(module, fused, user)
        elif user.opcode in SLICES and is_only_first:
            count += user.size
        elif user.opcode == "scatter" and is_only_first:
            count += fused[user.operands[2]].size
        elif user.opcode == "fusion":
            inner = module.callee(user)
            count += sum(
                _elements_read(module, inner, i)
                for i in inner.values()
                if i.opcode == "parameter" and is_source[int(i.operands[0])]
            )
        elif user.opcode != "dynamic-update-slice" or not is_only_first:
            return source.size  # an update in place reads nothing
    if source.is_root:
        return source.size
    return min(count, source.size)


def _bytes_written(fused: Computation, root: Instruction) -> int:
    """The bytes of a fusion's result that it writes: its updates, or everything."""
    if root.opcode == "tuple":
        return sum(_bytes_written(fused, fused[name]) for name in root.operands)
    if root.opcode in ("bitcast", "reshape") and root.operands[0] in fused:
        return min(root.nbytes, _bytes_written(fused, fused[root.operands[0]]))
    if root.opcode == "dynamic-update-slice":
        return fused[root.operands[1]].nbytes
    if root.opcode == "scatter":
        return fused[root.operands[2]].nbytes
    return root.nbytes

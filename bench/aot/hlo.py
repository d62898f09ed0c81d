"""Reads the text of a compiled program: which kernels it runs, and how often.

XLA prints a compiled program as computations of instructions (HLO). An instruction of
the entry computation, or of a loop or branch that it calls, is a kernel; a fusion is
one kernel, whatever its computation holds. All branches of a conditional count, and a
loop whose trip count is not in the text counts once.
"""

import dataclasses
import math
import re
from collections.abc import Iterator

BYTES = {"pred": 1, "bf16": 2, "c64": 8, "c128": 16, "token": 0}
"""Bytes of the types whose names do not begin with a letter and a number of bits."""
ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,]*)\](\{[^}]*\})?")
ON_CHIP = re.compile(r"S\([1-9]\d*\)")
"""The mark, in a layout, of an array that is not in the main memory."""
COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) .*\{$")
INSTRUCTION = re.compile(
    r"\s+(?P<root>ROOT )?%?(?P<name>[\w.\-]+) = "
    r"(?P<shape>\(.*?\)|\S+) (?P<opcode>[a-z][\w\-]*)\((?P<rest>.*)"
)
COMMENT = re.compile(r"/\*.*?\*/")

CALLED = {"while": "body", "call": "to_apply", "async-start": "calls"}
"""The attribute with the computation that an instruction runs, kernel by kernel."""
RUNS_NOTHING = {
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "after-all",
    "add-dependency",
    "opt-barrier",
    "partition-id",
    "replica-id",
}


@dataclasses.dataclass(frozen=True)
class Array:
    dtype: str
    dims: tuple[int, ...]
    is_on_chip: bool

    @property
    def size(self) -> int:
        return math.prod(self.dims)

    @property
    def nbytes(self) -> int:
        bits = re.match(r"[suf](\d+)", self.dtype)
        itemsize = max(1, int(bits[1]) // 8) if bits else BYTES.get(self.dtype, 1)
        return itemsize * self.size


@dataclasses.dataclass(frozen=True)
class Instruction:
    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    """Names of instructions; the number of a parameter; the value of a constant."""
    attributes: str
    is_root: bool

    @property
    def operation(self) -> str:
        """The opcode; of an asynchronous start, what it starts."""
        return self.opcode.removesuffix("-start")

    @property
    def arrays(self) -> list[Array]:
        """The result, or the elements of a result that is a tuple."""
        return [
            Array(
                dtype,
                tuple(int(d) for d in dims.split(",") if d),
                bool(ON_CHIP.search(layout)),
            )
            for dtype, dims, layout in ARRAY.findall(self.shape)
        ]

    @property
    def size(self) -> int:
        return sum(array.size for array in self.arrays)

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays)

    @property
    def main_memory_bytes(self) -> int:
        return sum(array.nbytes for array in self.arrays if not array.is_on_chip)

    def attribute(self, key: str) -> str:
        """The value of `key=value` or `"key":"value"`, empty if there is none."""
        found = re.search(rf'\b{key}(?:=|":)"?%?([\w.\-]+)', self.attributes)
        return found[1] if found else ""

    def attribute_list(self, key: str) -> list[str]:
        """The values of `key={a, b}` or `"key":["a", "b"]`."""
        found = re.search(rf'\b{key}(?:=\{{|":\[)([^}}\]]*)', self.attributes)
        return re.findall(r"[\w.\-]+", found[1]) if found else []


Computation = dict[str, Instruction]


@dataclasses.dataclass(frozen=True)
class Kernel:
    instruction: Instruction
    computation: Computation
    """The computation that the instruction is part of."""
    times: int
    """How often the kernel runs in one run of the program."""
    loop_depth: int


@dataclasses.dataclass(frozen=True)
class Module:
    """The computations of a compiled program."""

    computations: dict[str, Computation]
    entry: str

    def kernels(self) -> Iterator[Kernel]:
        """All that runs, in the order of the text."""
        return self._kernels_of(self.entry, 1, 0)

    def callee(self, instruction: Instruction) -> Computation:
        """The computation of a fusion."""
        return self.computations[instruction.attribute("calls")]

    def num_decisions(self) -> int:
        """Branches, and loops whose trip count the compiler does not know."""
        return sum(
            instruction.opcode == "conditional"
            or (instruction.opcode == "while" and not self._known_trips(instruction))
            for computation in self.computations.values()
            for instruction in computation.values()
        )

    def _kernels_of(self, name: str, times: int, loop_depth: int) -> Iterator[Kernel]:
        computation = self.computations[name]
        for instruction in computation.values():
            opcode = instruction.opcode
            if opcode == "conditional":
                for branch in _branches(instruction):
                    yield from self._kernels_of(branch, times, loop_depth)
            elif opcode in CALLED:
                callee = instruction.attribute(CALLED[opcode])
                is_loop = opcode == "while"
                trips = self.trip_count(instruction) if is_loop else 1
                yield from self._kernels_of(callee, trips * times, loop_depth + is_loop)
            elif opcode not in RUNS_NOTHING and not opcode.endswith(
                ("-done", "-update")
            ):
                yield Kernel(instruction, computation, times, loop_depth)

    def trip_count(self, loop: Instruction) -> int:
        """The iterations of a loop; 1 if the text does not say.

        Without a note of the compiler, a loop is taken to count from 0 to the only
        positive integer in its condition.
        """
        if known := self._known_trips(loop):
            return int(known[1])
        bounds = self._positive_integers(loop.attribute("condition"))
        return math.ceil(bounds.pop() / self._step(loop)) if len(bounds) == 1 else 1

    def _step(self, loop: Instruction) -> int:
        """By how much the counter of a loop grows; 1 if the text does not say."""
        condition = self.computations[loop.attribute("condition")].values()
        body = self.computations[loop.attribute("body")]
        counters = [i for i in condition if i.opcode == "get-tuple-element"]
        (root,) = (instruction for instruction in body.values() if instruction.is_root)
        if len(counters) != 1 or root.opcode != "tuple":
            return 1
        new_counter = body[root.operands[int(counters[0].attribute("index"))]]
        if new_counter.opcode != "add":
            return 1
        constants = [body[name] for name in new_counter.operands if name in body]
        steps = [c.operands[0] for c in constants if c.opcode == "constant"]
        return int(steps[0]) if steps and steps[0].isdigit() else 1

    def _known_trips(self, loop: Instruction) -> re.Match[str] | None:
        return re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes)

    def _positive_integers(self, name: str) -> set[int]:
        result = set()
        for instruction in self.computations[name].values():
            if instruction.opcode == "fusion":
                result |= self._positive_integers(instruction.attribute("calls"))
            elif instruction.opcode == "constant":
                (value,) = instruction.operands
                result |= {int(value)} if re.fullmatch(r"[1-9]\d*", value) else set()
        return result


def parse(text: str) -> Module:
    computations: dict[str, Computation] = {}
    computation: Computation = {}
    entry = ""
    for line in text.splitlines():
        line = COMMENT.sub("", line)
        if header := COMPUTATION.match(line):
            computation = computations[header[2]] = {}
            entry = header[2] if header[1] else entry
        elif found := INSTRUCTION.match(line):
            instruction = _instruction(found)
            computation[instruction.name] = instruction
    return Module(computations, entry)


def _instruction(found: re.Match[str]) -> Instruction:
    inside, attributes = _split_at_closing_parenthesis(found["rest"])
    is_literal = found["opcode"] in ("parameter", "constant")
    names = (inside.strip(),) if is_literal else re.findall(r"%([\w.\-]+)", inside)
    return Instruction(
        found["name"],
        found["shape"],
        found["opcode"],
        tuple(names),
        attributes,
        bool(found["root"]),
    )


def _split_at_closing_parenthesis(text: str) -> tuple[str, str]:
    depth = 1
    for position, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return text[:position], text[position + 1 :]
    return text, ""


def _branches(conditional: Instruction) -> list[str]:
    pair = "true_computation", "false_computation"
    return conditional.attribute_list("branch_computations") or [
        conditional.attribute(key) for key in pair
    ]

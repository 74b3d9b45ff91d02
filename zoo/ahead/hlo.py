"""What the text of a compiled program says: loops, products, traffic between chips and with the host."""

import math
import re
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import numpy as np

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
# What reads or writes a program's memory by itself, beside what only names other results' memory.
FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "while", "partition-id"}
SLICES = {"slice", "dynamic-slice", "gather"}


class Instruction(NamedTuple):
    """One line: what it makes, by which operation, out of what."""

    name: str
    shape: str
    operation: str
    operands: tuple[str, ...]
    attributes: str


class Collective(NamedTuple):
    """Chips that exchange something: how many times a program does it, with how many bytes of each, in which groups."""

    kind: str
    times: int
    bytes: int
    group: int

    @property
    def sent(self) -> float:
        """Bytes that a chip sends each time, going around in a ring."""
        others = self.group - 1
        shares = {"all-reduce": 2 * others / self.group, "all-gather": others, "collective-permute": 1}
        return self.bytes * shares.get(self.kind, others / self.group)


class Cost(NamedTuple):
    """Floating-point operations of products, and bytes of memory that are read or written."""

    flops: float
    bytes: float


class Program:
    """A compiled program, read from its text.

    Args:
        text: What compiled.as_text() gives.

    Source: github.com/openxla/xla, docs/operation_semantics.md.
    """

    def __init__(self, text: str):
        self.text = text
        self.computations: dict[str, dict[str, Instruction]] = {}
        for line in text.splitlines():
            if line.endswith("{") and (found := re.match(r"(ENTRY )?%?([\w.-]+) \(", line)):
                computation: dict[str, Instruction] = {}
                self.computations[found[2]] = computation
                if found[1]:
                    self.entry = found[2]
            elif found := re.match(r"\s+(?:ROOT )?%?([\w.-]+) = ", line):
                instruction = _read(found[1], line[found.end() :])
                computation[instruction.name] = instruction

    @property
    def host_transfers(self) -> list[str]:
        """Names of instructions that exchange something with the host while the program runs."""
        found = []
        for computation in self.computations.values():
            for x in computation.values():
                to_host = x.operation.removesuffix("-done") in ("infeed", "outfeed")
                to_host |= "is_host_transfer=true" in x.attributes or "S(5)" in x.shape
                to_host |= bool(re.search(r'custom_call_target="\w*(callback|[Hh]ost)', x.attributes))
                found += [x.name] if to_host else []
        return found

    @property
    def collectives(self) -> list[Collective]:
        """What chips exchange."""
        found = []
        for computation, turns in self._running(self.entry, 1):
            for x in self.computations[computation].values():
                kind = x.operation.removesuffix("-start")
                if kind in COLLECTIVES:
                    size = sum(_bytes(self.computations[computation][name].shape) for name in x.operands)
                    found.append(Collective(kind, turns, size, _group(x.attributes)))
        return found

    @property
    def products(self) -> float:
        """Floating-point operations of products, in loops turn by turn."""
        return sum(turns * self._cost(name).flops for name, turns in self._running(self.entry, 1))

    @property
    def further_turns(self) -> Cost:
        """What loops cost beyond their first turns, where the program says how many there are."""
        costs = [(self._cost(name), turns - 1) for name, turns in self._running(self.entry, 1)]
        return Cost(*(sum(turns * cost[i] for cost, turns in costs) for i in range(2)))

    def _running(self, name: str, turns: int) -> Iterator[tuple[str, int]]:
        """Yields a computation and those that it runs in loops and branches, each with the times it runs."""
        yield name, turns
        for x in self.computations[name].values():
            if x.operation == "while":
                inside = turns * self._turns(x, self.computations[name])
                for role in ("condition", "body"):
                    yield from self._running(_called(x, role), inside)
            elif x.operation in ("conditional", "call", "async-start"):
                for branch in _branches(x):
                    yield from self._running(branch, turns)

    def _turns(self, loop: Instruction, around: dict[str, Instruction]) -> int:
        """How often a loop turns that counts up to a number; 1 where its end depends on data."""
        body, condition = (self.computations[_called(loop, role)] for role in ("body", "condition"))
        initial = around[loop.operands[0]].operands
        compared = [x for x in condition.values() if x.operation not in ("parameter", "get-tuple-element", "constant")]
        if len(compared) != 1:
            return 1
        (test,) = compared
        sides = [condition[name] for name in test.operands]
        if test.operation == "fusion":
            inside = self.computations[_called(test, "calls")]
            (test,) = (x for x in inside.values() if x.operation not in ("parameter", "constant"))
            inner = [inside[name] for name in test.operands]
            sides = [sides[int(x.operands[0])] if x.operation == "parameter" else x for x in inner]
        counter, limit = sides if len(sides) == 2 else (test, test)
        if "direction=LT" not in test.attributes or counter.operation != "get-tuple-element":
            return 1

        def original(x: Instruction, computation: dict[str, Instruction]) -> Instruction:
            while x.operation in ("copy", "bitcast"):
                x = computation[x.operands[0]]
            return x

        def number(x: Instruction, computation: dict[str, Instruction]) -> int | None:
            x = original(x, computation)
            if x.operation == "get-tuple-element" and computation is not around:  # what every turn hands on
                return number(around[initial[_index(x)]], around)
            return int(x.operands[0]) if x.operation == "constant" else None

        place = _index(counter)
        start, end = number(around[initial[place]], around), number(limit, condition)
        (handed_on,) = (x for x in body.values() if x.operation == "tuple" and len(x.operands) == len(initial))
        counted = body[handed_on.operands[place]]
        added = [original(body[name], body) for name in counted.operands if counted.operation == "add"]
        steps = [number(x, body) for x in added if x.operation != "get-tuple-element" or _index(x) != place]
        return 1 if start is None or end is None else -(-(end - start) // ((steps and steps[0]) or 1))

    def _cost(self, name: str) -> Cost:
        """What one run of a computation costs, without the loops and branches in it."""
        computation = self.computations[name]
        traffic = 0
        for x in computation.values():
            if x.operation not in FREE and not x.operation.endswith("-done"):
                traffic += self._traffic(x, computation)
        return Cost(self._products(computation), traffic)

    def _products(self, computation: dict[str, Instruction]) -> float:
        fused = (_called(x, "calls") for x in computation.values() if x.operation == "fusion")
        own = sum(_flops(x, computation) for x in computation.values())
        return own + sum(self._products(self.computations[name]) for name in fused)

    def _traffic(self, x: Instruction, computation: dict[str, Instruction]) -> int:
        """Bytes that an instruction reads and writes: of what it slices, or updates in place, only that part."""
        operands = [_bytes(computation[name].shape) for name in x.operands if name in computation]
        result = _bytes(x.shape)
        if x.operation in SLICES:
            return 2 * result
        if x.operation == "dynamic-update-slice":
            return 2 * operands[1]
        if x.operation == "fusion":
            inside = self.computations[_called(x, "calls")]
            parameters = sorted(
                (y for y in inside.values() if y.operation == "parameter"), key=lambda y: int(y.operands[0])
            )
            for i, parameter in enumerate(parameters):
                users = [y for y in inside.values() if parameter.name in y.operands]
                first = all(y.operands[0] == parameter.name for y in users)
                if first and all(y.operation in SLICES for y in users):
                    operands[i] = sum(_bytes(y.shape) for y in users)
                if first and all(y.operation == "dynamic-update-slice" for y in users):
                    operands[i] = 0
                    result -= sum(_bytes(y.shape) - _bytes(inside[y.operands[1]].shape) for y in users)
        return sum(operands) + result


def _read(name: str, rest: str) -> Instruction:
    """Reads what stands behind "name = ": a shape, an operation and its operands in parentheses, attributes."""
    end = _closing(rest) if rest.startswith("(") else rest.index(" ")
    shape, rest = rest[:end], rest[end:].lstrip()
    operation, _, rest = rest.partition("(")
    end = _closing("(" + rest) - 1
    inside, attributes = rest[: end - 1], rest[end:]
    operands = re.findall(r"%([\w.-]+)", inside)
    return Instruction(name, shape, operation, tuple(operands or [inside]), attributes)


def _closing(text: str) -> int:
    """The place behind the parenthesis that closes the one which `text` begins with."""
    depth = 0
    for found in re.finditer(r"[()]", text):
        depth += 1 if found[0] == "(" else -1
        if not depth:
            return found.end()
    raise ValueError(f"no closing parenthesis: {text[:80]}")


def _attribute(x: Instruction, pattern: str) -> str:
    """What a pattern's group finds among an instruction's attributes; nothing where it does not."""
    found = re.search(pattern, x.attributes)
    return found[1] if found else ""


def _called(x: Instruction, role: str) -> str:
    return _attribute(x, rf"{role}=%?([\w.-]+)")


def _index(x: Instruction) -> int:
    return int(_attribute(x, r"index=(\d+)"))


def _branches(x: Instruction) -> list[str]:
    """The computations that a branch, or a call, may run."""
    roles = r"(?:branch_computations|true_computation|false_computation|calls|to_apply)"
    found = re.findall(rf"{roles}=(\{{[^}}]*\}}|%[\w.-]+)", x.attributes)
    return re.findall(r"%([\w.-]+)", " ".join(found))


def _arrays(shape: str) -> list[tuple[str, list[int]]]:
    """The types and sizes of an array, or of a tuple's arrays."""
    return [(kind, [int(n) for n in sizes.split(",") if n]) for kind, sizes in re.findall(r"(\w+)\[([\d,]*)\]", shape)]


def _bytes(shape: str) -> int:
    total = 0
    for kind, sizes in _arrays(shape):
        bits = 8 if kind == "pred" else int((re.findall(r"\d+", kind) or [0])[0])
        total += math.prod(sizes) * bits // 8
    return total


def _flops(x: Instruction, computation: dict[str, Instruction]) -> float:
    """Operations of a product: a multiplication and an addition for each pair of numbers that meet."""
    if x.operation not in ("dot", "convolution"):
        return 0.0
    ((_, result),) = _arrays(x.shape)
    (_, left), (_, right) = (_arrays(computation[name].shape)[0] for name in x.operands)
    if x.operation == "dot":
        summed = _attribute(x, r"lhs_contracting_dims=\{([\d,]*)\}")
        return 2.0 * math.prod(result) * math.prod(left[int(i)] for i in summed.split(",") if i)
    labels = _attribute(x, r"dim_labels=([\w>-]+)").replace("->", "_")
    inputs, kernel, outputs = labels.split("_")
    flops = 2.0 * result[outputs.index("b")] * result[outputs.index("f")] * right[kernel.index("i")]
    window = dict(re.findall(r"(\w+)=([\dx_-]+)", _attribute(x, r"window=\{([^}]*)\}")))
    usual = {"pad": 0, "stride": 1, "lhs_dilate": 1, "rhs_dilate": 1}
    for d in range(len(inputs) - 2):
        sizes = left[inputs.index(str(d))], right[kernel.index(str(d))], result[outputs.index(str(d))]
        given = [int(window[k].split("x")[d].split("_")[0]) if k in window else usual[k] for k in usual]
        flops *= _meetings(*sizes, *given)
    return flops


@cache
def _meetings(size: int, window: int, outputs: int, before: int, stride: int, spread: int, apart: int) -> int:
    """How many places of a window, over all outputs along one dimension, lie on numbers and not beside or between."""
    places = stride * np.arange(outputs)[:, None] + apart * np.arange(window) - before
    return int(np.count_nonzero((places >= 0) & (places <= (size - 1) * spread) & (places % spread == 0)))


def _group(attributes: str) -> int:
    """How many chips exchange something with one another."""
    if named := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", attributes):
        axes = dict(re.findall(r"'(\w+)'=(\d+)", named[1]))
        return math.prod(int(axes[axis]) for axis in re.findall(r"'(\w+)'", named[2]))
    if counted := re.search(r"replica_groups=\[\d+,(\d+)\]", attributes):
        return int(counted[1])
    if listed := re.search(r"replica_groups=\{\{([\d,]*)\}", attributes):
        return len(listed[1].split(","))
    return 2  # a permutation: each chip hears from one other

"""Machine code of kernels (SASS) as `nvdisasm` prints it: instructions, basic blocks, loops."""

import math
import re
from collections.abc import Callable, Iterator
from functools import cached_property
from operator import itemgetter
from typing import NamedTuple

_SECTION = re.compile(r"^\t\.section\t\.text\.(\w+),", re.MULTILINE)
_MAX_THREADS = re.compile(r"EIATTR_MAX_THREADS.*?\.word\s+(\w+).*?\.word\s+(\w+).*?\.word\s+(\w+)", re.DOTALL)
_LINE = re.compile(
    r"^(?:(?P<label>[.$][\w.$]+):|\s+/\*[0-9a-f]{4,}\*/\s+(?:@(?P<guard>!?U?P\w+)\s+)?(?P<opcode>[A-Z][\w.]*)(?P<operands>[^;]*);)",
    re.MULTILINE,
)
_LABEL = re.compile(r"(\.L_x_\d+)")
_REGISTER = re.compile(r"\bU?R(?:\d+|Z)\b")
_RESULT = re.compile(r"(?:U?P[\dT]\s*,\s*)*U?R(?:\d+|Z)\b")
_NO_RESULT = (
    "ST",
    "RED",
    "BR",
    "BAR",
    "MEMBAR",
    "CALL",
    "RET",
    "WARPSYNC",
    "NANOSLEEP",
    "LDGSTS",
    "CCTL",
    "FCHK",
    "R2P",
)
_ENDS = ("EXIT", "RET", "KILL")


class Instruction(NamedTuple):
    """One instruction. `guard`: the predicate that it depends on, or an empty string."""

    guard: str
    opcode: str
    operands: str

    @property
    def name(self) -> str:
        """The opcode without what follows its first dot."""
        return self.opcode.partition(".")[0]

    @property
    def targets(self) -> list[str]:
        """Labels that a branch may go to, but for BRA.DIV, which leaves the way that whole warps take."""
        if self.opcode == "BRA.DIV":
            return []
        return _LABEL.findall(self.operands) if self.name in ("BRA", "BRX", "JMP") else []

    @property
    def goes_on(self) -> bool:
        """True if the next instruction may be the one that follows."""
        if self.guard:
            return True
        if self.name in _ENDS or self.name in ("BRX", "JMP"):
            return False
        return self.name != "BRA" or "," in self.operands  # with a condition as its first operand

    @property
    def sources(self) -> list[str]:
        """Registers that it reads."""
        return self._registers[len(self.results[:1]) :]

    @property
    def results(self) -> list[str]:
        """Registers that it writes: the first one and, of wide loads, its neighbours."""
        if self.name.startswith(_NO_RESULT) or "SETP" in self.name or not _RESULT.match(self.operands):
            return []
        first = self._registers[0]
        if not self.name.startswith("LD") or not first[1:].isdigit():
            return [first]
        parts = self.opcode.split(".")
        width = next((bits // 32 for bits in (64, 128, 256) if str(bits) in parts), 1)
        return [f"R{int(first[1:]) + place}" for place in range(width)]

    @property
    def _registers(self) -> list[str]:
        return _REGISTER.findall(self.operands)


class Block(NamedTuple):
    """A basic block, and the numbers of those that may follow."""

    instructions: list[Instruction]
    successors: list[int]


class Kernel(NamedTuple):
    """A kernel's code. `threads`: the most of a thread block, 0 where it is not bounded."""

    name: str
    threads: int
    flow: "Flow"


class Flow(list[Block]):
    """The basic blocks of a kernel; the first is its entry."""

    @cached_property
    def order(self) -> list[int]:
        """Blocks that the entry reaches, each after its predecessors but for those of loops: reverse postorder."""
        seen, finished = {0}, []
        stack = [(0, iter(self[0].successors))]
        while stack:
            rest = stack[-1][1]
            following = next((peer for peer in rest if peer not in seen), None)
            if following is None:
                finished.append(stack.pop()[0])
            else:
                seen.add(following)
                stack.append((following, iter(self[following].successors)))
        return finished[::-1]

    @cached_property
    def predecessors(self) -> dict[int, list[int]]:
        """Blocks before each block that the entry reaches."""
        found: dict[int, list[int]] = {number: [] for number in self.order}
        for number in self.order:
            for following in self[number].successors:
                found[following].append(number)
        return found

    @cached_property
    def loops(self) -> dict[int, set[int]]:
        """The natural loops: the number of a loop's first block to those of all its blocks."""
        found: dict[int, set[int]] = {}
        for number in self.order:
            for first in set(self[number].successors) & self._dominators[number]:
                body = found.setdefault(first, {first})
                waiting = [number]
                while waiting:
                    if (block := waiting.pop()) not in body:
                        body.add(block)
                        waiting += self.predecessors[block]
        return found

    def own_blocks(self) -> Iterator[tuple[int, set[int]]]:
        """Yields the first block of each loop, and the blocks of it that are not in a loop inside it."""
        for first, body in self.loops.items():
            inner = (other for start, other in self.loops.items() if start in body and start != first)
            yield first, body - set[int]().union(*inner)

    def code(self, blocks: set[int]) -> list[Instruction]:
        """Returns the instructions of `blocks`."""
        return [instruction for number in sorted(blocks) for instruction in self[number].instructions]

    def best_way(self, first: int, own: set[int], value: Callable[[Instruction], int]) -> list[Instruction]:
        """Returns the instructions on the way round a loop whose values sum to most; only those of its `own` blocks count."""
        places = {number: place for place, number in enumerate(self.order)}
        values = {number: sum(map(value, self[number].instructions)) if number in own else 0 for number in self.order}
        best = {first: (values[first], frozenset({first}))}
        for number in sorted(self.loops[first] - {first}, key=places.__getitem__):
            before = [
                best[peer] for peer in self.predecessors[number] if peer in best and places[peer] < places[number]
            ]
            if before:
                total, way = max(before, key=itemgetter(0))
                best[number] = total + values[number], way | {number}
        ends = [found for number, found in best.items() if first in self[number].successors]
        return self.code(set(max(ends, key=itemgetter(0))[1]) & own)

    @cached_property
    def _dominators(self) -> dict[int, set[int]]:
        """Blocks on every way from the entry to a block, itself included."""
        everything = set(self.order)
        found = {number: everything if number else {0} for number in self.order}
        changed = True
        while changed:
            changed = False
            for number in self.order[1:]:
                now = {number} | set.intersection(*(found[before] for before in self.predecessors[number]))
                changed |= now != found[number]
                found[number] = now
        return found


def kernels(text: str) -> list[Kernel]:
    """Returns the kernels in the output of `nvdisasm`."""
    threads = {}
    for part in text.split("\t.section\t.nv.info.")[1:]:
        if found := _MAX_THREADS.search(part.partition("\t.section\t")[0]):
            threads[part.partition(",")[0]] = math.prod(int(word, 16) for word in found.groups())
    parts = _SECTION.split(text)
    return [
        Kernel(name, threads.get(name, 0), _flow(code)) for name, code in zip(parts[1::2], parts[2::2], strict=True)
    ]


def _flow(code: str) -> Flow:
    """Cuts code at labels that branches go to, and after branches."""
    labels: dict[str, int] = {}
    instructions: list[Instruction] = []
    for match in _LINE.finditer(code):
        if match["label"]:
            labels[match["label"]] = len(instructions)
        else:
            instructions.append(Instruction(match["guard"] or "", match["opcode"], match["operands"].strip()))
    wanted = {labels[target] for one in instructions for target in one.targets}
    ends = {place for place, one in enumerate(instructions, start=1) if one.targets or not one.goes_on}
    starts = sorted({0} | {place for place in wanted | ends if place < len(instructions)})
    numbers = {start: number for number, start in enumerate(starts)}
    blocks = Flow()
    for start, end in zip(starts, [*starts[1:], len(instructions)], strict=True):
        last = instructions[end - 1]
        following = [labels[target] for target in last.targets] + ([end] if last.goes_on else [])
        blocks.append(Block(instructions[start:end], [numbers[place] for place in following if place in numbers]))
    return blocks

"""Costs of a kernel that its machine code shows: the mix of the inner loop, waits for global memory, fences."""

from collections import Counter
from typing import NamedTuple

from tools.sass import Flow, Instruction

ARITHMETIC = {"HGMMA": 4096, "HMMA": 64, "FFMA": 1, "FADD": 1, "FMUL": 1, "DFMA": 1, "DADD": 1, "DMUL": 1}
"""Weights of a warp's instructions in the choice of the loop with most arithmetic: about their multiplications."""
MULTIPLY_ADDS = ("HGMMA", "HMMA", "FFMA")
SHARED_LOADS = ("LDS", "LDSM")
GLOBAL_LOADS = ("LDG", "LDGSTS", "LD", "UBLKCP", "UTMALDG")
ANSWERED = ("LDG", "LD", "ATOMG", "ATOM")
"""Accesses of global memory whose result a register takes."""


class InnerLoop(NamedTuple):
    """The way round the loop with most arithmetic that has most multiply-adds, then most copies of 16 bytes, then fewest
    instructions; without loops inside it. Shares of all its instructions, 0 to 1.

    `kind`: the multiply-add instruction that it has, or an empty string.
    """

    num_instructions: int
    kind: str
    multiply_adds: float
    shared_loads: float
    global_loads: float


class Memory(NamedTuple):
    """Accesses of global memory.

    `loads`: loads and atomics in the text of the kernel. `waits`: on the longest way through it, each loop passed once,
    how often a warp stops for a load that was issued after its last stop: loads that depend on one another.
    `fences`: MEMBAR instructions by their kind.
    """

    loads: int
    waits: int
    fences: dict[str, int]


def inner_loop(flow: Flow) -> InnerLoop | None:
    """Returns the loop with most arithmetic; None where no loop has any."""

    def arithmetic(loop: tuple[int, set[int]]) -> int:
        return sum(ARITHMETIC.get(instruction.name, 0) for instruction in flow.code(loop[1]))

    def value(instruction: Instruction) -> int:
        multiplies = ARITHMETIC[instruction.name] if instruction.name in MULTIPLY_ADDS else 0
        copies = instruction.name == "LDGSTS" and instruction.opcode.endswith(".128")
        return (multiplies << 40) + (copies << 20) - 1

    loop = max(flow.own_blocks(), key=arithmetic, default=None)
    if loop is None or not arithmetic(loop):
        return None
    code = flow.best_way(*loop, value)
    names = Counter(instruction.name for instruction in code)
    kind = next((name for name in MULTIPLY_ADDS if names[name]), "")

    def share(wanted: tuple[str, ...]) -> float:
        return round(sum(names[name] for name in wanted) / len(code), 3)

    return InnerLoop(len(code), kind, share((kind,)), share(SHARED_LOADS), share(GLOBAL_LOADS))


def memory(flow: Flow) -> Memory:
    """Counts accesses of global memory, waits and fences."""
    code = [instruction for number in flow.order for instruction in flow[number].instructions]
    loads = sum(instruction.name in ANSWERED for instruction in code)
    fences = Counter(instruction.opcode for instruction in code if instruction.name == "MEMBAR")
    return Memory(loads, _waits(flow), dict(sorted(fences.items())))


class _Issued(NamedTuple):
    """The state of a warp: its stops up to here; and for each register of a load, the stops before that was issued."""

    stops: int
    loads: dict[str, int]


def _waits(flow: Flow) -> int:
    """Instructions issue in order: one that reads a register of a load waits for it, and so do all that follow."""
    places = {number: place for place, number in enumerate(flow.order)}
    after: dict[int, _Issued] = {}
    for number in flow.order:
        before = [after[peer] for peer in flow.predecessors[number] if places[peer] < places[number]]
        after[number] = _through(flow[number].instructions, _joined(before))
    return max(state.stops for state in after.values())


def _joined(states: list[_Issued]) -> _Issued:
    loads: dict[str, int] = {}
    for state in states:
        for register, stops in state.loads.items():
            loads[register] = max(stops, loads.get(register, 0))
    return _Issued(max((state.stops for state in states), default=0), loads)


def _through(code: list[Instruction], state: _Issued) -> _Issued:
    stops, loads = state.stops, dict(state.loads)
    for instruction in code:
        if any(loads.get(register) == stops for register in instruction.sources):
            stops += 1
        for register in instruction.results:
            loads.pop(register, None)
            if instruction.name in ANSWERED:
                loads[register] = stops
    return _Issued(stops, loads)

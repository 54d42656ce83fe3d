"""Cases of `benchmarks.exchange.run`: links, sizes and contestants, the most important first."""

import os
from dataclasses import dataclass

from benchmarks.exchange.records import PingPong
from benchmarks.lib.common import LAB_LINKS, SHARED_MEMORY
from ddpgd.kernels.words import BLOCK, TAIL_WORDS

LINKS = (SHARED_MEMORY, *LAB_LINKS)
RANKS = (2, 3, 4)

NETWORKS = {"784-128-10": 407_080, "784-512-512-10": 2_678_824, "784-2500-2000-1500-1000-500-10": 47890040}
SWEEP = tuple(4 ** (1 + power) for power in range(13))
RAGGED = (13, 18)
LARGE_BYTES = 4 << 20
RAGGED_CONTESTANTS = ("ordered", "one shot", "segments", "fast", "float16")
MOST_REPETITIONS = 51
LEAST_REPETITIONS = 5
FEWEST_REPETITIONS = 3
"""Where a round of all contestants takes so long that 5 do not fit the budget."""


@dataclass(frozen=True)
class Contestant:
    """A way to sum. `one_shot`: in place of the program's own choice. `codec` is None where the program is not ours."""

    label: str
    codec: str | None = "float32"
    reduce: str = "ordered"
    error_feedback: bool = False
    one_shot: bool | None = None


CONTESTANTS = {
    "library": Contestant("Allreduce of the MPI library", codec=None),
    "fast": Contestant("ddpgd --reduce fast", reduce="fast"),
    "ordered": Contestant("ddpgd, float32"),
    "one shot": Contestant("float32, all in one shot", one_shot=True),
    "segments": Contestant("float32, all by segments", one_shot=False),
    "float16": Contestant("--wire float16", "float16"),
    "float16+": Contestant("--wire float16 --error-feedback", "float16", error_feedback=True),
    "bfloat16": Contestant("--wire bfloat16", "bfloat16"),
    "int8": Contestant("--wire int8", "int8"),
}
_ITEM_BYTES = {None: 4, "float32": 4, "float16": 2, "bfloat16": 2, "int8": 1}
_SECONDS_PER_ELEMENT = {None: 4e-9, "float32": 6e-9, "float16": 5e-8, "bfloat16": 6e-8, "int8": 1.2e-7}
"""Of a slow core; for guesses of what fits a budget alone."""


@dataclass(frozen=True)
class Case:
    """A sum: so many bytes of float32 gradient, in so many micro-batches, by these contestants."""

    size_bytes: int
    num_micro_batches: int
    contestants: tuple[str, ...]


@dataclass(frozen=True)
class Group:
    """The cases of one start: over one link, by so many ranks. `weight`: its share of the time that is left."""

    link: str
    num_ranks: int
    weight: float


ORDER = (
    Group(SHARED_MEMORY, 2, 5),
    Group("100mbit", 2, 6),
    Group("1gbit", 2, 3),
    Group("10mbit", 2, 3),
    Group(SHARED_MEMORY, 4, 2),
    Group(SHARED_MEMORY, 3, 2),
    Group("100mbit", 4, 2),
    Group("100mbit", 3, 2),
    Group("1gbit", 4, 1),
    Group("1gbit", 3, 1),
    Group("10mbit", 4, 1),
    Group("10mbit", 3, 1),
)


def groups(links: list[str], ranks: list[int]) -> list[Group]:
    return [group for group in ORDER if group.link in links and group.num_ranks in ranks]


def aligned(num_ranks: int) -> int:
    """The smallest power of two that gives every rank a micro-batch: each then sends one piece."""
    return 1 << (num_ranks - 1).bit_length()


def cases(link: str, num_ranks: int, sizes: list[int] | None = None) -> list[Case]:
    """All cases of a group: the networks' sizes, the sweep, ragged numbers of micro-batches, and what is large.

    The largest network comes among the first where nothing is slow: two ranks in shared memory.
    """
    first = [size for size in NETWORKS.values() if size < LARGE_BYTES or (link, num_ranks) == (SHARED_MEMORY, 2)]
    wanted = sizes or list(dict.fromkeys([*first, *SWEEP, *NETWORKS.values()]))
    plain = [Case(size, aligned(num_ranks), tuple(CONTESTANTS)) for size in wanted]
    uneven = sizes or [4096, 65536, *NETWORKS.values()]
    ragged = [Case(size, count, RAGGED_CONTESTANTS) for size in uneven for count in RAGGED]
    is_late = {case: case.size_bytes >= LARGE_BYTES and case.size_bytes not in first for case in plain + ragged}
    return sorted(plain + ragged, key=is_late.__getitem__)


def bytes_per_s(link: PingPong, num_bytes: float) -> float:
    """The rate that a ping-pong found for messages of that length or longer: the best of them."""
    rates = {int(length): rate for length, rate in link["bytes_per_s_by_length"].items()}
    return max(rate for length, rate in rates.items() if length >= min(num_bytes, max(rates)))


def wire_bytes(contestant: str, size_bytes: int) -> int:
    """The whole vector once, as this contestant's wire has it, with the tail that travels beside it."""
    size, codec = size_bytes // 4, CONTESTANTS[contestant].codec
    scales = 0 if codec in (None, "float32") else 2 * -(-size // BLOCK)
    tail = 0 if codec is None else 4 * TAIL_WORDS
    return size * _ITEM_BYTES[codec] + scales + tail


def limit_s(num_bytes: float, num_ranks: int, link: PingPong) -> float:
    """The least that latency and bytes allow: two rounds of segments, or, where that is less, one of everything."""
    others, alpha_s = num_ranks - 1, link["alpha_s"]
    segments = 2 * alpha_s + 2 * others / num_ranks * num_bytes / bytes_per_s(link, num_bytes / num_ranks)
    return min(segments, alpha_s + others * num_bytes / bytes_per_s(link, num_bytes))


def guess_s(case: Case, num_ranks: int, link: PingPong) -> float:
    """About how long one round of all contestants will take."""
    busy = max(1.0, num_ranks / (os.cpu_count() or 1))
    return sum(
        limit_s(wire_bytes(name, case.size_bytes), num_ranks, link)
        + busy * case.size_bytes / 4 * _SECONDS_PER_ELEMENT[CONTESTANTS[name].codec]
        for name in case.contestants
    )

"""The choice of buckets: parts of a gradient, each summed over the ranks while layers before it are still computed.

Li et al., "PyTorch Distributed: experiences on accelerating data parallel training", 2020.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ddpgd.comm.cluster import Cluster, latency_s, seconds
from ddpgd.comm.traffic import is_one_shot
from ddpgd.comm.wires import WIRES, Kind, Load


class Layer(NamedTuple):
    """A layer, as buckets see it: its first element, which begins a block, and the seconds of its backward pass."""

    start: int
    backward_s: float


class Schedule(NamedTuple):
    """A choice. `cuts`: the starts of all buckets but that at 0, the last one first.

    `exposed_s`: seconds from the end of the backward pass to that of the last sum.
    """

    cuts: tuple[int, ...]
    exposed_s: float


def fastest(wire: str, load: Load, layers: Sequence[Layer], cluster: Cluster) -> Schedule:
    """Returns the buckets with the least exposed time, by the cost model; `why_whole` must have found no reason against."""
    form = WIRES[wire]

    def sum_s(bucket: slice) -> float:
        return seconds([form.of_bucket(load, bucket)], cluster)

    whole = form.of_bucket(load, slice(0, load.size))
    return choose(layers, load.size, sum_s, latency_s(whole, cluster) / whole.rounds)


def why_whole(wire: str, load: Load, layers: Sequence[Layer]) -> str:
    """Returns the reason for which a sum cannot be made in buckets, as a clause; empty: it can."""
    reasons = {
        "--reduce fast sums whole vectors": load.reduce == "fast",
        f"--wire {wire} would round other values": WIRES[wire].kind is not Kind.EXACT,
        "with --shard-optimizer ranks keep their part of the sum": load.sharded,
        "a sum of two levels travels whole": bool(load.nodes),
        "the gradient is too small": is_one_shot(load.size, max(load.pieces), exact=True)
        or not all_cuts(layers, load.size),
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def choose(layers: Sequence[Layer], size: int, sum_s: Callable[[slice], float], latency_s: float) -> Schedule:
    """Chooses the buckets with the least exposed time, few rather than many.

    One bucket, where more would save less than two latencies. Sums follow each other, each begins when its part of the
    gradient is there.

    Args:
        layers: All layers, in their order.
        size: Elements of the gradient: whole blocks.
        sum_s: Returns the seconds of the sum of a part of the gradient.
        latency_s: Seconds in which a message starts.
    """
    ends = least_ends(layers, size, sum_s)
    best = min(ends, key=lambda found: (found.exposed_s, len(found.cuts)))
    return best if ends[0].exposed_s - best.exposed_s >= 2 * latency_s else ends[0]


def all_cuts(layers: Sequence[Layer], size: int) -> tuple[int, ...]:
    """Returns the cuts of as many buckets as there can be, from the last to the first."""
    return tuple(sorted({layer.start for layer in layers if 0 < layer.start < size}, reverse=True))


def least_ends(layers: Sequence[Layer], size: int, sum_s: Callable[[slice], float]) -> list[Schedule]:
    """Returns the best choice of each number of buckets, from 1 on."""
    starts = (*all_cuts(layers, size), 0)
    ready_s = {start: sum(layer.backward_s for layer in layers if layer.start >= start) for start in starts}

    def then(before: tuple[float, tuple[int, ...]], start: int) -> tuple[float, tuple[int, ...]]:
        end_s, earlier = before
        return max(end_s, ready_s[start]) + sum_s(slice(start, (size, *earlier)[-1])), (*earlier, start)

    # The earliest ends of so many buckets, by the start of the last of them.
    nothing: tuple[float, tuple[int, ...]] = (0.0, ())
    ends = {start: then(nothing, start) for start in starts}
    found = [ends[0]]
    for count in range(1, len(starts)):
        ends = {
            start: min(then(before, start) for other, before in ends.items() if other > start)
            for start in starts[count:]
        }
        found.append(ends[0])
    return [Schedule(taken[:-1], end_s - ready_s[0]) for end_s, taken in found]

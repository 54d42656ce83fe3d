"""Links of a cluster, and the time of sums over them: for predictions, and for the choice of a form of the exchange.

Hockney, "The communication challenge for MPP", 1994: a message takes a latency and its bytes over a rate.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from ddpgd.comm.traffic import Level, Traffic

MESSAGE_SHARE = 0.1
"""What a rank's second and further messages of a round take, over the latency of the first: their start-up overlaps."""


@dataclass(frozen=True)
class Link:
    """`latency_s`: what a message of no bytes takes; `bytes_per_s`: each way at once."""

    latency_s: float
    bytes_per_s: float


@dataclass(frozen=True)
class Cluster:
    """`inside`: from each rank to others of its node. `between`: from each node to all others, shared by its ranks."""

    ranks_per_node: int
    inside: Link
    between: Link

    def nodes(self, world_size: int) -> tuple[int, ...]:
        """Returns the number of ranks of each node, filled one after the other."""
        full, rest = divmod(world_size, self.ranks_per_node)
        return (*[self.ranks_per_node] * full, *[rest] * (rest > 0))


def seconds(sums: Sequence[Traffic], cluster: Cluster) -> float:
    """Returns the time of sums after each other."""
    return sum(latency_s(one, cluster) + transfer_s(one, cluster) for one in sums)


def latency_s(one: Traffic, cluster: Cluster) -> float:
    """Returns the seconds in which messages of a sum start."""
    crosses = len(one.num_bytes) > cluster.ranks_per_node if one.level is Level.WHOLE else one.level is Level.BETWEEN
    slowest = cluster.between if crosses else cluster.inside
    starts = 1 + MESSAGE_SHARE * (one.num_peers - 1) if one.num_peers else 0.0
    return one.rounds * slowest.latency_s * starts


def transfer_s(one: Traffic, cluster: Cluster) -> float:
    """Returns the seconds in which the bytes of a sum pass: of one between all ranks, inside and between nodes at once."""
    wire_bytes = max(one.num_bytes)
    if one.level is Level.INSIDE:
        return wire_bytes / cluster.inside.bytes_per_s
    if one.level is Level.BETWEEN:
        return max(_of_nodes(one)) / cluster.between.bytes_per_s
    world_size = len(one.num_bytes)
    local = min(world_size, cluster.ranks_per_node)
    if local == world_size:
        return wire_bytes / cluster.inside.bytes_per_s
    if one.is_ring:
        # Only neighbours talk, so what a node sends is what one of its ranks does.
        inside_bytes, between_bytes = (wire_bytes if local > 1 else 0.0), float(wire_bytes)
    else:
        share = (world_size - local) / (world_size - 1)
        inside_bytes, between_bytes = wire_bytes * (1 - share), local * wire_bytes * share
    return max(inside_bytes / cluster.inside.bytes_per_s, between_bytes / cluster.between.bytes_per_s)


def _of_nodes(one: Traffic) -> list[int]:
    """Returns the bytes that each node sends."""
    nodes = zip(one.nodes, accumulate(one.nodes), strict=True)
    return [sum(one.num_bytes[end - count : end]) for count, end in nodes]

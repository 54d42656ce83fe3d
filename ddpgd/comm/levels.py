"""Nodes of a run, and the two groups of each of its ranks: that of its node, and that across nodes."""

import os
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

from ddpgd.comm.agreement import on_root
from ddpgd.comm.launcher import node
from ddpgd.comm.transport import Transport
from ddpgd.errors import InputError, shown

RANKS_PER_NODE = "DDPGD_RANKS_PER_NODE"
"""An environment variable for tests, which says where nodes begin on one machine: "2" ranks on each, or "1,3"."""


class Levels(NamedTuple):
    """One rank's groups in an exchange of two levels.

    A node's first ranks, as many as the smallest node has, each carry a channel: a segment of the gradient that is summed
    between nodes.

    Attributes:
        nodes: The number of ranks of each node; its ranks follow each other.
        node: The number of this rank's node.
        inside: The ranks of this node.
        between: The ranks of all nodes that carry the same channel; of a rank that carries none, others that carry none.
    """

    nodes: tuple[int, ...]
    node: int
    inside: Transport
    between: Transport

    @property
    def num_channels(self) -> int:
        return min(self.nodes)

    @property
    def carries(self) -> bool:
        """True if this rank carries a channel."""
        return self.inside.rank < self.num_channels

    def duplicate(self) -> "Levels":
        """Returns the same groups, whose messages never meet those of these, and which count their own bytes."""
        return self._replace(inside=self.inside.duplicate(), between=self.between.duplicate())


def split(
    transport: Transport, nodes: Sequence[int], faster: Callable[[Transport], Transport | None] = lambda _: None
) -> Levels:
    """Makes the groups of a rank; every rank calls it.

    Args:
        transport: All ranks.
        nodes: The number of ranks of each node.
        faster: Returns a transport between the ranks of a node that is faster than the given one, if there is one.
    """
    colors = [number for number, count in enumerate(nodes) for _ in range(count)]
    own = colors[transport.rank]
    inside = transport.split(own)
    between = transport.split(min(inside.rank, min(nodes)))
    return Levels(tuple(nodes), own, faster(inside) or inside, between)


def find_nodes(world: Transport, environment: Mapping[str, str] = os.environ) -> tuple[tuple[int, ...], str]:
    """Returns the number of ranks of each node, the same on all ranks, by the names of their machines.

    Returns:
        The numbers, and ""; or nothing, and the reason in a clause, where the ranks of a node do not follow each other.

    Raises:
        InputError: On all ranks: the environment of rank 0 says where nodes begin, and does not fit the ranks.
    """
    if stated := on_root(world, lambda: _stated(environment.get(RANKS_PER_NODE, ""), world.world_size)):
        return stated, ""
    runs = [(name, len(list(ranks))) for name, ranks in groupby(world.all_gather_objects(node()))]
    names = [name for name, _ in runs]
    for number, name in enumerate(names):
        if name in names[:number]:
            return (), f"the ranks of {name} do not follow each other"
    return tuple(count for _, count in runs), ""


def _stated(text: str, world_size: int) -> tuple[int, ...]:
    """Returns the numbers in the environment variable; nothing: it is not set."""
    if not text:
        return ()
    parts = text.split(",")
    counts = [int(part) if part.isascii() and part.isdecimal() and len(part) < 6 else 0 for part in parts]
    if len(counts) == 1 and counts[0]:
        full, rest = divmod(world_size, counts[0])
        counts = [counts[0]] * full + [rest] * (rest > 0)
    if not all(counts) or sum(counts) != world_size:
        raise InputError(
            f"{RANKS_PER_NODE}={shown(text)}: the ranks of each node of {world_size} are wanted, as in 2 or 1,3; "
            f"type unset {RANKS_PER_NODE}"
        )
    return tuple(counts)

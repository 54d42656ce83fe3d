"""Memory that the ranks of a node share."""

import mmap
import os
import tempfile
from contextlib import suppress
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddpgd.comm.launcher import node
from ddpgd.comm.transport import Transport

_FOLDER = "/dev/shm"
"""A folder in memory, on Linux; elsewhere the folder for temporary files."""


class NodeMemory(NamedTuple):
    """Memory of the ranks of a node.

    Attributes:
        ranks: The ranks of the node, ascending.
        own: The place of this rank among them.
        rows: uint8 (len(ranks), num_bytes): a row for each of them, zeros at first.
    """

    ranks: list[int]
    own: int
    rows: NDArray[np.uint8]


def share_memory(world: Transport, num_bytes: int) -> NodeMemory | None:
    """Returns memory for this rank's node, or None where its ranks cannot share any. Every rank calls it.

    Args:
        world: The ranks, which may be on several nodes.
        num_bytes: Of each rank; the same on all ranks of a node.
    """
    hosts = world.all_gather_objects(node())
    ranks = [rank for rank, host in enumerate(hosts) if host == hosts[world.rank]]
    path = _make(num_bytes * len(ranks)) if world.rank == ranks[0] else ""
    path = world.all_gather_objects(path)[ranks[0]]
    memory = _map(path)
    is_mapped = world.all_gather_objects(memory is not None)
    if world.rank == ranks[0]:
        with suppress(OSError):
            os.unlink(path)
    if memory is None or not all(is_mapped[rank] for rank in ranks):
        return None
    return NodeMemory(ranks, ranks.index(world.rank), np.frombuffer(memory, np.uint8).reshape(len(ranks), num_bytes))


def _make(num_bytes: int) -> str:
    """Makes a file of zeros; returns its path, or "" where that fails."""
    try:
        number, path = tempfile.mkstemp(prefix="ddpgd-", dir=_FOLDER if os.path.isdir(_FOLDER) else None)
    except OSError:
        return ""
    try:
        with os.fdopen(number, "wb") as file:
            file.write(bytes(num_bytes))
    except OSError:
        os.unlink(path)
        return ""
    return path


def _map(path: str) -> mmap.mmap | None:
    try:
        with open(path, "r+b") as file:
            return mmap.mmap(file.fileno(), 0)
    except (OSError, ValueError):
        return None

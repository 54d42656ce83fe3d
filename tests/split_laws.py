"""Laws of `Transport.split`, for every transport: groups by colour, their collectives, their bytes."""

from collections.abc import Callable

import numpy as np

from ddpgd.comm.transport import Transport
from ddpgd.kernels.ops import Ops
from ddpgd.kernels.reference.backend import Reference

COLORINGS: dict[str, Callable[[int, int], int]] = {
    "all together": lambda _rank, _size: 3,
    "each alone": lambda rank, _size: rank,
    "neighbours": lambda rank, _size: rank // 2,
    "in turn": lambda rank, _size: rank % 2,
    "first apart": lambda rank, _size: min(rank, 1),
    "last apart": lambda rank, size: 7 if rank == size - 1 else 0,
}


def check_split(whole: Transport, coloring: str, ops: Ops | None = None) -> None:
    """Splits `whole` and asks every law of the group of this rank. `ops`: the backend of arrays; default: the host."""
    ops = ops or Reference()
    colors = [COLORINGS[coloring](rank, whole.world_size) for rank in range(whole.world_size)]
    members = [rank for rank, color in enumerate(colors) if color == colors[whole.rank]]
    before = whole.bytes_sent
    group = whole.split(colors[whole.rank])
    assert (group.name, group.needs_host) == (whole.name, whole.needs_host)
    assert (group.rank, group.world_size) == (members.index(whole.rank), len(members))
    assert group.bytes_sent == 0
    for own in (group, group.duplicate(), group.split(0)):
        check_collectives(own, ops, whole.rank, members)
        assert whole.bytes_sent == before, "a group counts its own bytes"
    check_collectives(whole, ops, whole.rank, list(range(whole.world_size)), before)
    nested = group.split(int(group.rank > 0))
    check_collectives(nested, ops, whole.rank, members[:1] if group.rank == 0 else members[1:])


def check_collectives(group: Transport, ops: Ops, own: int, members: list[int], before: int = 0) -> None:
    """Calls each collective of `group`, whose ranks are `members` of the whole; this one is `own`, and has sent `before`."""
    place, size = members.index(own), len(members)
    sends = [[] if peer == own else [ops.from_host(message(own, peer))] for peer in members]
    receives = [[] if peer == own else [ops.zeros(message(peer, own).shape, np.float32)] for peer in members]
    group.all_to_all(sends, receives)
    for peer, arrays in zip(members, receives, strict=True):
        for array in arrays:
            np.testing.assert_array_equal(ops.to_host(array), message(peer, own))
    num_bytes = sum(array.nbytes for arrays in sends for array in arrays)
    parts = [[ops.from_host(message(peer, 0) * np.float32(peer == own))] for peer in members]
    group.all_gather(parts)
    for peer, (array,) in zip(members, parts, strict=True):
        np.testing.assert_array_equal(ops.to_host(array), message(peer, 0))
    num_bytes += (size - 1) * parts[place][0].nbytes
    total = ops.from_host(np.full(6, 1 + own, np.float32))
    group.all_reduce(total)
    np.testing.assert_array_equal(ops.to_host(total), sum(members) + size)
    num_bytes += 2 * total.nbytes * (size - 1) // size
    assert group.bytes_sent - before == num_bytes
    assert group.all_gather_objects(own) == members
    group.barrier()


def message(source: int, target: int) -> np.ndarray:
    """An array of another length and content for every pair of ranks."""
    return np.arange(1 + source + 2 * target, dtype=np.float32) + 100 * source + target

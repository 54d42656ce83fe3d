"""All-to-all between the ranks of one node through memory that they share: two copies, and one barrier between them."""

from collections.abc import Callable, Sequence
from itertools import cycle

import numpy as np

from ddpgd.comm.launcher import node
from ddpgd.comm.shared_memory import share_memory
from ddpgd.comm.transport import Array, Transport

ALIGNMENT = 64
"""Bytes: arrays begin with a cache line."""

MOST_BYTES = 1 << 21
"""That a rank sends at most: larger messages are faster where the kernel copies them once, from process to process."""


def shared_all_to_all(
    world: Transport, sends: Sequence[Sequence[Array]], receives: Sequence[Sequence[Array]]
) -> Callable[[], None] | None:
    """Returns what does `Transport.all_to_all` of these arrays, or None where it does not pay. Every rank calls it.

    What a rank sends lies in a row of its own, twice, in turn: when a rank comes to a barrier, it has read what it
    received before the barrier before.
    """
    distinct = {id(array): array for arrays in sends for array in arrays}
    ends = np.cumsum([0, *(-(-array.nbytes // ALIGNMENT) * ALIGNMENT for array in distinct.values())])
    starts = dict(zip(distinct, ends.tolist(), strict=False))
    places = [[(starts[id(array)], array.nbytes) for array in arrays] for arrays in sends]
    everybody = world.all_gather_objects((node(), int(ends[-1]), places))
    hosts, sizes, places_of = zip(*everybody, strict=True)
    if len(set(hosts)) > 1 or not 0 < max(sizes) <= MOST_BYTES:
        return None
    memory = share_memory(world, 2 * max(sizes))
    if memory is None:
        return None
    copies = []
    for half in np.split(memory.rows, 2, axis=1):
        outgoing = [
            (_window(half[world.rank], (starts[key], array.nbytes), array), array) for key, array in distinct.items()
        ]
        incoming = [
            (array, _window(half[peer], place, array))
            for peer, arrays in enumerate(receives)
            for array, place in zip(arrays, places_of[peer][world.rank], strict=True)
        ]
        copies.append((outgoing, incoming))
    turns = cycle(copies)

    def run() -> None:
        outgoing, incoming = next(turns)
        for window, array in outgoing:
            np.copyto(window, array)
        world.barrier()
        for array, window in incoming:
            np.copyto(array, window)

    return run


def _window(row: Array, place: tuple[int, int], like: Array) -> Array:
    """Returns the array that lies at `place`, first byte and number of bytes, of the dtype and shape of `like`."""
    start, num_bytes = place
    return row[start : start + num_bytes].view(like.dtype).reshape(like.shape)

"""Large host arrays between rank 0 and the other ranks, outside steps: through buffers, in pieces, never pickled.

MPI libraries count elements in 32 bits, and memory for messages is short: no message is longer than a piece.
"""

from collections.abc import Sequence
from itertools import zip_longest

import numpy as np

from ddpgd.comm.transport import Array, Transport

PIECE_BYTES = 1 << 26

Places = tuple[slice, ...]
"""The spans of a vector that make up a rank's part of it, in order."""


def broadcast(transport: Transport, array: Array) -> None:
    """Fills `array`, of the same shape and dtype on every rank, with that of rank 0."""
    assert array.flags.c_contiguous, "buffers are contiguous"
    flat = array.reshape(-1)
    places = [(slice(0, flat.size),)] * transport.world_size
    _move(
        transport, [_chunks(own, flat.itemsize) if peer else [] for peer, own in enumerate(places)], flat, flat, False
    )


def gather_parts(transport: Transport, part: Array, places: Sequence[Places], size: int) -> Array:
    """Returns, on rank 0, the vector (size,) of which each rank has a `part`; elsewhere an empty one.

    Args:
        transport: All ranks.
        part: This rank's.
        places: The places of each rank's part in the vector. Of ranks with the same ones the first sends it.
        size: The length of the vector.
    """
    chunks = [_chunks(own, part.itemsize) if own not in places[:rank] else [] for rank, own in enumerate(places)]
    whole = np.zeros(size if transport.rank == 0 else 0, part.dtype)
    _move(transport, chunks, whole, part, to_root=True)
    return whole


def scatter_parts(transport: Transport, vector: Array | None, places: Sequence[Places]) -> Array:
    """Returns this rank's part, float32, of rank 0's `vector`, which is not read elsewhere; arguments as above."""
    part = np.empty(sum(span.stop - span.start for span in places[transport.rank]), np.float32)
    whole = part if vector is None else vector
    _move(transport, [_chunks(own, part.itemsize) for own in places], whole, part, to_root=False)
    return part


def _move(
    transport: Transport, chunks: Sequence[list[tuple[slice, slice]]], whole: Array, part: Array, to_root: bool
) -> None:
    """Copies the messages of all ranks' parts, a message of each at a time, to rank 0's `whole`, or from there."""
    for messages in zip_longest(*chunks):
        sends: list[list[Array]] = [[] for _ in chunks]
        receives: list[list[Array]] = [[] for _ in chunks]
        of_root, of_others = (receives, sends) if to_root else (sends, receives)
        for peer, message in enumerate(messages):
            if message is None:
                continue
            in_whole, in_part = message
            if transport.rank == peer == 0:
                target, source = (whole[in_whole], part[in_part]) if to_root else (part[in_part], whole[in_whole])
                np.copyto(target, source)
            elif transport.rank == 0:
                of_root[peer] = [whole[in_whole]]
            elif transport.rank == peer:
                of_others[0] = [part[in_part]]
        transport.all_to_all(sends, receives)


def placed(own: slice, spans: Places) -> Places:
    """Returns the places, in a vector, of the elements `own` of what was cut out of it at `spans`."""
    found, first = [], 0
    for span in spans:
        length = span.stop - span.start
        start, stop = max(own.start - first, 0), min(own.stop - first, length)
        if start < stop:
            found.append(slice(span.start + start, span.start + stop))
        first += length
    return tuple(found)


def _chunks(spans: Places, itemsize: int) -> list[tuple[slice, slice]]:
    """The messages of a part: where each lies in the vector, and where in the part."""
    length, chunks, first = max(1, PIECE_BYTES // itemsize), [], 0
    for span in spans:
        for start in range(span.start, span.stop, length):
            stop = min(start + length, span.stop)
            chunks.append((slice(start, stop), slice(first, first + stop - start)))
            first += stop - start
    return chunks

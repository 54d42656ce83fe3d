"""Large host arrays between rank 0 and the other ranks, outside steps: through buffers, in pieces, never pickled.

MPI libraries count elements in 32 bits, and memory for messages is short: no message is longer than a piece.
"""

from collections.abc import Iterator, Sequence
from itertools import zip_longest

import numpy as np

from ddpgd.comm.transport import Array, Transport

PIECE_BYTES = 1 << 26

Places = tuple[slice, ...]
"""The spans of a vector that make up a rank's part of it, in order."""


def broadcast(transport: Transport, array: Array) -> None:
    """Fills `array`, of the same shape and dtype on every rank, with that of rank 0."""
    scatter(transport, [array] * transport.world_size, array)


def scatter(transport: Transport, parts: Sequence[Array], out: Array) -> None:
    """Fills `out`, of the same shape and dtype on every rank, with rank 0's parts[rank]; elsewhere `parts` is not read."""
    flat = _flat(out)
    sources = [_flat(part) for part in parts] if transport.rank == 0 else []
    for piece in _pieces(flat):
        sends: list[list[Array]] = [[] for _ in range(transport.world_size)]
        receives: list[list[Array]] = [[] for _ in range(transport.world_size)]
        if transport.rank > 0:
            receives[0] = [flat[piece]]
        for peer, source in enumerate(sources):
            if peer > 0:
                sends[peer] = [source[piece]]
        transport.all_to_all(sends, receives)
    if transport.rank == 0 and parts[0] is not out:
        np.copyto(out, parts[0])


def gather(transport: Transport, array: Array) -> list[Array]:
    """Returns, on rank 0, every rank's `array`, of the same shape and dtype, in rank order; elsewhere an empty list."""
    flat = _flat(array)
    others = range(1, transport.world_size) if transport.rank == 0 else ()
    gathered = [array, *(np.empty_like(array) for _ in others)]
    for piece in _pieces(flat):
        sends: list[list[Array]] = [[] for _ in range(transport.world_size)]
        receives: list[list[Array]] = [[] for _ in range(transport.world_size)]
        for peer in others:
            receives[peer] = [_flat(gathered[peer])[piece]]
        if transport.rank > 0:
            sends[0] = [flat[piece]]
        transport.all_to_all(sends, receives)
    return gathered if transport.rank == 0 else []


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
    for messages in zip_longest(*chunks):
        sends: list[list[Array]] = [[] for _ in places]
        receives: list[list[Array]] = [[] for _ in places]
        for peer, message in enumerate(messages):
            if message is None:
                continue
            in_whole, in_part = message
            if transport.rank == peer == 0:
                whole[in_whole] = part[in_part]
            elif transport.rank == 0:
                receives[peer] = [whole[in_whole]]
            elif transport.rank == peer:
                sends[0] = [part[in_part]]
        transport.all_to_all(sends, receives)
    return whole


def scatter_parts(transport: Transport, vector: Array | None, places: Sequence[Places]) -> Array:
    """Returns this rank's part, float32, of rank 0's `vector`, which is not read elsewhere; arguments as above."""
    out = np.empty(sum(span.stop - span.start for span in places[transport.rank]), np.float32)
    for messages in zip_longest(*(_chunks(own, out.itemsize) for own in places)):
        sends: list[list[Array]] = [[] for _ in places]
        receives: list[list[Array]] = [[] for _ in places]
        for peer, message in enumerate(messages):
            if message is None:
                continue
            in_whole, in_part = message
            if vector is not None and peer == 0:
                out[in_part] = vector[in_whole]
            elif vector is not None:
                sends[peer] = [vector[in_whole]]
            elif transport.rank == peer:
                receives[0] = [out[in_part]]
        transport.all_to_all(sends, receives)
    return out


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


def _flat(array: Array) -> Array:
    assert array.flags.c_contiguous, "buffers are contiguous"
    return array.reshape(-1)


def _pieces(flat: Array) -> Iterator[slice]:
    length = max(1, PIECE_BYTES // flat.itemsize)
    return (slice(start, min(start + length, flat.size)) for start in range(0, flat.size, length))

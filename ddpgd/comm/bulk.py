"""Large host arrays between rank 0 and the other ranks, outside steps: through buffers, in pieces, never pickled.

MPI libraries count elements in 32 bits, and memory for messages is short: no message is longer than a piece.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from ddpgd.comm.transport import Array, Transport

PIECE_BYTES = 1 << 26


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


def gather_parts(transport: Transport, part: Array, spans: Sequence[slice]) -> Array:
    """Returns, on rank 0, the whole vector, of which each rank has the `part` of its span; elsewhere an empty one."""
    padded = np.zeros(max(span.stop - span.start for span in spans), part.dtype)
    padded[: len(part)] = part
    gathered = gather(transport, padded)
    parts = [own[: span.stop - span.start] for own, span in zip(gathered, spans, strict=False)]
    return np.concatenate(parts) if parts else np.empty(0, part.dtype)


def scatter_parts(transport: Transport, vector: Array | None, spans: Sequence[slice]) -> Array:
    """Returns this rank's part, float32, of rank 0's `vector`, which is not read elsewhere."""
    longest, own = max(span.stop - span.start for span in spans), spans[transport.rank]
    parts = []
    if vector is not None:
        parts = [np.resize(vector[span], longest) if span.start < span.stop else vector[:longest] for span in spans]
    padded = np.empty(longest, np.float32)
    scatter(transport, parts, padded)
    return padded[: own.stop - own.start]


def _flat(array: Array) -> Array:
    assert array.flags.c_contiguous, "buffers are contiguous"
    return array.reshape(-1)


def _pieces(flat: Array) -> Iterator[slice]:
    length = max(1, PIECE_BYTES // flat.itemsize)
    return (slice(start, min(start + length, flat.size)) for start in range(0, flat.size, length))

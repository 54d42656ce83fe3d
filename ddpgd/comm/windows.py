"""Windows of a row: the parts that ranks own while it is being summed, and those that travel after each other."""

from collections.abc import Sequence
from typing import NamedTuple

from ddpgd.kernels.words import BLOCK, TAIL_WORDS


class Window(NamedTuple):
    """A part of the row that one rank owns while it is being summed. `is_tail`: a tail that travels apart, as float32."""

    owner: int
    span: slice
    is_tail: bool = False


def segments(size: int, world_size: int) -> list[slice]:
    """Returns the part of a vector that each rank owns: whole blocks, as even as possible; some may be empty."""
    num_blocks = -(-size // BLOCK)
    bounds = [min(size, rank * num_blocks // world_size * BLOCK) for rank in range(world_size + 1)]
    return [slice(bounds[rank], bounds[rank + 1]) for rank in range(world_size)]


def buckets(size: int, cuts: Sequence[int]) -> list[slice]:
    """Returns the parts of a gradient that travel after each other, the last one first; `cuts`: the starts of all but one."""
    return [slice(start, end) for start, end in zip([*cuts, 0], [size, *cuts], strict=True)]


def windows(
    size: int,
    num_owners: int,
    joined: bool,
    whole: slice | None = None,
    has_tail: bool = True,
    owned: Sequence[slice] = (),
) -> list[Window]:
    """Returns the segments that are not empty, and the tail: `joined` to the last segment, or apart.

    Args:
        size: Elements of the gradient.
        num_owners: Ranks, each of which owns a segment.
        joined: True if the tail belongs to the last segment.
        whole: The part of the gradient that is cut; None: all of it.
        has_tail: True if the tail belongs to that part: to its end where it is joined.
        owned: The segments of a whole gradient; empty: as even as possible.
    """
    start, stop = (0, size) if whole is None else (whole.start, whole.stop)
    tail = slice(size, size + TAIL_WORDS)
    spans = [slice(start + part.start, start + part.stop) for part in owned or segments(stop - start, num_owners)]
    if joined and has_tail:
        spans[-1] = slice(spans[-1].start, tail.stop)
    found = [Window(rank, span) for rank, span in enumerate(spans) if span.start < span.stop]
    return found if joined or not has_tail else [*found, Window(0, tail, is_tail=True)]


def channel_windows(size: int, nodes: Sequence[int], joined: bool, channel: int) -> list[Window]:
    """Returns the windows that nodes exchange in a channel; the last one has the tail that is joined, the first that apart."""
    num_channels = min(nodes)
    has_tail = channel == (num_channels - 1 if joined else 0)
    return windows(size, len(nodes), joined, segments(size, num_channels)[channel], has_tail)

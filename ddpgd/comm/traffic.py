"""Traffic of an exchange: the windows of a row that ranks own, and the bytes and messages that each rank sends."""

import math
from collections.abc import Callable, Sequence
from enum import Enum, auto
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

from ddpgd.comm import tree
from ddpgd.comm.windows import Window, channel_windows, segments, windows
from ddpgd.kernels.words import BLOCK, TAIL_WORDS

TAIL_BYTES = 4 * TAIL_WORDS

ONE_SHOT_BYTES = 16 * 1024
"""Up to this size of a rank's pieces every rank sends every other all of them: latency then costs more than bytes."""


class Level(Enum):
    """The ranks between which a sum travels: all, those of a node, or one of each node."""

    WHOLE = auto()
    INSIDE = auto()
    BETWEEN = auto()


class Traffic(NamedTuple):
    """One sum over ranks.

    Attributes:
        rounds: Messages that must follow each other.
        num_bytes: Bytes that each rank sends, by rank.
        num_messages: Arrays that each rank sends, by rank.
        num_peers: The most ranks to which a rank sends in a round.
        is_ring: True if ranks send to neighbours only. The library's own sum is counted as one.
        level: The ranks between which it travels.
        nodes: The number of ranks of each node, for a sum of two levels.
    """

    rounds: float
    num_bytes: tuple[int, ...]
    num_messages: tuple[int, ...]
    num_peers: int
    is_ring: bool = False
    level: Level = Level.WHOLE
    nodes: tuple[int, ...] = ()


@lru_cache(maxsize=64)
def num_pieces(num_micro_batches: int, world_size: int, folds_whole: bool) -> tuple[int, ...]:
    """Returns how many pieces each rank sends; with `folds_whole` one, or none if it has no micro-batch."""
    return _counts(num_micro_batches, tree.ranges(num_micro_batches, world_size), folds_whole)


@lru_cache(maxsize=64)
def num_node_pieces(num_micro_batches: int, nodes: tuple[int, ...], folds_whole: bool) -> tuple[int, ...]:
    """Returns how many pieces each node, of so many ranks, sends to the others; as `num_pieces`."""
    return _counts(num_micro_batches, tree.node_ranges(num_micro_batches, nodes), folds_whole)


def _counts(num_micro_batches: int, parts: list[range], folds_whole: bool) -> tuple[int, ...]:
    if folds_whole:
        return tuple(min(1, len(own)) for own in parts)
    return tuple(len(tree.pieces(num_micro_batches, own)) for own in parts)


def is_one_shot(size: int, most_pieces: int, exact: bool) -> bool:
    """True if every rank sends every other all its pieces. Lossy codecs would add a rank's own ones uncoded."""
    return exact and (4 * size + TAIL_BYTES) * most_pieces <= ONE_SHOT_BYTES


def ordered(
    size: int,
    pieces: Sequence[int],
    coded_bytes: Callable[[int], int],
    exact: bool,
    sharded: bool = False,
    bucket: slice | None = None,
    owned: Sequence[slice] = (),
) -> Traffic:
    """Returns the traffic of an ordered sum of rows, or of one of their `buckets`.

    Args:
        size: Elements of the gradient.
        pieces: The number of pieces of each rank; see `num_pieces`.
        coded_bytes: The bytes in which so many values travel.
        exact: True if the codec loses nothing, so that a tail can travel with its gradient.
        sharded: True if owners keep their sums, and hand others the squared norms of blocks and the tail.
        bucket: The part of the gradient; that at its end has the tail. None: all of it.
        owned: With `sharded`: the segments; empty: as even as possible.
    """
    world_size = len(pieces)
    one_shot = is_one_shot(size, max(pieces), exact) and not sharded
    has_tail = bucket is None or bucket.stop == size
    num_owners, segments_of = 1 if one_shot else world_size, owned if sharded else ()
    cut = windows(size, num_owners, exact and all(pieces), bucket, has_tail, segments_of)
    sent = _sent(_in_one_shot if one_shot else _in_segments, pieces, cut, coded_bytes, size if sharded else None)
    return _traffic(1 if one_shot else 2, sent, world_size - 1)


def shared_params(size: int, world_size: int, owned: Sequence[slice] = ()) -> Traffic:
    """Returns the traffic of ranks that each hand all others their segment of a vector: one of `owned`, or even ones."""
    own, others = [span.stop - span.start for span in owned or segments(size, world_size)], world_size - 1
    num_bytes, num_messages = [others * 4 * n for n in own], [others * (n > 0) for n in own]
    return Traffic(1, tuple(num_bytes), tuple(num_messages), others)


def _norms(window: Window, size: int) -> tuple[int, int]:
    """Returns the bytes and the number of the messages in which an owner hands others the norms of a window, and a tail."""
    num_values = max(0, min(window.span.stop, size) - window.span.start)
    has_tail = window.span.stop > size
    return 4 * -(-num_values // BLOCK) + TAIL_BYTES * has_tail, (num_values > 0) + has_tail


def two_level(
    size: int,
    num_micro_batches: int,
    nodes: tuple[int, ...],
    coded_bytes: Callable[[int], int],
    exact: bool,
) -> list[Traffic]:
    """Returns the traffic of an ordered sum inside nodes, of float32, and of that between them, of coded values.

    Args:
        size: Elements of the gradient.
        num_micro_batches: Micro-batches, over all ranks.
        nodes: The number of ranks of each node; its ranks follow each other.
        coded_bytes: The bytes in which so many values travel between nodes.
        exact: True if the codec loses nothing.
    """
    pieces = num_pieces(num_micro_batches, sum(nodes), not exact)
    node_pieces = num_node_pieces(num_micro_batches, nodes, not exact)
    joined, num_channels = exact and all(pieces), min(nodes)
    cut = windows(size, num_channels, joined)
    channels = [
        _sent(_in_segments, node_pieces, channel_windows(size, nodes, joined, channel), coded_bytes)
        for channel in range(num_channels)
    ]
    parts = [pieces[end - count : end] for count, end in zip(nodes, accumulate(nodes), strict=True)]
    # Most nodes are like another.
    of_parts = {part: _sent(_in_segments, part, cut, lambda n: 4 * n) for part in set(parts)}
    inside = [own for part in parts for own in of_parts[part]]
    nothing = [(0, 0)]
    between = [
        own
        for node, count in enumerate(nodes)
        for own in [of_nodes[node] for of_nodes in channels] + nothing * (count - num_channels)
    ]
    return [
        _traffic(2, inside, max(nodes) - 1, Level.INSIDE, nodes),
        _traffic(2, between, len(nodes) - 1, Level.BETWEEN, nodes),
    ]


def _traffic(
    rounds: float, sent: list[tuple[int, int]], num_peers: int, level: Level = Level.WHOLE, nodes: tuple[int, ...] = ()
) -> Traffic:
    num_bytes, num_messages = zip(*sent, strict=True)
    return Traffic(rounds, num_bytes, num_messages, num_peers, level=level, nodes=nodes)


def _sent(
    send: Callable[[Sequence[int], list[Window], list[int], list[int]], tuple[int, ...]],
    pieces: Sequence[int],
    cut: list[Window],
    coded_bytes: Callable[[int], int],
    size_of_norms: int | None = None,
) -> list[tuple[int, int]]:
    """Returns the bytes and the messages that each rank sends; of a vector of `size_of_norms`, norms in place of sums."""
    lengths = [span.stop - span.start for _, span, _ in cut]
    num_bytes = [4 * n if window.is_tail else coded_bytes(n) for n, window in zip(lengths, cut, strict=True)]
    counts = [1] * len(cut)
    shown = list(zip(num_bytes, counts, strict=True))
    if size_of_norms is not None:
        shown = [_norms(window, size_of_norms) for window in cut]
    shown_bytes, shown_counts = ([one[place] for one in shown] for place in (0, 1))
    return list(zip(send(pieces, cut, num_bytes, shown_bytes), send(pieces, cut, counts, shown_counts), strict=True))


def _in_one_shot(
    pieces: Sequence[int],
    cut: list[Window],
    weights: list[int],
    shown: list[int],  # noqa: ARG001 - nothing is handed out
) -> tuple[int, ...]:
    """Sums, by rank, the weights of what it sends. A rank without pieces sends its tail."""
    gradient = sum(weight for weight, window in zip(weights, cut, strict=True) if not window.is_tail)
    tail = sum(weights) - gradient
    return tuple((len(pieces) - 1) * (own * gradient + max(1, own) * tail) for own in pieces)


def _in_segments(pieces: Sequence[int], cut: list[Window], weights: list[int], shown: list[int]) -> tuple[int, ...]:
    """Sums the same: pieces to the owners of the windows, and to all others what is `shown` of the windows that it owns."""
    owned = {False: [0] * len(pieces), True: [0] * len(pieces)}
    handed_out = [0] * len(pieces)
    for weight, of_sum, window in zip(weights, shown, cut, strict=True):
        owned[window.is_tail][window.owner] += weight
        handed_out[window.owner] += of_sum
    gradient, tail = sum(owned[False]), sum(owned[True])
    return tuple(
        own * (gradient - of_gradient) + max(1, own) * (tail - of_tail) + (len(pieces) - 1) * of_sums
        for own, of_gradient, of_tail, of_sums in zip(pieces, owned[False], owned[True], handed_out, strict=True)
    )


def reduced(size: int, world_size: int) -> Traffic:
    """Returns the traffic of the transport's own sum, counted as that of a ring; rounds of halving and doubling."""
    num_bytes = 2 * (4 * size + TAIL_BYTES) * (world_size - 1) // world_size
    return Traffic(2 * math.log2(world_size), (num_bytes,) * world_size, (1,) * world_size, 1, is_ring=True)


def gathered(message_bytes: int, world_size: int) -> Traffic:
    """Returns the traffic of ranks that each send every other one message."""
    others = world_size - 1
    return Traffic(1, (others * message_bytes,) * world_size, (others,) * world_size, others)

"""The ordered exchange, laid out: which windows of the row travel where, and the additions that their owners make.

A row is a gradient of `size` elements followed by its tail. Every rank owns one segment of it; rank 0, which always has a
micro-batch, owns the tail as well. A wiring is laid once for each number of micro-batches, and used every step.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ddpgd.comm.codec import Array, Codec, Float32
from ddpgd.comm.transport import Transport
from ddpgd.comm.tree import Fold, pieces, ranges
from ddpgd.kernels.ops import Ops
from ddpgd.params import BLOCK
from ddpgd.tail import TAIL_WORDS


@dataclass(frozen=True)
class _Window:
    """A part of the row that one rank owns while it is being summed, and how it travels."""

    owner: int
    span: slice
    codec: Codec
    is_tail: bool = False


@dataclass(frozen=True)
class _Coded:
    """Values, what travels in their place, and what turns one into the other."""

    values: Array
    wire: Array
    codec: Codec

    def encode(self) -> None:
        self.codec.encode(self.values, self.wire)

    def decode(self) -> None:
        self.codec.decode(self.wire, self.values)


class Wiring:
    """One rank's part of the ordered exchange of `num_micro_batches`.

    `row(slot)` is the array (size + TAIL_WORDS,) of a slot; `piece_slots` are those of this rank's pieces. The result
    lands in row(0). A rank without pieces sends its tail alone, from row(0): a zero gradient is not neutral, because
    -0.0 + 0.0 is 0.0.
    """

    def __init__(
        self,
        transport: Transport,
        ops: Ops,
        codec: Codec,
        size: int,
        num_micro_batches: int,
        row: Callable[[int], Array],
        piece_slots: list[int],
    ) -> None:
        world_size = transport.world_size
        self._transport = transport
        self._ops = ops
        self._num_micro_batches = num_micro_batches
        self._row = row
        self._piece_slots = piece_slots
        self._pieces = [pieces(num_micro_batches, own) for own in ranges(num_micro_batches, world_size)]
        self._outgoing: list[list[_Coded]] = [[] for _ in range(world_size)]
        self._incoming: list[list[_Coded]] = [[] for _ in range(world_size)]
        self._gathered: list[list[_Coded]] = [[] for _ in range(world_size)]
        self._additions: list[tuple[Array, Array, Array]] = []
        for window in _windows(size, world_size, codec):
            if window.owner == transport.rank:
                self._receive_and_add(window)
            else:
                self._send(window)
            self._gathered[window.owner].append(_coded(row(0)[window.span], window.codec))
        self._sends = _wires(self._outgoing)
        self._receives = _wires(self._incoming)
        self._parts = _wires(self._gathered)

    def exchange(self) -> None:
        """Turns all ranks' pieces into their sum, in row(0) of every rank, equal bit for bit."""
        for coded in _flat(self._outgoing):
            coded.encode()
        self._transport.all_to_all(self._sends, self._receives)
        for coded in _flat(self._incoming):
            coded.decode()
        for left, right, out in self._additions:
            self._ops.add(left, right, out)
        for coded in self._gathered[self._transport.rank]:
            coded.encode()
        self._transport.all_gather(self._parts)
        for coded in _flat(self._gathered):
            coded.decode()

    def _send(self, window: _Window) -> None:
        slots = self._piece_slots or ([0] if window.is_tail else [])
        self._outgoing[window.owner] += [_coded(self._row(slot)[window.span], window.codec) for slot in slots]

    def _receive_and_add(self, window: _Window) -> None:
        """The owner's part: all other ranks' pieces of the window arrive; all pieces are added in tree order."""
        result = self._row(0)[window.span]
        only_piece = sum(map(len, self._pieces)) == 1
        additions: list[tuple[Array, Array, Array]] = []
        fold = Fold[Array](self._num_micro_batches, lambda left, right: additions.append((left, right, left)))
        for peer, nodes in enumerate(self._pieces):
            for number, node in enumerate(nodes):
                if peer == self._transport.rank:
                    values = self._row(self._piece_slots[number])[window.span]
                else:
                    values = self._arrival(peer, window, result if only_piece else None)
                fold.push(node, values)
        if additions:
            left, right, _ = additions[-1]
            additions[-1] = (left, right, result)
        self._additions += additions
        if window.is_tail:
            without_pieces = [peer for peer, nodes in enumerate(self._pieces) if not nodes]
            self._additions += [(result, self._arrival(peer, window), result) for peer in without_pieces]

    def _arrival(self, peer: int, window: _Window, values: Array | None = None) -> Array:
        """Where the next piece of the window from `peer` will stand: `values`, or an array of its own."""
        if values is None:
            values = self._ops.empty((window.span.stop - window.span.start,), np.float32)
        self._incoming[peer].append(_coded(values, window.codec))
        return values


def _windows(size: int, world_size: int, codec: Codec) -> list[_Window]:
    """Segments of whole blocks, as even as can be, empty ones left out; and the tail, which is never compressed."""
    num_blocks = -(-size // BLOCK)
    bounds = [min(size, rank * num_blocks // world_size * BLOCK) for rank in range(world_size + 1)]
    segments = [_Window(rank, slice(bounds[rank], bounds[rank + 1]), codec) for rank in range(world_size)]
    tail = _Window(0, slice(size, size + TAIL_WORDS), Float32(), is_tail=True)
    return [window for window in segments if window.span.start < window.span.stop] + [tail]


def _coded(values: Array, codec: Codec) -> _Coded:
    return _Coded(values, codec.wire(values), codec)


def _wires(coded_lists: list[list[_Coded]]) -> list[list[Array]]:
    return [[coded.wire for coded in coded_list] for coded_list in coded_lists]


def _flat(coded_lists: list[list[_Coded]]) -> list[_Coded]:
    return [coded for coded_list in coded_lists for coded in coded_list]

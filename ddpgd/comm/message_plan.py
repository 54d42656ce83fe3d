"""The ordered exchange, laid out: which windows of the row travel where, and the additions that their owners make.

A row is a gradient of `size` elements followed by its tail. Every rank owns one segment of it; the last one owns the tail
as well, or, where the tail travels apart, rank 0, which always has a micro-batch. A plan is made once for each number of
micro-batches, and used every step.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ddpgd.comm.codec import Array, BlockNorms, Codec, Coded, Float32, Plain
from ddpgd.comm.transport import Transport, gathering
from ddpgd.comm.tree import Fold, Node
from ddpgd.comm.windows import Window
from ddpgd.kernels.ops import Ops
from ddpgd.kernels.words import BLOCK


@dataclass(frozen=True)
class Residuals:
    """Errors of encodings so far, float32 (size,) each: of the pieces that this rank sent, of the sums it owned."""

    sent: Array
    owned: Array


@dataclass(frozen=True)
class Pieces:
    """The subtrees that travel: those of each rank, in tree order, among `num_leaves`."""

    num_leaves: int
    of_ranks: list[list[Node]]


Values = Callable[[Window], list[Array]]
"""Returns the arrays of this rank's pieces in a window, in tree order. Of a tail that travels apart, a rank without pieces
has one all the same: a zero gradient would not be neutral, because -0.0 + 0.0 is 0.0."""


class Sending(NamedTuple):
    """The parts of messages that all plans of an exchange share.

    Attributes:
        ops: The backend whose arrays travel.
        codec: The form of gradients on the wire; tails always travel as float32.
        size: Elements of the gradient.
        keys: Random keys, uint64 (3,), of the two encodings: of pieces on the way to their owner, and of its sum.
        residuals: What encodings have lost so far; None: nothing is kept.
        block_norms: float32 (size / 1024,): `all_gather` hands every rank the squared norms of the blocks of the sum, and
            its tail, in place of the sum; not in one shot. None: the sum.
        owned: With block_norms: the segment of each rank; empty: as even as possible.
    """

    ops: Ops
    codec: Codec
    size: int
    keys: tuple[Array, Array]
    residuals: Residuals | None
    block_norms: Array | None = None
    owned: Sequence[slice] = ()


class MessagePlan:
    """One rank's part of the ordered exchange of `pieces`, laid out once and used every step.

    Args:
        transport: The ranks.
        sending: The backend, the codec and its state.
        windows: The parts of a row, each with its owner.
        pieces: The subtrees that travel.
        values: The arrays of this rank's pieces. They are overwritten.
        row: The array (size + TAIL_WORDS,) in which the sum lands.
        one_shot: Every rank sends every other all its pieces, and each adds them up: more bytes in half the rounds. Not
            for lossy codecs, where a rank would add its own pieces uncoded.
        hands_out: False: owners keep their sums, and there is no `all_gather`.

    Attributes:
        sent: All that this rank sends to owners; after `reduce_scatter` its values are not needed any more.
        roots: The arrays of the subtrees that an owner has made of all pieces, by window. A single one lies in `row`.
    """

    def __init__(
        self,
        transport: Transport,
        sending: Sending,
        windows: list[Window],
        pieces: Pieces,
        values: Values,
        row: Array,
        one_shot: bool = False,
        hands_out: bool = True,
    ) -> None:
        world_size = transport.world_size
        self._transport = transport
        self._sending = sending
        self._pieces = pieces
        self._values = values
        self._row = row
        self._outgoing: list[list[Coded]] = [[] for _ in range(world_size)]
        self._incoming: list[list[Coded]] = [[] for _ in range(world_size)]
        self._gathered: list[list[Coded]] = [[] for _ in range(world_size)]
        self._additions: list[tuple[Array, Array, Array]] = []
        self.roots: list[tuple[Window, list[Array]]] = []
        lay = self._lay_one_shot if one_shot else self._lay_segment
        for window in windows:
            lay(window)
        self.sent = _flat(self._outgoing)
        self._received = _flat(self._incoming)
        self._summed = _flat(self._gathered)
        self._scatter = transport.all_to_all_init(_wires(self._outgoing), _wires(self._incoming))
        self._gather = None
        if hands_out and not one_shot:
            self._gather = transport.all_to_all_init(*gathering(_wires(self._gathered), transport.rank))

    def reduce_scatter(self) -> None:
        """Hands each owner all pieces of its segment, and adds those of this rank's own segment in tree order."""
        for coded in self.sent:
            coded.encode(self._sending.keys[0])
        self._scatter()
        for coded in self._received:
            coded.decode()
        for left, right, out in self._additions:
            self._sending.ops.add(left, right, out)

    def all_gather(self) -> None:
        """Hands every rank all segments' sums; nothing to do after one shot, where all ranks have them."""
        if self._gather is None:
            return
        for coded in self._gathered[self._transport.rank]:
            coded.encode(self._sending.keys[1])
        self._gather()
        for coded in self._summed:
            coded.decode()

    def _lay_segment(self, window: Window) -> None:
        """The window's owner adds it up and hands everybody the sum."""
        residuals, rank = self._sending.residuals, self._transport.rank
        if window.owner == rank:
            self._receive_and_add(window)
        else:
            self._send(window, window.owner)
        owned = residuals.owned if residuals and window.owner == rank else None
        self._gathered[window.owner] += self._shown(window, owned)

    def _shown(self, window: Window, residual: Array | None) -> list[Coded]:
        """The forms of a window's sum that its owner hands to all."""
        size, block_norms = self._sending.size, self._sending.block_norms
        row, start, stop = self._row, window.span.start, min(window.span.stop, size)
        if block_norms is None:
            return [self._coded(window, row[window.span], residual)]
        shown: list[Coded] = [Plain(row[size : window.span.stop])] if window.span.stop > size else []
        if start < stop:
            norms = block_norms[start // BLOCK : stop // BLOCK]
            shown.append(BlockNorms(self._sending.ops, row[start:stop].reshape(-1, BLOCK), norms))
        return shown

    def _lay_one_shot(self, window: Window) -> None:
        self._receive_and_add(window)
        for peer in range(self._transport.world_size):
            if peer != self._transport.rank:
                self._send(window, peer)

    def _send(self, window: Window, peer: int) -> None:
        sent = self._sending.residuals.sent if self._sending.residuals else None
        self._outgoing[peer] += [self._coded(window, values, sent) for values in self._values(window)]

    def _receive_and_add(self, window: Window) -> None:
        """The owner's part: all other ranks' pieces of the window arrive; all pieces are added in tree order."""
        pieces = self._pieces
        result = self._row[window.span]
        only_piece = sum(map(len, pieces.of_ranks)) == 1
        additions: list[tuple[Array, Array, Array]] = []
        fold = Fold[Array](pieces.num_leaves, lambda left, right: additions.append((left, right, left)))
        for peer, nodes in enumerate(pieces.of_ranks):
            own = self._values(window) if peer == self._transport.rank else []
            for number, node in enumerate(nodes):
                fold.push(node, own[number] if own else self._arrival(peer, window, result if only_piece else None))
        roots = [values for _, values in fold.roots]
        if len(roots) == 1 and additions:
            left, right, _ = additions[-1]
            additions[-1], roots = (left, right, result), [result]
        self._additions += additions
        if window.is_tail:
            tails = [self._lone_tail(peer, window) for peer, nodes in enumerate(pieces.of_ranks) if not nodes]
            roots = roots or [tails.pop(0)]
            self._additions += [(roots[0], tail, roots[0]) for tail in tails]
        self.roots.append((window, roots))

    def _lone_tail(self, peer: int, window: Window) -> Array:
        """The tail of a rank without pieces."""
        return self._values(window)[0] if peer == self._transport.rank else self._arrival(peer, window)

    def _arrival(self, peer: int, window: Window, values: Array | None = None) -> Array:
        """The array for the next piece of the window from `peer`: `values`, or one of its own."""
        if values is None:
            values = self._sending.ops.empty((window.span.stop - window.span.start,), np.float32)
        self._incoming[peer].append(self._coded(window, values, None))
        return values

    def _coded(self, window: Window, values: Array, residual: Array | None) -> Coded:
        codec = Float32() if window.is_tail else self._sending.codec
        lost = residual[window.span] if residual is not None and not codec.exact else None
        return codec.coded(values, window.span.start, lost)


def _wires(coded_lists: list[list[Coded]]) -> list[list[Array]]:
    return [[coded.wire for coded in coded_list] for coded_list in coded_lists]


def _flat(coded_lists: list[list[Coded]]) -> list[Coded]:
    return [coded for coded_list in coded_lists for coded in coded_list]

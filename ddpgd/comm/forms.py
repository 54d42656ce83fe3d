"""Forms of the ordered exchange: between all ranks at once, or inside nodes and then between them."""

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple, Protocol

from ddpgd.comm import traffic, tree
from ddpgd.comm.codec import Array, Coded, Float32
from ddpgd.comm.levels import Levels
from ddpgd.comm.message_plan import MessagePlan, Pieces, Sending, Values
from ddpgd.comm.transport import Transport
from ddpgd.comm.windows import Window, buckets, channel_windows, windows
from ddpgd.kernels.words import TAIL_WORDS


class Messages(Protocol):
    """The messages of a step, laid out. `sent`: all that this rank encodes on the way to owners."""

    sent: list[Coded]

    def reduce_scatter(self) -> None:
        """Hands each owner all pieces of its segment, and adds them in tree order."""

    def all_gather(self) -> None:
        """Hands every rank all segments' sums."""


class Part(NamedTuple):
    """A part of the sum that travels by itself: the elements `span` of rows, and their messages."""

    span: slice
    messages: Messages


class Form(Protocol):
    """A form of the exchange. `name`: the value of `--exchange`."""

    name: str

    @property
    def needs_host(self) -> bool:
        """True if the host must take part."""

    @property
    def bytes_sent(self) -> int:
        """The bytes that this rank has sent so far in groups of the form's own."""

    @property
    def bytes_between(self) -> int:
        """The part of `bytes_sent` that went to other nodes; 0 where it is not counted apart."""

    def plan(self, num_micro_batches: int, rows: Sequence[Array], slots: list[int]) -> list[Part]:
        """Lays out the messages of a step, part by part.

        Args:
            num_micro_batches: Micro-batches of the step, over all ranks.
            rows: Arrays (size + TAIL_WORDS,), one for each slot. The sum lands in rows[0] of every rank. A rank without
                micro-batches has its tail in rows[1].
            slots: The slots of this rank's pieces; one at most for a codec that loses something.
        """


class Flat:
    """`Form` in which all ranks exchange with each other; the gradient in buckets, the last one first, if there are `cuts`."""

    name = "flat"

    def __init__(self, transport: Transport, sending: Sending, cuts: Sequence[int] = ()) -> None:
        self._transport = transport
        self._sending = sending
        self._cuts = cuts

    @property
    def needs_host(self) -> bool:
        return self._transport.needs_host

    @property
    def bytes_sent(self) -> int:
        return 0

    @property
    def bytes_between(self) -> int:
        return 0

    def plan(self, num_micro_batches: int, rows: Sequence[Array], slots: list[int]) -> list[Part]:
        sending, world_size = self._sending, self._transport.world_size
        size, exact, sums_stay = sending.size, sending.codec.exact, sending.block_norms is not None
        pieces = _pieces(num_micro_batches, tree.ranges(num_micro_batches, world_size), exact)
        one_shot = traffic.is_one_shot(size, max(map(len, pieces.of_ranks)), exact) and not sums_stay
        # A tail that travels as its gradient does needs no message of its own.
        owners, joined = 1 if one_shot else world_size, exact and all(pieces.of_ranks)
        values, parts = _of_rows(rows, slots), []
        for bucket in buckets(size, () if one_shot else self._cuts):
            is_last = bucket.stop == size
            cut = windows(size, owners, joined, bucket, is_last, sending.owned if sums_stay else ())
            messages = MessagePlan(self._transport, sending, cut, pieces, values, rows[0], one_shot)
            parts.append(Part(slice(bucket.start, bucket.stop + TAIL_WORDS * is_last), messages))
        return parts


class TwoLevel:
    """`Form` in which the ranks of a node add their pieces first, as float32, and nodes exchange those sums."""

    name = "two-level"

    def __init__(self, levels: Levels, sending: Sending) -> None:
        self._levels = levels
        self._between = sending
        self._inside = sending._replace(codec=Float32(), residuals=None)

    @property
    def needs_host(self) -> bool:
        return self._levels.inside.needs_host or self._levels.between.needs_host

    @property
    def bytes_sent(self) -> int:
        return self._levels.inside.bytes_sent + self._levels.between.bytes_sent

    @property
    def bytes_between(self) -> int:
        return self._levels.between.bytes_sent

    def plan(self, num_micro_batches: int, rows: Sequence[Array], slots: list[int]) -> list[Part]:
        nodes, own, inside, between = self._levels
        size, exact = self._between.size, self._between.codec.exact
        world = tree.ranges(num_micro_batches, sum(nodes))
        joined = exact and all(world)
        neighbours = world[sum(nodes[:own]) : sum(nodes[: own + 1])]
        cut = windows(size, self._levels.num_channels, joined)
        pieces = _pieces(num_micro_batches, neighbours, exact)
        scatter = MessagePlan(inside, self._inside, cut, pieces, _of_rows(rows, slots), rows[0])
        crossing = self._crossing(joined)
        pieces = _pieces(num_micro_batches, tree.node_ranges(num_micro_batches, nodes), exact)
        exchange = MessagePlan(between, self._between, crossing, pieces, _of_roots(scatter.roots), rows[0])
        return [Part(slice(0, size + TAIL_WORDS), TwoLevelPlan(scatter, exchange))]

    def _crossing(self, joined: bool) -> list[Window]:
        """The windows that this rank exchanges with other nodes: those of its channel, if it carries one."""
        levels = self._levels
        if not levels.carries:
            return []
        return channel_windows(self._between.size, levels.nodes, joined, levels.inside.rank)


class TwoLevelPlan:
    """`Messages` of two plans, one inside the other."""

    def __init__(self, inside: MessagePlan, between: MessagePlan) -> None:
        self._inside = inside
        self._between = between
        self.sent = between.sent

    def reduce_scatter(self) -> None:
        self._inside.reduce_scatter()
        self._between.reduce_scatter()

    def all_gather(self) -> None:
        self._between.all_gather()
        self._inside.all_gather()


def _pieces(num_micro_batches: int, parts: list[range], exact: bool) -> Pieces:
    """The pieces of each part's micro-batches: subtrees; or, for codecs that lose something, the whole part as one leaf."""
    if exact:
        return Pieces(num_micro_batches, [tree.pieces(num_micro_batches, own) for own in parts])
    places = accumulate((int(bool(own)) for own in parts), initial=0)
    nodes = [[tree.Node(0, place)] if own else [] for own, place in zip(parts, places, strict=False)]
    return Pieces(sum(map(len, nodes)), nodes)


def _of_rows(rows: Sequence[Array], slots: list[int]) -> Values:
    return lambda window: [rows[slot][window.span] for slot in slots or [1] * window.is_tail]


def _of_roots(roots: list[tuple[Window, list[Array]]]) -> Values:
    """The parts of the subtrees that this rank has made of its node's pieces."""

    def values(window: Window) -> list[Array]:
        for owned, arrays in roots:
            start = window.span.start - owned.span.start
            if owned.is_tail == window.is_tail and owned.span.start <= window.span.start < owned.span.stop:
                return [array[start : start + window.span.stop - window.span.start] for array in arrays]
        raise AssertionError("a window between nodes is part of one inside")

    return values

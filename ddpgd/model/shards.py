"""Shards of layers: which columns each rank has, and what ranks that share layers send each other."""

from dataclasses import dataclass
from itertools import pairwise

from ddpgd.comm import tree
from ddpgd.comm.codec import Float32
from ddpgd.comm.message_plan import MessagePlan, Pieces, Sending
from ddpgd.comm.transport import Transport, gathering
from ddpgd.comm.windows import Window
from ddpgd.kernels.device_ops import Array
from ddpgd.kernels.ops import Ops


@dataclass(frozen=True)
class Shards:
    """The shards into which layers are cut, those of each of `num_ranks`, and those of this rank."""

    count: int
    num_ranks: int = 1
    rank: int = 0

    @property
    def of_ranks(self) -> list[range]:
        return [range(part.start, part.stop) for part in _even_parts(self.count, self.num_ranks)]

    @property
    def own(self) -> range:
        return self.of_ranks[self.rank]

    def columns(self, width: int) -> list[slice]:
        """Returns the columns of each shard, of `width`."""
        return _even_parts(width, self.count)

    def columns_of_ranks(self, width: int) -> list[slice]:
        """Returns the columns of each rank's shards."""
        columns = self.columns(width)
        return [slice(columns[own.start].start, columns[own.stop - 1].stop) for own in self.of_ranks]


class ShardSum:
    """The sum over shards of arrays (R, N), of which each rank gets its own columns; or, `to_all`, every rank all.

    Attributes:
        slots: The array of each of this rank's shards: fill them in order, and call `add` after each.
    """

    def __init__(
        self, ops: Ops, shards: Shards, transport: Transport, num_rows: int, width: int, to_all: bool = False
    ) -> None:
        leaves, piece_slots = tree.leaves(shards.count, shards.own)
        made = [ops.empty((num_rows, width), ops.vector_dtype) for _ in range(1 + max(leaf.slot for leaf in leaves))]
        flat = [slot.reshape(-1) for slot in made]
        self.slots = [made[leaf.slot] for leaf in leaves]
        self._ops = ops
        self._additions = [[(flat[into], flat[other]) for into, other in leaf.additions] for leaf in leaves]
        self._packings: list[tuple[Array, Array]] = []
        self._messages: MessagePlan | None = None
        self._total = made[0]
        if shards.num_ranks == 1:
            return
        pieces = [made[slot] for slot in piece_slots]
        cut = [slice(0, width)] if to_all else shards.columns_of_ranks(width)
        spans = [slice(num_rows * columns.start, num_rows * columns.stop) for columns in cut]
        packed = [ops.empty((num_rows * width,), ops.vector_dtype) for _ in pieces]
        for piece, row in zip(pieces, packed, strict=True):
            windows = (row[span].reshape(num_rows, -1) for span in spans)
            self._packings += [(piece[:, columns], out) for columns, out in zip(cut, windows, strict=True)]
        total = ops.empty((num_rows * width,), ops.vector_dtype)
        self._messages = MessagePlan(
            transport,
            Sending(ops, Float32(), num_rows * width, (flat[0], flat[0]), None),
            [Window(rank, span) for rank, span in enumerate(spans)],
            Pieces(shards.count, [tree.pieces(shards.count, own) for own in shards.of_ranks]),
            lambda window: [row[window.span] for row in packed],
            total,
            one_shot=to_all,
            hands_out=False,
        )
        own = 0 if to_all else shards.rank
        self._total = total[spans[own]].reshape(num_rows, -1)

    def add(self, number: int) -> None:
        """Adds what has come into slots[number] to what came before, as far as the order has it due."""
        for into, other in self._additions[number]:
            self._ops.add(into, other, into)

    def total(self) -> Array:
        """Returns the sum, once all slots have been added: (R, columns of this rank's shards), or all columns."""
        for piece, out in self._packings:
            self._ops.copy(piece, out)
        if self._messages:
            self._messages.reduce_scatter()
        return self._total


class ColumnGather:
    """Fills the columns of an array (R, N) that other ranks have."""

    def __init__(self, ops: Ops, shards: Shards, transport: Transport, x: Array) -> None:
        windows = [x[:, columns] for columns in shards.columns_of_ranks(x.shape[1])]
        parts = [ops.empty(window.shape, x.dtype) for window in windows]
        self._ops = ops
        self._own = windows[shards.rank], parts[shards.rank]
        pairs = enumerate(zip(parts, windows, strict=True))
        self._others = [pair for peer, pair in pairs if peer != shards.rank]
        self._gather = transport.all_to_all_init(*gathering([[part] for part in parts], shards.rank))

    def __call__(self) -> None:
        if self._others:
            self._ops.copy(*self._own)
        self._gather()
        for part, window in self._others:
            self._ops.copy(part, window)


def _even_parts(length: int, count: int) -> list[slice]:
    bounds = [part * length // count for part in range(count + 1)]
    return [slice(start, stop) for start, stop in pairwise(bounds)]

"""The exchange: the sum of a step's micro-batch gradients, equal on every rank, bit for bit.

Ordered form: each rank folds its micro-batches into the maximal subtrees that it covers (pieces); all_to_all hands every
rank all pieces of the segment that it owns; it adds them in tree order; all_gather gives everybody all segments.
Fast form: each rank folds all its pieces into one, and the transport's own all_reduce adds those in an order of its own.
Compressed form: the same, and a compressor sums those about.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ddpgd.comm import tree
from ddpgd.comm.codec import Array, Codec, Coded, Float32, WireLoss, measure
from ddpgd.comm.compressor import Compressor
from ddpgd.comm.message_plan import MessagePlan, Pieces, Residuals
from ddpgd.comm.transport import Transport
from ddpgd.kernels.ops import Ops
from ddpgd.kernels.philox import Purpose
from ddpgd.kernels.words import TAIL_WORDS, Tail

Leaf = Callable[[int, Array, Array], None]
"""leaf(m, grads, tail) puts the sums over micro-batch m's samples into grads, which still holds older values, and into
tail, which is handed in as zeros."""

Leaves = Callable[[range, Array, Array], None]
"""The same for G micro-batches side by side: leaves(range, grads (G, size), tails (G, TAIL_WORDS)), one row each; tails
too hold older values."""


ONE_SHOT_BYTES = 16 * 1024
"""Up to so many bytes from a rank, everybody hands everybody all: where latency costs more than bytes do."""


class Exchange:
    """Sums flat float32 gradients of any length, and their tails, over the ranks of a transport."""

    def __init__(
        self,
        transport: Transport,
        ops: Ops,
        size: int,
        codec: Codec | None = None,
        reduce: str = "ordered",
        join: int = 1,
        error_feedback: bool = False,
        seed: int = 0,
        compressor: Compressor | None = None,
    ) -> None:
        """`size`: elements of the gradient (0: tails alone); `reduce`: "ordered" or "fast".

        At most `join` micro-batches, a power of two, are computed side by side. `error_feedback`: what a codec loses is
        added to what it encodes next. `seed`: of codecs that round at random. A `compressor` sums in the codec's stead.
        The exchange owns a duplicate of `transport`.
        """
        if reduce not in ("ordered", "fast"):
            raise ValueError(f"reduce is {reduce!r}; it must be 'ordered' or 'fast'")
        self.transport = transport.duplicate()
        self.codec = codec or Float32()
        self.reduce = reduce
        self.size = size
        self.round = 0
        """How many sums there were: makes the random keys of each another. Whoever goes on from a checkpoint sets it."""
        self.wire_loss: WireLoss | None = None
        self.compressor = compressor
        self._residuals: Residuals | None = None
        if error_feedback and not self.codec.exact:
            self._residuals = Residuals(*(ops.zeros((size,), np.float32) for _ in ("sent", "owned")))
        self._seed = seed
        self._key = ops.zeros((3,), np.uint64)
        self._ops = ops
        self._join = join
        self._slots: list[_Rows] = []
        self._joined: list[_Rows] = []
        self._plans: dict[int, _Plan] = {}

    def sum(self, num_micro_batches: int, leaf: Leaf, stop: bool = False) -> tuple[Array, Array]:
        """The canonical sum of leaf(m) over all m < num_micro_batches: grads (size,) and tail (TAIL_WORDS,), float32.

        Each rank calls `leaf` for its own micro-batches. `stop` asks all ranks to stop: it is added to Tail.STOP.
        The arrays are the exchange's own, and are overwritten by its next use.
        """

        def leaves(micro_batches: range, grads: Array, tails: Array) -> None:
            for micro_batch, own_grads, tail in zip(micro_batches, grads, tails, strict=True):
                tail.fill(0)
                leaf(micro_batch, own_grads, tail)

        self.fold(num_micro_batches, leaves)
        return self.combine(num_micro_batches, stop)

    def fold(self, num_micro_batches: int, leaves: Leaves) -> None:
        """This rank's part: its micro-batches, added into pieces in canonical order. No communication."""
        plan = self._plan(num_micro_batches)
        if not plan.leaves:
            self._slot(plan.tail_slot).whole.fill(0)
        for own in plan.leaves:
            slot, count = self._slot(own.slot), len(own.micro_batches)
            rows = slot if count == 1 else self._joined_rows(count)
            leaves(own.micro_batches, rows.grads, rows.tails)
            if count > 1:
                self._ops.tree_sum(rows.whole, slot.row)
            for into, other in own.additions:
                self._add(into, other)

    def combine(self, num_micro_batches: int, stop: bool = False, look: bool = False) -> tuple[Array, Array]:
        """The communication that turns every rank's pieces into the sum, and its result.

        `look`: measures what encoding lost of what this rank sends, in `wire_loss`.
        """
        plan = self._plan(num_micro_batches)
        if stop:
            self._slot(plan.tail_slot).tail[Tail.STOP] = 1
        if self._folds_whole:
            for slot in plan.piece_slots[1:]:
                self._add(0, slot)
        if self.compressor:
            self.compressor.combine(self.round, *self.result)
        elif plan.wiring is None:
            self.transport.all_reduce(self._row(0))
        else:
            plan.wiring.exchange(self._key_of, self._measure_error if look else _no_measure)
        self.round += 1
        return self.result

    @property
    def needs_host(self) -> bool:
        """Whether the host must take part in `combine`."""
        if self.compressor:
            return self.compressor.needs_host
        return self.transport.needs_host or self.codec.random

    @property
    def wire(self) -> str:
        """What `--wire` calls the form of what travels."""
        return self.compressor.name if self.compressor else self.codec.name

    @property
    def bytes_sent(self) -> int:
        """By this rank, in all sums so far."""
        return self.transport.bytes_sent + (self.compressor.bytes_sent if self.compressor else 0)

    @property
    def residuals(self) -> dict[str, Array]:
        """What this rank has kept back, float32 (size,), by name: sums over ranks that must survive."""
        if self.compressor:
            return self.compressor.residuals
        return {} if self._residuals is None else {"sent": self._residuals.sent, "owned": self._residuals.owned}

    @property
    def result(self) -> tuple[Array, Array]:
        """The sum that `combine` made: grads (size,) and tail (TAIL_WORDS,), always the same arrays."""
        return self._slot(0).grad, self._slot(0).tail

    def micro_batches(self, num_micro_batches: int) -> range:
        """Which of the micro-batches this rank computes."""
        return tree.ranges(num_micro_batches, self.transport.world_size)[self.transport.rank]

    def num_pieces(self, num_micro_batches: int) -> int:
        """The largest number of pieces that any rank sends."""
        if self._folds_whole:
            return 1
        world = tree.ranges(num_micro_batches, self.transport.world_size)
        return max(len(tree.pieces(num_micro_batches, own)) for own in world)

    @property
    def ring_bytes(self) -> int:
        """What a rank would send in a sum of float32 by a ring: 2 (W - 1) / W of the vector."""
        return 2 * (self.transport.world_size - 1) * 4 * self.size // self.transport.world_size

    def residual_norm(self) -> float | None:
        """The L2 norm of what this rank has kept back of gradients; None where nothing is."""
        kept = [vector for name, vector in self.residuals.items() if name != "velocity"]
        return math.hypot(*(np.linalg.norm(self._ops.to_host(vector)) for vector in kept)) if kept else None

    @property
    def _sums_whole(self) -> bool:
        """Whether what sums takes one row of each rank."""
        return self.compressor is not None or self.reduce == "fast"

    @property
    def _folds_whole(self) -> bool:
        """Whether a rank adds all its micro-batches before anything travels: where no order is promised across ranks."""
        return self._sums_whole or not self.codec.exact

    def _pieces(self, num_micro_batches: int, own_slots: list[int]) -> Pieces:
        world = tree.ranges(num_micro_batches, self.transport.world_size)
        if not self._folds_whole:
            return Pieces(num_micro_batches, [tree.pieces(num_micro_batches, own) for own in world], own_slots)
        with_work = [rank for rank, own in enumerate(world) if own]
        nodes = [[tree.Node(0, with_work.index(rank))] if own else [] for rank, own in enumerate(world)]
        return Pieces(len(with_work), nodes, own_slots[:1])

    def _is_one_shot(self, num_micro_batches: int) -> bool:
        row_bytes = 4 * (self.size + TAIL_WORDS)
        return self.codec.exact and row_bytes * self.num_pieces(num_micro_batches) <= ONE_SHOT_BYTES

    def _key_of(self, stage: int) -> Array:
        if self.codec.random:
            index = (self.round << 17) | (stage << 16) | self.transport.rank
            self._ops.upload(np.array([self._seed, Purpose.ENCODE, index], np.uint64), self._key)
        return self._key

    def _measure_error(self, sent: list[Coded]) -> None:
        self.wire_loss = measure(sent, self._ops.to_host) or self.wire_loss

    def _add(self, into: int, slot: int) -> None:
        self._ops.add(self._row(into), self._row(slot), self._row(into))

    def _plan(self, num_micro_batches: int) -> "_Plan":
        plan = self._plans.get(num_micro_batches)
        if plan is None:
            if num_micro_batches < 1:
                raise ValueError(f"a sum of {num_micro_batches} micro-batches: there must be at least one")
            own = self.micro_batches(num_micro_batches)
            leaves, piece_slots = tree.leaves(num_micro_batches, own, self._join)
            pieces = self._pieces(num_micro_batches, piece_slots)
            sending = self.transport, self._ops, self.codec, self.size, pieces, self._row, self._residuals
            wiring = None if self._sums_whole else MessagePlan(*sending, self._is_one_shot(num_micro_batches))
            tail_slot = 0 if piece_slots or self._sums_whole else 1
            plan = self._plans[num_micro_batches] = _Plan(leaves, piece_slots, tail_slot, wiring)
        return plan

    def _row(self, slot: int) -> Array:
        return self._slot(slot).row

    def _slot(self, slot: int) -> "_Rows":
        while len(self._slots) <= slot:
            self._slots.append(_Rows(self._ops.zeros((1, self.size + TAIL_WORDS), np.float32), self.size))
        return self._slots[slot]

    def _joined_rows(self, count: int) -> "_Rows":
        """Rows for `count` micro-batches side by side, always the same objects for a count."""
        if not self._joined:
            whole = self._ops.zeros((self._join, self.size + TAIL_WORDS), np.float32)
            self._joined = [_Rows(whole[:number], self.size) for number in range(1, self._join + 1)]
        return self._joined[count - 1]


class _Rows:
    """Gradients and their tails, one micro-batch a row, and windows of them that stay the same objects."""

    def __init__(self, whole: Array, size: int) -> None:
        self.whole = whole
        self.grads = whole[:, :size]
        self.tails = whole[:, size:]
        self.row: Array = whole[0]
        self.grad = self.row[:size]
        self.tail = self.row[size:]


@dataclass(frozen=True)
class _Plan:
    """All that depends on the number of micro-batches of a step alone."""

    leaves: list[tree.Leaf]
    piece_slots: list[int]
    tail_slot: int
    """Where a rank without micro-batches puts its tail."""
    wiring: MessagePlan | None


def _no_measure(_sent: list[Coded]) -> None:
    pass

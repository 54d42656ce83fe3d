"""The exchange: the sum of a step's micro-batch gradients, equal on every rank, bit for bit.

Ordered form: each rank folds its micro-batches into the maximal subtrees that it covers (pieces); all_to_all hands every
rank all pieces of the segment that it owns; it adds them in tree order; all_gather gives everybody all segments.
Fast form: each rank folds all its pieces into one, and the transport's own all_reduce adds those in an order of its own.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ddpgd.comm import tree
from ddpgd.comm.codec import Array, Codec, Float32
from ddpgd.comm.transport import Transport
from ddpgd.comm.wiring import Wiring
from ddpgd.kernels.ops import Ops
from ddpgd.tail import TAIL_WORDS, Tail

Leaf = Callable[[int, Array, Array], None]
"""leaf(m, grads, tail) puts the sums over micro-batch m's samples into grads, which still holds older values, and into
tail, which is handed in as zeros."""


class Exchange:
    """Sums flat float32 gradients of any length, and their tails, over the ranks of a transport."""

    def __init__(
        self,
        transport: Transport,
        ops: Ops,
        size: int,
        codec: Codec | None = None,
        reduce: str = "ordered",
    ) -> None:
        """`size`: elements of the gradient (0: tails alone); `reduce`: "ordered" or "fast".

        The exchange owns a duplicate of `transport`.
        """
        if reduce not in ("ordered", "fast"):
            raise ValueError(f"reduce is {reduce!r}; it must be 'ordered' or 'fast'")
        self.transport = transport.duplicate()
        self.codec = codec or Float32()
        self.reduce = reduce
        self.size = size
        self._ops = ops
        self._rows: list[Array] = []
        self._halves: list[tuple[Array, Array]] = []
        self._plans: dict[int, _Plan] = {}

    def sum(self, num_micro_batches: int, leaf: Leaf, stop: bool = False) -> tuple[Array, Array]:
        """The canonical sum of leaf(m) over all m < num_micro_batches: grads (size,) and tail (TAIL_WORDS,), float32.

        Each rank calls `leaf` for its own micro-batches. `stop` asks all ranks to stop: it is added to Tail.STOP.
        The arrays are the exchange's own, and are overwritten by its next use.
        """
        self.fold(num_micro_batches, leaf)
        return self.combine(num_micro_batches, stop)

    def fold(self, num_micro_batches: int, leaf: Leaf) -> None:
        """This rank's part: its micro-batches, added into pieces in canonical order. No communication."""
        plan = self._plan(num_micro_batches)
        if not plan.leaves:
            self._row(0).fill(0)
        for own in plan.leaves:
            grads, tail = self._halves_of(own.slot)
            tail.fill(0)
            leaf(own.micro_batch, grads, tail)
            for into, slot in own.additions:
                self._add(into, slot)

    def combine(self, num_micro_batches: int, stop: bool = False) -> tuple[Array, Array]:
        """The communication that turns every rank's pieces into the sum, and its result."""
        plan = self._plan(num_micro_batches)
        self._halves_of(0)[1][Tail.STOP] = stop
        if self.reduce == "fast":
            for slot in plan.piece_slots[1:]:
                self._add(0, slot)
            self.transport.all_reduce(self._row(0))
        else:
            plan.wiring.exchange()
        return self._halves_of(0)

    def micro_batches(self, num_micro_batches: int) -> range:
        """Which of the micro-batches this rank computes."""
        return tree.ranges(num_micro_batches, self.transport.world_size)[self.transport.rank]

    def num_pieces(self, num_micro_batches: int) -> int:
        """The largest number of pieces that any rank sends."""
        world = tree.ranges(num_micro_batches, self.transport.world_size)
        return max(len(tree.pieces(num_micro_batches, own)) for own in world)

    def _add(self, into: int, slot: int) -> None:
        self._ops.add(self._row(into), self._row(slot), self._row(into))

    def _plan(self, num_micro_batches: int) -> "_Plan":
        plan = self._plans.get(num_micro_batches)
        if plan is None:
            if num_micro_batches < 1:
                raise ValueError(f"a sum of {num_micro_batches} micro-batches: there must be at least one")
            leaves, piece_slots = tree.leaves(num_micro_batches, self.micro_batches(num_micro_batches))
            wiring = Wiring(self.transport, self._ops, self.codec, self.size, num_micro_batches, self._row, piece_slots)
            plan = self._plans[num_micro_batches] = _Plan(leaves, piece_slots, wiring)
        return plan

    def _row(self, slot: int) -> Array:
        while len(self._rows) <= slot:
            row = self._ops.zeros((self.size + TAIL_WORDS,), np.float32)
            self._rows.append(row)
            self._halves.append((row[: self.size], row[self.size :]))
        return self._rows[slot]

    def _halves_of(self, slot: int) -> tuple[Array, Array]:
        """A row's grads and tail, always the same two objects."""
        self._row(slot)
        return self._halves[slot]


@dataclass(frozen=True)
class _Plan:
    """All that depends on the number of micro-batches of a step alone."""

    leaves: list[tree.Leaf]
    piece_slots: list[int]
    wiring: Wiring

"""A rank's rows: where its micro-batch gradients are put, and the additions that fold them into its pieces."""

from typing import NamedTuple

import numpy as np

from ddpgd.comm import tree
from ddpgd.comm.codec import Array
from ddpgd.kernels.ops import Ops
from ddpgd.kernels.words import TAIL_WORDS

ALIGNED_WORDS = 64
"""Each row begins at a multiple of so many float32 words, 256 bytes, as an allocation of its own does on a GPU."""


class Rows:
    """Gradients and their tails, one micro-batch a row, and views of them that stay the same objects."""

    def __init__(self, whole: Array, size: int) -> None:
        self.whole = whole
        self.grads = whole[:, :size]
        self.tails = whole[:, size:]
        self.row: Array = whole[0]
        self.grad = self.row[:size]
        self.tail = self.row[size:]


class Group(NamedTuple):
    """Micro-batches that a rank computes side by side, the rows that take their sums, and what `fold` does then.

    `total`: the row that takes the sum over several rows; None: there is one row, which is it. `additions`: pairs (into,
    other) of rows.
    """

    micro_batches: range
    rows: Rows
    total: Array | None
    additions: list[tuple[Array, Array]]

    def fold(self, ops: Ops, span: slice | None = None) -> None:
        """Adds the rows, once filled, into a rank's pieces, in canonical order; the elements of `span` alone, if given."""

        def of(rows: Array) -> Array:
            return rows if span is None else rows[..., span]

        if self.total is not None:
            ops.tree_sum(of(self.rows.whole), of(self.total))
        for into, other in self.additions:
            ops.add(of(into), of(other), of(into))


class RowPool:
    """The rows of one exchange: few slots, used again and again, and rows for micro-batches computed side by side."""

    def __init__(self, ops: Ops, size: int, join: int) -> None:
        """`size`: elements of a gradient. `join`: the most micro-batches that are computed side by side."""
        self._ops = ops
        self._size = size
        self._join = join
        self._slots: list[Rows] = []
        self._batched: list[Rows] = []

    def slot(self, number: int) -> Rows:
        """A single row; made at the first use."""
        while len(self._slots) <= number:
            self._slots.append(self._make(1))
        return self._slots[number]

    def all_rows(self) -> list[Array]:
        """The arrays of all slots so far."""
        return [rows.row for rows in self._slots]

    def groups(self, num_micro_batches: int, own: range) -> tuple[list[Group], list[int]]:
        """A rank's micro-batches `own` of so many as groups, and the slots in which its pieces end."""
        leaves, piece_slots = tree.leaves(num_micro_batches, own, self._join)
        return [self._group(leaf) for leaf in leaves], piece_slots

    def _group(self, leaf: tree.Leaf) -> Group:
        count, slot = len(leaf.micro_batches), self.slot(leaf.slot)
        additions = [(self.slot(into).row, self.slot(other).row) for into, other in leaf.additions]
        if count == 1:
            return Group(leaf.micro_batches, slot, None, additions)
        return Group(leaf.micro_batches, self._side_by_side(count), slot.row, additions)

    def _side_by_side(self, count: int) -> Rows:
        """Rows for `count` micro-batches, always the same objects for a count."""
        if not self._batched:
            most = self._make(self._join)
            self._batched = [Rows(most.whole[:number], self._size) for number in range(1, self._join + 1)]
        return self._batched[count - 1]

    def _make(self, count: int) -> Rows:
        num_words = self._size + TAIL_WORDS
        padded = -(-num_words // ALIGNED_WORDS) * ALIGNED_WORDS
        return Rows(self._ops.zeros((count, padded), np.float32)[:, :num_words], self._size)

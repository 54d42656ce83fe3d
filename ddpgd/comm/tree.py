"""The canonical sum: which micro-batches a rank computes, and the order in which everything is added.

The order is the complete binary tree over micro-batch indices. Node `index` of level `level` covers micro-batches
[index 2^level, (index + 1) 2^level); a node whose right half lies beyond the last micro-batch is its left half.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Generic, TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True)
class Node:
    """A subtree's root."""

    level: int
    index: int


@dataclass(frozen=True)
class Leaf:
    """Micro-batches computed side by side, the slot that takes the sum of their gradients, and the additions (into, from)
    of slots that are due after it. They are a whole subtree."""

    micro_batches: range
    slot: int
    additions: tuple[tuple[int, int], ...]


def ranges(num_micro_batches: int, world_size: int) -> list[range]:
    """The contiguous micro-batches of each rank: none holds more than ceil(M / W), ranks at the end may hold none.

    Within that bound a boundary moves to the index that the largest power of two divides, for fewer, larger subtrees.
    """
    largest = -(-num_micro_batches // world_size)
    bounds = [0]
    for rank in range(1, world_size + 1):
        must_leave = (world_size - rank) * largest
        lowest = max(bounds[-1] + 1, num_micro_batches - must_leave)
        highest = min(bounds[-1] + largest, num_micro_batches)
        bounds.append(_most_aligned(lowest, highest) if lowest <= highest else num_micro_batches)
    return [range(first, end) for first, end in pairwise(bounds)]


def node_ranges(num_micro_batches: int, nodes: Sequence[int]) -> list[range]:
    """The contiguous micro-batches of each node, of which `nodes` gives the number of ranks: those of its ranks together."""
    world = ranges(num_micro_batches, sum(nodes))
    bounds = [0, *accumulate(nodes)]
    return [range(world[first].start, world[end - 1].stop) for first, end in pairwise(bounds)]


class Fold(Generic[Item]):
    """Adds items, handed in from left to right, into the maximal subtrees that they cover.

    `add(left, right)` must add `right` into `left`; afterwards `left` stands for their parent.
    """

    def __init__(self, num_micro_batches: int, add: Callable[[Item, Item], None]) -> None:
        self._num_micro_batches = num_micro_batches
        self._add = add
        self.roots: list[tuple[Node, Item]] = []

    def push(self, node: Node, item: Item) -> None:
        """Takes the next subtree to the right and makes every addition that is now due."""
        self.roots.append((self._grown(node), item))
        while len(self.roots) > 1 and _are_halves(self.roots[-2][0], self.roots[-1][0]):
            _, right = self.roots.pop()
            parent, left = self.roots.pop()
            self._add(left, right)
            self.roots.append((self._grown(Node(parent.level + 1, parent.index // 2)), left))

    def _grown(self, node: Node) -> Node:
        """The highest node that is the same subtree, because the right halves above it are empty."""
        level, index = node.level, node.index
        while index % 2 == 0 and (index << level) > 0 and (index + 1) << level >= self._num_micro_batches:
            level, index = level + 1, index // 2
        return Node(level, index)


def pieces(num_micro_batches: int, own: range) -> list[Node]:
    """The maximal subtrees that the micro-batches `own` cover."""
    fold = Fold[None](num_micro_batches, lambda _left, _right: None)
    first = own.start
    while first < own.stop:
        level = min(_alignment(first) or own.stop, own.stop - first).bit_length() - 1
        fold.push(Node(level, first >> level), None)
        first += 1 << level
    return [node for node, _ in fold.roots]


def leaves(num_micro_batches: int, own: range, join: int = 1) -> tuple[list[Leaf], list[int]]:
    """The folding of a rank's micro-batches `own`: the leaves in order, and the slots in which its pieces end.

    At most `join` micro-batches, a power of two, make a leaf. A slot that was added into another is free again, so that
    few are needed; the first piece ends in slot 0.
    """
    free: list[int] = []
    additions: list[tuple[int, int]] = []

    def add(left: int, right: int) -> None:
        additions.append((left, right))
        free.append(right)

    fold = Fold[int](num_micro_batches, add)
    leaves: list[Leaf] = []
    start = own.start
    while start < own.stop:
        node, end = _subtree(num_micro_batches, start, own.stop, join)
        slot = free.pop() if free else len(fold.roots)
        additions.clear()
        fold.push(node, slot)
        leaves.append(Leaf(range(start, end), slot, tuple(additions)))
        start = end
    return leaves, [slot for _, slot in fold.roots]


def _subtree(num_micro_batches: int, start: int, stop: int, join: int) -> tuple[Node, int]:
    """The largest subtree that begins at `start`, ends at `stop` at most, and covers up to `join`; and its end."""
    level = min(join, _alignment(start) or join).bit_length() - 1
    while start + (1 << level) > stop and stop < num_micro_batches:
        level -= 1
    return Node(level, start >> level), min(start + (1 << level), stop)


def _most_aligned(lowest: int, highest: int) -> int:
    """Returns the index from `lowest` (at least 1) to `highest` that the largest power of two divides."""
    level = ((lowest - 1) ^ highest).bit_length() - 1
    return highest >> level << level


def _alignment(index: int) -> int:
    """Returns the largest power of two that divides `index`; 0 for 0, which all divide."""
    return index & -index


def _are_halves(left: Node, right: Node) -> bool:
    return left.level == right.level and left.index % 2 == 0 and right.index == left.index + 1

"""The canonical sum: who computes which micro-batches, which subtrees those make, and in which order all is added."""

from itertools import chain, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddpgd.comm.tree import Fold, Node, leaves, pieces, ranges
from oracles import tree_fold

counts = st.integers(1, 300)
world_sizes = st.integers(1, 70)


def subtrees(num_micro_batches: int) -> set[tuple[int, int]]:
    """The micro-batches [first, end) of every node of the canonical tree."""
    spans = [2**level for level in range(num_micro_batches.bit_length() + 1)]
    starts = [(first, first + span) for span in spans for first in range(0, num_micro_batches, span)]
    return {(first, min(end, num_micro_batches)) for first, end in starts}


def bracket(left: str, right: str) -> str:
    return f"({left}+{right})"


def cover(node: Node, num_micro_batches: int) -> tuple[int, int]:
    return node.index << node.level, min((node.index + 1) << node.level, num_micro_batches)


@given(counts, world_sizes)
def test_ranges_are_contiguous_and_complete(num_micro_batches: int, world_size: int) -> None:
    shares = ranges(num_micro_batches, world_size)
    assert len(shares) == world_size
    assert list(chain.from_iterable(shares)) == list(range(num_micro_batches))


@given(counts, world_sizes)
def test_no_share_exceeds_the_even_one_and_rank_0_always_has_one(num_micro_batches: int, world_size: int) -> None:
    shares = [len(share) for share in ranges(num_micro_batches, world_size)]
    assert max(shares) <= -(-num_micro_batches // world_size)
    assert shares[0] >= 1


@pytest.mark.parametrize("world_size", [1, 2, 4, 8, 64])
@pytest.mark.parametrize("share", [1, 2, 4, 16])
def test_powers_of_two_make_one_piece_a_rank(world_size: int, share: int) -> None:
    num_micro_batches = world_size * share
    for own in ranges(num_micro_batches, world_size):
        assert len(own) == share
        assert len(pieces(num_micro_batches, own)) == 1


@given(counts, st.data())
def test_pieces_are_the_maximal_subtrees_of_any_range(num_micro_batches: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, num_micro_batches))
    end = data.draw(st.integers(first, num_micro_batches))
    inside = {(low, high) for low, high in subtrees(num_micro_batches) if first <= low and high <= end}
    maximal = {
        (low, high)
        for low, high in inside
        if not any((a, b) != (low, high) and a <= low and high <= b for a, b in inside)
    }
    assert [cover(node, num_micro_batches) for node in pieces(num_micro_batches, range(first, end))] == sorted(maximal)


@given(counts, world_sizes)
def test_pieces_are_few(num_micro_batches: int, world_size: int) -> None:
    for own in ranges(num_micro_batches, world_size):
        assert len(pieces(num_micro_batches, own)) <= max(1, 2 * (len(own)).bit_length())


@given(counts, world_sizes, st.sampled_from([1, 2, 4, 16, 64]))
def test_ranks_and_owner_together_add_in_canonical_order(num_micro_batches: int, world_size: int, join: int) -> None:
    """With brackets in place of additions: each rank's slots, then the owner's fold, spell the definition's tree."""
    everywhere: Fold[list[str]]

    def add(left: list[str], right: list[str]) -> None:
        left[0] = bracket(left[0], right[0])

    everywhere = Fold(num_micro_batches, add)
    for own in ranges(num_micro_batches, world_size):
        plan, ends = leaves(num_micro_batches, own, join)
        slots: dict[int, list[str]] = {}
        for leaf in plan:
            joined = [str(micro_batch) for micro_batch in leaf.micro_batches]
            assert 1 <= len(joined) <= join
            slots[leaf.slot] = [tree_fold(joined, bracket)]
            for into, slot in leaf.additions:
                add(slots[into], slots.pop(slot))
        assert sorted(slots) == sorted(ends)
        assert not ends or ends[0] == 0
        for node, slot in zip(pieces(num_micro_batches, own), ends, strict=True):
            everywhere.push(node, slots[slot])
    wanted = tree_fold([str(leaf) for leaf in range(num_micro_batches)], bracket)
    assert [item for _, item in everywhere.roots] == [[wanted]]


@given(counts, world_sizes)
def test_slots_are_few(num_micro_batches: int, world_size: int) -> None:
    for own in ranges(num_micro_batches, world_size):
        plan, _ = leaves(num_micro_batches, own)
        assert len({leaf.slot for leaf in plan}) <= 2 * len(own).bit_length() + 1


@pytest.mark.parametrize(
    ("num_micro_batches", "world_size", "bounds"),
    [(7, 3, [0, 2, 4, 7]), (10, 4, [0, 2, 4, 7, 10]), (50, 3, [0, 16, 33, 50]), (3, 8, [0, 1, 2, 3, 3, 3, 3, 3, 3])],
)
def test_boundaries_move_to_aligned_indices(num_micro_batches: int, world_size: int, bounds: list[int]) -> None:
    assert ranges(num_micro_batches, world_size) == [range(*pair) for pair in pairwise(bounds)]


def test_ranges_and_pieces_are_those_of_the_definition() -> None:
    """Bit arithmetic against the search for the best aligned boundary, and against pushing micro-batches one by one."""
    for total in range(1, 50):
        for world_size in range(1, 12):
            largest, bounds = -(-total // world_size), [0]
            for rank in range(1, world_size + 1):
                lowest = max(bounds[-1] + 1, total - (world_size - rank) * largest)
                highest = min(bounds[-1] + largest, total)
                bounds.append(max(range(lowest, highest + 1), key=lambda index: index & -index, default=total))
            assert ranges(total, world_size) == [range(*pair) for pair in pairwise(bounds)]
        for start in range(total):
            for stop in range(start, total + 1):
                fold = Fold[None](total, lambda _left, _right: None)
                for micro_batch in range(start, stop):
                    fold.push(Node(0, micro_batch), None)
                assert pieces(total, range(start, stop)) == [node for node, _ in fold.roots]

"""Groups that are split off: over threads, staged, counted, and alone."""

import threading
from collections.abc import Callable

import numpy as np
import pytest

from ddpgd.comm.counted import Counted
from ddpgd.comm.transport import Alone, Transport
from ddpgd.comm.transports import threads
from ddpgd.comm.transports.staged import Staged
from ddpgd.comm.transports.threads import Threads
from ddpgd.comm.whereabouts import COLLECTIVE, COUNTS, GROUP, IDS, NONE, NUM_GROUPS, NUM_WORDS
from ddpgd.kernels.reference.backend import Reference
from split_laws import COLORINGS, check_split

AROUND = {
    "threads": lambda world: world,
    "staged": lambda world: Staged(world, Reference()),
    "counted": lambda world: Counted(world, memoryview(np.zeros(NUM_WORDS, np.int64))),
}


@pytest.mark.parametrize("coloring", COLORINGS)
@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("around", AROUND)
def test_groups(around: str, world_size: int, coloring: str) -> None:
    threads.run(world_size, lambda world: check_split(AROUND[around](world), coloring))


def test_one_rank_is_its_own_group() -> None:
    check_split(Alone(), "in turn")


def test_the_collectives_of_groups_are_counted_with_those_of_the_whole() -> None:
    def work(world: Threads) -> int:
        words = np.zeros(NUM_WORDS, np.int64)
        whole = Counted(world, memoryview(words))
        group = whole.split(world.rank % 2)
        group.barrier()
        group.duplicate().barrier()
        whole.barrier()
        return int(words[COUNTS:].sum())

    assert threads.run(4, work) == [5, 5, 5, 5]


def test_a_collective_of_one_rank_alone_is_not_counted() -> None:
    words = np.zeros(NUM_WORDS, np.int64)
    Counted(Alone(), memoryview(words)).barrier()
    assert words[COUNTS:].sum() == 0


def test_a_rank_that_waits_in_its_group_is_counted_inside_of_a_collective() -> None:
    waits = threading.Event()

    def work(world: Threads) -> None:
        words = np.zeros(NUM_WORDS, np.int64)
        group = Counted(world, memoryview(words)).split(0)
        if world.rank == 0:
            waits.wait(60)
        else:
            threading.Timer(0.05, lambda: words[COLLECTIVE] != NONE and waits.set()).start()
        group.barrier()
        assert words[COLLECTIVE] == NONE
        assert words[COUNTS:].sum() == 3

    threads.run(2, work)
    assert waits.is_set()


def test_a_group_has_one_number_on_all_of_its_ranks() -> None:
    def work(world: Threads) -> list[tuple[int, int]]:
        words = np.zeros(NUM_WORDS, np.int64)
        whole = Counted(world, memoryview(words))
        pair = whole.split(world.rank // 2)
        crossing = whole.split(world.rank % 2)
        copy = pair.duplicate()
        for group, times in ((whole, 1), (pair, 2), (crossing, 3), (copy, 4)):
            before = words[COUNTS:].sum()
            for _ in range(times):
                group.barrier()
            assert words[COUNTS:].sum() - before == times
        return list(zip(words[IDS:COUNTS].tolist(), words[COUNTS:].tolist(), strict=True))[:4]

    shown = threads.run(4, work)
    assert [[count for _, count in groups] for groups in shown] == [[5, 2, 3, 4]] * 4  # two of each split
    numbers = [[number for number, _ in groups] for groups in shown]
    assert [len(set(column)) for column in zip(*numbers, strict=True)] == [1, 2, 2, 2]
    assert len({number for column in numbers for number in column}) == 7
    assert numbers[0][1] == numbers[1][1] != numbers[2][1]


def test_more_groups_than_there_is_room_for_are_not_told_apart() -> None:
    def work(world: Threads) -> None:
        words = np.zeros(NUM_WORDS, np.int64)
        group = Counted(world, memoryview(words))
        for _ in range(NUM_GROUPS + 3):
            group = group.duplicate()
        group.barrier()
        assert words[IDS + words[GROUP]] == 0
        assert words[COUNTS:].tolist() == [0] * NUM_GROUPS + [1]

    threads.run(2, work)


class Odd(Exception):
    pass


@pytest.mark.parametrize("failing", range(4))
@pytest.mark.parametrize("where", ["in its group", "in another", "before it splits", "after it was split twice"])
def test_a_rank_that_fails_frees_all_that_wait_in_groups(failing: int, where: str) -> None:
    came_through = []

    def work(world: Threads) -> None:
        if where == "before it splits" and world.rank == failing:
            raise Odd
        group: Transport = world.split(world.rank % 2)
        if where == "after it was split twice":
            group = group.split(0)
        if world.rank == failing:
            raise Odd
        waits_for_it = world.rank % 2 == failing % 2
        (group if waits_for_it or where != "in another" else world).barrier()
        if waits_for_it:
            came_through.append(world.rank)
        world.barrier()

    with pytest.raises(Odd):
        threads.run(4, work)
    assert not came_through


@pytest.mark.parametrize(
    ("others", "told"),
    [
        (lambda world: world.barrier(), "rank 0 in agreement, rank 1 in barrier, rank 2 in agreement"),
        (lambda world: world.all_gather([[np.zeros(2)]] * 3), "rank 1 in all-gather"),
    ],
)
def test_threads_that_meet_in_different_collectives_are_told(others: Callable[[Threads], None], told: str) -> None:
    def work(world: Threads) -> None:
        if world.rank == 1:
            others(world)
        else:
            world.all_gather_objects(world.rank)

    with pytest.raises(threads.CollectivesDiffer, match=told):
        threads.run(3, work)


def test_threads_with_other_arrays_are_told() -> None:
    def work(world: Threads) -> None:
        world.all_gather([[np.zeros(2 + (rank == world.rank == 1))] for rank in range(3)])

    with pytest.raises(threads.CollectivesDiffer, match="wants other arrays from rank 1 than it has"):
        threads.run(3, work)

"""Batches: every sample exactly once an epoch, cut where the configuration says, whoever computes."""

import threading
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ddpgd.comm.tree import ranges
from ddpgd.data.batches import Batches
from ddpgd.kernels.philox import permutation
from ddpgd.kernels.reference.backend import Reference
from ddpgd.kernels.words import Cursor
from ddpgd.training.batch_split import Algebra
from ddpgd.training.cursor import DataCursor

sizes = st.integers(1, 400)


def order_of(num_samples: int) -> Callable[[int], NDArray[np.int64]]:
    def order(epoch: int) -> NDArray[np.int64]:
        return permutation(5, epoch, num_samples)

    return order


@given(num_samples=sizes, global_batch=sizes, micro_batch=st.integers(1, 70), epoch=st.integers(0, 3))
def test_every_sample_exactly_once_an_epoch(num_samples: int, global_batch: int, micro_batch: int, epoch: int) -> None:
    batches = Batches(num_samples, global_batch, micro_batch, order_of(num_samples), 4)
    steps = range(epoch * batches.steps_per_epoch, (epoch + 1) * batches.steps_per_epoch)
    seen = []
    for step in steps:
        assert batches.epoch(step) == epoch
        cuts = [batches.indices(step, number) for number in range(batches.num_micro_batches(step))]
        lengths = [len(cut) for cut in cuts]
        assert sum(lengths) == batches.samples(step) <= global_batch
        assert all(length == micro_batch for length in lengths[:-1])
        assert 1 <= lengths[-1] <= micro_batch
        if step != steps[-1]:
            assert batches.samples(step) == global_batch
        seen += cuts
    np.testing.assert_array_equal(np.concatenate(seen), permutation(5, epoch, num_samples))


def test_steps_may_be_asked_for_in_any_order() -> None:
    batches, fresh = (Batches(40, 16, 5, order_of(40), 7) for _ in range(2))
    forward = [fresh.indices(step, 1).copy() for step in range(7)]
    for step in (6, 0, 5, 1, 4, 2):
        np.testing.assert_array_equal(batches.indices(step, 1), forward[step])


def test_an_epoch_is_ordered_once() -> None:
    asked = []

    def order(epoch: int) -> NDArray[np.int64]:
        asked.append(epoch)
        return np.arange(20)

    batches = Batches(20, 5, 2, order, 2)
    for step in range(8):
        for number in range(batches.num_micro_batches(step)):
            batches.indices(step, number)
    assert asked == [0, 1]


def test_the_next_order_is_made_in_a_thread_while_this_one_is_used() -> None:
    let_go, makers = threading.Event(), []

    def order(epoch: int) -> NDArray[np.int64]:
        makers.append((epoch, threading.current_thread().name))
        assert epoch == 0 or let_go.wait(30)
        return permutation(5, epoch, 40)

    batches = Batches(40, 16, 5, order, 2)
    current = batches.order(0)
    batches.prepare(1)
    batches.prepare(1)
    assert batches.order(0) is current, "made, while the thread waits"
    let_go.set()
    np.testing.assert_array_equal(batches.order(1), permutation(5, 1, 40))
    assert makers == [(0, threading.current_thread().name), (1, "order of epoch 2")]
    batches.prepare(2)
    assert len(makers) == 2, "a run of two epochs needs no third order"


def test_a_failure_in_the_thread_reaches_whoever_asks() -> None:
    def order(epoch: int) -> NDArray[np.int64]:
        raise MemoryError(f"no room for epoch {epoch}")

    batches = Batches(40, 16, 5, order, 9)
    batches.prepare(3)
    with pytest.raises(MemoryError, match="no room for epoch 3"):
        batches.order(3)
    batches.prepare(4)
    batches.close()


def test_no_more_than_one_thread_and_none_after_close() -> None:
    let_go = threading.Event()

    def order(epoch: int) -> NDArray[np.int64]:
        assert let_go.wait(30)
        return permutation(5, epoch, 40)

    batches, before = Batches(40, 16, 5, order, 9), set(threading.enumerate())
    batches.prepare(1)
    assert len(set(threading.enumerate()) - before) == 1
    let_go.set()
    batches.prepare(5)
    assert len(set(threading.enumerate()) - before) <= 1
    batches.close()
    assert set(threading.enumerate()) == before
    np.testing.assert_array_equal(batches.order(5), permutation(5, 5, 40))


@pytest.mark.parametrize(
    ("global_batch", "micro_batch", "world_size", "line"),
    [
        (512, 64, 4, "global batch 512 = 8 micro-batches of 64 = 4 ranks x 2 accumulated"),
        (256, 64, 1, "global batch 256 = 4 micro-batches of 64 = 1 rank x 4 accumulated"),
        (64, 64, 1, "global batch 64 = 1 micro-batch of 64 = 1 rank x 1 accumulated"),
        (50, 7, 3, "global batch 50 = 8 micro-batches of 7 (the last of 1) = 3 ranks x 2 or 3 accumulated"),
        (9, 1, 8, "global batch 9 = 9 micro-batches of 1 = 8 ranks x 0 to 2 accumulated"),
        (10, 5, 4, "global batch 10 = 2 micro-batches of 5 = 4 ranks x 0 or 1 accumulated"),
    ],
)
def test_the_algebra_in_one_line(global_batch: int, micro_batch: int, world_size: int, line: str) -> None:
    assert str(Algebra(global_batch, micro_batch, world_size)) == line


@given(global_batch=sizes, micro_batch=st.integers(1, 70), world_size=st.integers(1, 70))
def test_the_algebra_tells_what_the_ranks_really_get(global_batch: int, micro_batch: int, world_size: int) -> None:
    algebra = Algebra(global_batch, micro_batch, world_size)
    shares = [len(share) for share in ranges(algebra.num_micro_batches, world_size)]
    told = str(algebra).partition(" x ")[2].split()
    assert (int(told[0]), int(told[-2])) == (min(shares), max(shares))


def test_the_cursor_holds_the_epoch_of_its_order() -> None:
    batches = Batches(10, 4, 2, order_of(10), 3)
    at = DataCursor(Reference(), batches, lambda _: (0.1, 0.9))
    for step in (0, 1, 3, 8, 4):
        at.move_to(step, 0)
        assert at.cursor[Cursor.EPOCH] == batches.epoch(step)
        np.testing.assert_array_equal(at.order, order_of(10)(batches.epoch(step)))
    batches.close()

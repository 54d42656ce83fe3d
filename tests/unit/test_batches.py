"""Batches: every sample exactly once an epoch, cut where the configuration says, whoever computes."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ddpgd.comm.tree import ranges
from ddpgd.data.batches import Batches
from ddpgd.kernels.philox import permutation
from ddpgd.training.batch_split import Algebra

sizes = st.integers(1, 400)


def order_of(num_samples: int) -> Callable[[int], NDArray[np.int64]]:
    def order(epoch: int) -> NDArray[np.int64]:
        return permutation(5, epoch, num_samples)

    return order


@given(num_samples=sizes, global_batch=sizes, micro_batch=st.integers(1, 70), epoch=st.integers(0, 3))
def test_every_sample_exactly_once_an_epoch(num_samples: int, global_batch: int, micro_batch: int, epoch: int) -> None:
    batches = Batches(num_samples, global_batch, micro_batch, order_of(num_samples))
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
    batches, fresh = (Batches(40, 16, 5, order_of(40)) for _ in range(2))
    forward = [fresh.indices(step, 1).copy() for step in range(7)]
    for step in (6, 0, 5, 1, 4, 2):
        np.testing.assert_array_equal(batches.indices(step, 1), forward[step])


def test_an_epoch_is_ordered_once() -> None:
    asked = []

    def order(epoch: int) -> NDArray[np.int64]:
        asked.append(epoch)
        return np.arange(20)

    batches = Batches(20, 5, 2, order)
    for step in range(8):
        for number in range(batches.num_micro_batches(step)):
            batches.indices(step, number)
    assert asked == [0, 1]


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

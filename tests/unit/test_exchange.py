"""The exchange over threads: the canonical sum on every rank, bit for bit, however the micro-batches are cut."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ddpgd.comm.exchange import Exchange
from ddpgd.comm.transport import Alone
from ddpgd.comm.transports import threads
from ddpgd.comm.transports.threads import Threads
from ddpgd.kernels.reference.backend import Reference
from ddpgd.kernels.words import TAIL_WORDS, Tail
from oracles import bits, tree_fold, uneven

Array = NDArray[Any]
Sums = list[tuple[Array, Array]]

WORLD_SIZES = (1, 2, 3, 5, 7, 8, 64)
SIZES = (0, 1, 1000, 1024, 5000)
COUNTS = (8, 1, 2, 3, 7, 1, 100, 8, 13, 64)


def exchange(
    world_size: int,
    rows: Array,
    counts: Sequence[int] = (),
    reduce: str = "ordered",
    stops: frozenset[int] = frozenset(),
) -> tuple[list[Sums], list[int]]:
    """Each rank's sums of the first `count` rows, for each of `counts` (default: all); and the bytes that each sent.

    A row holds a gradient and its tail.
    """
    size = rows.shape[1] - TAIL_WORDS

    def work(transport: Threads) -> tuple[Sums, int]:
        own = Exchange(transport, Reference(), size, reduce=reduce)

        def leaf(micro_batch: int, grads: Array, tail: Array) -> None:
            assert not tail.any()
            grads[...], tail[...] = rows[micro_batch, :size], rows[micro_batch, size:]

        sums = []
        for count in counts or (len(rows),):
            grads, tail = own.sum(count, leaf, stop=transport.rank in stops)
            sums.append((grads.copy(), tail.copy()))
        return sums, own.transport.bytes_sent

    results = threads.run(world_size, work)
    return [sums for sums, _ in results], [sent for _, sent in results]


def make_rows(num_micro_batches: int, size: int) -> Array:
    rows = uneven(num_micro_batches * 7919 + size, num_micro_batches, size + TAIL_WORDS)
    rows[:, size + Tail.STOP] = 0
    return rows


@pytest.fixture
def in_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even small rows travel in segments."""
    monkeypatch.setattr("ddpgd.comm.traffic.ONE_SHOT_BYTES", 0)


@pytest.fixture(params=["in segments", "in one shot"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All rows, small and large, travel in the one way or the other."""
    monkeypatch.setattr("ddpgd.comm.traffic.ONE_SHOT_BYTES", 0 if request.param == "in segments" else 1 << 30)


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize(
    ("world_size", "size"),
    [(world_size, size) for world_size in WORLD_SIZES for size in SIZES if world_size <= 8 or size >= 5000],
)
def test_every_rank_holds_the_canonical_sum(world_size: int, size: int) -> None:
    """Over one exchange, which serves steps of any number of micro-batches, in any order."""
    rows = make_rows(max(COUNTS), size)
    results, _ = exchange(world_size, rows, COUNTS)
    for number, count in enumerate(COUNTS):
        wanted = bits(tree_fold(list(rows[:count])))
        for sums in results:
            grads, tail = sums[number]
            np.testing.assert_array_equal(bits(grads), wanted[:size])
            np.testing.assert_array_equal(bits(tail), wanted[size:])


def test_the_order_matters_for_these_values() -> None:
    rows = make_rows(13, 1000)
    assert not np.array_equal(tree_fold(list(rows)), np.add.reduce(rows, axis=0))


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("world_size", WORLD_SIZES)
@pytest.mark.parametrize("count", [1, 3, 8])
def test_negative_zero_survives(world_size: int, count: int) -> None:
    rows = np.full((count, 3000 + TAIL_WORDS), -0.0, np.float32)
    rows[:, 3000:] = 0
    for [(grads, _)] in exchange(world_size, rows)[0]:
        assert np.signbit(grads).all()


@pytest.mark.parametrize("reduce", ["ordered", "fast"])
@pytest.mark.parametrize("world_size", [2, 3, 8])
def test_nan_and_infinity_reach_everybody(world_size: int, reduce: str) -> None:
    rows = np.ones((5, 2048 + TAIL_WORDS), np.float32)
    rows[3, 7], rows[4, 2000] = np.nan, np.inf
    for [(grads, _)] in exchange(world_size, rows, reduce=reduce)[0]:
        assert np.isnan(grads[7])
        assert np.isposinf(grads[2000])
        assert np.isfinite(grads).sum() == 2046


@pytest.mark.parametrize("world_size", WORLD_SIZES)
@pytest.mark.parametrize("count", [1, 5, 64])
def test_fast_is_near_and_equal_on_all_ranks(world_size: int, count: int) -> None:
    rows, size = make_rows(count, 3000), 3000
    exact = rows.astype(np.float64).sum(axis=0)
    bound = count * np.finfo(np.float32).eps * np.abs(rows.astype(np.float64)).sum(axis=0)
    results, _ = exchange(world_size, rows, reduce="fast")
    for [(grads, tail)] in results:
        assert (np.abs(grads - exact[:size]) <= bound[:size]).all()
        assert (np.abs(tail - exact[size:]) <= bound[size:]).all()
        np.testing.assert_array_equal(bits(grads), bits(results[0][0][0]))
        np.testing.assert_array_equal(bits(tail), bits(results[0][0][1]))


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("reduce", ["ordered", "fast"])
@pytest.mark.parametrize(
    ("world_size", "rank"), [(world_size, rank) for world_size in (1, 2, 3, 5, 8) for rank in range(world_size)]
)
@pytest.mark.parametrize("count", [1, 3, 8])
def test_a_stop_request_of_any_rank_reaches_all(world_size: int, rank: int, count: int, reduce: str) -> None:
    rows = make_rows(count, 1024)
    for [(_, tail)] in exchange(world_size, rows, reduce=reduce, stops=frozenset([rank]))[0]:
        assert tail[Tail.STOP] == 1


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("reduce", ["ordered", "fast"])
@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_stop_requests_are_counted_and_do_not_linger(world_size: int, reduce: str) -> None:
    rows = make_rows(3, 10)
    everybody = frozenset(range(world_size))
    for [(_, tail)] in exchange(world_size, rows, reduce=reduce, stops=everybody)[0]:
        assert tail[Tail.STOP] == world_size
    for sums in exchange(world_size, rows, (3, 1, 3), reduce=reduce)[0]:
        assert [tail[Tail.STOP] for _, tail in sums] == [0, 0, 0]


@pytest.mark.parametrize("world_size", [1, 2, 4, 8])
@pytest.mark.parametrize("share", [1, 4])
def test_powers_of_two_send_the_bytes_of_a_ring(world_size: int, share: int) -> None:
    size = 16 * 1024
    rows = np.ones((world_size * share, size + TAIL_WORDS), np.float32)
    _, sent = exchange(world_size, rows)
    ring = 2 * (world_size - 1) * size * 4 // world_size
    tails = [TAIL_WORDS * 4] * (world_size - 1) + [TAIL_WORDS * 4 * (world_size - 1)]
    assert sent == [ring + tail for tail in tails]


@pytest.mark.usefixtures("in_segments")
def test_a_rank_without_micro_batches_sends_its_tail_and_the_sums_that_it_owns() -> None:
    # Two micro-batches on four ranks; the only block belongs to rank 3, the tail to rank 0.
    block, tail = 1024 * 4, TAIL_WORDS * 4
    _, sent = exchange(4, make_rows(2, 1024))
    assert sent == [block + 3 * tail, block + tail, tail, 3 * block + tail]


def test_small_rows_travel_in_one_shot() -> None:
    # Two micro-batches on four ranks: each piece goes to three peers, and so do the tails of ranks without one.
    row, tail = (1024 + TAIL_WORDS) * 4, TAIL_WORDS * 4
    _, sent = exchange(4, make_rows(2, 1024))
    assert sent == [3 * row, 3 * row, 3 * tail, 3 * tail]


def test_micro_batches_and_pieces_as_told() -> None:
    def work(transport: Threads) -> tuple[range, int]:
        own = Exchange(transport, Reference(), 10)
        return own.micro_batches(50), own.num_pieces(50)

    assert threads.run(3, work) == [(range(16), 5), (range(16, 33), 5), (range(33, 50), 5)]


class Odd(Exception):
    pass


@pytest.mark.parametrize("failing", range(5))
@pytest.mark.parametrize("late", [False, True])
def test_a_rank_that_raises_frees_the_others_and_tells_why(failing: int, late: bool) -> None:
    came_through = []

    def work(transport: Threads) -> None:
        if transport.rank == failing:
            time.sleep(0.02 if late else 0)
            raise Odd(f"rank {transport.rank}")
        transport.barrier()
        came_through.append(transport.rank)

    with pytest.raises(Odd, match=f"rank {failing}"):
        threads.run(5, work)
    assert not came_through


@pytest.mark.parametrize("failing", range(3))
def test_a_leaf_that_raises_on_one_rank_ends_the_exchange_of_all(failing: int) -> None:
    def work(transport: Threads) -> None:
        def leaf(micro_batch: int, _grads: Array, _tail: Array) -> None:
            if micro_batch == failing:
                raise Odd

        Exchange(transport, Reference(), 100).sum(3, leaf)

    with pytest.raises(Odd):
        threads.run(3, work)


@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_objects_are_gathered_in_rank_order(world_size: int) -> None:
    results = threads.run(world_size, lambda transport: transport.all_gather_objects(f"from {transport.rank}"))
    assert results == [[f"from {rank}" for rank in range(world_size)]] * world_size


def test_an_empty_sum_and_an_unknown_reduce_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Exchange(Alone(), Reference(), 4).sum(0, lambda _m, _grads, _tail: None)
    with pytest.raises(ValueError, match="'ordered' or 'fast'"):
        Exchange(Alone(), Reference(), 4, reduce="Fast")

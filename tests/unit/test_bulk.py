"""Large arrays travel between rank 0 and the others in pieces, whatever their length."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ddpgd.comm import bulk
from ddpgd.comm.transports import threads
from ddpgd.comm.transports.threads import Threads
from ddpgd.comm.windows import segments


class Noting(Threads):
    """Notes the longest message."""

    longest = 0

    def all_to_all(self, sends: Any, receives: Any) -> None:
        sizes = [array.nbytes for arrays in (*sends, *receives) for array in arrays]
        Noting.longest = max(Noting.longest, *sizes, 0)
        super().all_to_all(sends, receives)


def values(rank: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    return np.random.default_rng(rank).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
@pytest.mark.parametrize("shape", [(0,), (1,), (15,), (16,), (17,), (4, 9)])
def test_every_rank_gets_what_is_meant_for_it(
    monkeypatch: pytest.MonkeyPatch, world_size: int, shape: tuple[int, ...]
) -> None:
    monkeypatch.setattr(bulk, "PIECE_BYTES", 64)
    monkeypatch.setattr(threads, "Threads", Noting)

    def work(transport: Threads) -> None:
        rank, root, everybody = transport.rank, transport.rank == 0, range(world_size)
        array = values(rank, shape)
        bulk.broadcast(transport, array)
        np.testing.assert_array_equal(array, values(0, shape))
        own, size = values(20 + rank, shape).reshape(-1), array.size
        whole = bulk.gather_parts(
            transport, own, [(slice(0, size),) if peer == world_size - 1 else () for peer in everybody], size
        )
        np.testing.assert_array_equal(whole, values(19 + world_size, shape).reshape(-1) if root else np.empty(0))

    threads.run(world_size, work)
    assert Noting.longest <= 64


@pytest.mark.parametrize(("size", "world_size"), [(0, 3), (1024, 3), (5000, 1), (5000, 4), (4096, 5)])
def test_parts_become_a_vector_and_back(size: int, world_size: int) -> None:
    spans, vector = segments(size, world_size), values(0, (size,))
    places = [(span,) for span in spans]

    def work(transport: Threads) -> None:
        part = bulk.scatter_parts(transport, vector if transport.rank == 0 else None, places)
        np.testing.assert_array_equal(part, vector[spans[transport.rank]])
        whole = bulk.gather_parts(transport, part, places, size)
        np.testing.assert_array_equal(whole, vector if transport.rank == 0 else np.empty(0))

    threads.run(world_size, work)


def test_a_part_of_several_places_is_sent_by_the_first_rank_that_has_it() -> None:
    places = [(slice(4, 6), slice(0, 1)), (slice(4, 6), slice(0, 1)), (slice(1, 4),)]
    vector = values(0, (6,))

    def work(transport: Threads) -> None:
        part = bulk.scatter_parts(transport, vector if transport.rank == 0 else None, places)
        np.testing.assert_array_equal(part, np.concatenate([vector[span] for span in places[transport.rank]]))
        if transport.rank == 1:
            part[:] = -1
        whole = bulk.gather_parts(transport, part, places, 6)
        np.testing.assert_array_equal(whole, vector if transport.rank == 0 else np.empty(0))

    threads.run(3, work)


@pytest.mark.parametrize(
    ("own", "placed"),
    [
        (slice(0, 3), ((4, 6), (0, 1))),
        (slice(0, 1), ((4, 5),)),
        (slice(1, 3), ((5, 6), (0, 1))),
        (slice(2, 2), ()),
        (slice(2, 7), ((0, 1), (8, 12))),
    ],
)
def test_places_of_a_part_of_what_was_cut_out(own: slice, placed: tuple[tuple[int, int], ...]) -> None:
    spans = slice(4, 6), slice(0, 1), slice(8, 14)
    assert bulk.placed(own, spans) == tuple(slice(*bounds) for bounds in placed)

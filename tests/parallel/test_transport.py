"""MPI over host memory: each collective, at every number of ranks; a communicator of its own; failures told to all."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from mpi4py import MPI

from ddpgd.comm.agreement import on_all_ranks, on_root
from ddpgd.comm.transports.mpi_cuda import MpiCuda
from ddpgd.comm.transports.mpi_host import MpiHost
from ddpgd.errors import DdpgdError, InputError, NonFiniteError

pytestmark = pytest.mark.mpi


def message(source: int, target: int, number: int = 0) -> Any:
    """The bytes that rank `source` sends to rank `target`: of another length and content for every pair."""
    return np.arange(1 + source + 2 * target + 3 * number, dtype=np.float32) + 100 * source + target


def test_rank_and_world_size_are_the_communicators(comm: MPI.Intracomm) -> None:
    transport = MpiHost(comm)
    assert (transport.rank, transport.world_size, transport.name) == (comm.rank, comm.size, "mpi-host")


@pytest.mark.parametrize("num_arrays", [0, 1, 3])
def test_all_to_all(comm: MPI.Intracomm, num_arrays: int) -> None:
    transport = MpiHost(comm)
    peers = [range(num_arrays) if peer != comm.rank else range(0) for peer in range(comm.size)]
    sends = [[message(comm.rank, peer, number) for number in numbers] for peer, numbers in enumerate(peers)]
    wanted = [[message(peer, comm.rank, number) for number in numbers] for peer, numbers in enumerate(peers)]
    receives = [[np.zeros_like(array) for array in arrays] for arrays in wanted]
    transport.all_to_all(sends, receives)
    for got, meant in zip(receives, wanted, strict=True):
        for left, right in zip(got, meant, strict=True):
            np.testing.assert_array_equal(left, right)
    assert transport.bytes_sent == sum(array.nbytes for arrays in sends for array in arrays)


@pytest.mark.parametrize("num_arrays", [0, 1, 3])
def test_all_gather(comm: MPI.Intracomm, num_arrays: int) -> None:
    transport = MpiHost(comm)
    wanted = [[message(peer, 0, number) for number in range(num_arrays)] for peer in range(comm.size)]
    parts = [
        [array if peer == comm.rank else np.zeros_like(array) for array in wanted[peer]] for peer in range(comm.size)
    ]
    transport.all_gather(parts)
    for got, meant in zip(parts, wanted, strict=True):
        for left, right in zip(got, meant, strict=True):
            np.testing.assert_array_equal(left, right)
    assert transport.bytes_sent == (comm.size - 1) * sum(array.nbytes for array in wanted[comm.rank])


def test_only_some_may_have_a_part(comm: MPI.Intracomm) -> None:
    parts = [[np.full(4, peer, np.float32)] if peer == comm.size - 1 else [] for peer in range(comm.size)]
    if comm.rank != comm.size - 1:
        parts[-1][0].fill(-1)
    MpiHost(comm).all_gather(parts)
    np.testing.assert_array_equal(parts[-1][0], np.full(4, comm.size - 1))


@pytest.mark.parametrize("size", [1, 8, 100_000])
def test_all_reduce(comm: MPI.Intracomm, size: int) -> None:
    buffer = np.arange(size, dtype=np.float32) + comm.rank
    MpiHost(comm).all_reduce(buffer)
    np.testing.assert_array_equal(buffer, comm.size * np.arange(size) + sum(range(comm.size)))
    everybody = comm.allgather(buffer.tobytes())
    assert len(set(everybody)) == 1


def test_all_gather_objects(comm: MPI.Intracomm) -> None:
    gathered = MpiHost(comm).all_gather_objects({"rank": comm.rank, "text": "x" * comm.rank})
    assert gathered == [{"rank": rank, "text": "x" * rank} for rank in range(comm.size)]


@pytest.mark.mpi(min_size=2)
def test_a_pending_message_of_the_user_is_not_disturbed(comm: MPI.Intracomm) -> None:
    """Messages of every tag wait on the user's communicator, and a receive from anybody, while the transport works."""
    transport = MpiHost(comm)
    following, before = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
    theirs = np.full(4, -1, np.float32)
    receive = comm.Irecv(theirs, MPI.ANY_SOURCE, MPI.ANY_TAG)
    for duplicate in (transport, transport.duplicate()):
        empty: list[Any] = [[] for _ in range(comm.size)]
        sends, receives = list(empty), list(empty)
        sends[following], target = [np.full(4, comm.rank, np.float32)], np.zeros(4, np.float32)
        receives[before] = [target]
        duplicate.all_to_all(sends, receives)
        np.testing.assert_array_equal(target, before)
        np.testing.assert_array_equal(theirs, -1)
    comm.Barrier()
    send = comm.Isend(np.full(4, 7 + comm.rank, np.float32), following, tag=0)
    receive.Wait()
    send.Wait()
    np.testing.assert_array_equal(theirs, 7 + before)


@pytest.mark.mpi(min_size=2)
def test_a_duplicate_does_not_take_the_originals_messages(comm: MPI.Intracomm) -> None:
    first = MpiHost(comm)
    second = first.duplicate()
    assert (second.rank, second.world_size, second.bytes_sent) == (first.rank, first.world_size, 0)
    for transport, value in ((second, 2), (first, 1), (second, 2)):
        parts = [[np.full(3, value * 10 + peer if peer == comm.rank else 0, np.float32)] for peer in range(comm.size)]
        transport.all_gather(parts)
        assert [float(array[0]) for [array] in parts] == [value * 10 + peer for peer in range(comm.size)]
    assert first.bytes_sent * 2 == second.bytes_sent


def raising(error: DdpgdError | None) -> Callable[[], str]:
    def work() -> str:
        if error is not None:
            raise error
        return "well"

    return work


def test_together_without_a_failure(comm: MPI.Intracomm) -> None:
    assert on_all_ranks(MpiHost(comm), lambda: comm.rank) == comm.rank


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("failing", [0, -1])
@pytest.mark.parametrize("kind", [InputError, NonFiniteError])
def test_what_one_rank_finds_wrong_all_ranks_raise(comm: MPI.Intracomm, kind: type[DdpgdError], failing: int) -> None:
    failing %= comm.size
    with pytest.raises(kind, match=rf"^no such file \(on rank {failing}, host .+\)$"):
        on_all_ranks(MpiHost(comm), raising(kind("no such file") if comm.rank == failing else None))


def test_what_all_ranks_find_wrong_is_said_plainly(comm: MPI.Intracomm) -> None:
    with pytest.raises(InputError, match=r"^found by rank 0$"):
        on_all_ranks(MpiHost(comm), raising(InputError(f"found by rank {comm.rank}")))


def test_from_root_asks_rank_0_alone(comm: MPI.Intracomm) -> None:
    assert on_root(MpiHost(comm), lambda: f"by rank {comm.rank}") == "by rank 0"


def test_what_rank_0_finds_wrong_all_ranks_raise(comm: MPI.Intracomm) -> None:
    with pytest.raises(InputError, match=r"^no such flag$"):
        on_root(MpiHost(comm), raising(InputError("no such flag")))


class OnDevice:
    """Host memory that publishes itself as a GPU's, so that MPI is handed it as an array of CuPy would be."""

    def __init__(self, values: Any) -> None:
        self.values = values
        self.nbytes = values.nbytes
        self.__cuda_array_interface__ = values.__array_interface__ | {"version": 3, "stream": None}


def test_arrays_of_a_device_are_handed_to_mpi_when_the_device_is_done(comm: MPI.Intracomm) -> None:
    calls: list[str] = []
    transport = MpiCuda(MpiHost(comm), lambda: calls.append("synchronize")).duplicate()
    peers = [peer for peer in range(comm.size) if peer != comm.rank]
    sends = [[OnDevice(message(comm.rank, peer))] if peer in peers else [] for peer in range(comm.size)]
    wanted = [[message(peer, comm.rank)] if peer in peers else [] for peer in range(comm.size)]
    receives = [[OnDevice(np.zeros_like(array)) for array in arrays] for arrays in wanted]
    transport.all_to_all(sends, receives)  # type: ignore[arg-type]
    parts = [
        [OnDevice(message(peer, 0) if peer == comm.rank else np.zeros_like(message(peer, 0)))]
        for peer in range(comm.size)
    ]
    transport.all_gather(parts)  # type: ignore[arg-type]
    total = OnDevice(np.full(1000, comm.rank + 1, np.float32))
    transport.all_reduce(total)  # type: ignore[arg-type]
    for got, meant in zip(receives, wanted, strict=True):
        for left, right in zip(got, meant, strict=True):
            np.testing.assert_array_equal(left.values, right)
    for peer, (part,) in enumerate(parts):
        np.testing.assert_array_equal(part.values, message(peer, 0))
    assert (total.values == comm.size * (comm.size + 1) / 2).all()
    assert calls == ["synchronize"] * 3
    assert transport.bytes_sent > 0 or comm.size == 1

"""The exchange over MPI: the canonical sum on every rank, bit for bit, at every number of ranks."""

from typing import Any

import numpy as np
import pytest
from mpi4py import MPI
from numpy.typing import NDArray

import ddpgd
from ddpgd.comm.exchange import Exchange
from ddpgd.comm.transports.mpi_cuda import MpiCuda
from ddpgd.comm.transports.mpi_host import MpiHost
from ddpgd.comm.wires import FORMATS, WIRES
from ddpgd.kernels.reference.backend import Reference
from ddpgd.kernels.words import TAIL_WORDS, Tail
from oracles import bits, largest_of_blocks, tree_fold, uneven
from wire_cases import cases, count_bytes, make_load

Array = NDArray[Any]

pytestmark = pytest.mark.mpi

COUNTS = (1, 2, 3, 4, 7, 8, 13, 64)
over_sizes = pytest.mark.parametrize("size", [0, 1, 1000, 1024, 5000, 203_776])


def make_rows(count: int, size: int) -> Array:
    rows = uneven(count * 7919 + size, count, size + TAIL_WORDS)
    rows[:, size + Tail.STOP] = 0
    return rows


def sums(exchange: Exchange, rows: Array, stop: bool = False) -> tuple[Array, Array]:
    def leaf(micro_batch: int, grads: Array, tail: Array) -> None:
        grads[...], tail[...] = rows[micro_batch, : exchange.size], rows[micro_batch, exchange.size :]

    return exchange.sum(len(rows), leaf, stop)


@over_sizes
def test_every_rank_holds_the_canonical_sum(comm: MPI.Intracomm, size: int) -> None:
    exchange = ddpgd.exchange(comm, size)
    for count in COUNTS[: -1 if size > 100_000 else None]:
        rows = make_rows(count, size)
        wanted = tree_fold(list(rows))
        for _ in range(2):
            grads, tail = sums(exchange, rows)
            np.testing.assert_array_equal(bits(grads), bits(wanted[:size]))
            np.testing.assert_array_equal(bits(tail), bits(wanted[size:]))


@over_sizes
def test_fast_is_near_and_equal_on_all_ranks(comm: MPI.Intracomm, size: int) -> None:
    exchange = ddpgd.exchange(comm, size, reduce="fast")
    for count in (1, 5, 8):
        rows = make_rows(count, size)
        exact = rows.astype(np.float64).sum(axis=0)
        bound = count * np.finfo(np.float32).eps * np.abs(rows.astype(np.float64)).sum(axis=0)
        grads, tail = sums(exchange, rows)
        assert (np.abs(grads - exact[:size]) <= bound[:size]).all()
        assert (np.abs(tail - exact[size:]) <= bound[size:]).all()
        assert len(set(comm.allgather(grads.tobytes()))) == 1
        assert len(set(comm.allgather(tail.tobytes()))) == 1


@pytest.mark.parametrize("reduce", ["ordered", "fast"])
def test_a_stop_request_of_any_rank_reaches_all(comm: MPI.Intracomm, reduce: str) -> None:
    exchange, rows = ddpgd.exchange(comm, 2000, reduce), make_rows(2, 2000)
    for asking in range(comm.size):
        assert sums(exchange, rows, stop=comm.rank == asking)[1][Tail.STOP] == 1
        assert sums(exchange, rows)[1][Tail.STOP] == 0


def test_negative_zero_survives(comm: MPI.Intracomm) -> None:
    rows = np.full((1, 3000 + TAIL_WORDS), -0.0, np.float32)
    assert np.signbit(sums(ddpgd.exchange(comm, 3000), rows)[0]).all()


@pytest.mark.mpi(min_size=2)
def test_the_bytes_of_a_ring_where_all_is_a_power_of_two(comm: MPI.Intracomm) -> None:
    if comm.size & (comm.size - 1):
        pytest.skip(f"{comm.size} ranks: the law speaks of powers of two")
    size = 16 * 1024
    exchange = ddpgd.exchange(comm, size)
    sums(exchange, make_rows(4 * comm.size, size))
    tails = TAIL_WORDS * 4 * (comm.size - 1 if comm.rank == comm.size - 1 else 1)
    assert exchange.transport.bytes_sent == 2 * (comm.size - 1) * size * 4 // comm.size + tails


@pytest.mark.mpi(min_size=2)
def test_two_exchanges_and_the_users_messages_keep_apart(comm: MPI.Intracomm) -> None:
    """Ranks use two exchanges while a receive from anybody is open on the communicator that both were made of."""
    first, second = ddpgd.exchange(comm, 1500), ddpgd.exchange(comm, 1500)
    theirs = np.full(3, -1, np.float32)
    receive = comm.Irecv(theirs, MPI.ANY_SOURCE, MPI.ANY_TAG)
    for exchange, count in ((first, 5), (second, 3), (first, 2)):
        rows = make_rows(count, 1500)
        np.testing.assert_array_equal(sums(exchange, rows)[0], tree_fold(list(rows))[:1500])
    np.testing.assert_array_equal(theirs, -1)
    comm.Barrier()
    send = comm.Isend(np.full(3, comm.rank, np.float32), (comm.rank + 1) % comm.size)
    receive.Wait()
    send.Wait()
    np.testing.assert_array_equal(theirs, (comm.rank - 1) % comm.size)


@pytest.mark.mpi(min_size=2)
def test_part_of_the_world(comm: MPI.Intracomm) -> None:
    """An exchange knows the ranks of its communicator and no others: here the even and the odd ones, by themselves."""
    part = comm.Split(comm.rank % 2)
    rows = make_rows(6 + comm.rank % 2, 1200)
    np.testing.assert_array_equal(sums(ddpgd.exchange(part, 1200), rows)[0], tree_fold(list(rows))[:1200])
    part.Free()


TRANSPORTS = {"mpi-host": MpiHost, "mpi-cuda": lambda comm: MpiCuda(MpiHost(comm), lambda: None)}


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("error_feedback", [False, True])
@pytest.mark.parametrize("size", [1, 1000, 5000])
def test_lossy_wires_leave_replicas_equal_within_their_bound_and_lose_nothing(
    comm: MPI.Intracomm, transport: str, name: str, error_feedback: bool, size: int
) -> None:
    ops = Reference()
    codec = WIRES[name].codec(ops)
    exchange = Exchange(TRANSPORTS[transport](comm), ops, size, codec, error_feedback=error_feedback, seed=3)
    meant, applied = np.zeros(size), np.zeros(size)
    scale = np.zeros(size)
    for number, count in enumerate((1, 3, 8, 13)):
        rows = make_rows(count, size)
        grads, tail = sums(exchange, rows)
        assert len(set(comm.allgather(grads.tobytes() + tail.tobytes()))) == 1
        exact = rows[:, :size].astype(np.float64)
        meant, applied, scale = meant + exact.sum(axis=0), applied + grads, scale + np.abs(exact).sum(axis=0)
        if number == 0:
            # Two encodings at most, each within the bound of the largest of its block.
            largest = largest_of_blocks(np.abs(exact).sum(axis=0))
            assert (np.abs(grads - exact.sum(axis=0)) <= 2.1 * FORMATS[name].bound * largest).all()
    if error_feedback:
        residuals = exchange.residuals
        kept = comm.allreduce(residuals["sent"].astype(np.float64) + residuals["owned"])
        limit = 16 * np.finfo(np.float32).eps * largest_of_blocks(scale + np.abs(kept))
        assert (np.abs(meant - applied - kept) <= limit).all()


@pytest.mark.parametrize(("wire", "reduce", "size"), cases())
@pytest.mark.parametrize("count", [1, 7, 13])
def test_counted_bytes_are_the_tables(comm: MPI.Intracomm, wire: str, reduce: str, size: int, count: int) -> None:
    counted, _ = count_bytes(MpiHost(comm), count, wire, reduce, size)
    sums = WIRES[wire].traffic(make_load(size, count, comm.size, reduce))
    assert counted == sum(one.num_bytes[comm.rank] for one in sums)

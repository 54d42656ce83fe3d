"""Groups that are split off, over MPI: the laws, messages that keep apart, and close, which frees all."""

import numpy as np
import pytest
from mpi4py import MPI

import ddpgd
from ddpgd.comm.counted import Counted
from ddpgd.comm.exchange import Exchange
from ddpgd.comm.transport import Transport
from ddpgd.comm.transports.mpi_cuda import MpiCuda
from ddpgd.comm.transports.mpi_host import MpiHost
from ddpgd.comm.transports.staged import Staged
from ddpgd.comm.whereabouts import NUM_WORDS
from ddpgd.kernels.reference.backend import Reference
from split_laws import COLORINGS, check_split

pytestmark = pytest.mark.mpi

AROUND = {
    "mpi-host": lambda world: world,
    "mpi-cuda": lambda world: MpiCuda(world, lambda: None),
    "staged": lambda world: Staged(world, Reference()),
    "counted": lambda world: Counted(world, memoryview(np.zeros(NUM_WORDS, np.int64))),
}


@pytest.mark.parametrize("coloring", COLORINGS)
@pytest.mark.parametrize("around", AROUND)
def test_groups(comm: MPI.Intracomm, around: str, coloring: str) -> None:
    check_split(AROUND[around](MpiHost(comm)), coloring)


def test_messages_of_a_group_do_not_meet_those_of_the_whole(comm: MPI.Intracomm) -> None:
    """Each rank calls collectives of two groups and of the whole in turn, while a receive from anybody is open."""
    whole = MpiHost(comm)
    theirs = np.full(3, -1, np.float32)
    receive = comm.Irecv(theirs, MPI.ANY_SOURCE, MPI.ANY_TAG)
    groups = [whole.split(0), whole.split(comm.rank % 2), whole]
    for transport in (*groups, *reversed(groups)):
        parts = [
            [np.full(3, comm.rank if peer == transport.rank else -2, np.float32)]
            for peer in range(transport.world_size)
        ]
        transport.all_gather(parts)
        assert [int(part[0]) for [part] in parts] == transport.all_gather_objects(comm.rank)
    np.testing.assert_array_equal(theirs, -1)
    comm.Barrier()
    send = comm.Isend(np.full(3, comm.rank, np.float32), (comm.rank + 1) % comm.size)
    receive.Wait()
    send.Wait()


@pytest.mark.parametrize("closing", ["whole", "group", "duplicate of a group", "exchange of a group"])
def test_close_frees_the_whole_family(comm: MPI.Intracomm, closing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    families: list[list[MPI.Intracomm]] = []
    make = MpiHost.__init__

    def noting(self: MpiHost, comm: MPI.Intracomm, family: list[MPI.Intracomm] | None = None) -> None:
        make(self, comm, family)
        families.append(self._family)

    monkeypatch.setattr(MpiHost, "__init__", noting)
    whole = MpiHost(comm)
    group = whole.split(comm.rank % 2)
    copy = group.duplicate()
    closed: dict[str, Transport | Exchange] = {"whole": whole, "group": group, "duplicate of a group": copy}
    closed["exchange of a group"] = Exchange(group, Reference(), 10)
    assert len(families[0]) == len(families) == 4
    assert all(family is families[0] for family in families)
    closed[closing].close()
    assert families[0] == []


def test_an_exchange_of_a_group_is_one_of_its_ranks(comm: MPI.Intracomm) -> None:
    group = MpiHost(comm).split(comm.rank % 2)
    exchange = Exchange(group, Reference(), 1200)

    def leaf(micro_batch: int, grads: np.ndarray, tail: np.ndarray) -> None:
        grads.fill(micro_batch + comm.rank % 2)
        tail[ddpgd.StepStats.SAMPLES] = 1

    grads, tail = exchange.sum(5, leaf)
    np.testing.assert_array_equal(grads, 10 + 5 * (comm.rank % 2))
    assert tail[ddpgd.StepStats.SAMPLES] == 5

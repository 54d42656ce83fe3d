"""MPI over host memory: the transport of `mpirun`."""

from collections.abc import Callable, Sequence
from typing import Self

from mpi4py import MPI

from ddpgd.comm.transport import Array, T, gathering
from ddpgd.comm.transports.shared_all_to_all import shared_all_to_all


class MpiHost:
    """`Transport` over a duplicate of an MPI communicator, for arrays in host memory.

    `family`: the communicators, and their persistent requests, of the transport that this one is made from, and of all
    that are made from that.
    """

    name = "mpi-host"
    needs_host = True

    def __init__(self, comm: MPI.Comm, family: list[MPI.Comm | MPI.Prequest] | None = None) -> None:
        self._comm = comm.Dup()
        self._family = [] if family is None else family
        self._family.append(self._comm)
        self.rank = comm.Get_rank()
        self.world_size = comm.Get_size()
        self.bytes_sent = 0

    def all_to_all(self, sends: Sequence[Sequence[Array]], receives: Sequence[Sequence[Array]]) -> None:
        comm = self._comm
        requests = [comm.Irecv(array, peer) for peer, arrays in enumerate(receives) for array in arrays]
        for peer, arrays in enumerate(sends):
            for array in arrays:
                requests.append(comm.Isend(array, peer))
                self.bytes_sent += array.nbytes
        self._wait(requests)

    def all_to_all_init(
        self, sends: Sequence[Sequence[Array]], receives: Sequence[Sequence[Array]]
    ) -> Callable[[], None]:
        """As `Transport`: through memory that all ranks share, where that pays, else by persistent requests."""
        work = shared_all_to_all(self, sends, receives) or self._persistent(sends, receives)
        num_bytes = sum(array.nbytes for arrays in sends for array in arrays)

        def run() -> None:
            work()
            self.bytes_sent += num_bytes

        return run

    def all_gather(self, parts: Sequence[Sequence[Array]]) -> None:
        self.all_to_all(*gathering(parts, self.rank))

    def all_reduce(self, buffer: Array) -> None:
        """As `Transport`; the bytes counted are those of a ring, because the library does not tell."""
        self._comm.Allreduce(MPI.IN_PLACE, buffer)
        self.bytes_sent += 2 * buffer.nbytes * (self.world_size - 1) // self.world_size

    def all_gather_objects(self, value: T) -> list[T]:
        gathered: list[T] = self._comm.allgather(value)
        return gathered

    def barrier(self) -> None:
        self._comm.Barrier()

    def connect(self, peers: Sequence[int]) -> None:
        pass

    def send(self, array: Array, peer: int) -> Callable[[], object]:
        self.bytes_sent += array.nbytes
        return self._comm.Isend(array, peer).Wait

    def receive(self, array: Array, peer: int) -> Callable[[], object]:
        return self._comm.Irecv(array, peer).Wait

    def duplicate(self) -> Self:
        return type(self)(self._comm, self._family)

    def split(self, color: int) -> Self:
        part = MPI.Intracomm(self._comm.Split(color, self.rank))
        group = type(self)(part, self._family)
        part.Free()
        return group

    def close(self) -> None:
        while self._family:
            self._family.pop().Free()

    def revoke(self) -> None:
        """Ends the collectives of this group, and of all that are made from it, on all ranks; `mpi_elastic` goes on without."""
        for member in self._family:
            if isinstance(member, MPI.Comm):
                member.Revoke()

    def abort(self, exit_code: int) -> None:
        self._comm.Abort(exit_code)

    def _persistent(self, sends: Sequence[Sequence[Array]], receives: Sequence[Sequence[Array]]) -> Callable[[], None]:
        comm = self._comm
        requests = [comm.Recv_init(array, peer) for peer, arrays in enumerate(receives) for array in arrays]
        requests += [comm.Send_init(array, peer) for peer, arrays in enumerate(sends) for array in arrays]
        self._family += requests

        def run() -> None:
            MPI.Prequest.Startall(requests)
            self._wait(requests)

        return run

    def _wait(self, requests: Sequence[MPI.Request]) -> None:
        """Waits until all of them are complete."""
        MPI.Request.Waitall(requests)


def world() -> MpiHost:
    """All ranks that the launcher started."""
    return MpiHost(MPI.COMM_WORLD)


def library() -> str:
    """The name and version of the MPI library."""
    return MPI.Get_library_version().splitlines()[0].partition(",")[0]

"""NCCL between emulated GPUs of several processes: MPI does what a group asks for, in the order of the group's stream.

A send ends no sooner than its receive has begun, as NCCL's may. The host waits for none.
"""

import itertools
from typing import Any

import numpy as np

from .fake_stream import Stream

available = True
NCCL_UINT8, NCCL_FLOAT32, NCCL_SUM = 1, 7, 0
TAG = 1 << 10
"""Of the messages in which a communicator is made; the number of its unique id is added."""


class NcclError(RuntimeError):
    """The error that NCCL's calls raise."""


def get_unique_id() -> tuple[int, int]:
    """Returns an id that is this process's and no communicator's yet."""
    from mpi4py import MPI

    return MPI.COMM_WORLD.rank, next(_ids)


_ids = itertools.count()


def _members(world_size: int, identifier: tuple[int, int], rank: int) -> Any:
    """Returns MPI's communicator of the processes that start NCCL with this id."""
    from mpi4py import MPI

    world, (root, tag) = MPI.COMM_WORLD, (identifier[0], TAG + identifier[1])
    if rank == 0:
        if root != world.rank:
            raise NcclError("NCCL_ERROR_INVALID_ARGUMENT: the id of another process")
        others = dict(world.recv(tag=tag) for _ in range(world_size - 1))
        members = [root, *(others[rank] for rank in range(1, world_size))]
        for member in members[1:]:
            world.send(members, member, tag)
    else:
        world.send((rank, world.rank), root, tag)
        members = world.recv(source=root, tag=tag)
    return world.Create_group(world.group.Incl(members), tag)


class _Group:
    """The calls since groupStart; None: no group is open."""

    calls: list[Any] | None = None
    stream = 0


def groupStart() -> None:  # noqa: N802
    _Group.calls = []


def groupEnd() -> None:  # noqa: N802
    calls, _Group.calls = _Group.calls or [], None
    if calls:
        Stream.by_ptr[_Group.stream].enqueue(lambda: _ending([call() for call in calls]))


def _ending(requests: list[Any]) -> Any:
    """Returns what says whether all of these have ended."""
    from mpi4py import MPI

    return lambda: MPI.Request.Testall(requests)


class NcclCommunicator:
    """The ranks that have the same unique id."""

    def __init__(self, world_size: int, identifier: tuple[int, int], rank: int) -> None:
        self._comm = _members(world_size, identifier, rank)
        self._world_size = world_size
        self._rank = rank

    def send(self, address: int, count: int, kind: int, peer: int, stream: int) -> None:
        self._ask("Issend", address, count, kind, peer, stream)

    def recv(self, address: int, count: int, kind: int, peer: int, stream: int) -> None:
        self._ask("Irecv", address, count, kind, peer, stream)

    def _ask(self, name: str, address: int, count: int, kind: int, peer: int, stream: int) -> None:
        from mpi4py import MPI

        assert kind == NCCL_UINT8
        assert peer != self._rank or self._world_size == 1, "a rank among others sends nothing to itself"
        assert _Group.calls is not None, "outside of a group, sends and receives of all ranks can block each other"
        buffer = MPI.memory.fromaddress(address, count)
        _Group.stream = stream
        _Group.calls.append(lambda: getattr(self._comm, name)(buffer, peer))

    def allReduce(  # noqa: N802
        self, source: int, target: int, count: int, kind: int, operation: int, stream: int
    ) -> None:
        from mpi4py import MPI

        assert (kind, operation) == (NCCL_FLOAT32, NCCL_SUM)
        assert source == target
        values = np.frombuffer(MPI.memory.fromaddress(target, 4 * count), np.float32)
        Stream.by_ptr[stream].enqueue(lambda: _ending([self._comm.Iallreduce(MPI.IN_PLACE, values)]))

    def abort(self) -> None:
        pass

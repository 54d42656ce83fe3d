"""NCCL between emulated GPUs of several processes: MPI does what a group asks for, in the order of the group's stream."""

from typing import Any

import numpy as np

from .fake_stream import Stream

available = True
NCCL_UINT8, NCCL_FLOAT32, NCCL_SUM = 1, 7, 0
UNIQUE_ID = ("the", "same", "on", "every", "rank")


class NcclError(RuntimeError):
    """The error that NCCL's calls raise."""


def get_unique_id() -> tuple[Any, ...]:
    return UNIQUE_ID


class _Group:
    """The calls since groupStart; None: no group is open."""

    calls: list[Any] | None = None
    stream = 0


def groupStart() -> None:  # noqa: N802
    _Group.calls = []


def groupEnd() -> None:  # noqa: N802
    from mpi4py import MPI

    calls, _Group.calls = _Group.calls or [], None
    if calls:
        Stream.by_ptr[_Group.stream].enqueue(lambda: MPI.Request.Waitall([call() for call in calls]))


class NcclCommunicator:
    """All ranks of MPI's world."""

    def __init__(self, world_size: int, identifier: tuple[Any, ...], rank: int) -> None:
        if identifier != UNIQUE_ID:
            raise NcclError("NCCL_ERROR_INVALID_ARGUMENT: another unique id")
        self._world_size = world_size
        self._rank = rank

    def send(self, address: int, count: int, kind: int, peer: int, stream: int) -> None:
        self._ask("Isend", address, count, kind, peer, stream)

    def recv(self, address: int, count: int, kind: int, peer: int, stream: int) -> None:
        self._ask("Irecv", address, count, kind, peer, stream)

    def _ask(self, name: str, address: int, count: int, kind: int, peer: int, stream: int) -> None:
        from mpi4py import MPI

        assert kind == NCCL_UINT8
        assert peer != self._rank or self._world_size == 1, "a rank among others sends nothing to itself"
        assert _Group.calls is not None, "outside of a group, sends and receives of all ranks can block each other"
        buffer = MPI.memory.fromaddress(address, count)
        _Group.stream = stream
        _Group.calls.append(lambda: getattr(MPI.COMM_WORLD, name)(buffer, peer))

    def allReduce(  # noqa: N802
        self, source: int, target: int, count: int, kind: int, operation: int, stream: int
    ) -> None:
        from mpi4py import MPI

        assert (kind, operation) == (NCCL_FLOAT32, NCCL_SUM)
        assert source == target
        values = np.frombuffer(MPI.memory.fromaddress(target, 4 * count), np.float32)
        Stream.by_ptr[stream].enqueue(lambda: MPI.COMM_WORLD.Allreduce(MPI.IN_PLACE, values))

    def abort(self) -> None:
        pass

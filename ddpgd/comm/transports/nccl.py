"""NCCL between GPUs, each of them one rank's: the transport of NVLink and InfiniBand. MPI starts it, and ends it."""

from collections.abc import Sequence
from copy import copy
from typing import Any, Self

from cupy.cuda import nccl

from ddpgd.comm.agreement import on_all_ranks, on_root
from ddpgd.comm.transport import Array, T, Transport
from ddpgd.errors import InputError

if not nccl.available:  # CuPy's module imports without the library too
    raise ImportError("cupy.cuda.nccl is not available")


class Nccl:
    """`Transport` for device arrays, on `stream`: calls return at once, and work follows what the stream does before.

    `world` carries objects and ends the job. Arrays travel as bytes: NCCL through CuPy knows no bfloat16.
    """

    name = "nccl"
    needs_host = False

    def __init__(self, world: Transport, stream: Any) -> None:
        self.rank = world.rank
        self.world_size = world.world_size
        self.bytes_sent = 0
        self._world = world
        self._stream = stream
        identifier = on_root(world, lambda: _tried(nccl.get_unique_id))
        self._nccl = on_all_ranks(
            world, lambda: _tried(lambda: nccl.NcclCommunicator(world.world_size, identifier, world.rank))
        )

    def all_to_all(self, sends: Sequence[Sequence[Array]], receives: Sequence[Sequence[Array]]) -> None:
        # One group: NCCL starts all of them together, so that no order of sends and receives can block.
        nccl.groupStart()
        for peer in range(self.world_size):
            for array in sends[peer]:
                self._nccl.send(_address(array), array.nbytes, nccl.NCCL_UINT8, peer, self._stream.ptr)
                self.bytes_sent += array.nbytes
            for array in receives[peer]:
                self._nccl.recv(_address(array), array.nbytes, nccl.NCCL_UINT8, peer, self._stream.ptr)
        nccl.groupEnd()

    def all_gather(self, parts: Sequence[Sequence[Array]]) -> None:
        others = [peer for peer in range(self.world_size) if peer != self.rank]
        sends = [parts[self.rank] if peer in others else () for peer in range(self.world_size)]
        receives = [parts[peer] if peer in others else () for peer in range(self.world_size)]
        self.all_to_all(sends, receives)

    def all_reduce(self, buffer: Array) -> None:
        """As `Transport`; the bytes counted are those of a ring, because the library does not tell."""
        address = _address(buffer)
        self._nccl.allReduce(address, address, buffer.size, nccl.NCCL_FLOAT32, nccl.NCCL_SUM, self._stream.ptr)
        self.bytes_sent += 2 * buffer.nbytes * (self.world_size - 1) // self.world_size

    def all_gather_objects(self, value: T) -> list[T]:
        return self._world.all_gather_objects(value)

    def barrier(self) -> None:
        self._stream.synchronize()
        self._world.barrier()

    def duplicate(self) -> Self:
        """A stream keeps the order of all calls, so nobody's messages meet another's; the count of bytes is its own."""
        twin = copy(self)
        twin.bytes_sent = 0
        return twin

    def close(self) -> None:
        self._world.close()

    def abort(self, exit_code: int) -> None:
        self._nccl.abort()
        self._world.abort(exit_code)


def _tried(work: Any) -> Any:
    """work(), whose failure is told in a line and reaches all ranks."""
    try:
        return work()
    except nccl.NcclError as error:
        raise InputError(
            f"--transport nccl: NCCL does not start: {error}; NCCL_DEBUG=WARN says more, --transport mpi-host does without"
        ) from None


def _address(array: Any) -> int:
    return int(array.data.ptr)

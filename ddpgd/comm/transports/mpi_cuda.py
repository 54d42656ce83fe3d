"""MPI over device memory, for MPI libraries that are CUDA-aware. One that is not crashes: only the user can name it."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Self

from ddpgd.comm.transport import Array, T, Transport


class MpiCuda:
    """`Transport` for device arrays, handed to MPI as they are.

    `mpi` joins the ranks. `synchronize` returns when the device has done all that was asked of it: MPI knows nothing of
    streams.
    """

    name = "mpi-cuda"
    needs_host = True

    def __init__(self, mpi: Transport, synchronize: Callable[[], None]) -> None:
        self.rank = mpi.rank
        self.world_size = mpi.world_size
        self._mpi = mpi
        self._synchronize = synchronize

    @property
    def bytes_sent(self) -> int:
        return self._mpi.bytes_sent

    def all_to_all(self, sends: Sequence[Sequence[Array]], receives: Sequence[Sequence[Array]]) -> None:
        self._synchronize()
        self._mpi.all_to_all(sends, receives)

    def all_to_all_init(
        self, sends: Sequence[Sequence[Array]], receives: Sequence[Sequence[Array]]
    ) -> Callable[[], None]:
        return partial(self.all_to_all, sends, receives)

    def all_gather(self, parts: Sequence[Sequence[Array]]) -> None:
        self._synchronize()
        self._mpi.all_gather(parts)

    def all_reduce(self, buffer: Array) -> None:
        self._synchronize()
        self._mpi.all_reduce(buffer)

    def all_gather_objects(self, value: T) -> list[T]:
        return self._mpi.all_gather_objects(value)

    def barrier(self) -> None:
        self._mpi.barrier()

    def duplicate(self) -> Self:
        return type(self)(self._mpi.duplicate(), self._synchronize)

    def split(self, color: int) -> Self:
        return type(self)(self._mpi.split(color), self._synchronize)

    def close(self) -> None:
        self._mpi.close()

    def abort(self, exit_code: int) -> None:
        self._mpi.abort(exit_code)

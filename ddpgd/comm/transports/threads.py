"""Ranks as threads of one process: for tests at any world size, and for classrooms without MPI."""

import threading
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np

from ddpgd.comm.transport import Array, T


class PeerFailed(Exception):
    """Another rank failed while this one waited for it; that rank tells why."""


class Threads:
    """`Transport` between threads. Each rank posts references on a common board between two barriers."""

    name = "threads"
    needs_host = True

    def __init__(self, rank: int, world_size: int, board: list[Any], gate: threading.Barrier) -> None:
        self.rank = rank
        self.world_size = world_size
        self.bytes_sent = 0
        self._board = board
        self._gate = gate

    def all_to_all(self, sends: Sequence[Sequence[Array]], receives: Sequence[Sequence[Array]]) -> None:
        self._board[self.rank] = sends
        self.barrier()
        for peer, arrays in enumerate(receives):
            for source, target in zip(self._board[peer][self.rank], arrays, strict=True):
                np.copyto(target, source)
        self.bytes_sent += sum(array.nbytes for arrays in sends for array in arrays)
        self.barrier()

    def all_gather(self, parts: Sequence[Sequence[Array]]) -> None:
        self._board[self.rank] = parts[self.rank]
        self.barrier()
        for peer, arrays in enumerate(parts):
            if peer != self.rank:
                for source, target in zip(self._board[peer], arrays, strict=True):
                    np.copyto(target, source)
        self.bytes_sent += sum(array.nbytes for array in parts[self.rank]) * (self.world_size - 1)
        self.barrier()

    def all_reduce(self, buffer: Array) -> None:
        self._board[self.rank] = buffer
        self.barrier()
        total = np.add.reduce(self._board, axis=0, dtype=buffer.dtype)
        self.barrier()
        np.copyto(buffer, total)
        self.bytes_sent += 2 * buffer.nbytes * (self.world_size - 1) // self.world_size

    def all_gather_objects(self, value: T) -> list[T]:
        self._board[self.rank] = value
        self.barrier()
        values = list(self._board)
        self.barrier()
        return values

    def barrier(self) -> None:
        try:
            self._gate.wait()
        except threading.BrokenBarrierError:
            raise PeerFailed from None

    def duplicate(self) -> Self:
        """Messages meet at a barrier, in the order of all calls; what is another's is the count of bytes."""
        return type(self)(self.rank, self.world_size, self._board, self._gate)

    def close(self) -> None:
        pass

    def abort(self, exit_code: int) -> None:  # noqa: ARG002
        self._gate.abort()


def run(world_size: int, work: Callable[[Threads], T]) -> list[T]:
    """Calls work(transport) on `world_size` threads, one a rank; their results in rank order.

    The first rank that raises frees the others, and its exception is raised here.
    """
    board: list[Any] = [None] * world_size
    gate = threading.Barrier(world_size)
    results: list[Any] = [None] * world_size
    failures: list[BaseException] = []

    def body(rank: int) -> None:
        transport = Threads(rank, world_size, board, gate)
        try:
            results[rank] = work(transport)
        except PeerFailed:
            pass
        except BaseException as error:  # noqa: BLE001 - handed to the caller below
            failures.append(error)
            transport.abort(1)

    threads = [threading.Thread(target=body, args=(rank,), name=f"rank {rank}") for rank in range(world_size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return results

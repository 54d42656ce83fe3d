"""Counts each rank's collectives in memory that the ranks of a node share, so that any of them sees who is behind."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ddpgd.comm.shared_memory import share_memory
from ddpgd.comm.transport import Array, PointToPoint, T, Transport

PHASE, PID, BEAT_MS = range(3)
"""Words of a rank. PHASE: collectives entered plus collectives left, odd inside of one. BEAT_MS: when its process last ran."""
NUM_WORDS = 8


@dataclass
class Board:
    """The words of a node's ranks: `words` (len(ranks), NUM_WORDS), int64; `own` is this rank's row."""

    words: NDArray[np.int64]
    ranks: list[int]
    own: int


@contextmanager
def shared_board(world: Transport) -> Iterator[Board | None]:
    """Yields the board of this rank's node, or None where its ranks cannot share memory. Every rank calls it.

    Args:
        world: the ranks of the run, which may be on several nodes.
    """
    memory = share_memory(world, 8 * NUM_WORDS)
    if memory is None:
        yield None
        return
    board = Board(memory.rows.view(np.int64), memory.ranks, memory.own)
    board.words[board.own, PID] = os.getpid()
    yield board


class Counted:
    """A `Transport` that counts the collectives that this rank enters and leaves, of all duplicates and groups together."""

    def __init__(self, transport: Transport, phase: memoryview) -> None:
        """
        Args:
            transport: does the work.
            phase: one int64, this rank's word of a `Board`.
        """
        self.name = transport.name
        self.rank = transport.rank
        self.world_size = transport.world_size
        self.needs_host = transport.needs_host
        self._transport = transport
        self._phase = phase

    @property
    def bytes_sent(self) -> int:
        return self._transport.bytes_sent

    def all_to_all(self, sends: Sequence[Sequence[Array]], receives: Sequence[Sequence[Array]]) -> None:
        self._phase[0] += 1
        self._transport.all_to_all(sends, receives)
        self._phase[0] += 1

    def all_to_all_init(
        self, sends: Sequence[Sequence[Array]], receives: Sequence[Sequence[Array]]
    ) -> Callable[[], None]:
        self._phase[0] += 1
        work = self._transport.all_to_all_init(sends, receives)
        self._phase[0] += 1

        def run() -> None:
            self._phase[0] += 1
            work()
            self._phase[0] += 1

        return run

    def all_gather(self, parts: Sequence[Sequence[Array]]) -> None:
        self._phase[0] += 1
        self._transport.all_gather(parts)
        self._phase[0] += 1

    def all_reduce(self, buffer: Array) -> None:
        self._phase[0] += 1
        self._transport.all_reduce(buffer)
        self._phase[0] += 1

    def all_gather_objects(self, value: T) -> list[T]:
        self._phase[0] += 1
        gathered = self._transport.all_gather_objects(value)
        self._phase[0] += 1
        return gathered

    def barrier(self) -> None:
        self._phase[0] += 1
        self._transport.barrier()
        self._phase[0] += 1

    def connect(self, peers: Sequence[int]) -> None:
        assert isinstance(self._transport, PointToPoint)
        self._phase[0] += 1
        self._transport.connect(peers)
        self._phase[0] += 1

    def send(self, array: Array, peer: int) -> Callable[[], object]:
        assert isinstance(self._transport, PointToPoint)
        return self._counted(self._transport.send(array, peer))

    def receive(self, array: Array, peer: int) -> Callable[[], object]:
        assert isinstance(self._transport, PointToPoint)
        return self._counted(self._transport.receive(array, peer))

    def _counted(self, wait: Callable[[], object]) -> Callable[[], object]:
        def counted() -> None:
            self._phase[0] += 1
            wait()
            self._phase[0] += 1

        return counted

    def duplicate(self) -> Self:
        return type(self)(self._transport.duplicate(), self._phase)

    def split(self, color: int) -> Self:
        self._phase[0] += 1
        group = self._transport.split(color)
        self._phase[0] += 1
        return type(self)(group, self._phase)

    def close(self) -> None:
        self._transport.close()

    def abort(self, exit_code: int) -> None:
        self._transport.abort(exit_code)

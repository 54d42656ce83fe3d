"""Ranks as threads of one process: for tests at any world size, and for classrooms without MPI."""

import threading
from collections.abc import Callable, Sequence
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, Self

import numpy as np

from ddpgd.comm.transport import Array, T
from ddpgd.errors import HANG_CODE, DdpgdError

LOOK_S = 0.05
"""Seconds after which a rank that waits for a message looks whether the others have failed."""


class PeerFailed(Exception):
    """Another rank failed while this one waited for it; that rank tells why."""


class CollectivesDiffer(DdpgdError):
    """Ranks have met in different collectives; over MPI they would wait for ever."""

    exit_code = HANG_CODE


class Meeting(NamedTuple):
    """A group: its `board`, with the collective and the arrays of each rank; the `gate` that nobody passes before all came.

    `mail`: what each rank has sent to each, and that has not taken it yet.
    """

    board: list[Any]
    gate: threading.Barrier
    mail: list[list[SimpleQueue[Array]]]


def _meet(world_size: int, family: list[Meeting]) -> Meeting:
    mail = [[SimpleQueue[Array]() for _ in range(world_size)] for _ in range(world_size)]
    meeting = Meeting([None] * world_size, threading.Barrier(world_size), mail)
    family.append(meeting)
    return meeting


class Threads:
    """`Transport` between threads. Each rank posts references on a common board between two barriers.

    `family`: the meetings of all groups of one call of `run`.
    """

    name = "threads"
    needs_host = True

    def __init__(self, rank: int, meeting: Meeting, family: list[Meeting]) -> None:
        self.rank = rank
        self.world_size = len(meeting.board)
        self.bytes_sent = 0
        self._meeting = meeting
        self._board = meeting.board
        self._family = family

    def all_to_all(self, sends: Sequence[Sequence[Array]], receives: Sequence[Sequence[Array]]) -> None:
        posted = self._post("all-to-all", sends)
        for peer, arrays in enumerate(receives):
            self._copy(peer, posted[peer][self.rank], arrays)
        self.bytes_sent += sum(array.nbytes for arrays in sends for array in arrays)
        self._pass_gate()

    def all_to_all_init(
        self, sends: Sequence[Sequence[Array]], receives: Sequence[Sequence[Array]]
    ) -> Callable[[], None]:
        return partial(self.all_to_all, sends, receives)

    def all_gather(self, parts: Sequence[Sequence[Array]]) -> None:
        posted = self._post("all-gather", parts[self.rank])
        for peer in set(range(self.world_size)) - {self.rank}:
            self._copy(peer, posted[peer], parts[peer])
        self.bytes_sent += sum(array.nbytes for array in parts[self.rank]) * (self.world_size - 1)
        self._pass_gate()

    def all_reduce(self, buffer: Array) -> None:
        total = np.add.reduce(self._post("all-reduce", buffer), axis=0, dtype=buffer.dtype)
        self._pass_gate()
        np.copyto(buffer, total)
        self.bytes_sent += 2 * buffer.nbytes * (self.world_size - 1) // self.world_size

    def all_gather_objects(self, value: T) -> list[T]:
        values = self._post("agreement", value)
        self._pass_gate()
        return values

    def barrier(self) -> None:
        self._post("barrier", None)
        self._pass_gate()

    def _post(self, collective: str, content: Any) -> list[Any]:
        """Shows what this rank brings to a collective; returns what all bring, which stay as they are until the next gate."""
        self._board[self.rank] = collective, content
        self._pass_gate()
        if len({name for name, _ in self._board}) > 1:
            where = ", ".join(f"rank {rank} in {name}" for rank, (name, _) in enumerate(self._board))
            raise CollectivesDiffer(f"ranks have met in different collectives: {where}")
        return [content for _, content in self._board]

    def _copy(self, peer: int, sources: Sequence[Array], targets: Sequence[Array]) -> None:
        if [array.size for array in sources] != [array.size for array in targets]:
            raise CollectivesDiffer(
                f"rank {self.rank} wants other arrays from rank {peer} than it has: collectives differ"
            )
        for source, target in zip(sources, targets, strict=True):
            np.copyto(target, source)

    def _pass_gate(self) -> None:
        try:
            self._meeting.gate.wait()
        except threading.BrokenBarrierError:
            raise PeerFailed from None

    def connect(self, peers: Sequence[int]) -> None:
        pass

    def send(self, array: Array, peer: int) -> Callable[[], object]:
        self._meeting.mail[self.rank][peer].put(array.copy())
        self.bytes_sent += array.nbytes
        return lambda: None

    def receive(self, array: Array, peer: int) -> Callable[[], object]:
        mail = self._meeting.mail[peer][self.rank]

        def wait() -> None:
            while True:
                try:
                    return np.copyto(array, mail.get(timeout=LOOK_S))
                except Empty:
                    if self._meeting.gate.broken:
                        raise PeerFailed from None

        return wait

    def duplicate(self) -> Self:
        """Messages meet at a barrier, in the order of all calls; what is another's is the count of bytes."""
        return type(self)(self.rank, self._meeting, self._family)

    def split(self, color: int) -> Self:
        colors = self.all_gather_objects(color)
        ranks = [rank for rank, other in enumerate(colors) if other == color]
        # An abort finds either this meeting or, later than it, that of all ranks, which the next line waits at.
        own = _meet(len(ranks), self._family) if self.rank == ranks[0] else None
        meeting = self.all_gather_objects(own)[ranks[0]]
        assert meeting is not None, "the lowest rank of a group makes its meeting"
        return type(self)(ranks.index(self.rank), meeting, self._family)

    def close(self) -> None:
        pass

    def abort(self, exit_code: int) -> None:  # noqa: ARG002
        for meeting in self._family:
            meeting.gate.abort()


def run(world_size: int, work: Callable[[Threads], T]) -> list[T]:
    """Calls work(transport) on `world_size` threads, one a rank; their results in rank order.

    The first rank that raises frees the others, and its exception is raised here.
    """
    family: list[Meeting] = []
    world = _meet(world_size, family)
    results: list[Any] = [None] * world_size
    failures: list[BaseException] = []

    def body(rank: int) -> None:
        transport = Threads(rank, world, family)
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

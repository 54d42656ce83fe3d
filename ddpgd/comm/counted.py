"""Counts each rank's collectives in its whereabouts, so that others see who is behind."""

import zlib
from collections.abc import Callable, Sequence
from typing import Any, Self, TypeVar, cast

from ddpgd.comm.transport import Array, PointToPoint, Transport
from ddpgd.comm.whereabouts import (
    COLLECTIVE,
    COLLECTIVES,
    COUNTS,
    GROUP,
    IDS,
    MESSAGES,
    NONE,
    NUM_GROUPS,
    PEER,
    RECEIVE,
    SEND,
)

Work = TypeVar("Work", bound=Callable[..., Any])


class Counted:
    """A `Transport` that counts the collectives that this rank enters, in each group of several ranks."""

    def __init__(
        self, transport: Transport, here: memoryview, members: Sequence[int] = (), groups: list[int] | None = None
    ) -> None:
        """
        Args:
            transport: Does the work.
            here: This rank's whereabouts.
            members: The ranks of the run that are in this group; empty: all.
            groups: Numbers of the groups that this rank has had, of which this one is the last; None: all ranks are the first.
        """
        self.name = transport.name
        self.rank = transport.rank
        self.world_size = transport.world_size
        self.needs_host = transport.needs_host
        self._transport = transport
        self._here = here
        self._members = members or range(transport.world_size)
        self._groups = groups if groups is not None else [1]
        self._made = 0
        self._group = self._groups[-1]
        # Groups beyond the first NUM_GROUPS are counted together, under no number.
        self._place = min(len(self._groups) - 1, NUM_GROUPS)
        self._count = COUNTS + self._place
        if self._place < NUM_GROUPS:
            here[IDS + self._place] = self._group
        # Made once: what they cost is a part of every step.
        self.all_to_all = self._counted("all-to-all", transport.all_to_all)
        self.all_gather = self._counted("all-gather", transport.all_gather)
        self.all_reduce = self._counted("all-reduce", transport.all_reduce)
        self.all_gather_objects = self._counted("agreement", transport.all_gather_objects)
        self.barrier = self._counted("barrier", transport.barrier)

    @property
    def bytes_sent(self) -> int:
        return self._transport.bytes_sent

    def all_to_all_init(
        self, sends: Sequence[Sequence[Array]], receives: Sequence[Sequence[Array]]
    ) -> Callable[[], None]:
        work = self._counted("all-to-all set-up", self._transport.all_to_all_init)(sends, receives)
        return self._counted("all-to-all", work)

    def connect(self, peers: Sequence[int]) -> None:
        assert isinstance(self._transport, PointToPoint)
        self._counted("connection", self._transport.connect)(peers)

    def send(self, array: Array, peer: int) -> Callable[[], object]:
        assert isinstance(self._transport, PointToPoint)
        return self._message(SEND, peer, self._transport.send(array, peer))

    def receive(self, array: Array, peer: int) -> Callable[[], object]:
        assert isinstance(self._transport, PointToPoint)
        return self._message(RECEIVE, peer, self._transport.receive(array, peer))

    def duplicate(self) -> Self:
        return self._like(self._transport.duplicate(), self._members)

    def split(self, color: int) -> Self:
        group = self._counted("split", self._transport.split)(color)
        members = self._counted("agreement", group.all_gather_objects)(self._members[self.rank])
        return self._like(group, members)

    def _like(self, transport: Transport, members: Sequence[int]) -> Self:
        """Returns the same of another group of ranks."""
        self._made += 1
        self._groups.append(zlib.crc32(f"{self._group}/{self._made}/{members[0]}".encode()))
        return type(self)(transport, self._here, members, self._groups)

    def close(self) -> None:
        self._transport.close()

    def abort(self, exit_code: int) -> None:
        self._transport.abort(exit_code)

    def _counted(self, collective: str, work: Work) -> Work:
        if self.world_size == 1:
            return work  # in which nobody waits
        here, kind, place, count = self._here, COLLECTIVES.index(collective), self._place, self._count

        def counted(*arguments: Any) -> Any:
            here[GROUP] = place
            here[count] += 1
            here[COLLECTIVE] = kind
            result = work(*arguments)
            here[COLLECTIVE] = NONE
            return result

        return cast(Work, counted)

    def _message(self, kind: int, peer: int, wait: Callable[[], object]) -> Callable[[], object]:
        here, member = self._here, self._members[peer]

        def counted() -> None:
            here[PEER] = member
            here[MESSAGES] += 1
            here[COLLECTIVE] = kind
            wait()
            here[COLLECTIVE] = NONE

        return counted

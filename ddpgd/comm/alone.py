"""The transport of a world of one rank: every collective is already done."""

from collections.abc import Sequence
from typing import Self

from ddpgd.comm.transport import Array, T


class Alone:
    """`Transport` for world size 1."""

    name = "alone"
    rank = 0
    world_size = 1
    needs_host = False
    bytes_sent = 0

    def all_to_all(self, sends: Sequence[Sequence[Array]], receives: Sequence[Sequence[Array]]) -> None:
        pass

    def all_gather(self, parts: Sequence[Sequence[Array]]) -> None:
        pass

    def all_reduce(self, buffer: Array) -> None:
        pass

    def all_gather_objects(self, value: T) -> list[T]:
        return [value]

    def barrier(self) -> None:
        pass

    def duplicate(self) -> Self:
        return self

    def abort(self, exit_code: int) -> None:
        pass

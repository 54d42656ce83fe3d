"""The contract of a transport: how bytes travel between ranks."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol, Self, TypeVar, runtime_checkable

from numpy.typing import NDArray

T = TypeVar("T")
Array = NDArray[Any]


class Transport(Protocol):
    """A group of ranks and their collectives. Every rank calls each collective in the same order.

    `needs_host`: its arrays must be host memory, and the host must take part in each collective.
    `bytes_sent` counts what this rank handed to other ranks through array collectives since it was made.
    """

    name: str
    rank: int
    world_size: int
    needs_host: bool

    @property
    def bytes_sent(self) -> int: ...

    def all_to_all(self, sends: Sequence[Sequence[Array]], receives: Sequence[Sequence[Array]]) -> None:
        """Sends each array of sends[r] to rank r and fills receives[r], in order, from what rank r sends here.

        One list a rank; this rank's own lists are empty. Arrays are C-contiguous; lengths must agree pairwise.
        """

    def all_to_all_init(
        self, sends: Sequence[Sequence[Array]], receives: Sequence[Sequence[Array]]
    ) -> Callable[[], None]:
        """Makes `all_to_all` of the same arrays ready for many calls; returns what does it. Every rank calls it."""

    def all_gather(self, parts: Sequence[Sequence[Array]]) -> None:
        """Hands the arrays of parts[rank] to every other rank and fills parts[r] from rank r. Lengths as above."""

    def all_reduce(self, buffer: Array) -> None:
        """buffer = sum of all ranks' buffers, in whatever order the transport likes; equal on all ranks."""

    def all_gather_objects(self, value: T) -> list[T]:
        """Every rank's small Python object, in rank order. For set-up and the end of a run, never inside a step."""

    def barrier(self) -> None:
        """Returns when every rank has arrived."""

    def duplicate(self) -> Self:
        """The same group, whose messages never meet those of this one, and which counts its own bytes."""

    def split(self, color: int) -> Self:
        """Returns the group of the ranks that give the same `color`, in rank order, which counts its own bytes.

        Every rank calls it, and belongs to one group.

        Args:
            color: At least 0.
        """

    def close(self) -> None:
        """Frees this group, its duplicates and all groups split off, which nobody uses any more. Every rank calls it."""

    def abort(self, exit_code: int) -> None:
        """Ends the whole job at once because this rank failed; where that cannot be done, frees ranks that wait."""


@runtime_checkable
class PointToPoint(Transport, Protocol):
    """A transport whose ranks can also send to each other one by one, while they compute.

    Messages from one rank to another arrive in the order in which they are sent. Receive before the peer sends, as often as
    it may send, and nothing can block. Where `needs_host` is False, nothing waits in the host: a message follows what came
    before it on the stream of its time, and what a wait holds up is what comes after it there.
    """

    def connect(self, peers: Sequence[int]) -> None:
        """Prepares messages to these ranks and from them; every rank calls it, and names those that name it."""

    def send(self, array: Array, peer: int) -> Callable[[], object]:
        """Begins to send a C-contiguous `array`; returns what waits until it may change."""

    def receive(self, array: Array, peer: int) -> Callable[[], object]:
        """Begins to fill a C-contiguous `array`; returns what waits until it is filled."""


def gathering(parts: Sequence[Sequence[Array]], rank: int) -> tuple[list[Sequence[Array]], list[Sequence[Array]]]:
    """Returns the sends and receives of an `all_to_all` that does what `all_gather` of `parts` does on `rank`."""
    others = [peer != rank for peer in range(len(parts))]
    sends = [parts[rank] if is_other else () for is_other in others]
    receives = [arrays if is_other else () for arrays, is_other in zip(parts, others, strict=True)]
    return sends, receives


class Alone:
    """`Transport` for world size 1."""

    name = "alone"
    rank = 0
    world_size = 1
    needs_host = False
    bytes_sent = 0

    def all_to_all(self, sends: Sequence[Sequence[Array]], receives: Sequence[Sequence[Array]]) -> None:
        pass

    def all_to_all_init(
        self, sends: Sequence[Sequence[Array]], receives: Sequence[Sequence[Array]]
    ) -> Callable[[], None]:
        return partial(self.all_to_all, sends, receives)

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

    def split(self, color: int) -> Self:  # noqa: ARG002
        return self

    def close(self) -> None:
        pass

    def abort(self, exit_code: int) -> None:
        pass

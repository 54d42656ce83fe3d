"""Vectors that ranks update in parts: the segment of each rank, and how the others get it.

A sharded optimizer holds and updates one segment on each rank. Rajbhandari et al., "ZeRO: memory optimizations toward
training trillion parameter models", 2020, call it the first stage.
"""

from collections.abc import Callable
from typing import Protocol

from ddpgd.comm.transport import Array, Transport, gathering
from ddpgd.kernels.kept import Kept


class Shares(Protocol):
    """The part of vectors (n,) that a rank updates.

    Attributes:
        spans: The parts of all ranks.
        own: This rank's.
        num_parts: The number of parts that make up the whole.
    """

    spans: list[slice]
    own: slice
    num_parts: int

    def part(self, vector: Array) -> Array:
        """Returns the part of `vector` that this rank updates, a view, or `vector` itself where that is all of it."""

    def all_gather(self, vector: Array) -> None:
        """Fills the other ranks' parts of `vector`, which is always one of the same few. Every rank calls it."""


class Replicated:
    """`Shares` where every rank updates whole vectors, and nothing travels."""

    def __init__(self, transport: Transport, size: int) -> None:
        self.own = slice(0, size)
        self.spans = [self.own] * transport.world_size
        self.num_parts = 1

    def part(self, vector: Array) -> Array:
        return vector

    def all_gather(self, vector: Array) -> None:
        pass


class Sharded:
    """`Shares` where each rank updates its own segment: one of `spans`, whole blocks, as in the exchange of gradients."""

    def __init__(self, transport: Transport, spans: list[slice]) -> None:
        self.spans = spans
        self.own = self.spans[transport.rank]
        self.num_parts = transport.world_size
        self._transport = transport
        self._gathers: Kept[Callable[[], None]] = Kept()

    def part(self, vector: Array) -> Array:
        return vector[self.own]

    def all_gather(self, vector: Array) -> None:
        self._gathers.of([vector], lambda: self._gathering(vector))()

    def _gathering(self, vector: Array) -> Callable[[], None]:
        parts = [[vector[span]] if span.start < span.stop else [] for span in self.spans]
        return self._transport.all_to_all_init(*gathering(parts, self._transport.rank))

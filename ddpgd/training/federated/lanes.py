"""Clients of a rank side by side, where its device has room for several: each lane in a thread, with a backend of its own."""

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

from ddpgd.comm import whereabouts
from ddpgd.training.federated.clients import Clients, Trained

Result = TypeVar("Result")


class Lanes:
    """Trains several clients at once, which does not change what becomes of each."""

    def __init__(self, first: Clients, make: Callable[[], Clients], count: int) -> None:
        """`first`: the lane of the caller's thread. `make` makes another, in the thread that will use it. `count`: of all.

        There are fewer where the device has no memory for more.
        """
        self.first = first
        self._others: list[tuple[ThreadPoolExecutor, Clients]] = []
        self._here = whereabouts.here()
        for number in range(1, count):
            thread = ThreadPoolExecutor(1, f"lane {number}")
            try:
                self._others.append((thread, thread.submit(self._of_this_rank, make).result()))
            except MemoryError:
                break

    def train(self, number: int, positions: Sequence[int]) -> Generator[Trained, None, None]:
        """Trains the clients at these positions of round `number`, and yields their results in this order.

        To be closed by whoever does not take all of them: then lanes end what they do.
        """
        count = 1 + len(self._others)
        for begin in range(0, len(positions), count):
            own, *others = positions[begin : begin + count]
            waiting = [
                thread.submit(self._of_this_rank, lane.train, number, position)
                for (thread, lane), position in zip(self._others, others, strict=False)
            ]
            try:
                yield self.first.train(number, own)
                yield from (other.result() for other in waiting)
            finally:
                for _, lane in self._others:
                    lane.ends = True
                wait(waiting)
                for _, lane in self._others:
                    lane.ends = False

    def _of_this_rank(self, work: Callable[..., Result], *arguments: int) -> Result:
        """Works in a lane's thread, which tells where it is as this rank."""
        with whereabouts.stored_in(self._here):
            return work(*arguments)

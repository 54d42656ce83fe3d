"""Clients of a rank side by side, where a device has room for several: each lane in a thread, with a backend of its own."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from ddpgd.comm import whereabouts
from ddpgd.training.federated.clients import Clients, Trained


class Lanes:
    """Trains several clients at once, which does not change what becomes of each."""

    def __init__(self, first: Clients, make: Callable[[], Clients], count: int) -> None:
        """`first`: the lane of the caller's thread. `make` makes another, in the thread that will use it. `count`: of all."""
        own = whereabouts.here()

        def make_in_thread() -> Clients:
            with whereabouts.stored_in(own):
                return make()

        self.first = first
        self._threads = [ThreadPoolExecutor(1, f"lane {number}") for number in range(1, count)]
        self._others = [thread.submit(make_in_thread).result() for thread in self._threads]

    def train(self, number: int, positions: Sequence[int]) -> Iterator[Trained]:
        """Trains the clients at these positions of round `number`, and yields their results in this order."""
        count = 1 + len(self._others)
        for begin in range(0, len(positions), count):
            own, *others = positions[begin : begin + count]
            lanes = zip(self._threads, self._others, others, strict=False)
            waiting = [thread.submit(lane.train, number, position) for thread, lane, position in lanes]
            yield self.first.train(number, own)
            yield from (other.result() for other in waiting)

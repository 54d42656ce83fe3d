"""The clock: how many steps are long enough for it, and the seconds that they take, from idle to idle."""

import math
import time
from collections.abc import Callable
from typing import Protocol

Work = Callable[[], object]
Clock = Callable[[Work, Work], float]
"""clock(work, synchronize): seconds of one call of `work`."""


class Contestant(Protocol):
    """A library's training of a case; `run` makes so many steps, `steps_at_once` of them in one call."""

    steps_at_once: int
    first_loss: float

    def run(self, steps: int) -> None:
        """Runs steps, from idle to idle."""

    def loss(self) -> float:
        """Returns the loss of the last step."""


RUN_S = 0.025
"""The least that a measured run takes."""
WARM_S = 0.2


def seconds(contestant: Contestant, steps: int) -> float:
    """Returns the seconds of so many steps; some before them wake an idle device."""
    contestant.run(_whole(contestant, steps // 4))
    started = time.perf_counter()
    contestant.run(steps)
    return time.perf_counter() - started


def warm_up(contestant: Contestant, run_s: float = RUN_S, warm_s: float = WARM_S) -> int:
    """Returns a number of steps that takes `run_s` or more, after everything is compiled and captured."""
    steps, taken, started = contestant.steps_at_once, 0.0, time.perf_counter()
    while taken < run_s or time.perf_counter() - started < warm_s:
        taken = seconds(contestant, steps)
        if taken < run_s:
            steps = _whole(contestant, min(8 * steps, math.ceil(1.2 * steps * run_s / taken)))
    return steps


def seconds_of(work: Work, synchronize: Work, run_s: float = 0.02, repetitions: int = 5) -> float:
    """Returns the seconds of one call of `work`, among as many as take `run_s`: the least of some repetitions."""

    def taken(count: int) -> float:
        synchronize()
        started = time.perf_counter()
        for _ in range(count):
            work()
        synchronize()
        return time.perf_counter() - started

    taken(1)
    count = max(1, math.ceil(run_s / taken(3) * 3))
    return min(taken(count) for _ in range(repetitions)) / count


def _whole(contestant: Contestant, steps: int) -> int:
    """At least `steps`, in as many calls as the contestant makes."""
    return max(1, math.ceil(steps / contestant.steps_at_once)) * contestant.steps_at_once

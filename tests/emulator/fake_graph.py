"""Captures of the fake CuPy: the work of one or more streams, and which of it waits for which."""

import time
from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from typing import Any


class Mark:
    """One recording of an event: passed, once the stream has come to it. `captured`: where it is part of a capture."""

    def __init__(self, stream: Any, captured: "Captured | None" = None) -> None:
        self.stream = stream
        self.captured = captured
        self.passed = stream is None
        self.time_s: float | None = None

    def pass_by(self) -> None:
        self.passed, self.time_s = True, time.perf_counter()

    def reach(self) -> None:
        if self.stream is not None:
            self.stream.drain(self)


class Kind(Enum):
    """Kinds of entries in the queue of a captured stream."""

    RUN = auto()
    PASS = auto()
    WAIT = auto()


class Captured:
    """The work of a capture: of the stream on which it began, and of those that wait for events in it."""

    def __init__(self, origin: Any) -> None:
        self.origin = origin
        self.queues: dict[Any, list[tuple[Kind, Any]]] = {origin: []}

    def add(self, stream: Any, work: Callable[[], None]) -> None:
        self.queues[stream].append((Kind.RUN, work))

    def record(self, stream: Any) -> Mark:
        mark = Mark(stream, self)
        self.queues[stream].append((Kind.PASS, mark))
        return mark

    def wait(self, stream: Any, mark: Mark) -> None:
        self.queues.setdefault(stream, []).append((Kind.WAIT, mark))

    def is_joined(self) -> bool:
        """True if the end of the origin waits for all work of other streams."""
        reached, rest = dict.fromkeys(self.queues, 0), [(self.origin, len(self.queues[self.origin]))]
        while rest:
            stream, end = rest.pop()
            waited = [mark for kind, mark in self.queues[stream][reached[stream] : end] if kind is Kind.WAIT]
            reached[stream] = max(reached[stream], end)
            rest += [(mark.stream, self.queues[mark.stream].index((Kind.PASS, mark)) + 1) for mark in waited]
        return all(reached[stream] == len(queue) for stream, queue in self.queues.items())

    def run(self, late: bool) -> None:
        """Runs all of it: the work of other streams than the origin as early as what it waits for allows, or as late."""
        left = {stream: deque(queue) for stream, queue in self.queues.items()}
        passed: set[Mark] = set()

        def step(stream: Any) -> None:
            kind, what = left[stream].popleft()
            if kind is Kind.RUN:
                what()
            elif kind is Kind.PASS:
                what.pass_by()
                passed.add(what)
            else:
                while what not in passed:
                    step(what.stream)

        def is_free(stream: Any) -> bool:
            return bool(left[stream]) and (left[stream][0][0] is not Kind.WAIT or left[stream][0][1] in passed)

        others = [stream for stream in left if stream is not self.origin]
        while left[self.origin]:
            while not late and any(map(is_free, others)):
                step(next(filter(is_free, others)))
            step(self.origin)

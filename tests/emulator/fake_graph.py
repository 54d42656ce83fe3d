"""Captures of the fake CuPy: the work of one or more streams, and which of it waits for which."""

import time
from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from typing import Any

Test = Callable[[], bool]
"""Says whether work that was begun has ended."""


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

    def reached(self) -> bool:
        """True if the stream has come to it, or comes to it now."""
        return self.passed or self.stream is None or bool(self.stream.advance(self))


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

    def add(self, stream: Any, work: Callable[[], "Test | None"]) -> None:
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


class Replay:
    """One run of a capture: the work of other streams than the origin as early as what it waits for allows, or as late."""

    def __init__(self, captured: Captured, late: bool) -> None:
        self._origin = captured.origin
        self._late = late
        self._left = {stream: deque(queue) for stream, queue in captured.queues.items()}
        self._others = [stream for stream in self._left if stream is not self._origin]
        self._passed: set[Mark] = set()

    def advance(self) -> bool:
        """Runs as much as goes without waiting for other processes; returns whether that was all."""
        while self._left[self._origin]:
            while not self._late and self._steps_aside():
                pass
            # Where the origin waits for a message, others go on even if they may be late.
            if not self._step(self._origin) and not self._steps_aside():
                return False
        return True

    def _steps_aside(self) -> bool:
        return any(self._step(stream) for stream in self._others if self._is_free(stream))

    def _is_free(self, stream: Any) -> bool:
        left = self._left[stream]
        return bool(left) and (left[0][0] is not Kind.WAIT or left[0][1] in self._passed)

    def _step(self, stream: Any) -> bool:
        """Runs the first entry of a queue, or of one that it waits for; returns whether something went on."""
        queue = self._left[stream]
        kind, what = queue[0]
        if kind is Kind.WAIT and what not in self._passed:
            return self._step(what.stream)
        if kind is Kind.PASS:
            what.pass_by()
            self._passed.add(what)
        elif kind is Kind.RUN:
            test = what()
            if test is not None and not test():
                queue[0] = kind, lambda: test
                return False
        queue.popleft()
        return True

"""When a run ends: signals and time, which one rank may notice and all obey, and the accuracy that was asked for."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class StopRequest:
    """Whether this process asks for a checkpoint and an end: a signal came, or `max_time` seconds have passed."""

    max_time: float | None = None
    started: float = field(default_factory=time.monotonic)
    reason: str = ""

    def __bool__(self) -> bool:
        if not self.reason and self.max_time is not None and time.monotonic() - self.started > self.max_time:
            self.reason = f"--max-time {self.max_time:g} is over"
        return bool(self.reason)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Takes SIGUSR1, SIGTERM and SIGINT as requests; a second SIGINT interrupts at once. Main thread alone."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._receive) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _receive(self, number: int, _frame: object) -> None:
        self.reason = f"{signal.Signals(number).name} came"
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)


_SIGNALS = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)

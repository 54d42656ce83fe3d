"""Requests to stop: signals and time limits, which one rank may notice and all obey."""

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class StopRequest:
    """True if this process asks for a checkpoint and an end: a signal came, or its time is over."""

    reason: str = ""
    _max_time: float | None = None
    _started: float = 0.0

    def limit(self, max_time: float | None) -> None:
        """Asks `max_time` seconds from now; None: never."""
        self._max_time, self._started = max_time, time.monotonic()

    def __bool__(self) -> bool:
        if not self.reason and self._max_time is not None and time.monotonic() - self._started > self._max_time:
            self.reason = f"--max-time {self._max_time:g} is over"
        return bool(self.reason)

    @contextmanager
    def listening(self, came: Sequence[int] = ()) -> Iterator[None]:
        """Takes SIGUSR1, SIGTERM, SIGINT and SIGHUP as requests; a second SIGINT interrupts at once. Main thread alone.

        SIGHUP stays ignored under nohup. `came`: signals that came before this call.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        is_nohup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        heard = [number for number in _SIGNALS if not (number == signal.SIGHUP and is_nohup)]
        before = {number: signal.signal(number, self._receive) for number in heard}
        for number in came:
            self._receive(number, None)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _receive(self, number: int, _frame: object) -> None:
        self.reason = f"{signal.Signals(number).name} came"
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)


_SIGNALS = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

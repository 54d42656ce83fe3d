"""Checkpoints, written in a thread while training goes on."""

import threading
from collections.abc import Callable

from ddpgd.comm import whereabouts
from ddpgd.errors import DdpgdError

PATIENCE_S = 5.0
"""Seconds for which a checkpoint waits for the one before it to be written."""


class Saver:
    """Writes one checkpoint after the other, on one rank. `warn` tells a line."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._thread: threading.Thread | None = None
        self._step = 0
        self._failure: DdpgdError | None = None
        self._here = whereabouts.here()

    def wait_for_last(self) -> None:
        """Waits until the last checkpoint is written, for `PATIENCE_S` at most."""
        self._wait(PATIENCE_S)

    def save(self, step: int, write: Callable[[Callable[[], None]], None]) -> None:
        """Begins to write a checkpoint, after `wait_for_last`.

        Where the one before could not be written, a line says so; where it is not written yet, this one is left out.

        Args:
            step: Its step.
            write: write(moved) writes it, from what does not change any more, and calls `moved` now and then. DdpgdError: it
                cannot.
        """
        if not self._wait(0):
            self._warn(
                f"step {step}: no checkpoint, because that of step {self._step} is still being written: the disk is slow; "
                "training goes on"
            )
            return
        if self._failure:
            self._warn(f"the checkpoint of step {self._step} is missing: {self._failure}; training goes on")
        self._step, self._failure = step, None
        self._thread = threading.Thread(target=self._work, args=(write,), name="checkpoint")
        self._thread.start()

    def finish(self) -> None:
        """Waits until the last checkpoint is written. DdpgdError: it cannot be."""
        self._wait(None)
        if self._failure:
            raise self._failure

    def close(self) -> None:
        """Waits until nothing is written any more."""
        self._wait(None)

    def _wait(self, seconds: float | None) -> bool:
        """Returns whether the last checkpoint is done with, after so many seconds; None: at any time."""
        if self._thread is not None:
            self._thread.join(seconds)
            if self._thread.is_alive():
                return False
            self._thread = None
        return True

    def _work(self, write: Callable[[Callable[[], None]], None]) -> None:
        try:
            write(self._moved)
        except DdpgdError as failure:
            self._failure = failure
        except BaseException as error:  # noqa: BLE001 - told by `finish`, or before the next one
            self._failure = DdpgdError(f"{type(error).__name__}: {error}")

    def _moved(self) -> None:
        self._here[whereabouts.SAVED] += 1

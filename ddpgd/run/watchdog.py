"""Names the rank that the others wait for, and ends a run that cannot stop because a rank hangs."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from ddpgd.comm.arrivals import BEAT_MS, PHASE, PID, Board, Counted, shared_board
from ddpgd.comm.launcher import node
from ddpgd.comm.transport import Transport
from ddpgd.training.stopping import StopRequest

PATIENCE_S = 30.0
"""A rank is named when others have waited for it so long; the environment variable DDPGD_PATIENCE_S has another value."""
HANG_CODE = 5
_LIVE_FACTOR = 20
"""A rank whose process still runs may only be slow (a large checkpoint): it gets so many times the patience before the end."""


@contextmanager
def watching(world: Transport, stop: StopRequest, alike: bool = True) -> Iterator["Unwatched"]:
    """Watches the ranks of `world` from a thread of each rank. Every rank calls it; the block uses the yielded `transport`.

    `alike`: all ranks call the same collectives; else, as in a pipeline, their numbers say nothing of who is behind.
    """
    if world.world_size == 1:
        yield Unwatched(world)
        return
    with shared_board(world) as board:
        if board is None:
            yield Unwatched(world)
            return
        watchdog = Watchdog(world, board, stop, alike)
        with watchdog.running():
            yield watchdog


class Unwatched:
    """Watches nothing: there is one rank, or the ranks of a node cannot share memory.

    `transport`: what the run must use, because collectives are counted there. `num_steps`: tells the steps done here.
    """

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.num_steps: Callable[[], int] = lambda: 0


class Watchdog(Unwatched):
    """Looks every second how far the ranks of this node are; the lowest of them that is not missing speaks."""

    def __init__(
        self,
        world: Transport,
        board: Board,
        stop: StopRequest,
        alike: bool = True,
        patience_s: float | None = None,
        write: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(Counted(world, board.words[board.own, PHASE:PID].data))
        self._world = world
        self._board = board
        self._stop = stop
        self._alike = alike
        self._patience_s = patience_s or float(os.environ.get("DDPGD_PATIENCE_S", PATIENCE_S))
        self._write = write or _write
        self._last_phase = -1
        self._since = self._stop_since = self._looked = 0.0
        self._next_line = self._patience_s
        self._ended = threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Runs the thread that looks, until the block ends."""
        thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(min(1.0, self._patience_s / 4)):
            self.look(time.monotonic())

    def look(self, now: float) -> None:
        """Compares the ranks at `now`, in seconds of the node's clock; writes a line, or ends the job, where that is due."""
        board = self._board
        board.words[board.own, BEAT_MS] = int(1000 * now)
        if self._stop and not self._stop_since:
            self._stop_since = now
        seen = board.words.copy()
        phase = int(seen[board.own, PHASE])
        did_not_run = now - self._looked > self._patience_s / 2  # this process itself was stopped
        self._looked = now
        if phase != self._last_phase or did_not_run:
            if self._next_line > self._patience_s:
                self._write("the rank that was waited for has arrived; the run goes on")
            self._last_phase, self._since, self._next_line = phase, now, self._patience_s
        waited_s = now - self._since
        missing, silent = self._missing(seen, now)
        if waited_s < self._patience_s or phase % 2 == 0 or not self._speaks(missing):
            return
        if waited_s >= self._next_line:
            self._next_line = 2 * waited_s
            for row in missing:
                self._write(self._line(row, seen, waited_s, row in silent))
            if not missing:
                self._write(
                    f"the ranks on {node()} have waited {self._where(waited_s)}; no rank of this node is missing"
                )
        self._end(now, waited_s, bool(silent))

    def _missing(self, seen: np.ndarray, now: float) -> tuple[list[int], list[int]]:
        """Rows of the ranks that this one waits for, and those of them whose process does not run."""
        own, phases = seen[self._own], seen[:, PHASE]
        silent = [int(row) for row in np.flatnonzero(1000 * now - seen[:, BEAT_MS] > 1000 * self._patience_s / 2)]
        # Where ranks call other collectives, the one that others wait for is the one that waits for nobody.
        is_behind = phases < own[PHASE] if self._alike else phases % 2 == 0
        behind = [int(row) for row in np.flatnonzero(is_behind)]
        return sorted({*behind, *silent}), silent

    @property
    def _own(self) -> int:
        return self._board.own

    def _speaks(self, missing: list[int]) -> bool:
        """The lowest rank of the node that is not missing; where none is, as on a node that waits for another, the first."""
        return self._own == next(row for row in range(len(self._board.ranks)) if row not in missing or row == self._own)

    def _where(self, waited_s: float) -> str:
        return f"at step {self.num_steps() + 1} for {waited_s:.0f} s"

    def _line(self, row: int, seen: np.ndarray, waited_s: float, is_silent: bool) -> str:
        why = "it waits in an earlier collective" if seen[row, PHASE] % 2 else "it computes, writes, or hangs"
        if is_silent:
            why = "it does not run: stopped, or its memory is swapped out"
        name = f"rank {self._board.ranks[row]} (process {seen[row, PID]} on {node()})"
        return f"{name} has not arrived {self._where(waited_s)}: {why}"

    def _end(self, now: float, waited_s: float, is_silent: bool) -> None:
        """Ends the job where it was asked to stop, and cannot."""
        grace_s = self._patience_s * (1 if is_silent else _LIVE_FACTOR)
        if self._stop_since and min(now - self._stop_since, waited_s) >= grace_s:
            self._write(
                f"{self._stop.reason}, and no checkpoint can be written without that rank: the run ends without one"
            )
            self._ended.set()
            self._world.abort(HANG_CODE)


def _write(line: str) -> None:
    try:
        print(f"ddpgd: {line}", file=sys.stderr, flush=True)
    except (OSError, ValueError):
        return

"""Movement: since when each rank of a node stands still, by what its watchdog sees from time to time."""

from collections import deque

import numpy as np
from numpy.typing import NDArray

from ddpgd.comm.whereabouts import ACTIVITY, COLLECTIVE, EXCHANGE, GRADIENTS, INPUT, LOADING, SETUP, STEP, UPDATE
from ddpgd.watch import process
from ddpgd.watch.board import Board

_SILENT_S = 5.0
"""A rank whose watchdog has not run for so long is silent."""


class Movement:
    """Compares the ranks on `board` with how they were before. `patience_s`: a watchdog that looks more rarely was stopped."""

    def __init__(self, board: Board, patience_s: float) -> None:
        self._board = board
        self._patience_s = patience_s
        self._seen = np.zeros(0)
        self._moved_at = np.zeros(len(board.ranks))
        self._looked = 0.0
        self._first_step = -1
        self._step_s: deque[float] = deque(maxlen=100)
        self._stepped = (0, 0.0)

    def look(self, now: float) -> bool:
        """Compares the ranks at `now`, in seconds of the node's clock; returns whether any has moved."""
        shown, own = self._board.shown, self._board.own
        shown[own]["beat_ms"] = int(1000 * now)
        self._note_work(shown[own])
        seen = np.column_stack([shown["words"], shown["work"]])
        # Nothing is known of the time in which this process itself was stopped.
        is_new = not self._seen.size or now - self._looked > self._patience_s / 2
        moved = np.ones(len(seen), bool) if is_new else (seen != self._seen).any(axis=1)
        self._moved_at[moved] = now
        self._seen, self._looked = seen, now
        step, (before, since) = int(seen[own, STEP]), self._stepped
        if step > before and not is_new:
            self._step_s.append((now - since) / (step - before))
        if step != before or is_new:
            self._stepped = step, now
        return bool(moved.any())

    def still_s(self, now: float) -> NDArray[np.float64]:
        """Returns for how many seconds each rank has not moved: float64 (num_ranks,)."""
        still: NDArray[np.float64] = now - self._moved_at
        return still

    def forget(self, now: float) -> None:
        """Takes all ranks as if they had moved just now."""
        self._moved_at[:] = now

    def silent(self, now: float) -> NDArray[np.bool_]:
        """Returns the ranks whose watchdog does not run: bool (num_ranks,)."""
        silent: NDArray[np.bool_] = 1000 * now - self._board.shown["beat_ms"] > 1000 * min(self._patience_s, _SILENT_S)
        return silent

    @property
    def step_s(self) -> float:
        """Seconds of the median step of this rank."""
        return float(np.median(self._step_s or [0.0]))

    def _note_work(self, own: np.void) -> None:
        """Counts what this rank reads, writes and computes where it may be long without a word."""
        words = own["words"]
        if words[COLLECTIVE]:
            return
        if self._first_step < 0 and words[ACTIVITY] not in (SETUP, LOADING):
            self._first_step = int(words[STEP])
        if words[ACTIVITY] not in (INPUT, GRADIENTS, EXCHANGE, UPDATE) or words[STEP] == self._first_step:
            own["work"] = process.work(*self._board.thread)

"""The words of all ranks of a node, in memory that they share."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ddpgd.comm.launcher import node
from ddpgd.comm.shared_memory import share_memory
from ddpgd.comm.transport import Transport
from ddpgd.comm.whereabouts import (
    ACTIVITY,
    COLLECTIVE,
    COUNTS,
    GROUP,
    IDS,
    MESSAGES,
    MICRO_BATCH,
    NUM_WORDS,
    PEER,
    STEP,
)
from ddpgd.watch import process
from ddpgd.watch.rows import Row

SOURCE_BYTES = 96

RANK = np.dtype(
    [
        ("words", np.int64, NUM_WORDS),
        ("pid", np.int64),
        ("beat_ms", np.int64),
        ("work", np.int64),
        ("asked", np.int64),
        ("source", f"S{SOURCE_BYTES}"),
    ]
)
"""What a rank shows.

`words`: its whereabouts. `beat_ms`: when its watchdog last ran, on the node's clock. `work`: what its thread has read, written
and computed, while that may take long. `asked`: the number of the last question for stacks, from any rank. `source`: the line
that it executes, once it has not moved for a while.
"""


@dataclass
class Board:
    """The ranks of a node.

    Attributes:
        shown: What they show, RANK (num_ranks,).
        ranks: Their numbers, ascending.
        own: The place of this rank among them.
        thread: The thread of this rank, as Python and as the system number it.
    """

    shown: NDArray[np.void]
    ranks: list[int]
    own: int
    thread: tuple[int, int]

    @property
    def words(self) -> memoryview:
        """This rank's whereabouts."""
        words: NDArray[np.int64] = self.shown["words"][self.own]
        return words.data

    def rows(self, still_s: NDArray[np.float64], silent: NDArray[np.bool_]) -> list[Row]:
        """Returns the node's ranks.

        Args:
            still_s: Seconds for which each has not moved.
            silent: Whether its watchdog does not run.
        """
        return [self._row(place, float(still_s[place]), bool(silent[place])) for place in range(len(self.ranks))]

    def _row(self, place: int, still_s: float, is_silent: bool) -> Row:
        shown = self.shown[place]
        words, pid = shown["words"].tolist(), int(shown["pid"])
        state = ""
        if is_silent:
            does = process.state(pid) or "does not answer"
            state = f"does not answer: it {does} without leaving Python" if does in _BUSY else does
        return Row(
            rank=self.ranks[place],
            host=node(),
            pid=pid,
            activity=words[ACTIVITY],
            step=words[STEP],
            micro_batch=words[MICRO_BATCH],
            collective=words[COLLECTIVE],
            peer=words[PEER],
            entered=words[MESSAGES] + sum(words[COUNTS:]),
            group=str(words[IDS + words[GROUP]]),
            groups={str(group): count for group, count in zip(words[IDS:COUNTS], words[COUNTS:], strict=True) if group},
            still_s=still_s,
            state=state,
            source=shown["source"].decode(errors="replace"),
        )


_BUSY = ("computes", "sleeps")


@contextmanager
def shared_board(world: Transport) -> Iterator[Board | None]:
    """Yields the board of this rank's node, or None where its ranks cannot share memory. Every rank calls it.

    Args:
        world: The ranks of the run, which may be on several nodes.
    """
    memory = share_memory(world, RANK.itemsize)
    if memory is None:
        yield None
        return
    shown = memory.rows.reshape(-1).view(RANK)
    shown["pid"][memory.own] = os.getpid()
    yield Board(shown, memory.ranks, memory.own, (threading.get_ident(), threading.get_native_id()))

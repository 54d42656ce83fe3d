"""Requests of a rank to all ranks: words that travel with its statistics, in every sum, without its host."""

import numpy as np

from ddpgd.kernels.device_ops import Array
from ddpgd.kernels.ops import Ops
from ddpgd.kernels.words import TAIL_WORDS, Tail

_WORDS = slice(int(Tail.STOP), TAIL_WORDS)


class Requests:
    """The words of one rank, where the backend computes: they are added to every tail until they change."""

    def __init__(self, ops: Ops) -> None:
        self._ops = ops
        self._words = ops.zeros((TAIL_WORDS - Tail.STOP,), np.float32)
        self._told = False, 0.0

    def change(self, stop: bool, step_s: float) -> None:
        """Changes the words for the sums that come next.

        Args:
            stop: This rank asks all ranks to stop.
            step_s: Seconds that a step takes; 0 on ranks that do not tell.
        """
        if (stop, step_s) != self._told:
            self._told = stop, step_s
            words = np.zeros(TAIL_WORDS, np.float32)
            words[Tail.STOP], words[Tail.STEP_S] = stop, step_s
            self._ops.upload(words[_WORDS], self._words)

    def add_to(self, tail: Array) -> None:
        """Adds the words to a tail, float32 (TAIL_WORDS,). The other words of the tail stay as they are, bit for bit."""
        own = tail[_WORDS]
        self._ops.add(own, self._words, own)

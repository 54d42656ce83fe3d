"""Sums over thread blocks: their scratch, and what each thread block sums of a squared norm."""

import numpy as np

from ddpgd.kernels.cuda.launcher import NUM_SMS, Launcher, count_of
from ddpgd.kernels.device_ops import Array
from ddpgd.kernels.words import BLOCK

MOST_SPAN = 32
"""Blocks of 1,024 elements that a thread block sums at most; `norm.cuh` says the same."""


def spans(size: int) -> tuple[int, np.int32, np.int32]:
    """Returns the thread blocks of the squared norm of `size` elements, its blocks of 1,024, and those of a thread block.

    The last is a power of two: no larger than makes a thread block for each multiprocessor.
    """
    num_blocks, span = size // BLOCK, 1
    while span < MOST_SPAN and count_of(num_blocks, span) > NUM_SMS:
        span *= 2
    return count_of(num_blocks, span), np.int32(num_blocks), np.int32(span)


class Sums:
    """The nodes of trees, and counters of thread blocks, which are 0 between launches; made once for each use."""

    def __init__(self, launch: Launcher) -> None:
        self._launch = launch
        self._made: dict[tuple[str, int, int], tuple[Array, Array]] = {}

    def __call__(self, purpose: str, num_sums: int, num_counters: int, num_parts: int) -> tuple[Array, Array]:
        """Returns partials float32 for `num_sums` trees over `num_parts` each, and counters int32 (num_counters,)."""
        key = purpose, num_sums, num_parts
        if key not in self._made:
            size = num_sums * (num_parts + count_of(num_parts, 32))
            self._made[key] = self._launch.zeros((size,), np.float32), self._launch.zeros((num_counters,), np.int32)
        return self._made[key]

"""Scratch for sums over thread blocks."""

import numpy as np

from ddpgd.kernels.cuda.launcher import Launcher, count_of
from ddpgd.kernels.ops import Array


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

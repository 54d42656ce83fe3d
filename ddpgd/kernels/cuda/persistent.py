"""The persistent kernel: the launches of a step as phases of one cooperative launch, which plays them many times.

A phase is a launch whose kernel has a function in `persistent.cu`; between two phases all thread blocks wait for each other.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddpgd.kernels.cuda.dense import BLOCK
from ddpgd.kernels.cuda.launcher import Launch, Launcher

FILE, KERNEL = "persistent.cu", "persistent"
MOST_TURNS = 4
"""Thread blocks of a launch that each multiprocessor plays in turn, at most. Not yet measured."""

TILED = ("forward", "input", "gather_forward", "params_of_layers")
"""Kernels that have a phase for each tile up to `LARGEST_TILE`."""
LARGEST_TILE = 64
UNTILED = r"add|tree_sum|head_\w+|decide_and_\w+"
"""Kernels that have one phase."""


def phase_of(kernel: str) -> str | None:
    """Returns the phase of a kernel, as `persistent.cu` calls it; None: there is none.

    >>> phase_of("gather_forward_16x8"), phase_of("tree_sum"), phase_of("squared_norms")
    ('phase::gather_forward<16,8>', 'phase::tree_sum<>', None)
    """
    if re.fullmatch(UNTILED, kernel):
        return f"phase::{kernel}<>"
    tiled = re.fullmatch(r"(\w+)_(\d+)x(\d+)", kernel)
    if tiled is None or tiled[1] not in TILED or int(tiled[2]) > LARGEST_TILE:
        return None
    return f"phase::{tiled[1]}<{tiled[2]},{tiled[3]}>"


class Persistent:
    """Persistent kernels of one device and precision."""

    def __init__(self, launch: Launcher) -> None:
        self._launch = launch

    def loop(self, launches: Sequence[Launch]) -> Callable[[int], None] | None:
        """Returns what plays `launches` so many times in one launch; None where they are no small step.

        A step is small where each launch has a phase and at most `MOST_TURNS` thread blocks for each multiprocessor, and
        one thread block with the shared memory of all phases fits on each.
        """
        phases = [phase_of(launch.kernel) for launch in launches]
        if not launches or None in phases:
            return None
        defines = (f"-DPHASES={','.join(map(str, phases))}",)
        shared = max(launch.shared_bytes for launch in launches)
        fitting = self._launch.most_blocks(FILE, KERNEL, BLOCK[0], shared, defines)
        at_once = min(fitting, self._launch.num_multiprocessors)
        widest = max(launch.num_blocks for launch in launches)
        if widest > MOST_TURNS * at_once:
            return None
        program = self._launch.from_host(words_of(launches))
        barrier = self._launch.zeros((1,), np.int32)
        grid = (min(widest, at_once),)

        def play(num_steps: int) -> None:
            arguments = program, np.int32(num_steps), barrier
            where = FILE, KERNEL, grid, BLOCK
            self._launch(*where, *arguments, shared_bytes=shared, cooperative=True, defines=defines)

        # The program knows addresses only: the arrays behind them must live as long as it does.
        play.launches = launches  # type: ignore[attr-defined]
        return play


def words_of(launches: Sequence[Launch]) -> NDArray[np.int64]:
    """Returns the words of phases: the grid's thread blocks in x, in y, and in all, then a word for each argument."""
    words: list[int] = []
    for launch in launches:
        x, y = (*launch.grid, 1)[:2]
        words += [x, y, launch.num_blocks, *map(_word, launch.arguments)]
    return np.array(words, np.uint64).view(np.int64)


def _word(argument: Any) -> int:
    """Returns the 8 bytes of an argument: an address, or a scalar in the lower bytes."""
    if argument is None:
        return 0
    if isinstance(argument, np.generic):
        return int.from_bytes(argument.tobytes().ljust(8, b"\0"), "little")
    address: int = argument.data.ptr
    return address

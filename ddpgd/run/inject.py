"""Faults on purpose (`--inject`): what a rank does wrong, and at which step, for tests and for exercises."""

import errno
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddpgd.comm import whereabouts
from ddpgd.comm.whereabouts import ACTIVITY, INPUT
from ddpgd.errors import InputError, shown
from ddpgd.run.stderr import say

_SLOWER = 3
"""A slow rank's steps take so many times as long."""


class Fault(NamedTuple):
    """Something that rank `rank` does wrong when `step` steps are done."""

    kind: str
    rank: int
    step: int


class Injected(Exception):
    """The failure that `--inject raise` asks for."""


def parse(text: str | None, world_size: int | None, sums_gradients: bool = True, num_processes: int = 2) -> list[Fault]:
    """Returns the faults that a text such as "hang@1:40,die@0:100" names, in order of their steps.

    Args:
        text: The text; None: no faults.
        world_size: Number of ranks; None: it was larger once.
        sums_gradients: Whether ranks sum gradients in each step.
        num_processes: Number of processes that ranks are in.

    Raises:
        InputError: It names none, or a kind or a rank that there is not.
    """
    parts = [] if text is None else text.split(",")
    found = [re.fullmatch(r"([a-z-]+)@(\d{1,9}):(\d{1,15})", part, re.ASCII) for part in parts]
    faults = [Fault(one[1], int(one[2]), int(one[3])) for one in found if one and one[1] in KINDS]
    if len(faults) < len(parts):
        raise InputError(
            f"--inject {shown(text)}: KIND@RANK:STEP is wanted, or several with commas between them, as in hang@1:40; "
            f"kinds are {', '.join(KINDS)}"
        )
    if world_size and (absent := [one.rank for one in faults if one.rank >= world_size]):
        raise InputError(f"--inject {shown(text)}: there is no rank {absent[0]}; ranks are 0 to {world_size - 1}")
    if not sums_gradients and (odd := [one.kind for one in faults if one.kind in _OF_GRADIENTS]):
        raise InputError(
            f"--inject {shown(text)}: {odd[0]} is for steps whose gradients are summed; type --sync every-step"
        )
    if world_size == 1 and (odd := [one.kind for one in faults if one.kind in _OF_SEVERAL]):
        raise InputError(
            f"--inject {shown(text)}: {odd[0]} is for ranks that exchange something; start more, as in --transport threads "
            "--ranks 2"
        )
    if num_processes == 1 and any(one.kind == "hang" for one in faults):
        raise InputError(
            f"--inject {shown(text)}: hang stops the process, and there is no other that could see it; type sleep"
        )
    if any(one.kind == "disk-full" and one.rank for one in faults):
        raise InputError(f"--inject {shown(text)}: rank 0 alone writes checkpoints; type disk-full@0:STEP")
    return sorted(faults, key=lambda fault: fault.step)


def check_reached(faults: Sequence[Fault], last: int) -> None:
    """Raises InputError for a fault after step `last`, the last after which ranks can be disturbed."""
    late = next((one for one in faults if one.step > last), None)
    if late:
        raise InputError(
            f"--inject {late.kind}@{late.rank}:{late.step}: the last STEP of this run at which something can happen is "
            f"{last}; type a smaller one, or let the run be longer"
        )


class Faults:
    """The faults of one rank.

    Args:
        faults: Of all ranks.
        rank: The rank.
    """

    def __init__(self, faults: Sequence[Fault], rank: int) -> None:
        self._faults = [one for one in faults if one.rank == rank]
        self._slow_since = 0.0
        self.skips = 0
        """Collectives that the rank will leave out."""
        self.is_cut = False
        """True if no message reaches the rank any more."""
        self.flip: Callable[[], str] = lambda: ""
        """Flips a bit of the rank's params; returns the tensor that it is in."""
        self.changes_gradient: Callable[[NDArray[np.float32]], int | None] | None = None
        """Changes the rank's next gradient; returns the place where it has."""
        self.flips_message = False
        """True if the next array that the rank receives has a bit flipped."""
        self.fills_disk = False
        """True if the next checkpoint finds the disk full."""

    def next_step(self, step: int) -> int | None:
        """Returns the first step after `step` at which something happens; None: there is none."""
        return next((one.step for one in self._faults if one.step > step), None)

    def before(self, step: int) -> None:
        """Does what is due when `step` steps are done."""
        if self._slow_since:
            time.sleep((_SLOWER - 1) * (time.perf_counter() - self._slow_since))
            self._slow_since = time.perf_counter()
        while self._faults and self._faults[0].step <= step:
            fault = self._faults.pop(0)
            say(f"--inject: {fault.kind} on rank {fault.rank}, after step {step}")
            KINDS[fault.kind](self)

    def check_disk(self, path: Path) -> None:
        """Raises OSError if the disk is full."""
        if self.fills_disk:
            self.fills_disk = False
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    def concern_gradients(self) -> bool:
        """Returns whether a gradient is to be changed."""
        return any(one.kind in _OF_GRADIENTS for one in self._faults)

    def slow(self) -> None:
        self._slow_since = time.perf_counter()


def _die(_: Faults) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _hang(_: Faults) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def _sleep(_: Faults) -> None:
    threading.Event().wait()


def _stuck_read(_: Faults) -> None:
    whereabouts.here()[ACTIVITY] = INPUT
    os.read(os.pipe()[0], 1)


def _slow(faults: Faults) -> None:
    faults.slow()


def _raise(_: Faults) -> None:
    raise Injected("--inject raise asked for this")


def _flip(faults: Faults) -> None:
    say(f"--inject: the bit is in {faults.flip()}")


def _flip_gradient(faults: Faults) -> None:
    faults.changes_gradient = lambda gradient: flip_bit(gradient.view(np.uint32))


def _nan(faults: Faults) -> None:
    def change(gradient: NDArray[np.float32]) -> int:
        gradient[0] = np.nan
        return 0

    faults.changes_gradient = change


def _flip_message(faults: Faults) -> None:
    faults.flips_message = True


def _disk_full(faults: Faults) -> None:
    faults.fills_disk = True


def flip_bit(words: NDArray[np.uint32]) -> int | None:
    """Flips a bit in the fraction of the first value that is not 0, of the second half if there is one; returns its place."""
    found = np.flatnonzero(words)
    if not len(found):
        return None
    place = int(found[np.searchsorted(found, len(words) // 2) % len(found)])
    words[place] ^= 1 << 12
    return place


def _skip_collective(faults: Faults) -> None:
    faults.skips += 1


def _drop_link(faults: Faults) -> None:
    faults.is_cut = True


KINDS: dict[str, Callable[[Faults], None]] = {
    "die": _die,
    "hang": _hang,
    "sleep": _sleep,
    "stuck-read": _stuck_read,
    "slow": _slow,
    "raise": _raise,
    "flip": _flip,
    "flip-gradient": _flip_gradient,
    "flip-message": _flip_message,
    "nan": _nan,
    "disk-full": _disk_full,
    "skip-collective": _skip_collective,
    "drop-link": _drop_link,
}
"""What happens, by name: the process is killed, or stopped; the thread sleeps for ever, reads what never comes, or takes three
times as long for each step from there on; an error is raised; a bit of the params, of the next gradient, or of the next array
that is received, is flipped; the next gradient gets a NaN; the disk is full; the next collective is left out; no message comes
any more."""

_OF_SEVERAL = ("drop-link", "flip-message", "skip-collective")
"""Faults of what ranks exchange."""
_OF_GRADIENTS = ("flip-gradient", "nan")

"""Handing out of runs to groups of ranks as they become free: a file for each run that is taken, in a folder that all see."""

import os
import secrets
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ddpgd.comm.agreement import on_root
from ddpgd.comm.transport import Transport
from ddpgd.run.failures import in_one_line
from ddpgd.training.stopping import StopRequest

_LOOK_S = 0.5
"""Seconds between two looks whether another group was asked to stop."""


class HandOut:
    """Hands out names, each to one group; what an earlier start has taken does not count."""

    def __init__(self, folder: Path, names: Sequence[str], world: Transport) -> None:
        """Makes the folder, and removes those of killed starts; every rank of `world` calls it, rank 0 holds the sweep's lock.

        MachineError: it cannot be made.
        """

        def make() -> Path:
            taken = folder / f".taken-{secrets.token_hex(6)}"
            for left in folder.glob(".taken-*"):
                shutil.rmtree(left, ignore_errors=True)
            with in_one_line():
                taken.mkdir(parents=True)
            return taken

        self._names = names
        self._taken = on_root(world, make)
        self.stop_file = self._taken / "stop"

    def next(self, group: Transport, stop: StopRequest) -> str:
        """Returns a name that no group has yet; all ranks of `group` call it. Empty: none is left, or none shall begin.

        MachineError: the folder cannot be written.
        """
        return on_root(group, lambda: "" if stop else self._take())

    def stop(self) -> None:
        """Lets all groups stop."""
        with suppress(OSError):
            self.stop_file.touch()

    def close(self) -> None:
        """Removes the folder; one rank calls it when all have ended."""
        shutil.rmtree(self._taken, ignore_errors=True)

    def _take(self) -> str:
        for number, name in enumerate(self._names):
            with in_one_line(), suppress(FileExistsError):
                os.close(os.open(self._taken / str(number), os.O_CREAT | os.O_EXCL | os.O_WRONLY))
                return name
        return ""


@dataclass
class SharedStop(StopRequest):
    """A request to stop of any group: the own one, which others then learn, or theirs."""

    own: StopRequest | None = None
    file: Path = Path()
    _looked: float = 0.0

    def __bool__(self) -> bool:
        if self.reason:
            return True
        if self.own:
            self.reason = self.own.reason or "this rank was asked to"
            with suppress(OSError):
                self.file.touch()
        elif time.monotonic() - self._looked > _LOOK_S:
            self._looked = time.monotonic()
            if self.file.exists():
                self.reason = "another group of ranks was asked to stop"
        return bool(self.reason)

"""A lock on a run folder: one run at a time, and a dead owner holds nothing.

The lock is a file that is made only where there is none, which works on any file system. It names its owner's machine,
process and start time; on the same machine these tell whether the owner is alive. From another machine the file's
modification time tells: the owner renews it every few seconds.
"""

import json
import os
import re
import secrets
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ddpgd.comm.launcher import node
from ddpgd.errors import InputError
from ddpgd.run import strict_json

RENEW_S = 4.0
WATCH_S = 20.0
"""Seconds for which an owner on another machine is watched for a sign of life."""

_NAME = ".lock"
_LEFTOVER = re.compile(r"\.lock\.\d+")
_LONGEST = 10_000


class RunLock:
    """The lock of `folder`, held from `acquire` to `release`."""

    def __init__(self, folder: Path, flag: str = "--run-dir") -> None:
        """`flag`: what names the folder, for messages."""
        self._path = folder / _NAME
        self._flag = flag
        self._owner = {
            "host": node(),
            "machine": _machine(),
            "pid": os.getpid(),
            "started": _started(os.getpid()),
            "token": secrets.token_hex(8),
        }
        self._ended = threading.Event()

    def acquire(self, say: Callable[[str], None]) -> None:
        """Takes the lock, also from an owner that is dead.

        Raises:
            InputError: the owner is alive.
            OSError: the lock cannot be written.
        """
        while not self._create():
            seen = _read(self._path)
            if seen is not None:
                self._check_dead(seen, say)
                self._remove(seen)
        threading.Thread(target=self._renew, args=(say,), daemon=True, name="run lock").start()

    def inherit(self, say: Callable[[str], None]) -> None:
        """Takes the lock from an owner that is known to be dead, or to have let it go. OSError: it cannot be written."""
        self._path.unlink(missing_ok=True)
        self.acquire(say)

    def release(self) -> None:
        """Gives the lock back, if it is still this object's."""
        self._ended.set()
        if self.is_held():
            with suppress(OSError):
                self._path.unlink()

    def is_held(self) -> bool:
        """Returns whether the lock is this object's; another run takes it when this process does not renew it for long."""
        seen = _read(self._path)
        return seen is not None and seen.owner.get("token") == self._owner["token"]

    def _create(self) -> bool:
        try:
            descriptor = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(self._owner, file)
        except OSError:
            self._path.unlink(missing_ok=True)
            raise
        return True

    def _check_dead(self, seen: "_Seen", say: Callable[[str], None]) -> None:
        who = f"process {seen.owner.get('pid')} on {seen.owner.get('host')}" if seen.owner else "an unknown process"
        is_alive = seen.is_alive()
        if is_alive is None:
            say(f"{self._path.parent}: locked by {who}; watching for {WATCH_S:g} s whether that is alive")
            is_alive = self._shows_life(seen)
        if is_alive:
            raise InputError(
                f"{self._flag} {self._path.parent}: in use by a run that is alive, {who}; wait for its end, or name another "
                "folder"
            )

    def _shows_life(self, seen: "_Seen") -> bool:
        until = time.monotonic() + WATCH_S
        while time.monotonic() < until:
            time.sleep(min(0.25, WATCH_S / 4))
            now = _read(self._path)
            if now is None:
                return False
            if now.renewed != seen.renewed or now.text != seen.text:
                return True
        return False

    def _remove(self, seen: "_Seen") -> None:
        """Removes the lock of a dead owner; of several processes that try, one succeeds, and none removes a new lock."""
        aside = self._path.with_name(f"{_NAME}.{os.getpid()}")
        with suppress(FileNotFoundError):
            self._path.rename(aside)
            taken = _read(aside)
            if taken is not None and taken.text != seen.text and not self._path.exists():
                aside.rename(self._path)
            else:
                aside.unlink()

    def _renew(self, say: Callable[[str], None]) -> None:
        while not self._ended.wait(RENEW_S):
            with suppress(OSError):
                seen = _read(self._path)
                if seen and seen.owner.get("token") != self._owner["token"]:
                    say(f"{self._path.parent}: taken by another run, because this one showed no life for long")
                    return
                os.utime(self._path)


class _Seen:
    """A lock file as it was read: its text, its owner (empty: unreadable), and when it was renewed."""

    def __init__(self, text: str, renewed: int) -> None:
        self.text = text
        self.renewed = renewed
        self.owner: dict[str, Any] = {}
        with suppress(ValueError):
            owner = strict_json.parse(text)
            self.owner = owner if isinstance(owner, dict) else {}

    def is_alive(self) -> bool | None:
        """Returns whether the owner is a process that runs; None: it is on another machine, or unknown."""
        pid, started = self.owner.get("pid"), self.owner.get("started")
        if self.owner.get("machine") != _machine() or not isinstance(pid, int):
            return None
        return started is not None and _started(pid) == started


def in_use(folder: Path) -> bool:
    """Returns at once whether a run in `folder` is alive, from another machine as far as its last sign of life tells."""
    try:
        seen = _read(folder / _NAME)
    except OSError:
        return False
    if seen is None:
        return False
    is_alive = seen.is_alive()
    return time.time() - seen.renewed / 1e9 < WATCH_S if is_alive is None else is_alive


def remove_leftovers(folder: Path) -> None:
    """Removes what processes that were killed while they took the lock left. The caller holds the lock."""
    for path in folder.iterdir():
        if _LEFTOVER.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _read(path: Path) -> _Seen | None:
    """Returns the lock file's state; None: it is not there. Opening it makes network file systems look again."""
    try:
        with path.open("rb") as file:
            text = file.read(_LONGEST).decode(errors="replace")
            return _Seen(text, os.fstat(file.fileno()).st_mtime_ns)
    except FileNotFoundError:
        return None


def _machine() -> str:
    """Returns what is equal for two processes that can see each other's ids: the boot, and the container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return node()


def _started(pid: int) -> str | None:
    """Returns when a process of this machine started, in the system's own form; None: there is no such process."""
    try:
        if Path("/proc/self/stat").exists():
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
            return None if fields[0] in "ZX" else fields[19]
        listed = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
        return listed.stdout.strip() or None
    except (OSError, ValueError, IndexError):
        return None

"""Removal of all that a lab leaves on the machine, by its name: processes, network namespaces, a folder."""

import contextlib
import itertools
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

NAMESPACES = Path("/run/netns")
FOLDERS = Path("/run")
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
GRACE_S = 3.0
"""How long processes have between TERM and KILL."""

_NAME = re.compile(r"(netlab-(\d+)-(\d+)-\d+)(-.+)?")
_counter = itertools.count()


def new_name() -> str:
    """The pid and its start time are in the name, so that whoever finds it knows whether its owner lives."""
    return f"netlab-{os.getpid()}-{_started(os.getpid())}-{next(_counter)}"


def folder(name: str) -> Path:
    return FOLDERS / name


def namespaces(name: str) -> list[str]:
    return sorted(path.name for path in NAMESPACES.glob(f"{name}-*"))


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Signals that would end the cleaning half-way wait until it is done."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_processes(name: str, patience_s: float = 0.0, grace_s: float = GRACE_S) -> None:
    """Ends all that runs in the lab's namespaces: after `patience_s` with TERM, after `grace_s` more with KILL."""
    started = time.monotonic()
    told: set[tuple[int, int]] = set()
    number = 0
    while _signal_all(name, number, told):
        time.sleep(0.01)
        over_s = time.monotonic() - started - patience_s
        number = signal.SIGKILL if over_s >= grace_s else signal.SIGTERM if over_s >= 0 else 0


def remove(name: str, grace_s: float = GRACE_S) -> None:
    with undisturbed():
        end_processes(name, grace_s=grace_s)
        for namespace in namespaces(name):
            # Its links, bridge and qdiscs go with it. No check: another lab's sweep may have been faster.
            subprocess.run(["ip", "netns", "delete", namespace], capture_output=True, check=False)
        shutil.rmtree(folder(name), ignore_errors=True)


def sweep() -> list[str]:
    """Removes the labs whose process is gone, killed for instance, and returns their names."""
    entries = [*NAMESPACES.glob("netlab-*"), *FOLDERS.glob("netlab-*")]
    found = {match.groups()[:3] for entry in entries if (match := _NAME.fullmatch(entry.name))}
    dead = sorted(name for name, pid, started in found if _started(int(pid)) != int(started))
    for name in dead:
        remove(name, grace_s=0.5)
    return dead


def _started(pid: int) -> int | None:
    """Returns the start time of a process in the kernel's ticks; None if it does not exist."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *fields = stat.rpartition(")")[2].split()
    return None if state in "ZX" else int(fields[18])


def _signal_all(name: str, number: int, told: set[tuple[int, int]]) -> int:
    """Signals each process in the lab's namespaces, with the same signal once; returns how many there are."""
    inodes = set()
    for namespace in namespaces(name):
        with contextlib.suppress(OSError):
            inodes.add(_inode(NAMESPACES / namespace))
    count = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and inodes:
            count += _signal_if_inside(int(entry.name), inodes, number, told)
    return count


def _signal_if_inside(pid: int, inodes: set[tuple[int, int]], number: int, told: set[tuple[int, int]]) -> bool:
    try:
        if _inode(Path(f"/proc/{pid}/ns/net")) not in inodes:
            return False
        handle = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        # Again, now that the handle holds this process: the pid may have become another's in between.
        inside = _inode(Path(f"/proc/{pid}/ns/net")) in inodes
        if inside and number and (pid, number) not in told:
            told.add((pid, number))
            signal.pidfd_send_signal(handle, number)
        return inside
    except OSError:
        return False
    finally:
        os.close(handle)


def _inode(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino

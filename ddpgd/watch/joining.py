"""Watches a rank while MPI starts, when no thread of Python runs in it: from a process of its own, which ends with the start.

MPI waits there for all ranks. With --with-ft ulfm the launcher does not end the others when one dies; and nobody says a word.
"""

import ctypes
import os
import select
import signal
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from ddpgd.comm.launcher import node
from ddpgd.errors import HANG_CODE
from ddpgd.watch import process

LINE_S = 30.0
"""Seconds after which a line says that MPI has not started; then after twice as many, and so on."""
_LOOK_S = 0.25
_GRACE_S = 1.5
"""Seconds for which ranks may be missing: the launcher starts them one by one, and may itself end all when one dies."""
_END = signal.Signals(HANG_CODE)
"""The signal whose number is the exit code that it stands for."""
_LOCAL_RANK, _LOCAL_SIZE = "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"


@contextmanager
def watched(environment: Mapping[str, str]) -> Iterator[None]:
    """Watches this process while the block starts MPI; `environment`: what the launcher told it."""
    reads, writes = os.pipe()
    with warnings.catch_warnings(action="ignore"):
        child = os.fork()  # which has no threads, and needs none
    if child == 0:
        with suppress(BaseException):
            os.close(writes)
            _watch(reads, os.getppid(), environment)
        os._exit(0)
    os.close(reads)
    # MPI holds the interpreter's lock, so no handler of Python would run; and a launcher ignores what a signal kills.
    libc = ctypes.CDLL(None)
    libc.signal.argtypes = ctypes.c_int, ctypes.c_void_p
    libc.signal(_END, ctypes.cast(libc._exit, ctypes.c_void_p))
    try:
        yield
    finally:
        signal.signal(_END, signal.SIG_DFL)
        os.close(writes)
        os.waitpid(child, 0)


def _watch(start: int, rank: int, environment: Mapping[str, str]) -> None:
    """Looks at the ranks of this node until the process `rank` closes the other end of the pipe `start`, or ends."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    began = all_seen = time.monotonic()
    next_line = LINE_S
    local_rank, local_size = int(environment.get(_LOCAL_RANK, 0)), int(environment.get(_LOCAL_SIZE, 0))
    while not select.select([start], [], [], _LOOK_S)[0]:
        now = time.monotonic()
        alive = local_ranks(rank) if local_size else None
        if alive is None or len(alive) >= local_size:
            all_seen = now
        elif now - all_seen > _GRACE_S:
            if local_rank == min(alive, default=local_rank):
                missing = local_size - len(alive)
                missing, place = local_size - len(alive), node()
                _say(
                    f"{missing} of the {local_size} ranks on {place} died while MPI started; the others, which wait, end"
                )
            time.sleep(_LOOK_S)
            os.kill(rank, _END)
            return
        if now - began > next_line and local_rank == 0:
            _say(f"MPI has not started on {node()} for {next_line:.0f} s: a rank has not come; waiting")
            next_line *= 2


def local_ranks(rank: int) -> set[int] | None:
    """Returns the local ranks that run, of those that were started beside the process `rank`; None: it cannot be told."""
    parent = _parent(rank)
    if parent is None:
        return None
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        pid = int(entry.name)
        if _parent(pid) != parent or process.state(pid) == "has ended":
            continue
        with suppress(OSError):
            words = (entry / "environ").read_bytes().split(b"\0")
            found |= {int(word.partition(b"=")[2]) for word in words if word.startswith(f"{_LOCAL_RANK}=".encode())}
    return found


def _parent(pid: int) -> int | None:
    try:
        return int(
            Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[1]
        )
    except (OSError, IndexError):
        return None


def _say(line: str) -> None:
    with suppress(OSError):
        os.write(2, f"ddpgd: {line}\n".encode())

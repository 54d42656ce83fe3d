"""Foreseeable failures of the machine, each as one line with a remedy and an exit code."""

import errno
import shutil
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ddpgd.config.units import bytes_text
from ddpgd.errors import Cancelled, DdpgdError, MachineError, OutOfMemory
from ddpgd.run.atomic import FULL

FORESEEABLE = (DdpgdError, OSError, MemoryError, KeyboardInterrupt)


def as_one_line(error: BaseException) -> DdpgdError | None:
    """Returns what to tell about a failure in one line; None: unforeseen, so its traceback is wanted.

    A closed pipe, as of `| head`, is told by an empty message: its reader has seen enough.
    """
    if isinstance(error, DdpgdError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return Cancelled("interrupted")
    if isinstance(error, MemoryError):
        return OutOfMemory(f"not enough memory{_detail(error)}; {_MORE_MEMORY}")
    if isinstance(error, BrokenPipeError):
        return MachineError()
    return MachineError(_of_os_error(error)) if isinstance(error, OSError) else None


@contextmanager
def in_one_line() -> Iterator[None]:
    """Turns a foreseeable failure into the `DdpgdError` that tells it, which ranks can agree on."""
    try:
        yield
    except (OSError, MemoryError) as error:
        told = as_one_line(error)
        assert told is not None, "both are foreseeable"
        raise told from error


_MORE_MEMORY = "type smaller numbers (--hidden, --micro-batch, --ranks), or start fewer ranks on this machine"


def _detail(error: BaseException) -> str:
    """NumPy says how much it wanted; Python says nothing."""
    return f": {error}" if str(error) else f" (in {_place(error)})"


def _of_os_error(error: OSError) -> str:
    where = error.filename if isinstance(error.filename, str) else _place(error)
    reason = error.strerror or str(error) or type(error).__name__
    if error.errno in FULL:
        return f"{where}: {reason}{_free(where)}; free some space there, or name a folder on another disk"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{where}: {reason}; change its permissions, or name another place"
    return f"{where}: {reason}"


def _free(where: str) -> str:
    with suppress(OSError, ValueError):
        return f" ({bytes_text(shutil.disk_usage(Path(where).parent).free)} are free)"
    return ""


def _place(error: BaseException) -> str:
    """Returns the last line of this package that the error passed."""
    package = str(Path(__file__).parents[1])
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(package)]
    return f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else type(error).__name__

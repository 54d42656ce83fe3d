"""Losses of ranks: where some have died, the end of MPI may wait for them, and a process leaves without it."""

import atexit
import os
import sys
from contextlib import suppress

_noted = False
_is_first = False


def note(is_first: bool) -> None:
    """Notes that ranks have died, and whether this one `is_first` of those left; it will leave without an end of MPI."""
    global _noted, _is_first
    if not _noted:
        atexit.register(_leave_at_exit)
    _noted, _is_first = True, is_first


def is_first(was: bool) -> bool:
    """Returns whether this rank is the first of those that are left; `was`: whether it was the first of all."""
    return _is_first if _noted else was


def leave_if_any(exit_code: int) -> None:
    """Ends this process, if ranks have died."""
    if _noted:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, AttributeError, ValueError):
                stream.flush()
        os._exit(exit_code)


def _leave_at_exit() -> None:
    leave_if_any(1 if hasattr(sys, "last_value") else 0)

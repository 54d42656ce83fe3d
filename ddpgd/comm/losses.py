"""Losses of ranks: where some have died, the end of MPI may wait for them, and a process leaves without it."""

import atexit
import os
import sys
from contextlib import suppress

_noted = False


def note() -> None:
    """Notes that ranks have died; the process will leave without an end of MPI."""
    global _noted
    if not _noted:
        _noted = True
        atexit.register(_leave_at_exit)


def leave_if_any(exit_code: int) -> None:
    """Ends this process, if ranks have died."""
    if _noted:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, AttributeError, ValueError):
                stream.flush()
        os._exit(exit_code)


def _leave_at_exit() -> None:
    leave_if_any(1 if hasattr(sys, "last_value") else 0)

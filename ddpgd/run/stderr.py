"""Lines beside the results, on standard error."""

import sys
from contextlib import suppress

from ddpgd.errors import one_line


def say(line: str) -> None:
    """Prints one line, if standard error takes it."""
    with suppress(OSError, ValueError):
        if sys.stderr is None:
            return
        print(f"ddpgd: {one_line(line)}", file=sys.stderr, flush=True)

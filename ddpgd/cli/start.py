"""The program's entry point: notes signals to `ddpgd train` and `sweep` before anything large is imported."""

import io
import signal
import sys
from collections.abc import Sequence

from ddpgd.cli.table import TABLE

came: list[int] = []
"""The signals that came before the run listened for them itself, oldest first."""


def main() -> int:
    """Runs one command; returns the process's exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # names of files need not be UTF-8
    if is_stoppable(sys.argv[1:]):
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if not (number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN):
                signal.signal(number, _note)
    from ddpgd.cli import main as command_line

    return command_line.main()


def is_stoppable(arguments: Sequence[str]) -> bool:
    """Returns whether a command takes a signal as a request for checkpoints."""
    return any(TABLE[name].is_stoppable for name in arguments[:1] if name in TABLE)


def _note(number: int, _frame: object) -> None:
    """A second SIGINT interrupts at once, as it does later."""
    came.append(number)
    if number == signal.SIGINT:
        signal.signal(signal.SIGINT, signal.default_int_handler)

"""The program's entry point: notes signals to `ddpgd train` and `sweep` before anything large is imported."""

import signal
import sys

STOPPABLE = (["train"], ["sweep"])
"""Beginnings of command lines that take a signal as a request for checkpoints."""

came: list[int] = []
"""The signals that came before the run listened for them itself, oldest first."""


def main() -> int:
    """Runs one command; returns the process's exit code."""
    if sys.argv[1:2] in STOPPABLE:
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if not (number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN):
                signal.signal(number, _note)
    from ddpgd.cli import main as command_line

    return command_line.main()


def _note(number: int, _frame: object) -> None:
    """A second SIGINT interrupts at once, as it does later."""
    came.append(number)
    if number == signal.SIGINT:
        signal.signal(signal.SIGINT, signal.default_int_handler)

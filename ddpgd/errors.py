"""The ways a run can end other than well, each with its exit code, and how values are shown in messages."""

from typing import Any

HANG_CODE = 5
"""The exit code of a run that its watchdog ended."""
_LONGEST_MESSAGE = 1000
_LONGEST_VALUE = 100


def one_line(text: str) -> str:
    """Returns `text` as one printable line: control characters escaped, the middle of a very long text left out."""
    if len(text) > _LONGEST_MESSAGE:
        text = f"{text[: _LONGEST_MESSAGE // 2]} ... {text[-_LONGEST_MESSAGE // 2 :]}"
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def shown(value: Any) -> str:
    """Returns the repr of a value that a user gave, at most 100 characters of it."""
    try:
        text = repr(value[: _LONGEST_VALUE + 1] if isinstance(value, str) else value)
    except (ValueError, RecursionError):
        return f"a value of type {type(value).__name__} that is too large to show"
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."


class DdpgdError(Exception):
    """Base of every deliberate end of a run; `exit_code` is what the process returns. The message is one line."""

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(one_line(message))


class InputError(DdpgdError):
    """Bad input or configuration: one line that says what was got, what was wanted and what to type."""

    exit_code = 2


class NonFiniteError(DdpgdError):
    """The gradient held an infinity or a NaN; the message names rank, layer and samples."""

    exit_code = 3


class ReplicasDiffer(DdpgdError):
    """Ranks that should hold the same bits do not; the message names rank, step and tensor."""

    exit_code = 4


class Interrupted(DdpgdError):
    """A signal or a time limit ended the run after a checkpoint; resuming continues it bit for bit."""

    exit_code = 75


class MachineError(DdpgdError):
    """The machine failed the program: a full disk, a file that cannot be written, too little memory."""

    exit_code = 1


class OutOfMemory(MachineError):
    """There is less memory than was asked for."""


class Cancelled(DdpgdError):
    """Ctrl-C ended the program at once, without a checkpoint; 130 is the shell's code for it."""

    exit_code = 130

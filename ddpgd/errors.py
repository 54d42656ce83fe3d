"""The ways a run can end other than well, each with its exit code."""


class DdpgdError(Exception):
    """Base of every deliberate end of a run; `exit_code` is what the process returns."""

    exit_code = 1


class InputError(DdpgdError):
    """Bad input or configuration: one line that says what was got, what was wanted and what to type."""

    exit_code = 2


class NonFiniteError(DdpgdError):
    """The gradient held an infinity or a NaN; the message names rank, layer and samples."""

    exit_code = 3


class Interrupted(DdpgdError):
    """A signal or a time limit ended the run after a checkpoint; resuming continues it bit for bit."""

    exit_code = 75

"""The newest whole checkpoint of a run folder, for launchers and scripts: python -m ddpgd.run.newest FOLDER.

Exit codes:
    0: printed its path; `ddpgd train --run-dir FOLDER --resume` goes on from it
    1: there is nothing to go on from, and `ddpgd train --run-dir FOLDER` may start there: no run, or one that never began
    2: FOLDER cannot be read, or holds a run that is alive and has no checkpoint yet; standard error says which
    3: FOLDER holds a run without a whole checkpoint; to start anew there, move it aside first
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from ddpgd.errors import InputError
from ddpgd.run.checkpoint_search import NoCheckpointError, find
from ddpgd.run.folder import is_free
from ddpgd.run.lock import RunLock


def main(arguments: Sequence[str]) -> int:
    """Prints the path; returns the exit code."""
    try:
        if len(arguments) != 1:
            raise InputError("type one run folder: python -m ddpgd.run.newest FOLDER")
        folder = Path(arguments[0])
        if is_free(folder):
            return 1
        try:
            print(find(folder, _say)[0])
        except NoCheckpointError:
            _check_unused(folder)
            return 3
    except InputError as error:
        _say(str(error))
        return 2
    return 0


def _check_unused(folder: Path) -> None:
    """Raises InputError if a run in `folder` is alive: who moved it aside would take the folder from under it."""
    lock = RunLock(folder)
    try:
        lock.acquire(_say)
    except OSError as error:
        raise InputError(f"{folder}: cannot write there: {error.strerror or error}") from None
    lock.release()


def _say(line: str) -> None:
    print(f"ddpgd: {line}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

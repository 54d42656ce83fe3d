"""The newest whole checkpoint of a run folder, for launchers and scripts: python -m ddpgd.run.newest FOLDER.

Exit codes:
    0: printed its path; `ddpgd train --run-dir FOLDER --resume` goes on from it
    1: there is nothing to go on from, and `ddpgd train --run-dir FOLDER` may start there: no run, or one that never began
    2: FOLDER cannot be read; standard error says why
    3: FOLDER holds a run without a whole checkpoint; to start anew there, move it aside first
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from ddpgd.errors import InputError
from ddpgd.run.checkpoint import NoCheckpointError, find
from ddpgd.run.folder import is_free


def main(arguments: Sequence[str]) -> int:
    """Prints the path; returns the exit code."""
    try:
        if len(arguments) != 1:
            raise InputError("type one run folder: python -m ddpgd.run.newest FOLDER")
        folder = Path(arguments[0])
        if is_free(folder):
            return 1
        print(find(folder, _say)[0])
    except NoCheckpointError:
        return 3
    except InputError as error:
        _say(str(error))
        return 2
    return 0


def _say(line: str) -> None:
    print(f"ddpgd: {line}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

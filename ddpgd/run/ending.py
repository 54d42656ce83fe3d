"""The end of a run that has no summary: ended.json, which a run that was stopped, diverged or failed leaves in its folder."""

import json
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ddpgd.errors import NonFiniteError
from ddpgd.run import strict_json
from ddpgd.run.atomic import write_atomically

NAME = "ended.json"
_LARGEST_FILE = 10_000


class Ending(NamedTuple):
    """The exit code with which a run ended, and the reason in one line."""

    exit_code: int
    reason: str

    @property
    def diverged(self) -> bool:
        """True if a gradient was not finite: the same start would end alike."""
        return self.exit_code == NonFiniteError.exit_code


def note(folder: Path, exit_code: int, reason: str) -> None:
    """Writes ended.json, where that is possible."""
    with suppress(OSError):
        write_atomically(folder / NAME, [json.dumps(Ending(exit_code, reason)._asdict()).encode()])


def read_ending(folder: Path) -> Ending | None:
    """Reads ended.json; None: there is none, as of a run that was killed, or it cannot be read."""
    try:
        with (folder / NAME).open("rb") as file:
            table = strict_json.parse(file.read(_LARGEST_FILE).decode())
    except (OSError, ValueError):
        return None
    kinds = {"exit_code": int, "reason": str}
    if not isinstance(table, dict) or {name: type(value) for name, value in table.items()} != kinds:
        return None
    return Ending(**table)

"""Questions and answers between the nodes of a run, as files in its folder: where is each of your ranks?

`ranks.json` says which ranks there are. Whoever wants to know, a watchdog or `ddpgd hang`, writes a number into `question`;
one rank of each node answers with a file of that number. Ranks leave their stacks beside them.
"""

import json
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ddpgd.comm.whereabouts import ACTIVITIES, COLLECTIVES
from ddpgd.watch.rows import Row

_LONGEST = 10_000_000


class Answers:
    """The folder `hang` of a run."""

    def __init__(self, run: Path) -> None:
        self.folder = run / "hang"

    def open(self, ranks: Sequence[Row]) -> None:
        """Makes the folder anew, with the ranks of the run.

        Raises:
            OSError: It cannot be made.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self.close(keep_stacks=False)
        self.folder.mkdir(exist_ok=True)
        _write(self.folder / "ranks.json", {"ranks": ranks})

    def close(self, keep_stacks: bool) -> None:
        """Removes what there is but, perhaps, stacks."""
        with suppress(OSError):
            for file in self.folder.iterdir():
                if not keep_stacks or file.suffix != ".txt":
                    file.unlink()
            self.folder.rmdir()

    def ranks(self) -> list[Row]:
        """Returns the ranks of the run; none: it is not watched from here."""
        return _rows(_read(self.folder / "ranks.json").get("ranks"))

    def question(self) -> int:
        """Returns the number of the last question; 0: there was none."""
        number = _read(self.folder / "question").get("number")
        return number if isinstance(number, int) else 0

    def ask(self) -> int:
        """Asks; returns the number of the question. OSError: the folder cannot be written."""
        number = 1 + secrets.randbits(62)
        _write(self.folder / "question", {"number": number})
        return number

    def answer(self, number: int, rows: Sequence[Row]) -> None:
        """Answers question `number` for a node. OSError: the folder cannot be written."""
        _write(self.folder / f"node-{rows[0].rank}.json", {"number": number, "rows": rows})

    def given(self, number: int) -> list[Row]:
        """Returns the ranks of all nodes that have answered question `number`."""
        tables = [_read(file) for file in self.folder.glob("node-*.json")]
        return [row for table in tables if table.get("number") == number for row in _rows(table.get("rows"))]

    def has_stacks(self) -> bool:
        """Returns whether any rank has left its stacks."""
        with suppress(OSError):
            return any(self.folder.glob("rank-*.txt"))
        return False

    def stacks(self, rank: int) -> Path:
        """Returns the file for a rank's stacks."""
        return self.folder / f"rank-{rank}.txt"


def with_silent(rows: Sequence[Row], ranks: Sequence[Row]) -> list[Row]:
    """Returns the rows of all `ranks` of a run: of those that nobody answered for, that they do not answer."""
    there = {row.rank for row in rows}
    return sorted([*rows, *(row._replace(state="does not answer") for row in ranks if row.rank not in there)])


def _write(file: Path, table: dict[str, Any]) -> None:
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        temporary.write_text(json.dumps(table), encoding="utf-8")
        temporary.replace(file)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _read(file: Path) -> dict[str, Any]:
    """Returns the object in a file; empty: there is none."""
    try:
        with file.open("rb") as stream:
            table = json.loads(stream.read(_LONGEST))
    except (OSError, ValueError, RecursionError):
        return {}
    return table if isinstance(table, dict) else {}


def _rows(listed: Any) -> list[Row]:
    """Returns rows that were written as lists; those that are none are left out."""
    kinds = [type(value) for value in Row(0, "", 0)]
    rows = listed if isinstance(listed, list) else []
    found = [Row(*row) for row in rows if isinstance(row, list) and [type(value) for value in row] == kinds]
    return [row for row in found if _has_names(row) and all(type(count) is int for count in row.groups.values())]


def _has_names(row: Row) -> bool:
    """Returns whether there are names for what a row says by number."""
    return -1 <= row.activity < len(ACTIVITIES) and 0 <= row.collective < len(COLLECTIVES)

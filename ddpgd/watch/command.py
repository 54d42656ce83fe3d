"""`ddpgd hang`: where each rank of a run is, asked from outside; the run goes on."""

import time
from argparse import ArgumentParser
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddpgd.comm.launcher import node
from ddpgd.config.parsing import path
from ddpgd.errors import InputError
from ddpgd.watch import process
from ddpgd.watch.answers import Answers, with_silent
from ddpgd.watch.rows import Row, table
from ddpgd.watch.verdict import verdict

WORK_OPTIONS = ()
"""Options of the configuration that are flags of `hang`."""

_PATIENCE_S = 5.0
"""Seconds for which it waits for answers."""
_MOVES_S = 2.0
"""A rank that has moved within so many seconds moves."""


def add_flags(parser: ArgumentParser) -> None:
    """Adds the flags of `ddpgd hang`."""
    parser.add_argument("run", metavar="RUN", type=path, help="the folder of a run that is under way")


def lines(parsed: Mapping[str, Any], patience_s: float = _PATIENCE_S) -> list[str]:
    """Asks a run's ranks where they are; returns a table, a verdict, and where the stacks are.

    Raises:
        InputError: No run is under way in the folder that the flags name.
    """
    run = Path(parsed["run"])
    answers = Answers(run)
    ranks = answers.ranks()
    if not ranks:
        raise InputError(
            f"{run}: no run is under way there, or it has not begun; name the folder of one, see ddpgd runs"
        )
    try:
        number = answers.ask()
    except OSError as error:
        raise InputError(
            f"{answers.folder}: cannot be written: {error.strerror}; ask as the user who runs it"
        ) from None
    ends_at = time.monotonic() + patience_s
    while len(answers.given(number)) < len(ranks) and time.monotonic() < ends_at:
        time.sleep(0.05)
    rows = [_seen_from_here(row) for row in with_silent(answers.given(number), ranks)]
    moving = [row for row in rows if not row.state and row.still_s < _MOVES_S]
    said = "the ranks move" if moving and not any(row.state for row in rows) else verdict(rows)
    return [*table(rows), said, f"stacks of the ranks that answered: {answers.folder}"]


def _seen_from_here(row: Row) -> Row:
    """Returns a rank that does not answer with what its process does, where that is on this machine."""
    return row._replace(state=process.state(row.pid) or row.state) if row.state and row.host == node() else row

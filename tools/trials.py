"""Trials: runs that are broken on purpose, and judged. Each is drawn from a seed and its own number, and so repeatable."""

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar

from benchmarks.lib.program import Program, check_tools, make_parser, show
from ddpgd.scaling.arguments import positive
from ddpgd.scaling.conditions import commit
from ddpgd.scaling.processes import ONE_THREAD

LIMIT_S = 120.0
"""A run that takes longer hangs."""


class Outcome(Protocol):
    """The end of a trial; in words, what was wrong with it, or how it ended."""

    @property
    def faults(self) -> list[str]:
        """Returns what was wrong."""


Ended = TypeVar("Ended", bound=Outcome)


def start(command: Sequence[str], folder: Path) -> "subprocess.Popen[str]":
    """Starts a program whose standard error is read; one BLAS thread a rank. What a killed mpirun leaves is in the folder."""
    return subprocess.Popen(
        command,
        env=os.environ | ONE_THREAD | {"TMPDIR": str(folder)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def processes(folder: Path) -> list[int]:
    """Returns the processes whose command line names a folder."""
    found, wanted = [], os.fsencode(folder)
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if wanted in entry.read_bytes():
                found.append(int(entry.parent.name))
    return found


def end_processes(folder: Path) -> list[str]:
    """Ends processes that a run has left; returns what was wrong. Those of a launcher may be some milliseconds behind it."""
    for _ in range(50):
        if not (left := processes(folder)):
            return []
        time.sleep(0.1)
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return [f"processes left: {left}"]


def summary(folder: Path) -> dict[str, Any] | None:
    """Returns the summary of the run in a trial's folder; None: it did not end well."""
    try:
        table: dict[str, Any] = json.loads((folder / "run" / "summary.json").read_text(encoding="utf-8"))
    except OSError:
        return None
    return table


def weights(folder: Path) -> str:
    """Returns the hash of the weights that the run in a trial's folder ended with."""
    found = summary(folder)
    return str(found["params_sha256"]) if found else "none: the run did not end"


def main(
    program: Program,
    description: str | None,
    kinds: Sequence[str],
    attempt: Callable[[int, int, Sequence[str], Path], Ended],
    table: Callable[[Sequence[Ended]], Iterator[str]],
    argv: Sequence[str] | None,
) -> int:
    """Makes the trials that a command line asks for, and shows a table; returns the exit code, 0: all ended as wanted.

    Args:
        program: Of `tools`, which tells of each.
        description: Its help.
        kinds: What trials are drawn from, unless --kinds says so.
        attempt: (seed, number, kinds, folder) -> what became of the trial of that seed and number.
        table: Their table.
        argv: The command line; None: the process's.
    """
    parser = make_parser(description)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--trials", type=positive(int), default=50)
    parser.add_argument("--kinds", type=lambda text: text.split(","), default=list(kinds))
    parser.add_argument("--page", type=Path)

    def work() -> bool:
        asked = parser.parse_args(argv)
        check_tools(None)
        outcomes = []
        for number in range(asked.first, asked.first + asked.trials):
            with tempfile.TemporaryDirectory(prefix=program.name) as folder:
                outcomes.append(attempt(asked.seed, number, asked.kinds, Path(folder)))
            program.say(str(outcomes[-1]))
        flags = f"--seed {asked.seed} --first {asked.first} --trials {asked.trials} --kinds '{','.join(asked.kinds)}'"
        lines = [f"- command: `python -m tools.{program.name} {flags}`", f"- commit: {commit()}"]
        show([*table(outcomes), "", *lines], asked.page, program.name)
        return not any(outcome.faults for outcome in outcomes)

    return program.run(work)

"""`ddpgd quiz`: checks an answer to an exercise of docs/labs.md against the runs that the exercise made."""

from argparse import ArgumentParser
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ddpgd.config.parsing import path
from ddpgd.errors import DdpgdError, InputError
from ddpgd.results import bisect
from ddpgd.run import checkpoint
from ddpgd.run.ending import read_ending
from ddpgd.run.summary import read_summary

WORK_OPTIONS = ()
"""Options of the configuration that are flags of `quiz`."""


class Wrong(DdpgdError):
    """The answer is another one; the line says where to look."""


class Exercise(NamedTuple):
    """An exercise of docs/labs.md.

    Attributes:
        answer: Returns the right answer, from the folder that has the runs.
        look: Where it can be seen.
    """

    answer: Callable[[Path], str]
    look: str


def _hash(runs: Path) -> str:
    return read_summary(runs / "lab-1-three")["params_sha256"][:4]


def _saved_again(runs: Path) -> str:
    kept = checkpoint.newest_first(runs / "lab-2" / "checkpoints")
    return str(50 - max(step for step in map(checkpoint.step_of, kept) if step and step <= 50))


def _left(runs: Path) -> str:
    return str(read_summary(runs / "lab-3")["world_size"])


def _hung(runs: Path) -> str:
    ending = read_ending(runs / "lab-4")
    return ending.reason.removeprefix("rank ").partition(" ")[0] if ending else "none"


def _late(runs: Path) -> str:
    late = read_summary(runs / "lab-5")["late_rank"]
    return str(int(late["rank"])) if late else "1"


def _found_at(runs: Path) -> str:
    ending = read_ending(runs / "lab-6")
    return ending.reason.removeprefix("step ").partition(":")[0] if ending else "none"


def _tensor(runs: Path) -> str:
    [line] = bisect.lines({"runs": [str(runs / "lab-7-right"), str(runs / "lab-7-wrong")]})
    return line.rpartition(", dense")[2].partition(".")[0]


def _exit_code(runs: Path) -> str:
    ending = read_ending(runs / "lab-8")
    return str(ending.exit_code) if ending else "none"


def _times_fewer(runs: Path) -> str:
    every, local = (read_summary(runs / f"lab-9-{name}")["wire_bytes_per_step"] for name in ("every", "local"))
    return str(round(every / local))


def _missing(runs: Path) -> str:
    kept = [checkpoint.step_of(file) or 0 for file in checkpoint.newest_first(runs / "lab-10" / "checkpoints")]
    return ", ".join(str(step) for step in range(20, max(kept), 20) if step not in kept)


EXERCISES = {
    1: Exercise(_hash, "params_sha256 in both summary.json"),
    2: Exercise(_saved_again, "the line that says after which step the run goes on, and the step of the death"),
    3: Exercise(_left, "world_size in runs/lab-3/summary.json"),
    4: Exercise(_hung, "the last sentence of the report but one"),
    5: Exercise(_late, "the last line of the run"),
    6: Exercise(_found_at, "the line that ends the run"),
    7: Exercise(_tensor, "what ddpgd bisect says"),
    8: Exercise(_exit_code, "echo $? right after the run"),
    9: Exercise(_times_fewer, "wire_bytes_per_step in both summary.json"),
    10: Exercise(_missing, "the steps in the names of runs/lab-10/checkpoints"),
}


def add_flags(parser: ArgumentParser) -> None:
    """Adds the flags of `ddpgd quiz`."""
    parser.add_argument("exercise", metavar="NUMBER", type=int, choices=EXERCISES, help="the exercise, 1 to 10")
    parser.add_argument("answer", metavar="ANSWER", help="what you think")
    parser.add_argument("--runs", type=path, default="runs", metavar="FOLDER", help="where its runs are")


def lines(parsed: Mapping[str, Any]) -> list[str]:
    """Returns a line that says that the answer is right.

    Raises:
        Wrong: It is not.
        InputError: The runs of the exercise are not there.
    """
    number, given = parsed["exercise"], parsed["answer"].strip().lower()
    runs = Path(parsed["runs"])
    if not any(runs.glob(f"lab-{number}*")):
        raise InputError(f"{runs}: has no run of exercise {number}; make it first, as docs/labs.md says")
    if given != EXERCISES[number].answer(runs).lower():
        raise Wrong(f"exercise {number}: {given!r} is not it; look at {EXERCISES[number].look}")
    return [f"exercise {number}: right"]

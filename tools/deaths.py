"""Kills ranks of elastic runs at random moments: python -m tools.deaths --seed 1 --trials 50

A trial draws ranks, a configuration, victims and moments from the seed and its own number alone (--first N repeats it): one
rank; two at once; a second one while the others recover; or one at the very start. The run (`ddpgd train --elastic`) must go
on, and end with the bits of one that nothing happens to; no process may be left. Where the ranks had not joined yet, it may end
as a whole: then it must do so by itself, and a second start is undisturbed.

    --kinds "one,two at once"    what is killed (default: ranks of elastic runs); "all at each step": all ranks of a run that
                          makes a checkpoint after each step; gone on with, it must have lost one step at most
    --page FILE.md        the page whose table is replaced (default: print it)
"""

import math
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from random import Random
from typing import NamedTuple

from benchmarks.lib.program import Program
from ddpgd.run import checkpoint
from ddpgd.run.records import read_records
from tools import trials

_PROGRAM = Program("deaths")
_CONFIGS: dict[str, tuple[str, ...]] = {
    "momentum": (),
    "adam, dropout": ("--optimizer", "adam", "--lr", "0.001", "--dropout", "0.2"),
    "muon, augmented": ("--optimizer", "muon", "--augment", "affine", "--steps", "200"),
    "held-out samples": ("--validation", "500", "--patience", "50", "--global-batch", "200", "--micro-batch", "48"),
}
_RUN = (
    *("--data", "synthetic", "--hidden", "64,32", "--elastic", "--quiet"),
    *("--log-every", "2", "--evaluate-every", "40", "--checkpoint-every", "15", "--check-every", "25"),
)
_KINDS = ("one", "two at once", "one in recovery", "at the start")
_ALL = "all at each step"
"""A kind of its own: all ranks of a run that is not elastic, and makes a checkpoint after each step."""


class Trial(NamedTuple):
    """A run, and when ranks of it are killed.

    Attributes:
        victims: Ranks, and after how many seconds each is killed: the first, after its record or, at the start, after its MPI
            library is loaded; the others, after the one before.
    """

    number: int
    num_ranks: int
    config: str
    kind: str
    victims: list[tuple[int, float]]

    @classmethod
    def draw(cls, seed: int, number: int, kinds: Sequence[str] = _KINDS) -> "Trial":
        """Returns trial `number`."""
        draw = Random(f"{seed}/{number}")
        kind = draw.choice(kinds)
        least = 3 if kind in ("two at once", "one in recovery") else 2
        num_ranks = draw.randrange(least, 5)
        ranks = draw.sample(range(num_ranks), 2 if least == 3 else 1)
        if kind == _ALL:
            num_ranks = draw.randrange(1, 5)
            ranks = list(range(num_ranks))
        later = {"two at once": 0.0, "one in recovery": draw.uniform(0.0, 0.1)}.get(kind, 0.0)
        first = draw.uniform(0.0, 1.5 if kind == "at the start" else 1.0)
        return cls(
            number,
            num_ranks,
            draw.choice(sorted(_CONFIGS)),
            kind,
            list(zip(ranks, (first, later, 0.0, 0.0), strict=False)),
        )

    def __str__(self) -> str:
        killed = ", ".join(f"{rank} after {delay:.3f} s" for rank, delay in self.victims)
        return f"trial {self.number}: {self.kind} of {self.num_ranks} ranks, {self.config}: {killed}"


class Outcome(NamedTuple):
    """The end of a trial.

    Attributes:
        trial: The trial.
        went_on_s: Seconds from the last death to the next record of a step that was completed by those that are left.
        end: What became of the run in words.
        faults: What was wrong.
    """

    trial: Trial
    went_on_s: float | None
    end: str
    faults: list[str]

    def __str__(self) -> str:
        after = "" if self.went_on_s is None else f", next step after {self.went_on_s:.3f} s"
        return f"{self.trial}: {'; '.join(self.faults) or self.end}{after}"


def attempt(seed: int, number: int, kinds: Sequence[str], folder: Path) -> Outcome:
    """Starts a run, kills ranks of it, and looks at its end."""
    trial = Trial.draw(seed, number, kinds)
    if trial.kind == _ALL:
        return _go_on_from_each_step(trial, folder)
    faults, killed_at = [], 0.0
    with _started(trial.num_ranks, trial.config, folder) as process:
        try:
            killed_at = _kill(trial, folder, process)
            _, told = process.communicate(timeout=trials.LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            told = ""
            faults.append("it hangs")
    faults += trials.end_processes(folder)
    end, went_on_s = "went on", None
    if faults:
        return Outcome(trial, None, "hung", faults)
    summary = trials.summary(folder)
    if summary is None and trial.kind == "at the start" and process.returncode:
        end = "ended before ranks had joined"
        with _started(trial.num_ranks, trial.config, folder) as process:
            process.communicate(timeout=trials.LIMIT_S)
        summary = trials.summary(folder)
    elif summary and " dead: " not in told:
        end = "had ended before"
    elif summary and summary["lost_ranks"] and trial.kind != "at the start":
        went_on_s = _went_on(told, folder / "run", killed_at)
    if process.returncode or summary is None:
        errors = [line for line in told.splitlines() if re.match(r"[\w.]+(Error|Exception)\b|ddpgd: ", line)]
        faults.append(f"ended with {process.returncode}: {'; '.join(errors[-3:])}")
    elif summary["params_sha256"] != _undisturbed(trial.config):
        faults.append("ended with other weights")
    elif not set(summary["lost_ranks"]) <= {rank for rank, _ in trial.victims}:
        faults.append(f"lost ranks {summary['lost_ranks']}")
    return Outcome(trial, went_on_s, end, faults)


def _go_on_from_each_step(trial: Trial, folder: Path) -> Outcome:
    """Kills all ranks, goes on from the last checkpoint, and counts the steps that are lost."""
    each = ("--log-every", "1", "--checkpoint-every", "1")
    command = [
        word
        for word in _command(trial.num_ranks, trial.config, folder)
        if word not in ("--elastic", "--with-ft", "ulfm")
    ]
    with trials.start([*command, *each], folder) as process:
        _kill(trial, folder, process)
        process.communicate()
    if process.returncode == 0:
        return Outcome(trial, None, "had ended before", [])
    done = max((record["step"] for record in read_records(folder / "run")), default=0)
    saved = checkpoint.newest_first(folder / "run" / "checkpoints")
    lost = done - (checkpoint.step_of(saved[0]) or 0) if saved else done
    if not saved:
        shutil.rmtree(folder / "run")
    with trials.start([*command, "--resume"] if saved else command, folder) as process:
        _, told = process.communicate(timeout=trials.LIMIT_S)
    summary, faults = trials.summary(folder), []
    if lost > 1:
        faults.append(f"lost {lost} steps")
    if process.returncode or summary is None or summary["params_sha256"] != _undisturbed(trial.config):
        faults.append(f"ended with {process.returncode}, or other weights: {told[-200:]}")
    return Outcome(trial, None, f"lost {lost}", faults)


def _started(num_ranks: int, config: str, folder: Path) -> "subprocess.Popen[str]":
    return trials.start(_command(num_ranks, config, folder), folder)


def _command(num_ranks: int, config: str, folder: Path) -> list[str]:
    command = ["mpirun", "--with-ft", "ulfm", "--oversubscribe", "-n", str(num_ranks), sys.executable, "-m", "ddpgd"]
    return [*command, "train", *_RUN, "--steps", "400", *_CONFIGS[config], "--run-dir", str(folder / "run")]


def _kill(trial: Trial, folder: Path, process: "subprocess.Popen[str]") -> float:
    """Kills the victims at their moments; returns the time of the last kill."""
    first = trial.victims[0][0]
    at = 0.0
    while process.poll() is None:
        ranks = _ranks(folder)
        if len(ranks) == trial.num_ranks and _has_begun(trial, folder, ranks[first]):
            for rank, delay in trial.victims:
                time.sleep(delay)
                with suppress(ProcessLookupError):
                    at = time.time()
                    os.kill(ranks[rank], signal.SIGKILL)
            break
        time.sleep(0.005)
    return at


def _has_begun(trial: Trial, folder: Path, pid: int) -> bool:
    """Returns whether the time of the first kill may be counted from now on."""
    if trial.kind != "at the start":
        metrics = folder / "run" / "metrics.jsonl"
        return metrics.exists() and metrics.stat().st_size > 0
    with suppress(OSError):
        return "libmpi" in Path(f"/proc/{pid}/maps").read_text(encoding="ascii", errors="replace")
    return False


def _ranks(folder: Path) -> dict[int, int]:
    """Returns the processes of a run, by rank."""
    found: dict[int, int] = {}
    for pid in sorted(trials.processes(folder)):  # a process that watches a rank's start has a higher number
        with suppress(OSError):
            words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            rank = next((word for word in words if word.startswith(b"OMPI_COMM_WORLD_RANK=")), None)
            if rank:
                found.setdefault(int(rank.partition(b"=")[2]), pid)
    return found


def _went_on(told: str, run: Path, killed_at: float) -> float | None:
    """Returns the seconds from the last death to the first step that those that are left have recorded; None: there is none."""
    step = [int(line.rpartition(" ")[2]) for line in told.splitlines() if " dead: " in line][-1]
    return next((record["time"] - killed_at for record in read_records(run) if record["step"] > step), None)


@cache
def _undisturbed(config: str) -> str:
    """Returns the hash of the weights of a run to which nothing happens."""
    with tempfile.TemporaryDirectory() as folder:
        with _started(2, config, Path(folder)) as process:
            process.communicate(timeout=trials.LIMIT_S)
        return trials.weights(Path(folder))


def table(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Returns the lines of a table, a row for each kind of trial."""
    yield "| killed | trials | as wanted | ended | next step after, s |"
    yield "|---|---|---|---|---|"
    for kind in dict.fromkeys(outcome.trial.kind for outcome in outcomes):
        of_kind = [outcome for outcome in outcomes if outcome.trial.kind == kind]
        after = sorted(outcome.went_on_s for outcome in of_kind if outcome.went_on_s is not None)
        times = f"{statistics.median(after):.2f}, 95 %: {after[math.ceil(0.95 * len(after)) - 1]:.2f}" if after else "-"
        ends = [outcome.end for outcome in of_kind]
        counted = ", ".join(f"{ends.count(end)} {end}" for end in sorted(set(ends)))
        yield f"| {kind} | {len(of_kind)} | {sum(not outcome.faults for outcome in of_kind)} | {counted} | {times} |"
    yield ""
    yield from (f"- {outcome.trial}: {'; '.join(outcome.faults)}" for outcome in outcomes if outcome.faults)


def main(argv: Sequence[str] | None = None) -> int:
    return trials.main(_PROGRAM, __doc__, _KINDS, attempt, table, argv)


if __name__ == "__main__":
    sys.exit(main())

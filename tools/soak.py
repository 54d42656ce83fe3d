"""Breaks runs at random, and checks that each end is the right one: python -m tools.soak --seed 1 --trials 50

A trial draws ranks, a layout, what ranks combine, and a fault with its rank and step (`ddpgd train --inject`) from the seed and
its own number alone: --first N repeats it. A hang must be told within the time-out and 2 s, with the rank, and end with code 5;
no process may be left; and the run, gone on with from its last checkpoint, must end with the bits of an undisturbed one.

    --kinds hang,sleep    faults to draw from (default: all)
    --timeout 2           seconds of --hang-timeout
    --page FILE.md        the page whose table is replaced (default: print it)
"""

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from benchmarks.lib.program import Program, check_tools, make_parser, show
from ddpgd.errors import HANG_CODE, ReplicasDiffer
from ddpgd.run.inject import KINDS
from ddpgd.scaling.arguments import positive
from ddpgd.scaling.conditions import commit
from ddpgd.scaling.processes import ONE_THREAD, RunFailed

_PROGRAM = Program("soak")
_STEPS = 120
_HANGS = ("hang", "sleep", "stuck-read", "skip-collective", "drop-link")
_GRACE_S = 2.0
_LAYOUTS: dict[str, tuple[str, ...]] = {
    "every step": (),
    "local steps": ("--sync", "local", "--local-steps", "4"),
    "tensor": ("--shards", "2", "--tensor", "2"),
    "pipeline": ("--shards", "2", "--pipeline", "2"),
}
_RUN = (
    *("--data", "synthetic", "--hidden", "24,16", "--optimizer", "adam", "--lr", "0.001", "--global-batch", "200"),
    *(
        "--steps",
        str(_STEPS),
        "--log-every",
        "10",
        "--evaluate-every",
        "50",
        "--checkpoint-every",
        "10",
        "--shard-optimizer",
        "off",
        "--quiet",
    ),
)


class Trial(NamedTuple):
    """A run and what is done to it."""

    number: int
    num_ranks: int
    layout: str
    kind: str
    rank: int
    step: int

    @classmethod
    def draw(cls, seed: int, number: int, kinds: Sequence[str]) -> "Trial":
        """Returns trial `number`."""
        draw = Random(f"{seed}/{number}")
        layout = draw.choice(sorted(_LAYOUTS))
        num_ranks = draw.choice((2, 4) if layout in ("tensor", "pipeline") else (2, 3, 4))
        kind = draw.choice(kinds)
        if kind == "flip" and layout in ("tensor", "pipeline"):
            num_ranks = 4  # two of them have no replicas
        return cls(number, num_ranks, layout, kind, draw.randrange(num_ranks), draw.randrange(5, _STEPS - 5))

    def __str__(self) -> str:
        return f"trial {self.number}: {self.kind}@{self.rank}:{self.step} of {self.num_ranks} ranks, {self.layout}"


class Outcome(NamedTuple):
    """The end of a trial: `faults` are what was wrong; `told_s` seconds from a hang to its report."""

    trial: Trial
    told_s: float | None
    faults: list[str]


def attempt(trial: Trial, timeout_s: float, folder: Path) -> Outcome:
    """Breaks a run, looks at its end, goes on with it, and compares its weights."""
    fault, faults, told_s = f"{trial.kind}@{trial.rank}:{trial.step}", [], None
    code, lines = _call(trial, folder, "--hang-timeout", f"{timeout_s:g}", "--inject", fault)
    text = "\n".join(line for _, line in lines)
    if left := _processes(folder):
        faults.append(f"processes left: {left}")
    if trial.kind in _HANGS:
        began = next((at for at, line in lines if "--inject: " in line), None)
        told = [at for at, line in lines if re.search(r"no rank has moved for [\d.]+ s:$", line)]
        told_s = told[0] - began if told and began is not None else None
        if code != HANG_CODE or told_s is None:
            faults.append(f"ended with {code}, not {HANG_CODE}")
        elif told_s > timeout_s + _GRACE_S and trial.kind != "skip-collective":
            faults.append(f"told after {told_s:.1f} s")
        if not _names(trial, text):
            faults.append("named another rank")
    elif code != {"slow": 0, "raise": 1, "flip": ReplicasDiffer.exit_code}.get(trial.kind, code or -1):
        faults.append(f"ended with {code}")
    if trial.kind == "skip-collective":
        return Outcome(trial, told_s, faults)
    if trial.kind != "slow":
        has_checkpoint = any(folder.glob("run/checkpoints/step-*"))
        if not has_checkpoint:
            shutil.rmtree(folder / "run")
        _call(trial, folder, *(("--resume",) if has_checkpoint else ()))
    if _weights(folder) != _undisturbed(trial.num_ranks if trial.layout == "local steps" else 1, trial.layout):
        faults.append("ended with other weights")
    return Outcome(trial, told_s, faults)


def _names(trial: Trial, text: str) -> bool:
    """Returns whether the verdict is about the rank that was hit; of a cut link, about those that it joined."""
    verdicts = [line for line in text.splitlines() if re.match(r"ddpgd: ranks? \d.*( in | answer)", line)]
    found = re.match(r"ddpgd: ranks? ([\d, and]+)", verdicts[-1]) if verdicts else None
    named = [int(number) for number in re.findall(r"\d+", found[1])] if found else []
    return trial.rank in named if trial.kind == "drop-link" else named == [trial.rank]


def _call(trial: Trial, folder: Path, *more: str) -> tuple[int, list[tuple[float, str]]]:
    """Runs `ddpgd train` in the trial's layout; returns its exit code, and its errors with the time of each line."""
    command = ["mpirun", "--oversubscribe", "-n", str(trial.num_ranks), sys.executable, "-m", "ddpgd", "train", *_RUN]
    arguments = [*_LAYOUTS[trial.layout], "--run-dir", str(folder / "run"), *more]
    lines: list[tuple[float, str]] = []
    with subprocess.Popen(
        [*command, *arguments],
        env=os.environ | ONE_THREAD,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            lines.append((time.monotonic(), line.rstrip()))
    return process.returncode, lines


@cache
def _undisturbed(num_ranks: int, layout: str) -> str:
    """Returns the hash of the weights of a run to which nothing happens; layouts of shards have those of one rank."""
    with tempfile.TemporaryDirectory() as folder:
        shards = ("--shards", "2") if layout in ("tensor", "pipeline") else ()
        plain = Trial(0, num_ranks, layout if layout == "local steps" else "every step", "", 0, 0)
        _call(plain, Path(folder), *shards)
        return _weights(Path(folder))


def _weights(folder: Path) -> str:
    try:
        summary: dict[str, Any] = json.loads((folder / "run" / "summary.json").read_text(encoding="utf-8"))
    except OSError:
        return "none: the run did not end"
    return str(summary["params_sha256"])


def _processes(folder: Path) -> list[int]:
    """Returns the processes whose command line names a folder."""
    listed = subprocess.run(["ps", "-e", "-o", "pid=,args="], capture_output=True, text=True, check=True)
    return [int(line.split()[0]) for line in listed.stdout.splitlines() if str(folder) in line]


def table(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Returns the lines of a table, a row for each kind of fault."""
    yield "| fault | trials | as wanted | told after, s |"
    yield "|---|---|---|---|"
    for kind in sorted({outcome.trial.kind for outcome in outcomes}):
        of_kind = [outcome for outcome in outcomes if outcome.trial.kind == kind]
        told = [outcome.told_s for outcome in of_kind if outcome.told_s is not None]
        after = f"{statistics.median(told):.1f} ({min(told):.1f} to {max(told):.1f})" if told else "-"
        yield f"| {kind} | {len(of_kind)} | {sum(not outcome.faults for outcome in of_kind)} | {after} |"
    yield ""
    yield from (f"- {outcome.trial}: {'; '.join(outcome.faults)}" for outcome in outcomes if outcome.faults)


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser(__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--trials", type=positive(int), default=50)
    parser.add_argument("--kinds", type=lambda text: text.split(","), default=sorted(KINDS))
    parser.add_argument("--timeout", type=positive(float), default=2.0)
    parser.add_argument("--page", type=Path)
    return _PROGRAM.run(lambda: _soak(parser.parse_args(argv)))


def _soak(asked: Any) -> bool:
    check_tools(None)
    if unknown := set(asked.kinds) - KINDS.keys():
        raise RunFailed(f"--kinds {','.join(unknown)}: kinds are {', '.join(KINDS)}")
    outcomes = []
    for number in range(asked.first, asked.first + asked.trials):
        with tempfile.TemporaryDirectory(prefix="soak") as folder:
            outcomes.append(attempt(Trial.draw(asked.seed, number, asked.kinds), asked.timeout, Path(folder)))
        _PROGRAM.say(f"{outcomes[-1].trial}: {'; '.join(outcomes[-1].faults) or 'as wanted'}")
    flags = f"--seed {asked.seed} --first {asked.first} --trials {asked.trials} --timeout {asked.timeout:g}"
    command = f"python -m tools.soak {flags} --kinds {','.join(asked.kinds)}"
    show([*table(outcomes), "", f"- command: `{command}`", f"- commit: {commit()}"], asked.page, "soak")
    return not any(outcome.faults for outcome in outcomes)


if __name__ == "__main__":
    sys.exit(main())

"""Breaks runs at random, and checks that each end is the right one: python -m tools.soak --seed 1 --trials 50

A trial draws ranks, a layout, a configuration, a transport, and a fault with its rank and step (`ddpgd train --inject`) from
the seed and its own number alone: --first N repeats it. A hang must be told within the time-out and 2 s, with the rank, and end
with code 5; a flipped bit must be named with step, rank and tensor (one that lasts for a step, by `ddpgd bisect`); no process
may be left; and the run, gone on with from its last checkpoint, must end with the bits of an undisturbed one.

    --kinds hang,sleep    faults to draw from (default: all)
    --page FILE.md        the page whose table is replaced (default: print it)
"""

import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import NamedTuple

from benchmarks.lib.program import Program
from ddpgd.errors import HANG_CODE, NonFiniteError, ReplicasDiffer
from ddpgd.run.inject import KINDS
from tools import trials

_PROGRAM = Program("soak")
_STEPS = 120
_CHECKPOINTS = 10
_ROUND = 4
_TIMEOUT_S = 2.0
_GRACE_S = 2.0
_LAYOUTS: dict[str, tuple[str, ...]] = {
    "every step": (),
    "local steps": ("--sync", "local", "--local-steps", str(_ROUND)),
    "tensor": ("--shards", "2", "--tensor", "2"),
    "pipeline": ("--shards", "2", "--pipeline", "2"),
}
_CONFIGS: dict[str, tuple[str, ...]] = {
    "momentum": (),
    "adam": ("--optimizer", "adam", "--lr", "0.001"),
    "lion, dropout": ("--optimizer", "lion", "--lr", "0.0003", "--dropout", "0.2"),
    "held-out samples": ("--validation", "500", "--optimizer", "nesterov"),
    "augmented": ("--augment", "affine"),
}
_RUN = (
    *("--data", "synthetic", "--hidden", "24,16", "--global-batch", "200", "--micro-batch", "32"),
    *("--steps", str(_STEPS), "--log-every", "10"),
    *("--evaluate-every", "50", "--checkpoint-every", str(_CHECKPOINTS), "--shard-optimizer", "off", "--quiet"),
)
_OF_PROCESSES = ("die", "hang")
"""Faults of the process of a rank, which ranks that are threads have in common."""
_OF_GRADIENTS = ("flip-gradient", "nan")
_OF_ONE_STEP = ("flip-gradient", "flip-message")
"""Wrong for a moment: only recordings tell."""


class Trial(NamedTuple):
    """A run and what is done to it."""

    number: int
    num_ranks: int
    layout: str
    config: str
    transport: str
    kind: str
    rank: int
    step: int

    @classmethod
    def draw(cls, seed: int, number: int, kinds: Sequence[str]) -> "Trial":
        """Returns trial `number`."""
        draw = Random(f"{seed}/{number}")
        kind = draw.choice(kinds)
        has_gradients = kind in (*_OF_GRADIENTS, *_OF_ONE_STEP)
        layout = draw.choice([name for name in sorted(_LAYOUTS) if name != "local steps" or not has_gradients])
        num_ranks = draw.choice((2, 4) if layout in ("tensor", "pipeline") else (2, 3, 4))
        if kind in ("flip", "flip-message") and layout in ("tensor", "pipeline"):
            num_ranks = 4  # two of them have no replicas, and sum no gradients
        transport = "mpi" if kind in _OF_PROCESSES else draw.choice(("mpi", "threads"))
        rank = 0 if kind == "disk-full" else draw.randrange(num_ranks)
        step = draw.randrange(5, _STEPS - _CHECKPOINTS)
        return cls(number, num_ranks, layout, draw.choice(sorted(_CONFIGS)), transport, kind, rank, step)

    @property
    def command(self) -> list[str]:
        """The command line of `ddpgd` on its ranks, without the program's own flags."""
        if self.transport == "threads":
            return [sys.executable, "-m", "ddpgd", "train", "--transport", "threads", "--ranks", str(self.num_ranks)]
        return ["mpirun", "--oversubscribe", "-n", str(self.num_ranks), sys.executable, "-m", "ddpgd", "train"]

    def __str__(self) -> str:
        where = f"{self.num_ranks} ranks, {self.layout}, {self.config}, {self.transport}"
        return f"trial {self.number}: {self.kind}@{self.rank}:{self.step} of {where}"


class Told(NamedTuple):
    """The words of a run.

    Attributes:
        exit_code: How it ended.
        lines: The lines of its standard error, each with its time in seconds.
    """

    exit_code: int
    lines: list[tuple[float, str]]

    @property
    def text(self) -> str:
        return "\n".join(line for _, line in self.lines)

    def since_fault(self, pattern: str) -> float | None:
        """Returns the seconds from a fault to the first line of that pattern; None: one of both is missing."""
        began = next((at for at, line in self.lines if "--inject: " in line), None)
        told = next((at for at, line in self.lines if re.search(pattern, line)), None)
        return None if began is None or told is None else told - began


class Outcome(NamedTuple):
    """The end of a trial: `faults` are what was wrong; `told_s` seconds from a hang to its report."""

    trial: Trial
    told_s: float | None
    faults: list[str]

    def __str__(self) -> str:
        told = "" if self.told_s is None else f", told after {self.told_s:.1f} s"
        return f"{self.trial}: {'; '.join(self.faults) or 'as wanted'}{told}"


def attempt(seed: int, number: int, kinds: Sequence[str], folder: Path) -> Outcome:
    """Breaks a run, looks at its end, goes on with it, and compares its weights."""
    trial = Trial.draw(seed, number, kinds)
    recorded = ("--record",) if trial.kind in _OF_ONE_STEP else ()
    fault = f"{trial.kind}@{trial.rank}:{trial.step}"
    told = _call(trial, folder, "--hang-timeout", f"{_TIMEOUT_S:g}", "--inject", fault, *recorded)
    faults = [*trials.end_processes(folder), *_ENDS.get(trial.kind, _any_failure)(trial, told, folder)]
    told_s = told.since_fault(_REPORT)
    if trial.kind in ("skip-collective", *_OF_ONE_STEP):
        return Outcome(trial, told_s, faults)
    if told.exit_code:
        has_checkpoint = any(folder.glob("run/checkpoints/step-*"))
        if not has_checkpoint:
            shutil.rmtree(folder / "run")
        _call(trial, folder, *(("--resume",) if has_checkpoint else ()))
    if trials.weights(folder) != _undisturbed(trial.layout, trial.config, trial.num_ranks):
        faults.append("ended with other weights")
    return Outcome(trial, told_s, faults)


_MET_IN_OTHERS = "collectives differ"
_REPORT = r"no rank has moved for [\d.]+ s:$"


def _hangs(trial: Trial, told: Told, _: Path) -> list[str]:
    """Returns what is wrong with the end of a run that hung."""
    if trial.kind == "skip-collective" and told.exit_code == HANG_CODE and _MET_IN_OTHERS in told.text:
        return []  # threads see at once that they have met in different ones
    faults, told_s = [], told.since_fault(_REPORT)
    if told.exit_code != HANG_CODE or told_s is None:
        faults.append(f"ended with {told.exit_code}, not {HANG_CODE}")
    elif told_s > _TIMEOUT_S + _GRACE_S and trial.kind != "skip-collective":
        faults.append(f"told after {told_s:.1f} s")
    if not _names(trial, told.text):
        faults.append("named another rank")
    return faults


def _names(trial: Trial, text: str) -> bool:
    """Returns whether the verdict is about the rank that was hit; of a cut link, about those that it joined."""
    verdicts = [line for line in text.splitlines() if re.match(r"ddpgd: ranks? \d.*( in | answer)", line)]
    found = re.match(r"ddpgd: ranks? ([\d, and]+)", verdicts[-1]) if verdicts else None
    named = [int(number) for number in re.findall(r"\d+", found[1])] if found else []
    return trial.rank in named if trial.kind == "drop-link" else named == [trial.rank]


def _any_failure(_trial: Trial, told: Told, _: Path) -> list[str]:
    return [] if told.exit_code else ["ended well"]


def _goes_on(_trial: Trial, told: Told, _: Path) -> list[str]:
    return _says("", 0, told)


def _fails(_trial: Trial, told: Told, _: Path) -> list[str]:
    return _says("--inject raise asked for this", 1, told)


def _misses_a_checkpoint(_trial: Trial, told: Told, _: Path) -> list[str]:
    return _says(r"the checkpoint of step \d+ is missing: .*No space left", 0, told)


def _is_not_finite(trial: Trial, told: Told, _: Path) -> list[str]:
    return _says(f"step {trial.step + 1}: the gradient is not finite", NonFiniteError.exit_code, told)


def _has_a_replica(trial: Trial, told: Told, _: Path) -> list[str]:
    """Returns what is wrong with the end of a run of which a bit of params has flipped."""
    tensor = re.search(r"the bit is in (\S+)", told.text)
    who = rf"(?:of rank {trial.rank} differ|differ on ranks (?:\d+ and )?{trial.rank}\b)"
    faults = _says(rf"step \d+: params {who}.* first in {tensor and tensor[1]}", ReplicasDiffer.exit_code, told)
    step, began = re.search(r"step (\d+): params", told.text), re.search(r"after step (\d+)", told.text)
    if not step or not began or not 0 < int(step[1]) - int(began[1]) <= _CHECKPOINTS + _ROUND:
        faults.append(f"found {step and step[0]}, injected {began and began[0]}")
    return faults


def _is_recorded(trial: Trial, told: Told, folder: Path) -> list[str]:
    """Returns what is wrong with what `ddpgd bisect` says of a bit of a gradient, or of a message."""
    _call(trial, folder / "right", "--record")
    runs = [str(folder / name / "run") for name in (".", "right")]
    found = subprocess.run(
        [sys.executable, "-m", "ddpgd", "bisect", *runs], capture_output=True, text=True, check=False
    ).stdout.strip()
    tensor = re.search(r"the change is in (\S+)", told.text)
    if trial.kind == "flip-gradient":
        phase = f"gradient of rank {trial.rank}, {tensor and tensor[1]}"
    elif trial.layout == "tensor":  # a message of shards is in the gradients of both
        pair = trial.rank // 2 * 2
        phase = f"(sum|gradient of rank ({pair}|{pair + 1}))"
    else:
        phase = "sum"
    wanted = f"differ first at step {trial.step + 1}: the {phase}"
    is_unseen = trials.weights(folder) == trials.weights(folder / "right")
    if trial.layout == "tensor" and trial.kind == "flip-message" and is_unseen:
        wanted += "|equal in all"  # all units behind it were off for that sample
    faults = _says("" if trial.kind == "flip-gradient" else "has a bit flipped", 0, told)
    return faults if re.search(wanted, found) else [*faults, f"bisect: {found}"]


def _says(pattern: str, exit_code: int, told: Told) -> list[str]:
    faults = [] if told.exit_code == exit_code else [f"ended with {told.exit_code}, not {exit_code}"]
    return faults if re.search(pattern, told.text) else [*faults, f"did not say: {pattern}"]


_ENDS: dict[str, Callable[[Trial, Told, Path], list[str]]] = {
    **dict.fromkeys(("hang", "sleep", "stuck-read", "skip-collective", "drop-link"), _hangs),
    "slow": _goes_on,
    "raise": _fails,
    "disk-full": _misses_a_checkpoint,
    "nan": _is_not_finite,
    "flip": _has_a_replica,
    **dict.fromkeys(_OF_ONE_STEP, _is_recorded),
}
"""What is wrong with the end of a trial, by the kind of fault."""


def _call(trial: Trial, folder: Path, *more: str) -> Told:
    """Runs `ddpgd train` in the trial's layout."""
    folder.mkdir(exist_ok=True)
    flags = [*_RUN, *_LAYOUTS[trial.layout], *_CONFIGS[trial.config], "--run-dir", str(folder / "run"), *more]
    with trials.start([*trial.command, *flags], folder) as process:
        assert process.stderr is not None
        lines = [(time.monotonic(), line.rstrip()) for line in process.stderr]
    return Told(process.returncode, lines)


def _undisturbed(layout: str, config: str, num_ranks: int) -> str:
    """Returns the hash of the weights of a run to which nothing happens; layouts of shards have those of one rank."""
    if layout == "local steps":
        return _ended(num_ranks, layout, config)
    return _ended(1, "every step", config, *(("--shards", "2") if layout in ("tensor", "pipeline") else ()))


@cache
def _ended(num_ranks: int, layout: str, config: str, *more: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        _call(Trial(0, num_ranks, layout, config, "threads", "", 0, 0), Path(folder), *more)
        return trials.weights(Path(folder))


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
    yield from (f"- {outcome}" for outcome in outcomes if outcome.faults)


def main(argv: Sequence[str] | None = None) -> int:
    return trials.main(_PROGRAM, __doc__, sorted(KINDS), attempt, table, argv)


if __name__ == "__main__":
    sys.exit(main())

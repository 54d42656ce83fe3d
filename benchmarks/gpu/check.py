"""Check of the CUDA backend on a GPU, part by part; each part leaves a JSON file and is not run again for the same sources.

    python -m benchmarks.gpu.check [PART ...] [--out DIR] [--data DIR] [--again] [--seconds S]

Without PART: all, in their order. `scripts/gpu_check.sh` finds a Python for it. Exit codes: 0 every part passed; 1 one failed;
2 wrong usage; 3 none failed, and some were not reached.
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.gpu.part_run import ROOT, commit, counts, run_for, sources, verdict_of
from benchmarks.gpu.parts import NAMES, OPTIONAL, PARTS, Part

BENCH_S = 240.0
"""No case of a benchmark begins after so many seconds."""
AFTER_S = 60.0
"""Left of a call's seconds for a benchmark's last case."""
PART_S = 900.0
DATA_S = 120.0


@dataclass
class Outcome:
    """The end of a part: its line, whether it passed, and why it was not reached."""

    part: Part
    line: str
    passed: bool | None
    """None: not reached."""


@dataclass
class Check:
    """One call of this program."""

    out: Path
    data: str | None
    again: bool
    trial: bool
    deadline: float
    sources: str
    absence: str = ""
    """Why there are no data; empty: there are some."""
    outcomes: list[Outcome] = field(default_factory=list)

    def run(self, part: Part) -> None:
        """Runs a part, unless its JSON of the same sources is there, something is missing, or time is up."""
        if (before := self._before(part)) is not None:
            self._end(part, f"{before['verdict']} before, in {before['seconds']:.0f} s", before["passed"])
        elif missing := part.missing():
            told = "; ".join(f"{need.name} is missing ({need.remedy})" for need in missing)
            self._end(part, f"not reached: {told}", None)
        elif part.has_data and self.absence:
            self._end(part, f"not reached: {self.absence}", None)
        elif self._left_s() <= 0:
            self._end(part, "not reached: time was up", None)
        else:
            self._run(part)

    def _run(self, part: Part) -> None:
        folder = self.out / part.name
        folder.mkdir(parents=True, exist_ok=True)
        budget_s = max(1.0, min(BENCH_S, self._left_s() - AFTER_S))
        command = part.command(folder, budget_s, self.data, self.trial)
        say(f"{part.name}: {part.shows}")
        started = time.monotonic()
        code = run_for(command, folder / "log.txt", min(PART_S, self._left_s()))
        taken_s = time.monotonic() - started
        if code is None and self._left_s() <= 0:
            self._end(part, f"not reached: cut off after {taken_s:.0f} s, since time was up", None)
            return
        tests = counts(folder / "tests.xml")
        verdict = verdict_of(code, tests)
        found = {
            "part": part.name,
            "shows": part.shows,
            "verdict": verdict,
            "passed": code == 0,
            "exit_code": code,
            "seconds": taken_s,
            "command": command,
            "sources": self.sources,
            "commit": commit(),
            "time": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            "tests": tests,
        }
        temporary = self.out / f".{part.name}.json"
        temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        temporary.replace(self.out / f"{part.name}.json")
        self._end(part, f"{verdict} in {taken_s:.0f} s", code == 0)

    def _before(self, part: Part) -> dict[str, Any] | None:
        """Returns what this part left before; None if it has to be run."""
        try:
            found: dict[str, Any] = json.loads((self.out / f"{part.name}.json").read_text(encoding="utf-8"))
            return found if found["sources"] == self.sources and not self.again else None
        except (OSError, ValueError, KeyError):
            return None

    def _end(self, part: Part, line: str, passed: bool | None) -> None:
        self.outcomes.append(Outcome(part, line, passed))
        say(f"{part.name}: {line}")

    def _left_s(self) -> float:
        return self.deadline - time.monotonic()


def absence_of_data(data: str | None) -> str:
    """Looks for the samples, and fetches them where there is a network. Returns why there are none, or nothing."""
    command = [sys.executable, "-m", "ddpgd", "data", *(["--data", data] if data else [])]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=DATA_S, check=False)
        said = done.stderr.strip().splitlines()[-1:] if done.returncode else []
    except subprocess.TimeoutExpired:
        said = [f"no MNIST within {DATA_S:.0f} s"]
    return f"{said[0].removeprefix('ddpgd: ')} (drawn digits: --data synthetic)" if said else ""


def say(line: str) -> None:
    print(f"gpu_check: {line}", file=sys.stderr, flush=True)


def conclude(check: Check) -> int:
    """Prints the end of every part, and what was not reached; returns the exit code."""
    print(f"\n{'part':10} {'':6}")
    for outcome in check.outcomes:
        print(f"{outcome.part.name:10} {outcome.line}")
    left = [outcome.part.name for outcome in check.outcomes if outcome.passed is None]
    if left:
        print(f"not reached: {', '.join(left)}; go on with scripts/gpu_check.sh {' '.join(left)}")
    for need in OPTIONAL:
        if not need.is_here():
            print(f"without {need.name}: left out {need.cost}; {need.remedy}")
    print(f"JSON and logs: {check.out}", flush=True)
    if any(outcome.passed is False for outcome in check.outcomes):
        return 1
    return 3 if left else 0


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("parts", metavar="PART", nargs="*", help=f"one of {', '.join(NAMES)}")
    add(
        "--out",
        metavar="DIR",
        type=Path,
        default=ROOT / "benchmarks" / "gpu" / "results",
        help="default: benchmarks/gpu/results",
    )
    add("--data", metavar="DIR", help="folder with MNIST, or synthetic (default: $DDPGD_DATA, the cache)")
    add("--again", action="store_true", help="also parts that have their JSON file of the same sources")
    add(
        "--seconds",
        metavar="S",
        type=float,
        default=float("inf"),
        help="end after so many; go on with the same command",
    )
    add("--trial", action="store_true", help="of this program: tiny sizes")
    asked = parser.parse_args(arguments)
    for name in asked.parts:
        if name not in NAMES:
            parser.error(f"no part {name!r}: type {', '.join(NAMES)}, or nothing for all of them")
    return asked


def main(arguments: list[str]) -> int:
    asked = parse(arguments)
    asked.out.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + asked.seconds
    check = Check(asked.out.resolve(), asked.data, asked.again, asked.trial, deadline, sources(asked.trial))
    parts = [part for part in PARTS if part.name in (asked.parts or NAMES)]
    if any(part.has_data and not part.missing() for part in parts):
        check.absence = absence_of_data(asked.data)
    for part in parts:
        check.run(part)
    return conclude(check)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

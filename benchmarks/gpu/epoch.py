"""Whole runs of `ddpgd train`, each a process: seconds of training an epoch, and until an accuracy."""

import math
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.gpu.runs import Lost
from benchmarks.lib.results import spread
from ddpgd.run.summary import Summary, read_summary

NETWORK = "--hidden 128 --global-batch 128 --micro-batch 128 --epochs 8"
UNTIL = "--until-accuracy 0.98"
NUM_RUNS = 5
RUN_S = 60


def runs(flags: str, data: list[str], num_runs: int) -> list[Summary]:
    """The summaries of runs that differ in their seed. Lost: one failed."""
    return [_summary([*flags.split(), *data, "--seed", str(seed)]) for seed in range(num_runs)]


def measure(data: list[str], flags: str = f"{NETWORK} --backend cupy", num_runs: int = NUM_RUNS) -> dict[str, Any]:
    """784-128-10 at 128 rows: a whole run's seconds an epoch and accuracy, and what 98 % take."""
    whole, until = (runs(more, data, num_runs) for more in (flags, f"{flags} {UNTIL}"))
    reached = [run["train_s"] for run in until if run["test_accuracy"] >= float(UNTIL.split()[1])]
    return {
        "command": f"ddpgd train {flags}",
        "num_runs": num_runs,
        "epoch_s": spread([run["train_s"] / run["epochs"] for run in whole]),
        "test_accuracy": spread([run["test_accuracy"] for run in whole]),
        "step_us_median": spread([run["step_us_median"] or math.nan for run in whole]),
        "num_reached": len(reached),
        "reached_s": spread(reached) if reached else None,
        "reached_epochs": spread([run["epochs"] for run in until]),
    }


def _summary(arguments: list[str]) -> Summary:
    with tempfile.TemporaryDirectory(prefix="ddpgd-bench-") as scratch:
        folder = Path(scratch) / "run"
        command = [sys.executable, "-m", "ddpgd", "train", *arguments, "--quiet", "--run-dir", str(folder)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_S, check=False)
        except subprocess.TimeoutExpired:
            raise Lost(f"no end within {RUN_S} s: {' '.join(command)}") from None
        if done.returncode:
            raise Lost(f"exit code {done.returncode}: {done.stderr.strip().splitlines()[-1:]}")
        return read_summary(folder)

"""One run of `benchmarks.slow_links.run`: alone, over shared memory, or on the hosts of a lab."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.lib.common import SHARED_MEMORY
from benchmarks.slow_links.cases import TARGETS, Run, command
from ddpgd.run.records import read_records
from ddpgd.run.summary import read_summary
from ddpgd.scaling.processes import ONE_THREAD, RunFailed, last_lines, run_for
from tools.netlab.main import Lab

PATIENCE_S = 600.0
"""After which a run is ended, and missing."""


def curve(run: Run, data: str) -> tuple[dict[str, int | None], float, float | None]:
    """Makes a whole run over shared memory; returns steps to each of TARGETS, last accuracy, bytes a step."""
    with tempfile.TemporaryDirectory(prefix="ddpgd-bench-") as scratch:
        folder = Path(scratch) / "run"
        printed = _run(run, SHARED_MEMORY, None, data, folder)
        if run.setting.is_torch:
            figures = json.loads(printed)
            last = figures["test_accuracy"]
            return _steps_to(figures["evaluations"]), last, None
        records = [record for record in read_records(folder) if "test_accuracy" in record]
        summary = read_summary(folder)
    evaluations = [(record["step"], record["test_accuracy"]) for record in records]
    return _steps_to(evaluations), summary["test_accuracy"], summary["wire_bytes_per_step"]


def _steps_to(evaluations: Sequence[tuple[int, float]]) -> dict[str, int | None]:
    return {
        f"{target:g}": next((step for step, accuracy in evaluations if accuracy >= target), None) for target in TARGETS
    }


def step_s(run: Run, link: str, lab: Lab | None, data: str) -> float:
    """Returns seconds a step in the second half of a short run, without evaluation."""
    with tempfile.TemporaryDirectory(prefix="ddpgd-bench-") as scratch:
        folder = Path(scratch) / "run"
        printed = _run(run, link, lab, data, folder)
        if run.setting.is_torch:
            return float(json.loads(printed)["step_s"])
        *_, first, last = read_records(folder)
    return float((last["train_s"] - first["train_s"]) / (last["step"] - first["step"]))


def _run(run: Run, link: str, lab: Lab | None, data: str, folder: Path) -> str:
    """Returns what a run printed. RunFailed: it failed."""
    words, num_ranks = command(run, sys.executable, data, str(folder)), run.setting.num_ranks
    try:
        if num_ranks == 1:
            done = run_for(words, PATIENCE_S)
        elif link == SHARED_MEMORY:
            done = run_for(["mpirun", "-n", str(num_ranks), *words], PATIENCE_S)
        else:
            assert lab is not None
            start = lab.each if run.setting.is_torch else lab.mpirun
            done = start(words, env=ONE_THREAD, timeout=PATIENCE_S, capture=True)
    except subprocess.TimeoutExpired:
        raise RunFailed(f"{run.setting}: ended after {PATIENCE_S:g} s") from None
    if done.returncode:
        raise RunFailed(f"{last_lines(done)}\n{run.setting}: exit code {done.returncode}")
    return done.stdout

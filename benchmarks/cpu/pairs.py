"""Pairs of programs that train the same, in turn: the time of a step of each, and the ratio within each pair."""

import json
import math
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.cpu.runs import Workload
from benchmarks.lib.common import NUM_RANKS, PEERS
from benchmarks.lib.results import between, ratios, spread
from ddpgd.run.records import read_records
from ddpgd.run.summary import read_summary
from ddpgd.scaling.processes import ONE_THREAD, run

MOMENTUM, WEIGHT_DECAY = 0.9, 0.0005
EPOCHS = 4
"""Epochs of a run of the loop by hand, and of ddpgd beside it."""

Timed = Callable[[], float]


def by_hand_us(work: Workload, data: str) -> float:
    """Returns the median step of the loop by hand with ddpgd's default rule, us."""
    words = [data, ",".join(map(str, work.sizes)), str(EPOCHS), str(work.global_batch)]
    words += ["--momentum", str(MOMENTUM), "--weight-decay", str(WEIGHT_DECAY)]
    _, printed = run(["mpirun", "-n", str(NUM_RANKS), sys.executable, str(PEERS / "bare_loop.py"), *words])
    return float(json.loads(printed)["step_us_median"])


def ours_us(work: Workload, data: str) -> float:
    """Returns the median step of `ddpgd train --reduce ordered` with the same rule, us."""
    with tempfile.TemporaryDirectory(prefix="ddpgd-bench-") as scratch:
        folder = Path(scratch) / "run"
        flags = [*rule_flags(work), "--epochs", str(EPOCHS), "--log-every", "1000000"]
        run(_train(flags, data, folder))
        return read_summary(folder)["step_us_median"] or math.nan


def samples_per_s(work: Workload, data: str, checkout: Path) -> float:
    """Returns the throughput of a checkout's `ddpgd train` in the second half of `work.pair_steps` steps."""
    with tempfile.TemporaryDirectory(prefix="ddpgd-bench-") as scratch:
        folder = Path(scratch) / "run"
        half = work.pair_steps // 2
        flags = [*rule_flags(work), "--steps", str(2 * half), "--log-every", str(half)]
        environment = os.environ | ONE_THREAD | {"PYTHONPATH": str(checkout)}
        run(_train(flags, data, folder), environment, Path(scratch))
        *_, first, last = read_records(folder)
    return float((last["samples"] - first["samples"]) / (last["train_s"] - first["train_s"]))


def rule_flags(work: Workload) -> list[str]:
    """Returns flags of `ddpgd train` for a workload with the default rule at a constant rate."""
    words = (
        f"--hidden {','.join(map(str, work.sizes[1:-1]))} --global-batch {work.global_batch} "
        f"--micro-batch {work.micro_batch} --optimizer momentum --momentum {MOMENTUM} --weight-decay {WEIGHT_DECAY} "
        f"--lr {work.lr} --schedule constant --reduce ordered --backend numpy --evaluate-every 1000000 --quiet"
    )
    return words.split()


def _train(flags: list[str], data: str, folder: Path) -> list[str]:
    start = ["mpirun", "-n", str(NUM_RANKS), sys.executable, "-m", "ddpgd", "train"]
    return [*start, *flags, "--data", data, "--run-dir", str(folder)]


def in_turn(first: Timed, second: Timed, pairs: int) -> tuple[list[float], list[float]]:
    """Returns the results of both, called in turn; every other pair begins with the second."""
    found: tuple[list[float], list[float]] = ([], [])
    for number in range(pairs):
        for which in (0, 1) if number % 2 == 0 else (1, 0):
            found[which].append((first, second)[which]())
    return found


def pair_lines(names: tuple[str, str], unit: str, form: str, found: tuple[list[float], list[float]]) -> list[str]:
    """Returns both medians, the ratio of each pair (first over second), and the median ratio."""
    first, second = found
    own = ", ".join(f"{one / other:.3f}" for one, other in zip(first, second, strict=True))
    return [
        f"- {names[0]}: {between(spread(first), form)} {unit}; {names[1]}: {between(spread(second), form)} {unit}",
        f"- {names[0]} over {names[1]}, by pair: {own}; median {ratios(first, second)['median']:.3f}",
    ]

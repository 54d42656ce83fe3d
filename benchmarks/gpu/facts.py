"""The conditions of a measurement on a GPU: command, commit, hardware, versions, settings."""

import subprocess
from typing import Any

from benchmarks.gpu.cases import LR, MOMENTUM
from benchmarks.gpu.runs import Lost, Process
from benchmarks.lib.common import typed
from ddpgd.scaling.conditions import measured_by

SETTINGS = ("CUDA_", "CUPY_", "NVIDIA_", "TORCH", "PYTORCH_", "XLA_", "JAX_", "OMP_")
QUERY = "name,driver_version,clocks.max.sm,clocks.max.memory,power.limit,persistence_mode,mig.mode.current"


def conditions(arguments: list[str], repetitions: int) -> dict[str, Any]:
    return measured_by(typed("benchmarks.gpu.run", arguments), ("nvmath-python",), SETTINGS) | {
        "gpu": gpu(),
        "num_repetitions": repetitions,
        "optimizer": f"SGD, lr {LR}, momentum {MOMENTUM}, no weight decay; ReLU, cross-entropy",
    }


def gpu() -> str:
    """Returns the driver's description of the GPU; empty without nvidia-smi."""
    query = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return "; ".join(done.stdout.strip().splitlines()) if done.returncode == 0 else ""


def libraries(workers: dict[str, Process], cpu_too: bool) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Returns the facts of each library, and the reasons why others take no part. All load side by side."""
    for worker in workers.values():
        worker.tell("facts")
    present, absent = {}, {}
    for library, worker in workers.items():
        try:
            facts = worker.answer(120)
            if facts["device"].lower() == "cpu" and not cpu_too:
                raise Lost("it finds no GPU")
            present[library] = facts
        except Lost as lost:
            absent[library] = str(lost)
    return present, absent

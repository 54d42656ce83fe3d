"""MPI over device memory: the bits of one rank, where a process of its own shows that the MPI library can read it."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .whole_runs import Runs, options_of, run, summary, train_command

MPIRUN = shlex.split(os.environ.get("DDPGD_MPIRUN", "mpirun --oversubscribe"))
PROBE_S = 60
# A library that is not CUDA-aware ends such a process with a segmentation fault.
PROBE = """
import cupy
from mpi4py import MPI
rank = MPI.COMM_WORLD.rank
words = cupy.asarray([rank] * 100_000, dtype="float32")
cupy.cuda.runtime.deviceSynchronize()
total = cupy.zeros(100_000, dtype="float32")
MPI.COMM_WORLD.Allreduce(words, total)
assert cupy.asnumpy(total).tolist() == [1.0] * 100_000
"""


@pytest.fixture(scope="module")
def is_cuda_aware() -> None:
    """Skips tests where MPI cannot send a device array."""
    if shutil.which(MPIRUN[0]) is None:
        pytest.skip(f"{MPIRUN[0]} is not on PATH")
    probe = [*MPIRUN, "-n", "2", sys.executable, "-c", PROBE]
    try:
        done = subprocess.run(probe, capture_output=True, text=True, timeout=PROBE_S, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"this MPI is not CUDA-aware: two ranks have no sum of device arrays within {PROBE_S} s")
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [""])[-1]
        pytest.skip(
            f"this MPI is not CUDA-aware: a sum of device arrays ends with code {done.returncode} ({last[:200]})"
        )


@pytest.mark.usefixtures("is_cuda_aware")
@pytest.mark.parametrize("num_ranks", [2, 3])
def test_mpi_over_device_memory_has_the_bits_of_one_rank(num_ranks: int, tmp_path: Path, runs: Runs) -> None:
    options = options_of("small", "cupy", "float32") | {"transport": "mpi-cuda"}
    command = [*MPIRUN, "-n", str(num_ranks), *train_command(tmp_path / "run", **options), "--share-gpu"]
    run(command)
    assert summary(tmp_path / "run")["params_sha256"] == summary(runs.gpu("small", "float32"))["params_sha256"]

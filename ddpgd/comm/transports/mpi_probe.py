"""A trial of MPI on device memory, in a process of its own: a library that is not CUDA-aware crashes it."""

import os
import signal
import subprocess
import sys

PROBE = """
import cupy, numpy
from mpi4py import MPI
sent, received = cupy.asarray(numpy.arange(1024)), cupy.zeros(1024, dtype=numpy.int64)
cupy.cuda.Device().synchronize()
MPI.COMM_SELF.Sendrecv(sent, 0, recvbuf=received, source=0)
assert (cupy.asnumpy(received) == numpy.arange(1024)).all()
"""
PROBE_S = 60.0

_LAUNCHERS = ("OMPI_", "PMI", "PRTE_", "SLURM_")


def why_not_cuda_aware(program: str = PROBE, limit_s: float = PROBE_S) -> str:
    """Returns why MPI cannot move arrays of this process's GPU, in one line; empty: it can.

    The child is no rank of this job: it gets none of the launcher's variables.
    """
    alone = {name: value for name, value in os.environ.items() if not name.startswith(_LAUNCHERS)}
    command = [sys.executable, "-P", "-c", program]
    try:
        done = subprocess.run(
            command, env=alone, capture_output=True, text=True, errors="replace", timeout=limit_s, check=False
        )
    except subprocess.TimeoutExpired:
        return f"a trial in a process of its own had no end within {limit_s:.0f} s"
    if done.returncode < 0:
        return f"a trial in a process of its own was ended by {signal.Signals(-done.returncode).name}"
    if done.returncode:
        lines = done.stderr.split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), f"exit code {done.returncode}")
        return f"a trial in a process of its own failed ({last[:200]})"
    return ""

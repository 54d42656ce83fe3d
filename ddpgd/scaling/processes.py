"""Start programs and wait for them: the processes whose time is measured."""

import os
import shlex
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
"""Variables that keep BLAS to one thread a rank."""


class RunFailed(Exception):
    """A measured run failed; the message says which and how, on several lines where the program said more."""


def run(
    command: list[str], environment: Mapping[str, str] | None = None, folder: Path | None = None
) -> tuple[float, str]:
    """Runs a command, by default with this process's environment and in its folder.

    Returns:
        Wall time in seconds and the standard output.

    Raises:
        RunFailed: its exit code is not 0.
    """
    started = time.perf_counter()
    done = subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False, env=environment, cwd=folder
    )
    wall_s = time.perf_counter() - started
    if done.returncode:
        raise RunFailed(f"{last_lines(done)}\nexit code {done.returncode} from: {shlex.join(command)}")
    return wall_s, done.stdout


def run_for(command: list[str], timeout_s: float | None) -> subprocess.CompletedProcess[str]:
    """Runs a command with one BLAS thread; at the end of its time mpirun is asked to end its ranks.

    Raises:
        subprocess.TimeoutExpired: it took longer than `timeout_s`.
    """
    with subprocess.Popen(
        command,
        env=os.environ | ONE_THREAD,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            stdout, stderr = process.communicate(timeout=timeout_s)
        except BaseException:
            process.terminate()
            process.wait()
            raise
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


def last_lines(done: subprocess.CompletedProcess[str]) -> str:
    """Returns the last 20 lines of what a program said on its error output, or else on its output."""
    return "\n".join((done.stderr or done.stdout).strip().splitlines()[-20:])

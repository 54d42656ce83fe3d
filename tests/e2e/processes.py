"""The processes of a run that was started, and runs that are killed at random moments."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

from patience import slowness


def ranks_of(process: "subprocess.Popen[Any]") -> Iterator[int]:
    """Process ids of the ranks that this mpirun started."""
    listed = subprocess.run(["ps", "-e", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True)
    for line in listed.stdout.splitlines():
        pid, parent, arguments = line.split(maxsplit=2)
        if int(parent) == process.pid and "-m ddpgd train" in arguments:
            yield int(pid)


def kill(process: "subprocess.Popen[str]") -> None:
    """Kills the ranks, which ends mpirun too; those that have just ended are left alone."""
    for pid in list(ranks_of(process)):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.communicate()


def ends_of_killed_runs(
    start: Callable[..., "subprocess.Popen[str]"],
    tmp_path: Path,
    num_kills: int,
    draw: Random,
    pause_s: tuple[float, float],
) -> list[Path]:
    """Folders whose `run` was killed at random moments, gone on with, and has ended.

    One run, where each kill came before its end; a quick machine ends some before, and others begin.
    `start(folder, *flags)` starts a run. A run that was killed before its first checkpoint is set aside.
    """
    ended: list[Path] = []
    kills, resume = 0, []
    while True:
        folder = tmp_path / f"killed{len(ended)}"
        folder.mkdir(exist_ok=True)
        process = start(folder, *resume)
        if kills == num_kills:
            _, stderr = process.communicate()
            assert process.returncode == 0, stderr
            return [*ended, folder]
        time.sleep(slowness() * draw.uniform(*pause_s))
        kill(process)
        if process.returncode == 0:
            ended.append(folder)
            resume = []
            continue
        kills += 1
        resume = ["--resume"] if any((folder / "run").glob("checkpoints/step-*.safetensors")) else []
        if not resume and (folder / "run").exists():
            (folder / "run").rename(folder / f"killed-before-its-first-checkpoint-{kills}")

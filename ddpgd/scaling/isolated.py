"""Run a command on a rank of mpirun as if it were started alone: independent runs side by side, a GPU for each.

mpirun -n 2 python -m ddpgd.scaling.isolated ddpgd train --run-dir runs/@RANK@      @RANK@ becomes the rank
"""

import os
import sys
from collections.abc import Mapping

from ddpgd.comm.launcher import launch

_LAUNCHER_VARIABLES = ("OMPI_COMM_WORLD_", "PMIX_", "PMI_", "MPI_LOCALRANKID", "SLURM_PROCID", "SLURM_LOCALID",
                       "SLURM_STEP_NUM_TASKS")  # fmt: skip


def isolated(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns `environment` without the launcher's variables, and with one of the visible GPUs."""
    local_rank = launch(environment).local_rank
    own = {name: value for name, value in environment.items() if not name.startswith(_LAUNCHER_VARIABLES)}
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        own["CUDA_VISIBLE_DEVICES"] = str(local_rank)
    elif visible:
        gpus = visible.split(",")
        own["CUDA_VISIBLE_DEVICES"] = gpus[local_rank % len(gpus)]
    return own


def main(command: list[str]) -> None:
    """Replaces this process by `command`, in which @RANK@ stands for the rank."""
    words = [word.replace("@RANK@", str(launch(os.environ).rank)) for word in command]
    os.execvpe(words[0], words, isolated(os.environ))


if __name__ == "__main__":
    main(sys.argv[1:])

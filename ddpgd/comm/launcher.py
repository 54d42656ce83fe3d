"""Who this process is: what the launcher's environment says before MPI starts."""

import socket
from collections.abc import Mapping
from dataclasses import dataclass

_LAUNCHERS = (
    ("Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
    ("MPICH", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"),
    ("Slurm", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
)


@dataclass(frozen=True)
class Launch:
    """What the launcher told this process. `launcher` is empty where nothing launched it."""

    launcher: str
    rank: int
    world_size: int
    local_rank: int


def launch(environment: Mapping[str, str]) -> Launch:
    """Reads the variables of Open MPI, MPICH (and its kin) and Slurm, in this order."""
    for launcher, rank, world_size, local_rank in _LAUNCHERS:
        if rank in environment and world_size in environment:
            # Kinds of MPICH tell the local rank in several ways, and srun, which may start their ranks, in its own.
            names = (local_rank, "PMI_LOCAL_RANK", "SLURM_LOCALID")
            local = next((environment[name] for name in names if name in environment), "0")
            return Launch(launcher, int(environment[rank]), int(environment[world_size]), int(local))
    return Launch("", 0, 1, 0)


def node() -> str:
    """The name of the machine that this rank runs on."""
    return socket.gethostname()

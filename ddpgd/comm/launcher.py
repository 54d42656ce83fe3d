"""This process's rank and world size, as the launcher's environment gives them before MPI starts."""

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from ddpgd.errors import InputError, shown

_LAUNCHERS = (
    ("Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
    ("MPICH", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"),
    ("Slurm", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
)
_NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII)


@dataclass(frozen=True)
class Launch:
    """The launcher's words to this process; `launcher` is empty when the process was started by hand."""

    launcher: str
    rank: int
    world_size: int
    local_rank: int


def launch(environment: Mapping[str, str]) -> Launch:
    """Reads the variables of Open MPI, MPICH (and its kin) and Slurm, in this order.

    Raises:
        InputError: a variable is not a number, or the rank is not below the world size.
    """
    for launcher, rank_name, size_name, local_name in _LAUNCHERS:
        if rank_name in environment and size_name in environment:
            # Kinds of MPICH tell the local rank in several ways, and srun, which may start their ranks, in its own.
            names = (local_name, "PMI_LOCAL_RANK", "SLURM_LOCALID")
            local_rank = next((_number(environment, name) for name in names if name in environment), 0)
            rank, world_size = _number(environment, rank_name), _number(environment, size_name)
            if rank >= world_size:
                raise InputError(
                    f"{rank_name}={rank} and {size_name}={world_size}: a rank below the number of ranks is wanted; "
                    f"start ranks with mpirun, or type unset {rank_name} {size_name}"
                )
            return Launch(launcher, rank, world_size, local_rank)
    return Launch("", 0, 1, 0)


def node() -> str:
    """Returns the name of the machine that this rank runs on."""
    return socket.gethostname()


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment[name]
    if not _NUMBER.fullmatch(text):
        raise InputError(
            f"{name}={shown(text)}: a number from 0 is wanted, which launchers set; "
            f"start ranks with mpirun, or type unset {name}"
        )
    return int(text)

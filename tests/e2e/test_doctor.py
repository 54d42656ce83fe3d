"""`ddpgd doctor` under a launcher, and under what is none."""

import os
import subprocess
from pathlib import Path

import pytest
from conftest import DDPGD, run_ddpgd, under_mpirun


def run(command: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, env=os.environ | environment
    )


@pytest.mark.parametrize("num_ranks", [2, 3])
def test_ranks_and_their_links(num_ranks: int, tmp_path: Path) -> None:
    done = run_ddpgd(num_ranks, "doctor", "--data", "synthetic", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(f"{num_ranks} ranks, on ")
    assert done.stdout.count("links of one machine: ") == 1
    assert "ERROR" not in done.stdout


def test_more_threads_than_cores(tmp_path: Path) -> None:
    command = under_mpirun(2, [*DDPGD, "doctor", "--data", "synthetic"])
    done = run(command, tmp_path, OMP_NUM_THREADS="64", OPENBLAS_NUM_THREADS="64")
    assert done.returncode == 0
    assert "BLAS threads each, on" in done.stdout
    assert "type: export OMP_NUM_THREADS=1" in done.stdout


def test_every_process_alone(tmp_path: Path) -> None:
    """The launcher's variables are lost on the way: each process takes itself for the only one."""
    lost = [f"-u{name}" for name in ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "PMI_RANK", "PMI_SIZE")]
    done = run(under_mpirun(2, ["env", *lost, *DDPGD, "doctor", "--data", "synthetic"]), tmp_path)
    assert done.returncode == 1
    # The first that has told leaves with 1, upon which mpirun may end the other.
    assert "1 rank, on " in done.stdout
    assert "ERROR: every process believes to be rank 0 of 1" in done.stdout


def test_a_launcher_and_a_library_that_do_not_match(tmp_path: Path) -> None:
    """Two ranks by the launcher's word, one by that of the library."""
    done = run([*DDPGD, "doctor", "--data", "synthetic"], tmp_path, PMI_RANK="0", PMI_SIZE="2")
    assert done.returncode == 1
    assert "ERROR: " in done.stdout
    assert "started 2 ranks" in done.stdout
    assert "type: the mpirun that belongs to that library" in done.stdout


def test_a_configuration_that_is_not_there(tmp_path: Path) -> None:
    done = run_ddpgd(2, "doctor", "--data", "synthetic", "--config", "none.toml", cwd=tmp_path)
    assert done.returncode == 2
    assert "none.toml" in done.stderr

"""A parallel test that fails on one rank fails the run in seconds and names the rank; one that passes is told once."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parent.parent / "parallel" / "conftest.py"
MARK = "@pytest.mark.mpi(min_size=3)\n"


def run_on_three_ranks(folder: Path, source: str) -> subprocess.CompletedProcess[str]:
    assert "DDPGD_MPIRUN" in os.environ, "DDPGD_MPIRUN is not set: start these tests with scripts/test.sh e2e"
    shutil.copy(CONFTEST, folder)
    (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    (folder / "test_made.py").write_text(f"import pytest\n{source}")
    command = [*shlex.split(os.environ["DDPGD_MPIRUN"]), "-n", "3", sys.executable, "-m", "pytest", "--with-mpi"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("rank", [0, 2])
def test_a_failure_on_one_rank_ends_the_job_and_names_the_rank(tmp_path: Path, rank: int) -> None:
    source = f"{MARK}def test_made(comm):\n    print('clue')\n    assert comm.rank != {rank}\n    comm.barrier()\n"
    done = run_on_three_ranks(tmp_path, source)
    assert done.returncode == 1, done
    assert f"rank {rank} of 3" in done.stderr
    assert f"assert {rank} != {rank}" in done.stderr
    assert "clue" in done.stderr
    assert "passed" not in done.stdout


def test_a_file_that_one_rank_cannot_import_ends_the_job(tmp_path: Path) -> None:
    source = f"from mpi4py import MPI\nassert MPI.COMM_WORLD.rank != 1\n{MARK}def test_made(comm):\n    pass\n"
    done = run_on_three_ranks(tmp_path, source)
    assert done.returncode == 1, done
    assert "rank 1 of 3" in done.stderr
    assert "cannot be collected" in done.stderr


def test_what_passes_on_all_ranks_is_told_once(tmp_path: Path) -> None:
    done = run_on_three_ranks(tmp_path, f"{MARK}def test_made(comm):\n    assert comm.allreduce(1) == 3\n")
    assert done.returncode == 0, done
    assert done.stdout.count("1 passed") == 1

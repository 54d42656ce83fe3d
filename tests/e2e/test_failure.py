"""A failure on one rank ends all of them, soon, with one traceback that names the rank."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import under_mpirun

from ddpgd.run.ending import read_ending

CRASH = [sys.executable, str(Path(__file__).with_name("crash.py"))]
TRAIN = ["train", "--data", "synthetic", "--hidden", "16", "--steps", "100000", "--quiet"]


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_an_exception_on_one_rank_ends_the_job(tmp_path: Path, rank: int) -> None:
    command = under_mpirun(3, [*CRASH, str(rank), *TRAIN, "--run-dir", str(tmp_path / "run")])
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("Traceback (most recent call last)") == 1
    assert f"ddpgd: rank {rank} of 3 on" in done.stderr
    assert "RuntimeError: planted fault" in done.stderr
    assert f"on rank {rank}, after 5 steps" in done.stderr
    assert not (tmp_path / "run" / "summary.json").exists()
    assert read_ending(tmp_path / "run") == (1, f"rank {rank} failed: RuntimeError: planted fault")


def test_an_exception_in_a_thread_ends_the_process(tmp_path: Path) -> None:
    command = [*CRASH, "2", *TRAIN, "--transport", "threads", "--ranks", "3", "--run-dir", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("Traceback (most recent call last)") == 1
    assert "on rank 2, after 5 steps" in done.stderr
    assert read_ending(tmp_path / "run") == (1, "RuntimeError: planted fault")

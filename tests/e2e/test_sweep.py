"""A sweep over MPI ranks that is signalled and killed: it goes on, on other numbers of ranks, to the same results."""

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import DDPGD, run_ddpgd, under_mpirun
from processes import kill

SWEEP = """
data = "synthetic"
hidden = 32
global_batch = 100
micro_batch = 24
steps = 600
log_every = 50
checkpoint_every = 40

[sweep]
lr = [0.02, 0.1, 1e30]
optimizer = ["momentum", "nesterov"]
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("whole")
    (folder / "s.toml").write_text(SWEEP)
    done = run_ddpgd(2, "sweep", "s.toml", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "all of it in s, as a page in s/sweep.html" in done.stdout
    return results(folder)


def results(folder: Path) -> dict[str, Any]:
    """Results by the names of runs, but for times."""
    runs = json.loads((folder / "s" / "results.json").read_text())["runs"]
    assert len(runs) == 6
    return {one["name"]: {key: value for key, value in one.items() if key != "train_s"} for one in runs}


def start(folder: Path, num_ranks: int, *more: str) -> subprocess.Popen[str]:
    (folder / "s.toml").write_text(SWEEP)
    command = under_mpirun(num_ranks, [*DDPGD, "sweep", "s.toml", *more])
    return subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True, start_new_session=True)


def wait_for_checkpoint(folder: Path, process: subprocess.Popen[str]) -> None:
    while not list((folder / "s" / "runs").glob("*/checkpoints/step-*")):
        assert process.poll() is None, "ended too soon"
        time.sleep(0.005)


def test_usr1_stops_at_checkpoints_and_the_same_command_goes_on(tmp_path: Path, whole: dict[str, Any]) -> None:
    process = start(tmp_path, 2)
    wait_for_checkpoint(tmp_path, process)
    process.send_signal(signal.SIGUSR1)
    _, stderr = process.communicate()
    assert process.returncode == 75, stderr
    assert "of 6 runs have ended; the same command goes on" in stderr
    assert (tmp_path / "s" / "sweep.html").exists()
    done = run_ddpgd(3, "sweep", "s.toml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert results(tmp_path) == whole


def test_kill_9_and_other_groups(tmp_path: Path, whole: dict[str, Any]) -> None:
    process = start(tmp_path, 2)
    wait_for_checkpoint(tmp_path, process)
    kill(process)
    done = run_ddpgd(2, "sweep", "s.toml", "--ranks-per-run", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert results(tmp_path) == whole
    assert not list((tmp_path / "s").glob(".taken-*")), "files of the killed start are left"

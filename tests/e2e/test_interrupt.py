"""Runs that are cut short: by a signal, by a time limit, by kill -9; resumed, they equal the run that was not."""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import DDPGD, run_ddpgd, summary, under_mpirun
from processes import ends_of_killed_runs, kill, ranks_of

from ddpgd.comm.levels import RANKS_PER_NODE
from runs import records

TRAIN = (
    *("train", "--data", "synthetic", "--hidden", "32", "--global-batch", "100", "--micro-batch", "24"),
    *(
        "--optimizer",
        "adam",
        "--lr",
        "0.001",
        "--steps",
        "2000",
        "--log-every",
        "50",
        "--checkpoint-every",
        "40",
        "--quiet",
    ),
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    done = run_ddpgd(2, *TRAIN, "--run-dir", "run", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "run"


def start(folder: Path, num_ranks: int, *more: str) -> subprocess.Popen[str]:
    command = under_mpirun(num_ranks, [*DDPGD, *TRAIN, "--run-dir", "run", *more])
    return subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True, start_new_session=True)


def wait_for_step(folder: Path, step: int, process: subprocess.Popen[str]) -> None:
    """Returns when a record of `step` or later is there."""
    path = folder / "run" / "metrics.jsonl"
    while not (path.exists() and any(record["step"] >= step for record in records(folder / "run"))):
        assert process.poll() is None, "ended too soon"
        time.sleep(0.005)


def assert_equal(folder: Path, whole: Path) -> None:
    assert summary(folder / "run")["params_sha256"] == summary(whole)["params_sha256"]
    assert records(folder / "run") == records(whole)


@pytest.mark.parametrize("num_ranks", [1, pytest.param(3, marks=pytest.mark.deep)])
def test_usr1_to_mpirun_then_resume(tmp_path: Path, whole: Path, num_ranks: int) -> None:
    process = start(tmp_path, 2)
    wait_for_step(tmp_path, 100, process)
    process.send_signal(signal.SIGUSR1)
    _, stderr = process.communicate()
    assert process.returncode == 75, stderr
    assert "SIGUSR1 came; the checkpoint is written, go on with --resume" in stderr
    assert not (tmp_path / "run" / "summary.json").exists()
    done = run_ddpgd(num_ranks, *TRAIN, "--run-dir", "run", "--resume", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert_equal(tmp_path, whole)


def test_term_to_the_last_rank_stops_all(tmp_path: Path, whole: Path) -> None:
    process = start(tmp_path, 3)
    wait_for_step(tmp_path, 50, process)
    os.kill(max(ranks_of(process)), signal.SIGTERM)
    _, stderr = process.communicate()
    assert process.returncode == 75, stderr
    assert run_ddpgd(2, *TRAIN, "--run-dir", "run", "--resume", cwd=tmp_path).returncode == 0
    assert_equal(tmp_path, whole)


def test_max_time_then_resume(tmp_path: Path, whole: Path) -> None:
    process = start(tmp_path, 2, "--max-time", "0.1")
    _, stderr = process.communicate()
    assert process.returncode == 75, stderr
    assert "--max-time 0.1 is over" in stderr
    assert run_ddpgd(0, *TRAIN, "--run-dir", "run", "--resume", cwd=tmp_path).returncode == 0
    assert_equal(tmp_path, whole)


def test_kill_9_at_steps_of_a_run(tmp_path: Path, whole: Path) -> None:
    """Killed three times, between its records and its checkpoints, it goes on each time from what it finds."""
    resume: list[str] = []
    for step in (150, 650, 1150):
        process = start(tmp_path, 2, *resume)
        wait_for_step(tmp_path, step, process)
        kill(process)
        resume = ["--resume"]
    done = run_ddpgd(2, *TRAIN, "--run-dir", "run", "--resume", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert_equal(tmp_path, whole)


@pytest.mark.deep
def test_kill_9_of_two_levels_and_another_split_each_time(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resume: list[str] = []
    for step, split in ((150, "1,2"), (650, "2")):
        monkeypatch.setenv(RANKS_PER_NODE, split)
        process = start(tmp_path, 3, "--exchange", "two-level", *resume)
        wait_for_step(tmp_path, step, process)
        kill(process)
        resume = ["--resume"]
    monkeypatch.setenv(RANKS_PER_NODE, "1,1")
    done = run_ddpgd(2, *TRAIN, "--run-dir", "run", "--resume", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert summary(tmp_path / "run")["exchange"] == "two-level"
    assert_equal(tmp_path, whole)


@pytest.mark.deep
def test_kill_9_at_random_moments(tmp_path: Path, whole: Path) -> None:
    """The same 20 times, at any moment: while it starts, writes a checkpoint, or ends."""
    for folder in ends_of_killed_runs(
        lambda folder, *more: start(folder, 2, *more), tmp_path, 20, random.Random(0), (0.3, 2.0)
    ):
        assert_equal(folder, whole)


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, whole: Path) -> None:
    process = start(tmp_path, 2)
    wait_for_step(tmp_path, 200, process)
    kill(process)
    # The kill may have come when a checkpoint was whole, and `latest` still named the one before.
    newest = max((tmp_path / "run" / "checkpoints").glob("step-*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:-100])
    done = run_ddpgd(2, *TRAIN, "--run-dir", "run", "--resume", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "passed over" in done.stderr
    assert newest.name in done.stderr
    assert_equal(tmp_path, whole)

"""A rank that is stopped is named, its return is told, and a time limit ends the run without it."""

import os
import signal
import subprocess
import time
from pathlib import Path

from conftest import DDPGD, under_mpirun
from processes import ranks_of

from runs import records

TRAIN = ("train", "--data", "synthetic", "--hidden", "16", "--steps", "100000000", "--quiet", "--run-dir", "run")


def start(folder: Path, *more: str) -> "subprocess.Popen[bytes]":
    environment = os.environ | {"DDPGD_PATIENCE_S": "2"}
    with (folder / "said").open("wb") as said:
        return subprocess.Popen(under_mpirun(2, [*DDPGD, *TRAIN, *more]), cwd=folder, env=environment, stderr=said)


def wait_for(folder: Path, process: "subprocess.Popen[bytes]", word: str) -> None:
    while word not in (folder / "said").read_text():
        assert process.poll() is None, (folder / "said").read_text()
        time.sleep(0.02)


def wait_for_records(folder: Path, process: "subprocess.Popen[bytes]", more_than: int = 0) -> int:
    path = folder / "run" / "metrics.jsonl"
    while not (path.exists() and len(records(folder / "run")) > more_than):
        assert process.poll() is None, (folder / "said").read_text()
        time.sleep(0.02)
    return len(records(folder / "run"))


def test_a_stopped_rank_is_named_and_its_return_told(tmp_path: Path) -> None:
    process = start(tmp_path)
    wait_for_records(tmp_path, process)
    rank_1 = max(ranks_of(process))
    os.kill(rank_1, signal.SIGSTOP)
    wait_for(tmp_path, process, f"rank 1 (process {rank_1} on ")
    num_records = len(records(tmp_path / "run"))
    os.kill(rank_1, signal.SIGCONT)
    wait_for(tmp_path, process, "has arrived; the run goes on")
    wait_for_records(tmp_path, process, num_records)
    process.send_signal(signal.SIGUSR1)
    assert process.wait() == 75


def test_a_time_limit_ends_a_run_whose_rank_is_stopped(tmp_path: Path) -> None:
    process = start(tmp_path, "--max-time", "5")
    wait_for_records(tmp_path, process)
    os.kill(min(ranks_of(process)), signal.SIGSTOP)
    assert process.wait() == 5
    said = (tmp_path / "said").read_text()
    assert "rank 0 (process" in said
    assert "--max-time 5 is over, and no checkpoint can be written" in said

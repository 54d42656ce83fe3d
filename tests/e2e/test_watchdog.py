"""A rank that is stopped is named, its return is told, and a time limit ends the run without it."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import DDPGD, under_mpirun
from processes import ranks_of

from patience import slowness
from runs import records

TRAIN = ("train", "--data", "synthetic", "--hidden", "16", "--steps", "100000000", "--quiet", "--run-dir", "run")


class Started(NamedTuple):
    """A run on two ranks, and its folder; what it says is in the file `said`."""

    process: "subprocess.Popen[bytes]"
    folder: Path

    @property
    def said(self) -> str:
        return (self.folder / "said").read_text()

    def wait_for(self, happened: Callable[[], bool]) -> None:
        while not happened():
            assert self.process.poll() is None, self.said
            time.sleep(0.02)

    def num_records(self) -> int:
        return len(records(self.folder / "run")) if (self.folder / "run" / "metrics.jsonl").exists() else 0


Start = Callable[..., Started]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a run that says after 2 s which rank it waits for; ends it with the test."""
    began = []

    def started(*more: str) -> Started:
        with (tmp_path / "said").open("wb") as said:
            command, environment = under_mpirun(2, [*DDPGD, *TRAIN, *more]), os.environ | {"DDPGD_PATIENCE_S": "2"}
            began.append(subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=said))
        run = Started(began[-1], tmp_path)
        run.wait_for(lambda: run.num_records() > 0)
        return run

    yield started
    for process in began:
        for pid in list(ranks_of(process)):
            os.kill(pid, signal.SIGKILL)
        process.kill()
        process.wait()


def test_a_stopped_rank_is_named_and_its_return_told(start: Start) -> None:
    run = start()
    rank_1 = max(ranks_of(run.process))
    os.kill(rank_1, signal.SIGSTOP)
    run.wait_for(lambda: f"rank 1 (process {rank_1} on " in run.said)
    num_records = run.num_records()
    os.kill(rank_1, signal.SIGCONT)
    run.wait_for(lambda: "has arrived; the run goes on" in run.said)
    run.wait_for(lambda: run.num_records() > num_records)
    run.process.send_signal(signal.SIGUSR1)
    assert run.process.wait() == 75


def test_a_time_limit_ends_a_run_whose_rank_is_stopped(start: Start) -> None:
    limit = f"{10 * slowness():.0f}"
    run = start("--max-time", limit)
    os.kill(min(ranks_of(run.process)), signal.SIGSTOP)
    assert run.process.wait() == 5
    assert "rank 0 (process" in run.said
    assert f"--max-time {limit} is over, and no checkpoint can be written" in run.said

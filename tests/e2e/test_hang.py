"""Hangs on purpose: each is told with its rank and its place, ends the run with code 5, and leaves no process."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import DDPGD, call_ddpgd, run_ddpgd, run_module, under_mpirun
from processes import ranks_of

from ddpgd.run.ending import read_ending
from patience import slowness
from runs import records

TRAIN = ("train", "--data", "synthetic", "--hidden", "16", "--quiet", "--run-dir", "run")
ENDLESS = ("--steps", "100000000")
LOCAL = ("--sync", "local", "--local-steps", "4")


class Started(NamedTuple):
    """A run on some ranks, and its folder; what it says is in the file `said`."""

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
    """Starts a run; ends it with the test."""
    began = []

    def started(num_ranks: int, *more: str) -> Started:
        with (tmp_path / "said").open("wb") as said:
            command = under_mpirun(num_ranks, [*DDPGD, *TRAIN, *more])
            began.append(subprocess.Popen(command, cwd=tmp_path, stderr=said))
        return Started(began[-1], tmp_path)

    yield started
    for process in began:
        for pid in list(ranks_of(process)):
            os.kill(pid, signal.SIGKILL)
        process.kill()
        process.wait()


def of(rank: int, host: str = r"\S+") -> str:
    return rf"rank {rank} \(process \d+ on {host}\)"


@pytest.mark.parametrize(
    ("num_ranks", "fault", "more", "verdict"),
    [
        (2, "hang@1:40", (), rf"{of(1)} is stopped, in the \w+ of step 4[01]; rank 0 waits for it"),
        (3, "hang@0:40", LOCAL, rf"{of(0)} is stopped, in the \w+ of step 4[01]; ranks 1 and 2 wait for it"),
        (4, "sleep@2:40", (), rf"{of(2)} has not entered the exchange of step 41: .*; ranks 0, 1 and 3 wait for it"),
        (
            3,
            "stuck-read@1:40",
            (),
            rf"{of(1)} has not entered the exchange of step 41: it is in the input of step 41, ",
        ),
        (2, "sleep@0:41", LOCAL, rf"{of(0)} has not entered the exchange of step 4\d: .*; rank 1 waits for it"),
        (
            3,
            "skip-collective@1:40",
            (),
            r"rank 1 has left out .* of step \d+, in which ranks 0 and 2 wait: it is in .* of the \w+ of step \d+",
        ),
        (2, "drop-link@1:40", (), r"ranks 0 and 1 are in the exchange of step 41, and no message arrives"),
    ],
)
def test_a_hang_is_told_and_ended(
    num_ranks: int, fault: str, more: tuple[str, ...], verdict: str, start: Start
) -> None:
    run = start(num_ranks, "--steps", "400", "--hang-timeout", f"{2 * slowness():.0f}", "--inject", fault, *more)
    assert run.process.wait() == 5, run.said
    assert re.search(rf"^ddpgd: {verdict}", run.said, re.MULTILINE), run.said
    rows = re.findall(r"^ddpgd:   (\d)  ", run.said, re.MULTILINE)
    assert rows == [str(rank) for rank in range(num_ranks)]
    assert not list(ranks_of(run.process))
    ending = read_ending(run.folder / "run")
    assert ending is not None
    assert ending.exit_code == 5
    assert re.match(verdict, ending.reason)
    assert "thread" in (run.folder / "run" / "hang" / "rank-0.txt").read_text() or "@0" in fault


def test_one_rank_that_hangs_is_told(start: Start) -> None:
    run = start(1, "--steps", "400", "--hang-timeout", f"{2 * slowness():.0f}", "--inject", "sleep@0:40")
    assert run.process.wait() == 5, run.said
    assert re.search(rf"^ddpgd: {of(0)} does not move, in the \w+ of step 4[01], ", run.said, re.MULTILINE), run.said


def test_ranks_that_are_threads_are_watched(tmp_path: Path) -> None:
    given = *TRAIN, "--steps", "400", "--transport", "threads", "--ranks", "3", "--hang-timeout", "2"
    done = run_ddpgd(1, *given, "--inject", "sleep@1:40", cwd=tmp_path)
    assert done.returncode == 5, done.stderr
    assert re.search(rf"^ddpgd: {of(1)} has not entered the exchange of step 41: ", done.stderr, re.MULTILINE)


def test_a_stopped_rank_is_named_and_its_return_told(start: Start) -> None:
    run = start(2, *ENDLESS, "--hang-timeout", "200")
    run.wait_for(lambda: run.num_records() > 0)
    rank_1 = max(ranks_of(run.process))
    os.kill(rank_1, signal.SIGSTOP)
    time.sleep(6)
    done = call_ddpgd("hang", str(run.folder / "run"))
    assert f"rank 1 (process {rank_1} on " in done.stdout
    assert "is stopped" in done.stdout
    num_records = run.num_records()
    os.kill(rank_1, signal.SIGCONT)
    run.wait_for(lambda: run.num_records() > num_records)
    assert "the ranks move" in call_ddpgd("hang", str(run.folder / "run")).stdout
    run.process.send_signal(signal.SIGUSR1)
    assert run.process.wait() == 75
    assert not (run.folder / "run" / "hang").exists()


def test_without_a_timeout_a_time_limit_ends_a_run_whose_rank_is_stopped(start: Start) -> None:
    limit = f"{10 * slowness():.0f}"
    run = start(2, *ENDLESS, "--max-time", limit, "--hang-timeout", "0")
    run.wait_for(lambda: run.num_records() > 0)
    os.kill(min(ranks_of(run.process)), signal.SIGSTOP)
    assert run.process.wait() == 5
    assert re.search(rf"{of(0)} is stopped", run.said)
    assert f"--max-time {limit} is over, and no checkpoint can be written" in run.said


def test_a_slow_rank_is_told_once_and_the_run_ends_well(tmp_path: Path) -> None:
    given = "train", "--data", "synthetic", "--hidden", "16", "--steps", "200", "--evaluate-every", "50"
    done = subprocess.run(
        under_mpirun(2, [*DDPGD, *given, "--inject", "slow@1:50"]),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("rank 1 is slow: each of its last 20 steps took at least") == 1


@pytest.mark.deep
def test_a_soak_of_all_faults_ends_as_wanted() -> None:
    done = run_module("tools.soak", "--seed", "11", "--trials", "20")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("| ") > 12

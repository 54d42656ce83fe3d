"""Layouts of launched ranks: killed in one and gone on with in another, failing, hanging; each told with the rank."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import DDPGD, run_ddpgd, summary, under_mpirun
from processes import ends_of_killed_runs, ranks_of

from patience import slowness
from runs import records

NETWORK = ("train", "--data", "synthetic", "--hidden", "40,24", "--shards", "4", "--quiet", "--run-dir", "run")
TRAIN = (
    *NETWORK,
    *("--global-batch", "100", "--micro-batch", "24", "--optimizer", "adam", "--lr", "0.001", "--clip-norm", "0.5"),
    *("--steps", "1200", "--log-every", "50", "--checkpoint-every", "30"),
)
LAYOUTS = [(1, 1, 1), (2, 1, 1), (3, 1, 1), (1, 2, 1), (1, 3, 1), (1, 1, 2), (1, 1, 3), (1, 1, 4), (1, 2, 2), (2, 2, 1)]
"""Data, pipeline and tensor parallel ranks."""
CRASH = [sys.executable, str(Path(__file__).with_name("crash.py"))]


def flags(layout: tuple[int, int, int], *more: str) -> list[str]:
    return ["--pipeline", str(layout[1]), "--tensor", str(layout[2]), *more]


@pytest.fixture
def began() -> Iterator[list["subprocess.Popen[str]"]]:
    """Takes runs that are started, which end with the test."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        for pid in list(ranks_of(process)):
            os.kill(pid, signal.SIGKILL)
        process.kill()
        process.wait()


def start(folder: Path, layout: tuple[int, int, int], *more: str) -> "subprocess.Popen[str]":
    command = under_mpirun(layout[0] * layout[1] * layout[2], [*DDPGD, *TRAIN, *flags(layout), *more])
    return subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)


@pytest.mark.deep
def test_kill_9_at_random_moments_and_another_layout_each_time(tmp_path: Path) -> None:
    """Ten kills; records and ends are those of one rank."""
    (tmp_path / "one").mkdir()
    assert run_ddpgd(0, *TRAIN, cwd=tmp_path / "one").returncode == 0
    draw = random.Random(1)

    def start_anyhow(folder: Path, *more: str) -> "subprocess.Popen[str]":
        schedule, sharded = draw.choice(("1f1b", "gpipe")), draw.choice(("on", "off"))
        return start(folder, draw.choice(LAYOUTS), "--shard-optimizer", sharded, "--pipeline-schedule", schedule, *more)

    whole = tmp_path / "one" / "run"
    hashes = [record["params_hash"] for record in records(whole)]
    for folder in ends_of_killed_runs(start_anyhow, tmp_path, 10, draw, (1.0, 2.5)):
        assert summary(folder / "run")["params_sha256"] == summary(whole)["params_sha256"]
        assert [record["params_hash"] for record in records(folder / "run")] == hashes


@pytest.mark.parametrize("rank", [0, 1, 2, 3])
def test_an_exception_on_one_rank_ends_the_job_and_names_its_place(rank: int, tmp_path: Path) -> None:
    given = *NETWORK, "--steps", "100000", *flags((1, 2, 2))
    command = under_mpirun(4, [*CRASH, str(rank), *given])
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("Traceback (most recent call last)") == 1
    assert f"ddpgd: rank {rank} of 4 on" in done.stderr
    assert f"on rank {rank} (data 0, pipeline {rank // 2}, tensor {rank % 2}), after 5 steps" in done.stderr


@pytest.mark.parametrize("layout", [(1, 2, 2), (1, 4, 1)], ids=str)
def test_a_rank_that_is_killed_ends_the_job(
    layout: tuple[int, int, int], tmp_path: Path, began: list["subprocess.Popen[str]"]
) -> None:
    hidden = "--hidden", "16,16,16", "--steps", "1000000"
    command = under_mpirun(4, [*DDPGD, *NETWORK, *hidden, *flags(layout), "--log-every", "1"])
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    began.append(process)
    while not (tmp_path / "run" / "metrics.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(sorted(ranks_of(process))[2], signal.SIGKILL)
    _, stderr = process.communicate()
    assert process.returncode != 0
    assert "signal 9" in stderr


def test_a_stage_that_is_stopped_is_named(tmp_path: Path, began: list["subprocess.Popen[str]"]) -> None:
    given = *NETWORK, "--steps", "100000000", "--log-every", "1", *flags((1, 3, 1))
    with (tmp_path / "said").open("w") as said:
        command = under_mpirun(3, [*DDPGD, *given, "--hang-timeout", f"{10 * slowness():.0f}"])
        process = subprocess.Popen(command, cwd=tmp_path, stderr=said, text=True)
    began.append(process)
    while not (tmp_path / "run" / "metrics.jsonl").exists():
        assert process.poll() is None, (tmp_path / "said").read_text()
        time.sleep(0.02)
    middle = sorted(ranks_of(process))[1]
    os.kill(middle, signal.SIGSTOP)
    while f"rank 1 (process {middle} on " not in (tmp_path / "said").read_text():
        assert process.poll() is None, (tmp_path / "said").read_text()
        time.sleep(0.02)
    os.kill(middle, signal.SIGCONT)
    said_of_it = (tmp_path / "said").read_text()
    assert re.search(r"is stopped, in the \w+ of step", said_of_it)
    assert said_of_it.splitlines()[0].endswith("ranks 0 and 2 wait for it")

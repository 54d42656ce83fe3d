"""A rank that dies while MPI starts ends those that wait for it, with a line; and a slow start is told."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ddpgd.errors import HANG_CODE
from ddpgd.watch import joining

LAUNCH = """
import os, subprocess, sys
for rank in range(3):
    names = {"OMPI_COMM_WORLD_LOCAL_RANK": str(rank), "OMPI_COMM_WORLD_LOCAL_SIZE": "3"}
    print(subprocess.Popen([sys.executable, "-c", sys.argv[1]], env=os.environ | names).pid, flush=True)
sys.stdin.read()
"""
WAIT = """
import ctypes, os
from ddpgd.watch import joining
with joining.watched(os.environ):
    ctypes.PyDLL(None).sleep(600)  # and holds the interpreter's lock, as MPI does
"""


@pytest.mark.parametrize("victim", [0, 2])
def test_others_end_with_a_code_and_a_line(victim: int) -> None:
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCH, WAIT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert launcher.stdout
    ranks = [int(launcher.stdout.readline()) for _ in range(3)]
    for pid in ranks:
        while b"_COMM_WORLD_LOCAL_RANK" not in environment(pid):
            time.sleep(0.01)
    os.kill(ranks[victim], signal.SIGKILL)
    _, said = launcher.communicate(wait_for_ends(ranks))
    assert said.count("1 of the 3 ranks") == 1
    assert "died while MPI started" in said


def environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def wait_for_ends(ranks: list[int]) -> str:
    """Waits as long as it takes: the children of a launcher are zombies when they have ended."""
    for pid in ranks:
        while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            time.sleep(0.01)
    return ""


def test_a_start_that_takes_long_is_told_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(joining, "LINE_S", 0.3)
    monkeypatch.setattr(joining, "_LOOK_S", 0.05)
    with joining.watched({}):
        time.sleep(1.5)
    said = capfd.readouterr().err.splitlines()
    assert said
    assert all("MPI has not started" in line for line in said)


def test_nothing_is_left_of_it(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), joining.watched({}):
        1 / 0  # noqa: B018
    assert capfd.readouterr().err == ""
    assert signal.getsignal(HANG_CODE) == signal.SIG_DFL

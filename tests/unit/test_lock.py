"""A run folder has one run at a time; a dead owner, however it died, holds nothing."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ddpgd.errors import InputError
from ddpgd.run import lock
from ddpgd.run.lock import RunLock

HOLD = """
import sys, time
from pathlib import Path
from ddpgd.run.lock import RunLock
RunLock(Path(sys.argv[1])).acquire(print)
print("held", flush=True)
time.sleep(600)
"""


def hold(folder: Path) -> subprocess.Popen[str]:
    """Another process that holds the lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def refuse_to_talk(line: str) -> None:
    raise AssertionError(line)


TAKEN: list[RunLock] = []


@pytest.fixture(autouse=True)
def give_back() -> Iterator[None]:
    """No lock, and no thread that renews it, outlives its test."""
    yield
    while TAKEN:
        TAKEN.pop().release()


def take(folder: Path, say: Callable[[str], None] = refuse_to_talk) -> RunLock:
    taken = RunLock(folder)
    taken.acquire(say)
    TAKEN.append(taken)
    return taken


def change(folder: Path, **values: Any) -> None:
    """Edits the owner that the lock names."""
    path = folder / ".lock"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_live_owner_keeps_others_out_until_its_end(tmp_path: Path) -> None:
    process = hold(tmp_path)
    with pytest.raises(InputError, match=f"in use by a run that is alive, process {process.pid} on"):
        take(tmp_path)
    process.send_signal(signal.SIGSTOP)
    with pytest.raises(InputError, match="alive"):
        take(tmp_path)
    kill(process)
    take(tmp_path).release()
    assert list(tmp_path.iterdir()) == []


def test_a_zombie_holds_nothing(tmp_path: Path) -> None:
    process = hold(tmp_path)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    take(tmp_path).release()
    kill(process)


def test_another_process_with_the_same_number_is_no_owner(tmp_path: Path) -> None:
    take(tmp_path)
    change(tmp_path, started="1")
    take(tmp_path).release()


def test_the_same_process_is_an_owner_like_any_other(tmp_path: Path) -> None:
    first = take(tmp_path)
    with pytest.raises(InputError, match="alive"):
        take(tmp_path)
    first.release()
    take(tmp_path).release()


@pytest.mark.parametrize("spoil", [{"machine": "other", "host": "far"}, None], ids=["another machine", "unreadable"])
@pytest.mark.parametrize("is_alive", [True, False])
def test_an_owner_that_cannot_be_asked_is_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: dict[str, str] | None, is_alive: bool
) -> None:
    monkeypatch.setattr(lock, "WATCH_S", 600.0 if is_alive else 0.2)
    take(tmp_path).release()
    path = tmp_path / ".lock"
    path.write_text(json.dumps({"pid": 1, **spoil}) if spoil else "{")
    ended = threading.Event()

    def live() -> None:
        while not ended.wait(0.05):
            os.utime(path)

    owner = threading.Thread(target=live) if is_alive else None
    said: list[str] = []
    if owner:
        owner.start()
        with pytest.raises(InputError, match="alive"):
            take(tmp_path, said.append)
        ended.set()
        owner.join()
    else:
        take(tmp_path, said.append).release()
    assert [line.split("; ")[1] for line in said] == [f"watching for {lock.WATCH_S:g} s whether that is alive"]


def test_the_owner_renews_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "RENEW_S", 0.01)
    held = take(tmp_path)
    os.utime(tmp_path / ".lock", (1, 1))
    while (tmp_path / ".lock").stat().st_mtime == 1:
        time.sleep(0.01)
    held.release()


def test_an_owner_that_lost_its_lock_says_so_and_leaves_the_new_one_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "RENEW_S", 0.01)
    said: list[str] = []
    lost = take(tmp_path, said.append)
    change(tmp_path, started="1")
    change(tmp_path, token="another")
    while not said:
        time.sleep(0.01)
    assert "taken by another run" in said[0]
    lost.release()
    assert (tmp_path / ".lock").exists()


def test_of_many_that_find_a_dead_owner_one_wins(tmp_path: Path) -> None:
    code = f"{HOLD.replace('time.sleep(600)', 'sys.stdin.read()')}"
    for _ in range(3):
        process = hold(tmp_path)
        kill(process)
        command = [sys.executable, "-c", code, str(tmp_path)]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        starters = [subprocess.Popen(command, text=True, **pipes) for _ in range(4)]
        firsts = [starter.stdout.readline() for starter in starters if starter.stdout]
        assert firsts.count("held\n") == 1
        for starter in starters:
            _, err = starter.communicate("")
            assert "in use by a run that is alive" in err or "held\n" in firsts
        (tmp_path / ".lock").unlink(missing_ok=True)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    with pytest.raises(FileNotFoundError):
        take(folder)
    assert shutil.disk_usage(tmp_path).free


def test_leftovers_of_killed_starters_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".lock.123").touch()
    (tmp_path / ".lock.mine").touch()
    lock.remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".lock.mine"]

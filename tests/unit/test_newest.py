"""One function decides which checkpoint is the newest whole one; launchers ask it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_checkpoint import make

from ddpgd.run import checkpoint, newest
from ddpgd.run.lock import RunLock


def saved(run: Path, *steps: int) -> list[Path]:
    folder = run / "checkpoints"
    folder.mkdir(parents=True)
    return [checkpoint.save(folder, make(step)) for step in steps]


def test_the_newest_whole_one_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = saved(tmp_path / "run", 1, 2)
    assert newest.main([str(tmp_path / "run")]) == 0
    assert capsys.readouterr() == (f"{second}\n", "")
    os.truncate(second, 100)
    assert newest.main([str(tmp_path / "run")]) == 0
    out, err = capsys.readouterr()
    assert out == f"{first}\n"
    assert "passed over" in err


@pytest.mark.parametrize("left", ["nothing", "an empty folder", "what a failed start left"])
def test_where_a_run_may_start(tmp_path: Path, left: str, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    if left != "nothing":
        run.mkdir()
    if left.startswith("what"):
        (run / "checkpoints").mkdir()
        (run / "config.toml").write_text("lr = 0.1\n")
        (run / "metrics.jsonl").touch()
    assert newest.main([str(run)]) == 1
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("left", ["records", "damaged"])
def test_a_run_that_cannot_go_on_is_not_taken_for_nothing(tmp_path: Path, left: str) -> None:
    run = tmp_path / "run"
    for path in saved(run, *([1] if left == "damaged" else [])):
        os.truncate(path, 100)
    if left == "records":
        (run / "metrics.jsonl").write_text('{"step": 1}\n')
    assert newest.main([str(run)]) == 3


def test_a_run_that_is_alive_is_not_given_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its folder would be moved away from under it."""
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    lock = RunLock(tmp_path)
    lock.acquire(print)
    assert newest.main([str(tmp_path)]) == 2
    assert "in use by a run that is alive" in capsys.readouterr().err
    lock.release()
    assert newest.main([str(tmp_path)]) == 3
    assert not (tmp_path / ".lock").exists()


@pytest.mark.parametrize("given", [[], ["a", "b"], ["x" * 5000]])
def test_what_makes_no_sense_is_said(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert newest.main(given) == 2
    assert capsys.readouterr().err.startswith("ddpgd: ")


def test_it_runs_as_a_module(tmp_path: Path) -> None:
    (path,) = saved(tmp_path / "run", 5)
    command = [sys.executable, "-m", "ddpgd.run.newest", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (f"{path}\n", "")

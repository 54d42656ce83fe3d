"""Run folders: what failed leaves nothing in the way, what is refused costs nothing, what is dropped is asked for."""

import errno
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from ddpgd.errors import InputError, MachineError, NonFiniteError
from ddpgd.run import build, checkpoint, folder, records
from ddpgd.run.ending import read_ending
from ddpgd.run.inject import Faults
from ddpgd.run.lock import RunLock
from runs import train

pytestmark = pytest.mark.usefixtures("few_digits")


def contents(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()}


def finished(run: Path) -> Path:
    train(run, checkpoint_every=3)
    return run


def refused(match: str, run: Path, **given: Any) -> None:
    """A start that is refused, and changes nothing."""
    before = contents(run)
    with pytest.raises(InputError, match=match):
        train(run, **given)
    assert contents(run) == before


def no_space(*_: object, **__: object) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "metrics.jsonl")


def no_memory(*_: object, **__: object) -> NoReturn:
    np.empty((10**6, 10**9))
    raise AssertionError


@pytest.mark.parametrize(
    ("module", "name", "fail"),
    [
        (folder, "write_atomically", no_space),
        (records, "write_atomically", no_space),
        (build, "sync", no_memory),
        (RunLock, "acquire", no_space),
    ],
)
def test_a_start_that_failed_leaves_a_folder_to_start_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, fail: Callable[..., None]
) -> None:
    run = tmp_path / "run"
    monkeypatch.setattr(module, name, fail)
    with pytest.raises((OSError, MemoryError, InputError)):
        train(run)
    monkeypatch.undo()
    assert folder.is_free(run)
    assert not run.exists() or module is records
    with pytest.raises(
        InputError, match="train there first, without --resume" if run.exists() else "no such checkpoint"
    ):
        train(run, resume="")
    assert train(run)["complete"]


def test_only_what_a_failed_start_left_is_free(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.toml").write_text("lr = 0.1\n")
    (run / "metrics.jsonl").touch()
    assert folder.is_free(run)
    for name in ("summary.json", "metrics.jsonl", "checkpoints/mine.safetensors"):
        (run / name).write_text("{}")
        refused("holds a run already, without a checkpoint", run)
        (run / name).write_text("") if name == "metrics.jsonl" else (run / name).unlink()
    assert folder.is_free(run)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="it is a file"):
        train(tmp_path / "file")


@pytest.mark.parametrize("line", ["nonsense", "[1]", '{"step": "x"}', '{"no": 1}', '{"step": 1, "params_hash": []}'])
def test_a_refused_resume_costs_nothing(tmp_path: Path, line: str) -> None:
    run = finished(tmp_path / "run")
    with (run / "metrics.jsonl").open("a") as file:
        file.write(f"{line}\n")
    refused("metrics.jsonl: line 10", run, resume="")
    refused("metrics.jsonl: line 10", run, resume=str(run / "checkpoints" / "step-00000003.safetensors"))


@pytest.mark.parametrize("fail", [no_memory, no_space])
def test_a_resume_that_cannot_begin_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fail: Callable[..., None]
) -> None:
    run = finished(tmp_path / "run")
    before = contents(run)
    monkeypatch.setattr(build, "sync", fail)
    with pytest.raises((OSError, MemoryError)):
        train(run, resume="", steps=12)
    assert contents(run) == before


def test_a_live_run_is_not_resumed_a_second_time(tmp_path: Path) -> None:
    run = finished(tmp_path / "run")
    lock = RunLock(run)
    lock.acquire(print)
    refused("in use by a run that is alive", run, resume="")
    lock.release()
    assert train(run, resume="", steps=10)["steps"] == 10
    assert not (run / ".lock").exists()


def test_the_lock_is_given_back_whatever_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = finished(tmp_path / "run")
    monkeypatch.setattr(checkpoint, "save", no_space)
    with pytest.raises(MachineError, match="No space"):
        train(run, resume="", steps=12)
    assert not (run / ".lock").exists()


def test_the_end_is_noted_whichever_rank_met_it_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def before(_faults: Faults, step: int) -> None:
        if threading.current_thread().name == "rank 1":
            raise NonFiniteError(f"step {step}: met by rank 1 alone")

    monkeypatch.setattr(Faults, "before", before)
    with pytest.raises(NonFiniteError):
        train(tmp_path / "run", 2, steps=3, inject="raise@1:2")
    ending = read_ending(tmp_path / "run")
    assert ending
    assert ending.diverged
    assert "met by rank 1 alone" in ending.reason


def test_later_checkpoints_are_dropped_only_when_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = finished(tmp_path / "run")
    early = run / "checkpoints" / "step-00000003.safetensors"
    refused(
        f"--run-dir FOLDER for a second branch, or --run-dir {run} to replace", run, resume=str(early), run_dir=None
    )
    before = contents(run)
    train(tmp_path / "branch", resume=str(early))
    assert contents(run) == before
    train(run, resume=str(early), steps=4)
    assert "going on from step-00000003 in" in (err := capsys.readouterr().err)
    assert "which replaces step-00000006, step-00000009" in err
    assert [path.name for path in checkpoint.newest_first(run / "checkpoints")] == [
        *("step-00000004.safetensors", "step-00000003.safetensors")
    ]
    assert json.loads((run / "summary.json").read_text())["steps"] == 4


@pytest.mark.parametrize("place", ["", "checkpoints", "checkpoints/latest", "checkpoints/step-00000009.safetensors"])
def test_the_newest_needs_no_folder_name(tmp_path: Path, place: str) -> None:
    run = finished(tmp_path / "run")
    assert train(run, resume=str(run / place), run_dir=None, steps=11)["steps"] == 11


def test_an_edited_configuration_is_not_ignored_in_silence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = finished(tmp_path / "run")
    train(run, resume="", steps=10)
    train(run, resume="")
    assert "config.toml" not in capsys.readouterr().err
    text = (run / "config.toml").read_text()
    (run / "config.toml").write_text(text.replace("steps = 10", "steps = 12").replace("quiet = true", "quiet = false"))
    train(run, resume="")
    (line,) = capsys.readouterr().err.splitlines()
    assert "config.toml was edited (steps = 12), which --resume ignores" in line
    assert "type --steps to change it" in line
    (run / "config.toml").write_text("steps = = 1\n")
    train(run, resume="")
    (line,) = capsys.readouterr().err.splitlines()
    assert "not TOML" in line
    assert (run / "config.toml").read_text() == text


def test_temporaries_of_killed_processes_are_removed_and_nothing_else(tmp_path: Path) -> None:
    run = finished(tmp_path / "run")
    temporaries = [".config.toml.17", ".metrics.jsonl.17", ".summary.json.17", ".lock.17"]
    temporaries += [f"checkpoints/{name}" for name in (".latest.17", ".step-00000012.safetensors.17")]
    mine = [".config.toml.swp", ".gitignore", "checkpoints/.nfs0001", "checkpoints/.step-1.safetensors.17", "notes.17"]
    for name in (*temporaries, *mine):
        (run / name).write_text("x")
    train(run, resume="", steps=10)
    assert not [name for name in temporaries if (run / name).exists()]
    assert not [name for name in mine if not (run / name).exists()]

"""Checkpoints written beside training: a full disk is told and tried again, a slow one leaves some out, the last counts."""

import errno
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ddpgd.comm import whereabouts
from ddpgd.errors import DdpgdError, MachineError
from ddpgd.run import checkpoint, saver
from ddpgd.run.records import RecordFile
from ddpgd.run.saver import Saver
from runs import Record, train

GIVEN: dict[str, Any] = {"steps": 12, "checkpoint_every": 3}


def full(_moved: Callable[[], None]) -> None:
    raise MachineError("no space")


def test_checkpoints_are_written_one_after_the_other() -> None:
    said: list[str] = []
    written: list[int] = []
    one = Saver(said.append)
    for step in range(5):
        one.wait_for_last()
        one.save(step, lambda _moved, step=step: written.append(step))  # type: ignore[misc]
    one.finish()
    assert written == [0, 1, 2, 3, 4]
    assert not said


def test_one_that_cannot_be_written_is_told_before_the_next_one() -> None:
    said: list[str] = []
    one = Saver(said.append)
    one.save(3, full)
    one.wait_for_last()
    one.save(6, lambda _moved: None)
    one.finish()
    assert said == ["the checkpoint of step 3 is missing: no space; training goes on"]


def test_the_last_one_must_be_written() -> None:
    one = Saver(pytest.fail)
    one.save(3, full)
    with pytest.raises(MachineError, match="no space"):
        one.finish()
    one.close()


def test_a_failure_that_nobody_foresaw_is_told() -> None:
    one = Saver(pytest.fail)
    one.save(3, lambda _moved: 1 / 0)  # type: ignore[arg-type, return-value]
    with pytest.raises(DdpgdError, match="ZeroDivisionError: division by zero"):
        one.finish()


def test_a_slow_disk_leaves_checkpoints_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saver, "PATIENCE_S", 0.01)
    said: list[str] = []
    may_end = threading.Event()
    one = Saver(said.append)
    one.save(3, lambda _moved: may_end.wait() and None)
    one.wait_for_last()
    one.save(6, full)
    assert said == [
        "step 6: no checkpoint, because that of step 3 is still being written: the disk is slow; training goes on"
    ]
    may_end.set()
    one.finish()


def test_writing_is_movement() -> None:
    before = whereabouts.here()[whereabouts.SAVED]
    one = Saver(pytest.fail)
    one.save(3, lambda moved: [moved() for _ in range(3)] and None)
    one.finish()
    assert whereabouts.here()[whereabouts.SAVED] == before + 3


@pytest.mark.parametrize("world_size", [1, 3])
def test_a_disk_that_is_full_for_a_while_costs_a_checkpoint(
    world_size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write = checkpoint.save

    def sometimes(folder: Path, saved: checkpoint.Checkpoint, moved: Callable[[], None]) -> Path:
        if saved.counters["step"] == 6:
            raise OSError(errno.ENOSPC, "No space left on device", str(folder / "step-00000006.safetensors"))
        return write(folder, saved, moved)

    undisturbed = train(tmp_path / "whole", world_size, **GIVEN)
    monkeypatch.setattr(checkpoint, "save", sometimes)
    summary = train(tmp_path / "run", world_size, **GIVEN)
    assert summary["params_sha256"] == undisturbed["params_sha256"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ddpgd: the checkpoint of step 6 is missing: ")
    assert "No space left on device" in line
    steps = [checkpoint.step_of(path) for path in checkpoint.newest_first(tmp_path / "run" / "checkpoints")]
    assert steps == [12, 9, 3]


def test_a_disk_that_is_full_at_the_end_ends_the_run_and_keeps_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = checkpoint.save

    def early(folder: Path, saved: checkpoint.Checkpoint, moved: Callable[[], None]) -> Path:
        if saved.counters["step"] > 6:
            raise OSError(errno.ENOSPC, "No space left on device", str(folder))
        return write(folder, saved, moved)

    monkeypatch.setattr(checkpoint, "save", early)
    with pytest.raises(MachineError, match="No space left on device"):
        train(tmp_path / "run", 3, **GIVEN)
    monkeypatch.undo()
    resumed = train(tmp_path / "run", 2, resume="")
    undisturbed = train(tmp_path / "whole", 1, **GIVEN)
    assert resumed["params_sha256"] == undisturbed["params_sha256"]


def test_a_restart_loses_no_more_steps_than_lie_between_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each record, the checkpoint of the step before is written, however long that takes."""
    folder, behind = tmp_path / "run", []
    save, record = checkpoint.save, RecordFile.record

    def slow_save(*given: Any) -> None:
        time.sleep(0.05)
        save(*given)

    def look(file: RecordFile, told: Record) -> None:
        kept = [checkpoint.step_of(path) or 0 for path in checkpoint.newest_first(folder / "checkpoints")]
        behind.append(told["step"] - max(kept, default=0))
        record(file, told)

    monkeypatch.setattr(checkpoint, "save", slow_save)
    monkeypatch.setattr(RecordFile, "record", look)
    train(folder, steps=12, checkpoint_every=1)
    assert behind == [1] * 12

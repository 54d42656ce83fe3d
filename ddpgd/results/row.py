"""A run in one row: what it is and what came of it, from the small files of its folder, so that thousands are read quickly."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ddpgd.config.toml_file import read_toml
from ddpgd.errors import InputError
from ddpgd.run import checkpoint
from ddpgd.run.ending import read_ending
from ddpgd.run.lock import in_use
from ddpgd.run.records import read_last
from ddpgd.run.report import DIVERGED
from ddpgd.run.summary import read_summary

COMPLETE, DIVERGES, RUNNING, INTERRUPTED, DAMAGED = "complete", "diverged", "running", "interrupted", "damaged"
FAILED, PENDING = "failed", "pending"
"""States of runs of a sweep that could not begin, and that have not begun."""
SWEEP = "sweep.json"
"""The file by which a folder is known as that of a sweep: its base configuration."""
_SIGNS = ("summary.json", "config.toml", "metrics.jsonl", "checkpoints")


@dataclass(frozen=True)
class Row:
    """A run folder, as far as it can be read; None: not known.

    Attributes:
        path: The folder.
        state: One of the words above.
        started: Local time of its last start, as in "2026-11-29 07:05".
        hidden: Widths of the hidden layers, as in "512,512"; "0": none.
        optimizer: The update rule.
        lr: Learning rate.
        world_size: Number of ranks.
        steps: Steps done.
        accuracy: Fraction of the test samples classified correctly, at the last evaluation.
        validation_accuracy: The same of the validation samples, where the run has some.
        loss: Mean loss over the test samples, at the last evaluation.
        seconds: Seconds in training steps.
        reason: A line on a run that is not complete; empty: there is nothing to say.
    """

    path: Path
    state: str
    started: str | None = None
    hidden: str | None = None
    optimizer: str | None = None
    lr: float | None = None
    world_size: int | None = None
    steps: int | None = None
    accuracy: float | None = None
    validation_accuracy: float | None = None
    loss: float | None = None
    seconds: float | None = None
    reason: str = ""

    @property
    def name(self) -> str:
        return Path(os.path.abspath(self.path)).name

    @property
    def has_ended(self) -> bool:
        """True if a sweep does not train it again."""
        return self.state in (COMPLETE, DIVERGES, FAILED)


def is_run(folder: Path) -> bool:
    """Returns whether a folder holds something of a run."""
    try:
        return folder.is_dir() and any((folder / sign).exists() for sign in _SIGNS)
    except OSError:
        return False


def is_sweep(folder: Path) -> bool:
    """Returns whether a folder is that of a sweep, whose runs are in its folder `runs`."""
    return (folder / SWEEP).exists()


def read_row(path: Path) -> Row:
    """Reads summary.json and config.toml of a run folder, or the end of its metrics.jsonl; the row says what is damaged."""
    options, reason = _options(path)
    about: dict[str, Any] = {
        "started": _started(path),
        "hidden": ",".join(map(str, options["hidden"])) or "0" if "hidden" in options else None,
        "optimizer": options.get("optimizer"),
        "lr": options.get("lr"),
    }
    if not (path / "summary.json").exists():
        return _unfinished(path, about, reason)
    try:
        summary: Mapping[str, Any] = read_summary(path)
    except InputError as error:
        return Row(path, DAMAGED, **about, reason=str(error))
    diverged = next((text for text in summary["warnings"] if text.startswith(DIVERGED)), "")
    state = DAMAGED if reason else DIVERGES if diverged else COMPLETE
    return Row(path, state, **about, **_figures(summary), world_size=summary["world_size"], reason=reason or diverged)


def _unfinished(path: Path, about: dict[str, Any], damage: str) -> Row:
    """Returns the row of a run without a summary."""
    figures: dict[str, Any] = {}
    for record in read_last(path):
        figures |= {name: value for name, value in _figures(record).items() if value is not None}
    figures["steps"] = max(figures.get("steps") or 0, _saved_step(path))
    ending = read_ending(path)
    if in_use(path):
        return Row(path, RUNNING, **about, **figures)
    state = DAMAGED if damage else DIVERGES if ending and ending.diverged else INTERRUPTED
    return Row(path, state, **about, **figures, reason=damage or (ending.reason if ending else ""))


def _saved_step(path: Path) -> int:
    """Returns the step of the newest checkpoint; 0: there is none."""
    try:
        return checkpoint.latest_step(path / "checkpoints")
    except InputError:
        return 0


def _figures(table: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the summary and the records of a run both have."""
    return {
        "steps": table.get("steps", table.get("step")),
        "accuracy": table.get("test_accuracy"),
        "validation_accuracy": table.get("validation_accuracy"),
        "loss": table.get("test_loss_mean"),
        "seconds": table.get("train_s"),
    }


def _options(path: Path) -> tuple[dict[str, Any], str]:
    """Returns the options in config.toml, and why they cannot be read; empty: they can."""
    try:
        return read_toml(str(path / "config.toml")), ""
    except InputError as error:
        return {}, str(error).removeprefix("--config ")


def _started(path: Path) -> str | None:
    """Returns when config.toml was written, which every start does."""
    try:
        return datetime.fromtimestamp((path / "config.toml").stat().st_mtime).isoformat(" ", "minutes")
    except OSError:
        return None

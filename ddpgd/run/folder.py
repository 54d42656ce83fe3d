"""A run's folder: config.toml, metrics.jsonl, summary.json, checkpoints/. One run each; nothing is overwritten.

Opening a folder checks and locks it; what an earlier start left there changes only in `begin`, when all is ready to train.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, fields
from datetime import datetime
from itertools import chain, count
from pathlib import Path
from typing import Any, Self

import tomli_w

from ddpgd.comm.transport import Transport
from ddpgd.config.continuation import PER_LAUNCH
from ddpgd.config.schema import Config, flag, from_table, to_table
from ddpgd.config.toml_file import read_toml
from ddpgd.errors import DdpgdError, InputError, shown
from ddpgd.run import checkpoint, ending
from ddpgd.run.atomic import remove_temporaries, write_atomically
from ddpgd.run.checkpoint import Checkpoint
from ddpgd.run.failures import as_one_line
from ddpgd.run.lock import RunLock, remove_leftovers
from ddpgd.run.records import read_records

Say = Callable[[str], None]


@dataclass
class RunFolder:
    """A folder that exists and is this run's alone.

    Attributes:
        resumed: The checkpoint in it from which the run goes on.
        best: The best checkpoint of a run elsewhere that goes on here, and its step.
        has_begun: True once `begin` has made it this run's, as all its ranks note.
    """

    path: Path
    resumed: Path | None = None
    best: tuple[Path, int] | None = None
    has_begun: bool = False

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @classmethod
    def open(cls, config: Config, saved: tuple[Path, Checkpoint] | None, held: ExitStack, say: Say) -> Self:
        """Makes the folder that --run-dir names (else a new one under runs/; on resume, that of the checkpoint), locked.

        `held` gives the lock back, and removes a folder that was made for a run that then did not begin.

        Raises:
            InputError: it cannot be made or written, holds another run, is in use, or is damaged.
        """
        resumed = saved[0] if saved else None
        came_from = resumed.parent.parent if resumed and resumed.parent.name == "checkpoints" else None
        path = Path(config.run_dir) if config.run_dir else came_from
        try:
            is_new = path is None or not path.exists()
            path = path or _fresh()
            continues = came_from is not None and not is_new and path.samefile(came_from)
            if not continues:
                _check_free(path)
            (path / "checkpoints").mkdir(parents=True, exist_ok=True)
            if is_new:
                held.callback(_remove_unused, path)
            lock = RunLock(path)
            lock.acquire(say)
            held.callback(lock.release)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise InputError(f"--run-dir {path or 'runs'}: cannot write there: {why}") from None
        if saved and continues:
            _check_resumable(path, config, *saved, say)
            return cls(path, resumed)
        _check_free(path)
        best = checkpoint.best_beside(saved[0], saved[1].counters) if saved else None
        return cls(path, best=(best, saved[1].counters["tested_at"]) if saved and best else None)

    @classmethod
    def take_over(cls, config: Config, saved: object, held: ExitStack, say: Say) -> Self:  # noqa: ARG003
        """Returns the folder of a run, locked, for the ranks that are left of it; arguments as for `open`."""
        path = Path(config.run_dir or "")
        (path / "checkpoints").mkdir(parents=True, exist_ok=True)  # removed, where the run had not begun
        lock = RunLock(path)
        lock.inherit(say)
        held.callback(lock.release)
        return cls(path)

    def begin(self, config: Config) -> None:
        """Makes the folder this run's: config.toml, and of a run that goes on, nothing after its checkpoint.

        Raises:
            OSError: it cannot be written.
        """
        for folder in (self.path, self.checkpoints):
            remove_temporaries(folder)
        remove_leftovers(self.path)
        write_atomically(self.path / "config.toml", [tomli_w.dumps(_lasting(config)).encode()])
        if self.resumed:
            checkpoint.drop_later(self.resumed)
        if self.best:
            checkpoint.adopt_best(*self.best, self.checkpoints)
        for end in ("summary.json", ending.NAME):
            (self.path / end).unlink(missing_ok=True)

    @contextmanager
    def noting_the_end(self, world: Transport, survived: tuple[type[Exception], ...] = ()) -> Iterator[None]:
        """Notes the error that ends a run.

        A `DdpgdError`, which all ranks raise alike, is noted by rank 0 once the run has begun, whichever thread met
        it first where ranks are threads; any other error by the rank that fails alone, unless it is one that a run survived.
        """
        try:
            yield
        except survived:
            raise
        except DdpgdError as error:
            if self.has_begun and world.rank == 0:
                ending.note(self.path, error.exit_code, str(error))
            raise
        except Exception as error:
            if self.has_begun:
                told = as_one_line(error) or DdpgdError(f"{type(error).__name__}: {error}")
                who = f"rank {world.rank} failed: " if world.world_size > 1 else ""
                ending.note(self.path, told.exit_code, f"{who}{str(told) or 'what reads its output has ended'}")
            raise


def is_free(path: Path) -> bool:
    """Returns whether a run may start at `path`: nothing is there, or what a start left that failed before its first record.

    Raises:
        InputError: it cannot be looked at.
    """
    try:
        if not path.exists():
            return True
        metrics, checkpoints = path / "metrics.jsonl", path / "checkpoints"
        has_checkpoints = checkpoints.exists() and any(checkpoints.glob("*.safetensors"))
        has_records = metrics.exists() and metrics.stat().st_size > 0
        return path.is_dir() and not ((path / "summary.json").exists() or has_records or has_checkpoints)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be looked at: {getattr(error, 'strerror', None) or error}") from None


def check_keeps_later(place: Path, path: Path) -> None:
    """Checks that going on from the checkpoint that a user named, in its own folder, drops no later ones unasked.

    Raises:
        InputError: there are later ones, and no --run-dir says which folder is meant.
    """
    is_named = place.name != "latest" and not place.is_dir() and path.parent.name == "checkpoints"
    later = checkpoint.later_than(path) if is_named else []
    if later:
        run = path.parent.parent
        raise InputError(
            f"--resume {place}: {run} goes on to {later[0].stem}, which going on from there would remove; "
            f"type --run-dir FOLDER for a second branch, or --run-dir {run} to replace the first"
        )


def _check_free(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise InputError(f"--run-dir {path}: cannot write there: it is a file")
    if is_free(path):
        return
    if checkpoint.newest_first(path / "checkpoints") if (path / "checkpoints").is_dir() else []:
        raise InputError(
            f"--run-dir {path}: holds a run already; name another folder, or go on with --run-dir {path} --resume"
        )
    raise InputError(
        f"--run-dir {path}: holds a run already, without a checkpoint to go on from; name another folder, or move it aside"
    )


def _check_resumable(path: Path, config: Config, resumed: Path, saved: Checkpoint, say: Say) -> None:
    """Reads what the run left; says what will be dropped, or is ignored. InputError: something is damaged."""
    if (path / "metrics.jsonl").exists():
        read_records(path)
    if later := checkpoint.later_than(resumed):
        names = ", ".join(other.stem for other in reversed(later))
        say(f"going on from {resumed.stem} in {path}, which replaces {names}")
    if not (path / "config.toml").exists():
        return
    try:
        written = from_table(read_toml(str(path / "config.toml")))
    except InputError as error:
        say(f"{error}; going on with the configuration in the checkpoint")
        return
    before = from_table(saved.config)
    edited = [name for name in _lasting_names() if getattr(written, name) != getattr(before, name)]
    ignored = [name for name in edited if getattr(config, name) == getattr(before, name)]
    if ignored:
        texts = ", ".join(f"{name} = {shown(getattr(written, name))}" for name in ignored)
        say(
            f"{path / 'config.toml'} was edited ({texts}), which --resume ignores: the checkpoint's configuration counts; "
            f"type {flag(ignored[0])} to change it"
        )


def _lasting_names() -> list[str]:
    return [field.name for field in fields(Config) if field.name not in (*PER_LAUNCH, "run_dir")]


def _remove_unused(path: Path) -> None:
    """Removes the folder of a run that did not begin: nothing but empty folders."""
    for folder in (path / "checkpoints", path):
        with suppress(OSError):
            folder.rmdir()


def _fresh() -> Path:
    """Makes runs/DATE-TIME, with a number behind it where another start has taken that."""
    stem = datetime.now().strftime("%Y%m%d-%H%M%S")
    for name in chain([stem], (f"{stem}-{number}" for number in count(2))):
        path = Path("runs") / name
        with suppress(FileExistsError):
            path.mkdir(parents=True)
            return path
    raise AssertionError("count() ends")


def _lasting(config: Config) -> dict[str, Any]:
    """Returns config.toml's table: all but where this run lies, so that it can be the --config of another."""
    return {name: value for name, value in to_table(config).items() if name != "run_dir"}

"""The folder of a sweep: one sweep at a time, nothing of the user's removed; and what may become of the run folders in it."""

import json
import re
import shutil
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

from ddpgd.config.continuation import PER_LAUNCH
from ddpgd.config.schema import OPTIONS
from ddpgd.config.units import plural
from ddpgd.errors import InputError
from ddpgd.results.options import option_text
from ddpgd.results.row import SWEEP, is_run, read_row
from ddpgd.results.sweep.plan import Plan, table_of
from ddpgd.run import checkpoint_search, strict_json
from ddpgd.run.atomic import is_temporary, remove_temporaries, write_atomically
from ddpgd.run.failures import in_one_line
from ddpgd.run.folder import is_free
from ddpgd.run.lock import RunLock, in_use, remove_leftovers
from ddpgd.run.stderr import say

_WITHOUT_EFFECT = ("checkpoint_every", "log_every", "tensorboard")
"""Options of a run that change no result, and so may change in the base of a sweep."""
_OF_A_START = re.compile(
    r"config\.toml|metrics\.jsonl|ended\.json|\.lock(\.\d+)?|checkpoints/(latest|best)|tensorboard/events\..*"
)
"""Files of a run that was killed before its first checkpoint."""


def begin(plan: Plan, out: Path, held: ExitStack) -> list[str]:
    """Makes the folder, or checks that it holds this sweep, and locks it; returns the names of runs that are not finished.

    `held` gives the lock back, and removes a new folder after an error before any run began.
    """
    base, path = table_of(plan), out / SWEEP
    try:
        if is_new := not path.exists():
            if out.exists() and (not out.is_dir() or any(out.iterdir())):
                raise InputError(f"--out {out}: is there already, and no sweep; name another folder")
            out.mkdir(parents=True, exist_ok=True)
        else:
            _check_same(base, _parsed(path), out)
        lock = RunLock(out, "--out")
        lock.acquire(say)
        held.push(partial(_end, out, lock, is_new))
        remove_temporaries(out)
        remove_leftovers(out)
        (out / "runs").mkdir(exist_ok=True)
        if is_new:
            write_atomically(path, [f"{json.dumps(base, indent=2)}\n".encode()])
    except OSError as error:
        raise InputError(f"--out {out}: {error.strerror or error}; name another folder") from None
    _tell_others(plan, out)
    return [name for name in plan.runs if not _is_finished(out / "runs" / name)]


def _tell_others(plan: Plan, out: Path) -> None:
    others = sorted(path.name for path in (out / "runs").iterdir() if path.name not in plan.runs and is_run(path))
    if others:
        say(
            f"WARNING: {out / 'runs'} has {plural(len(others), 'run')} that the file has not, as {others[0]}; not compared here"
        )


def _end(out: Path, lock: RunLock, is_new: bool, error: type[BaseException] | None, *_: object) -> None:
    """Gives the lock back, and removes what a sweep has made that failed before any run began."""
    is_unused = is_new and error is not None
    if is_unused:
        with suppress(OSError):
            (out / "runs").rmdir()
            (out / SWEEP).unlink()
    lock.release()
    if is_unused:
        with suppress(OSError):
            out.rmdir()


def _check_same(base: Mapping[str, Any], before: Any, out: Path) -> None:
    """Raises InputError if a folder holds the sweep of another base configuration."""
    if not isinstance(before, dict):
        raise InputError(f"--out {out}: {SWEEP} is damaged; name another folder")
    lasting = [name for name in OPTIONS if name not in (*PER_LAUNCH, *_WITHOUT_EFFECT)]
    for name in (name for name in lasting if base.get(name) != before.get(name)):
        was, now = (option_text(table.get(name)) for table in (before, base))
        raise InputError(f"--out {out}: holds a sweep with {name} = {was}, not {now}; name another folder")


def _parsed(path: Path) -> Any:
    """Returns the value of a JSON file; None: it holds none. OSError: it cannot be read."""
    try:
        return strict_json.parse(path.read_text(encoding="utf-8"))
    except ValueError:
        return None


def _is_finished(folder: Path) -> bool:
    """Returns whether a run has ended for good: with a summary, or because it diverged."""
    return is_run(folder) and read_row(folder).has_ended


def place_to_resume(folder: Path) -> str:
    """Returns the folder if its run goes on from a checkpoint; else removes what a run left that was killed before the first.

    Raises:
        InputError: A run there is alive, has ended, or cannot go on; or other files are there.
    """
    with in_one_line():
        if is_free(folder):
            return ""
        if in_use(folder):
            raise InputError(f"{folder}: in use by a run that is alive; wait for its end")
        if (folder / "summary.json").exists():
            raise InputError(f"{read_row(folder).reason}; mend it, or move {folder} aside")
        with suppress(checkpoint_search.NoCheckpointError):
            checkpoint_search.find(folder, say)
            return str(folder)
        others = [str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()]
        others = sorted(name for name in others if not (_OF_A_START.fullmatch(name) or is_temporary(Path(name).name)))
        if others:
            raise InputError(f"{folder}: holds a run that cannot go on, and {others[0]}; move it aside")
        shutil.rmtree(folder)
        return ""

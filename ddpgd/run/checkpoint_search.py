"""The checkpoint that a user means: a file, or the newest whole one or the best of a run folder."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ddpgd.comm.agreement import on_root
from ddpgd.comm.transport import Transport
from ddpgd.errors import InputError
from ddpgd.run import checkpoint, checkpoint_schema
from ddpgd.run.checkpoint import Checkpoint, DamagedError
from ddpgd.run.report import VERSION

Say = Callable[[str], None]


class NoCheckpointError(InputError):
    """There is no whole checkpoint at that place."""


def find(place: Path, say: Say) -> tuple[Path, Checkpoint]:
    """Returns the checkpoint at `place`: that file, or the newest whole one of a run folder.

    `say` is told which damaged ones were passed over. `checkpoints/latest` means the newest whole one, too.

    Raises:
        InputError: there is none, or it cannot be read or used.
    """
    place = _followed(place)
    try:
        is_folder, exists = place.is_dir(), place.exists()
        folder = place / "checkpoints" if (place / "checkpoints").is_dir() else place
    except (OSError, ValueError) as error:
        raise InputError(f"{place}: cannot be looked at: {getattr(error, 'strerror', None) or error}") from None
    if not exists:
        raise NoCheckpointError(f"{place}: there is no such checkpoint or run folder")
    if not is_folder:
        return place.resolve(), _load_usable(place, say)
    paths = checkpoint.newest_first(folder)
    for path in paths:
        try:
            return path.resolve(), _load_usable(path, say)
        except DamagedError as error:
            say(f"passed over: {error}")
    if not paths:
        raise NoCheckpointError(
            f"{place}: holds no checkpoint; name another place, or train there first, without --resume"
        )
    raise NoCheckpointError(
        f"{place}: holds no undamaged checkpoint; name another place, or move it aside and start anew"
    )


def find_to_go_on(place: Path, say: Say) -> tuple[Path, Checkpoint]:
    """Returns what `find` does; if the best checkpoint of its run is lost, the best of what follows is sought.

    Raises:
        InputError: there is none, or it cannot be read or used.
    """
    path, saved = find(place, say)
    best = checkpoint.best_beside(path, saved.counters)
    try:
        if best not in (None, path):
            _load_usable(best, say)
    except InputError as error:
        say(f"{error}; the best weights are sought anew, from step {saved.counters['step']} on")
        return path, replace(saved, counters=checkpoint.without_best(saved.counters))
    return path, saved


def find_best(place: Path, say: Say) -> tuple[Path, Checkpoint]:
    """Returns what `find` does, but of a run folder with validation samples the checkpoint that did best on them.

    Raises:
        InputError: there is none, or it cannot be read or used.
    """
    path, newest = find(place, say)
    best = checkpoint.best_beside(path, newest.counters)
    if not place.is_dir() or best in (None, path):
        return path, newest
    try:
        return best, _load_usable(best, say)
    except InputError as error:
        say(f"{error}; taking the newest checkpoint, after step {newest.counters['step']}")
        return path, newest


def find_on_root(world: Transport, search: Callable[[], tuple[Path, Checkpoint]]) -> tuple[Path, Checkpoint]:
    """Returns what search() finds, which rank 0 calls; on the other ranks, a checkpoint without its arrays."""
    found: list[Checkpoint] = []

    def work() -> tuple[Path, Checkpoint]:
        path, saved = search()
        found.append(saved)
        return path, replace(saved, arrays={})

    path, tables = on_root(world, work)
    return path, found[0] if found else tables


def _followed(place: Path) -> Path:
    """Returns the folder of `latest`, whose newest whole checkpoint is meant; what `best` names, where it is a text file."""
    if place.name == "latest":
        return place.parent
    if place.name == "best" and place.is_file() and not place.is_symlink():
        with suppress(OSError, ValueError):
            return place.with_name(place.read_text(encoding="utf-8").strip())
    return place


def _load_usable(path: Path, say: Say) -> Checkpoint:
    """Reads a checkpoint and checks that this version can use it."""
    saved = checkpoint.load(path)
    if checkpoint.step_of(path) not in (None, saved.counters.get("step")):
        raise DamagedError(f"{path}: named after another step than it holds; choose another one")
    if problem := checkpoint_schema.find_problem(saved.arrays, saved.counters, saved.config, saved.facts):
        version = saved.facts.get("version")
        if isinstance(version, str) and version != VERSION:
            raise InputError(
                f"{path}: written by ddpgd {version[:30]}, which is not {VERSION}: {problem}; use that version"
            )
        raise DamagedError(f"{path}: not a checkpoint that ddpgd {VERSION} can use: {problem}; choose another one")
    if name := checkpoint_schema.find_non_finite(saved.arrays):
        say(f"{path}: holds NaN or infinity, first in {name}: the run had diverged")
    return replace(saved, arrays=checkpoint_schema.in_todays_form(saved.arrays, saved.config, saved.facts))

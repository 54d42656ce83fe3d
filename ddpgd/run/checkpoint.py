"""Checkpoints: one safetensors file each, written whole or not at all, verified before it is used.

A run folder keeps the newest few, as checkpoints/step-NNNNNNNN.safetensors: at least eight digits, in the order of numbers.
Files with other names are the user's: never read unasked, never removed. `latest` is for people; no code depends on it.
"""

import json
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from ddpgd.comm.agreement import on_root
from ddpgd.comm.transport import Transport
from ddpgd.errors import InputError
from ddpgd.optim.rules import FORMER_NAMES
from ddpgd.run import checkpoint_schema, safetensors_file, strict_json
from ddpgd.run.atomic import write_atomically
from ddpgd.run.report import VERSION

KEEP = 3
"""The number of checkpoints that a run folder keeps."""

_NAME = re.compile(r"step-(\d{8,})\.safetensors")
_TABLES = {"counters", "config", "facts"}


class DamagedError(InputError):
    """The file is truncated, altered, or no checkpoint of ddpgd."""


class NoCheckpointError(InputError):
    """There is no whole checkpoint at that place."""


@dataclass(frozen=True)
class Checkpoint:
    """Named arrays (params.*, optimizer.*) and, as JSON tables, what else the run needs to go on bit for bit.

    `counters`: how far the run is; `config`: what it is; `facts`: what it met (data hash, sizes, version).
    """

    arrays: dict[str, NDArray[Any]]
    counters: Mapping[str, Any]
    config: Mapping[str, Any]
    facts: Mapping[str, Any]

    def drop_arrays(self) -> None:
        """Frees the memory of the arrays, once they have been restored."""
        self.arrays.clear()


def save(folder: Path, checkpoint: Checkpoint) -> Path:
    """Writes step-N.safetensors into `folder`, points `latest` to it, and removes all but the newest few.

    Raises:
        OSError: it cannot be written; what was there before is still there.
    """
    arrays = checkpoint.arrays
    tables = json.dumps(
        {"counters": checkpoint.counters, "config": checkpoint.config, "facts": checkpoint.facts}, sort_keys=True
    )
    path = folder / _name(checkpoint.counters["step"])
    metadata = {"ddpgd": tables, "sha256": safetensors_file.sha256(arrays, tables)}
    num_bytes = sum(array.nbytes for array in arrays.values())
    write_atomically(path, safetensors_file.content(arrays, metadata), num_bytes)
    _point_latest_to(path)
    for old in newest_first(folder)[KEEP:]:
        old.unlink(missing_ok=True)
    return path


def newest_first(folder: Path) -> list[Path]:
    """Returns the checkpoints that ddpgd wrote into `folder`, whole or not, the latest step first.

    Raises:
        InputError: the folder cannot be read.
    """
    try:
        found = [path for path in folder.iterdir() if _step(path) is not None and path.is_file()]
    except OSError as error:
        raise InputError(f"{folder}: cannot be read: {error.strerror or error}") from None
    return sorted(found, key=lambda path: _step(path) or 0, reverse=True)


def latest_step(folder: Path) -> int:
    """Returns the step of the newest checkpoint in `folder`, whole or not; 0: there is none. InputError, as above."""
    return max((_step(path) or 0 for path in newest_first(folder)), default=0)


def later_than(path: Path) -> list[Path]:
    """Returns the checkpoints beside `path` that are of later steps."""
    step = _step(path)
    return [] if step is None else [other for other in newest_first(path.parent) if (_step(other) or 0) > step]


def drop_later(path: Path) -> None:
    """Removes the checkpoints of later steps than `path`, beside it: what a run leaves behind that goes on from there."""
    for later in later_than(path):
        later.unlink(missing_ok=True)


def load(path: Path) -> Checkpoint:
    """Reads a checkpoint and verifies that it is what was written.

    Raises:
        DamagedError: it is not.
        InputError: it cannot be read.
    """
    try:
        with path.open("rb"):
            pass
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, AttributeError, TypeError, ValueError) as error:  # of types that NumPy does not know
        raise DamagedError(f"{path}: truncated or not a checkpoint ({error}); choose another one") from None
    except OSError as error:
        raise InputError(f"{path}: cannot read this checkpoint: {error.strerror or error}") from None
    if "ddpgd" not in metadata:
        raise DamagedError(f"{path}: a safetensors file, but not a checkpoint of ddpgd; choose another one")
    if safetensors_file.sha256(arrays, metadata["ddpgd"]) != metadata.get("sha256"):
        raise DamagedError(f"{path}: altered since it was written (its SHA-256 differs); choose another one")
    try:
        tables = strict_json.parse(metadata["ddpgd"])
    except ValueError:
        tables = None
    if (
        not isinstance(tables, dict)
        or tables.keys() != _TABLES
        or not all(isinstance(t, dict) for t in tables.values())
    ):
        raise DamagedError(f"{path}: not a checkpoint of this version of ddpgd: its tables differ; choose another one")
    return Checkpoint({_current_name(name): array for name, array in arrays.items()}, **tables)


def _current_name(name: str) -> str:
    """Returns what an array of that name is called today: optimizer.first.0 of earlier versions is optimizer.exp_avg.0."""
    kind, _, rest = name.partition(".")
    vector, dot, rank = rest.partition(".")
    return f"{kind}.{FORMER_NAMES.get(vector, vector)}{dot}{rank}" if kind == "optimizer" else name


def find(place: Path, say: Callable[[str], None]) -> tuple[Path, Checkpoint]:
    """Returns the checkpoint at `place`: that file, or the newest whole one of a run folder.

    `say` is told which damaged ones were passed over. `checkpoints/latest` means the newest whole one, too.

    Raises:
        InputError: there is none, or it cannot be read or used.
    """
    place = place.parent if place.name == "latest" else place
    try:
        is_folder, exists = place.is_dir(), place.exists()
        folder = place / "checkpoints" if (place / "checkpoints").is_dir() else place
    except (OSError, ValueError) as error:
        raise InputError(f"{place}: cannot be looked at: {getattr(error, 'strerror', None) or error}") from None
    if not exists:
        raise NoCheckpointError(f"{place}: there is no such checkpoint or run folder")
    if not is_folder:
        return place.resolve(), _load_usable(place, say)
    paths = newest_first(folder)
    for path in paths:
        try:
            return path.resolve(), _load_usable(path, say)
        except DamagedError as error:
            say(f"passed over: {error}")
    if not paths:
        raise NoCheckpointError(
            f"{place}: holds no checkpoint to go on from; start there without --resume, or name another"
        )
    raise NoCheckpointError(
        f"{place}: holds no undamaged checkpoint; name another place, or move it aside and start anew"
    )


def find_on_root(world: Transport, place: Callable[[], Path], say: Callable[[str], None]) -> tuple[Path, Checkpoint]:
    """Returns the checkpoint at place(), which rank 0 finds and reads; on the other ranks, without its arrays."""
    found: list[Checkpoint] = []

    def work() -> tuple[Path, Checkpoint]:
        path, saved = find(place(), say)
        found.append(saved)
        return path, replace(saved, arrays={})

    path, tables = on_root(world, work)
    return path, found[0] if found else tables


def _load_usable(path: Path, say: Callable[[str], None]) -> Checkpoint:
    """Reads a checkpoint and checks that this version can use it."""
    saved = load(path)
    if _step(path) not in (None, saved.counters.get("step")):
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


def _name(step: int) -> str:
    return f"step-{step:08d}.safetensors"


def _step(path: Path) -> int | None:
    """Returns the step in a name that `save` gives; None: another file."""
    found = _NAME.fullmatch(path.name)
    step = int(found[1]) if found and len(found[1]) < 20 else -1
    return step if path.name == _name(step) else None


def _point_latest_to(path: Path) -> None:
    """Makes `latest` a link to a checkpoint; where the file system knows no links, a text file with its name."""
    latest, temporary = path.with_name("latest"), path.with_name(f".latest.{os.getpid()}")
    with suppress(OSError):
        try:
            temporary.symlink_to(path.name)
        except (OSError, NotImplementedError):
            temporary.write_text(f"{path.name}\n", encoding="utf-8")
        temporary.replace(latest)
    with suppress(OSError):
        temporary.unlink(missing_ok=True)

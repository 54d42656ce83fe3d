"""Checkpoints: one safetensors file each, written whole or not at all, verified before it is used.

A run folder keeps the newest few, as checkpoints/step-NNNNNNNN.safetensors: at least eight digits, in the order of numbers.
A run with validation samples also keeps the one that did best on them. Files with other names are the user's: never read
unasked, never removed. `latest` and `best` are for people; no code depends on them.
"""

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from ddpgd.errors import InputError
from ddpgd.optim.rules import FORMER_NAMES
from ddpgd.run import safetensors_file, strict_json
from ddpgd.run.atomic import write_atomically
from ddpgd.run.safetensors_file import PIECE_BYTES
from ddpgd.training.counters import OF_EVALUATIONS, Counters

KEEP = 3
"""The number of checkpoints that a run folder keeps."""

_NAME = re.compile(r"step-(\d{8,})\.safetensors")
_TABLES = {"counters", "config", "facts"}


class DamagedError(InputError):
    """The file is truncated, altered, or no checkpoint of ddpgd."""


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


def save(folder: Path, checkpoint: Checkpoint, moved: Callable[[], None] = lambda: None) -> Path:
    """Writes step-N.safetensors into `folder`, points `latest` to it, and removes all but the newest few and their best.

    `moved` is called after each piece that is written.

    Raises:
        OSError: it cannot be written; what was there before is still there.
    """
    arrays = checkpoint.arrays
    tables = json.dumps(
        {"counters": checkpoint.counters, "config": checkpoint.config, "facts": checkpoint.facts}, sort_keys=True
    )
    path, best = path_of(folder, checkpoint.counters["step"]), best_step(checkpoint.counters)
    metadata = {"ddpgd": tables, "sha256": safetensors_file.sha256(arrays, tables)}
    num_bytes = sum(array.nbytes for array in arrays.values())
    write_atomically(path, _telling(safetensors_file.content(arrays, metadata), moved), num_bytes)
    _point("latest", path)
    all_kept = newest_first(folder)
    newest, older = all_kept[:KEEP], all_kept[KEEP:]
    if best is not None:
        _point("best", path_of(folder, best))
        needed = {best_step(_counters(kept)) for kept in newest}
        older = [old for old in older if step_of(old) not in needed]
    for old in older:
        old.unlink(missing_ok=True)
    return path


def _telling(pieces: Iterable[bytes | memoryview], moved: Callable[[], None]) -> Iterator[bytes | memoryview]:
    for piece in pieces:
        yield piece
        moved()


def best_step(counters: Mapping[str, Any]) -> int | None:
    """Returns the step whose weights did best on the validation samples; None: there are none."""
    return None if counters.get("validated_at") is None else counters.get("tested_at")


def without_best(counters: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns counters as if there had been no evaluation yet."""
    return dict(counters) | {name: Counters.__dataclass_fields__[name].default for name in OF_EVALUATIONS}


def best_beside(path: Path, counters: Mapping[str, Any]) -> Path | None:
    """Returns the best checkpoint of the run whose checkpoint at `path` has these counters; None: it has none."""
    step = best_step(counters)
    return None if step is None else path if step == counters["step"] else path_of(path.parent, step)


def adopt_best(best: Path, step: int, folder: Path) -> None:
    """Copies the best checkpoint of a run into another folder of checkpoints. OSError: it cannot be written."""
    path = path_of(folder, step)
    with best.open("rb") as file:
        write_atomically(path, iter(lambda: file.read(PIECE_BYTES), b""), best.stat().st_size)
    _point("best", path)


def newest_first(folder: Path) -> list[Path]:
    """Returns the checkpoints that ddpgd wrote into `folder`, whole or not, the latest step first.

    Raises:
        InputError: the folder cannot be read.
    """
    try:
        found = [path for path in folder.iterdir() if step_of(path) is not None and path.is_file()]
    except OSError as error:
        raise InputError(f"{folder}: cannot be read: {error.strerror or error}") from None
    return sorted(found, key=lambda path: step_of(path) or 0, reverse=True)


def latest_step(folder: Path) -> int:
    """Returns the step of the newest checkpoint in `folder`, whole or not; 0: there is none. InputError, as above."""
    return max((step_of(path) or 0 for path in newest_first(folder)), default=0)


def later_than(path: Path) -> list[Path]:
    """Returns the checkpoints beside `path` that are of later steps."""
    step = step_of(path)
    return [] if step is None else [other for other in newest_first(path.parent) if (step_of(other) or 0) > step]


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


def path_of(folder: Path, step: int) -> Path:
    """Returns the file of the checkpoint after `step`, in a folder of checkpoints."""
    return folder / f"step-{step:08d}.safetensors"


def step_of(path: Path) -> int | None:
    """Returns the step in a name that `save` gives; None: another file."""
    found = _NAME.fullmatch(path.name)
    step = int(found[1]) if found and len(found[1]) < 20 else -1
    return step if path == path_of(path.parent, step) else None


def _counters(path: Path) -> Mapping[str, Any]:
    """Returns the counters of a checkpoint, without a look at its arrays; none of one that is damaged."""
    try:
        with safe_open(path, framework="numpy") as file:
            return dict(strict_json.parse(file.metadata()["ddpgd"])["counters"])
    except (SafetensorError, OSError, TypeError, ValueError, KeyError):
        return {}


def _point(name: str, path: Path) -> None:
    """Makes `name` a link to a checkpoint beside it; where the file system knows no links, a text file with its name."""
    link, temporary = path.with_name(name), path.with_name(f".{name}.{os.getpid()}")
    with suppress(OSError):
        try:
            temporary.symlink_to(path.name)
        except (OSError, NotImplementedError):
            temporary.write_text(f"{path.name}\n", encoding="utf-8")
        temporary.replace(link)
    with suppress(OSError):
        temporary.unlink(missing_ok=True)

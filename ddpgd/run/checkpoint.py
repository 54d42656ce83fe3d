"""Checkpoints: one safetensors file each, written whole or not at all, verified before it is believed."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from ddpgd.errors import InputError
from ddpgd.run.atomic import write_atomically

KEEP = 3
"""How many checkpoints a run folder holds on to."""


class DamagedError(InputError):
    """The file is truncated, altered, or no checkpoint of ddpgd."""


@dataclass(frozen=True)
class Checkpoint:
    """Named arrays (params.*, optimizer.*) and, as JSON tables, what else the run needs to go on bit for bit.

    `counters`: where the run stands; `config`: what it is; `facts`: what it met (data hash, sizes, version).
    """

    arrays: Mapping[str, NDArray[Any]]
    counters: Mapping[str, Any]
    config: Mapping[str, Any]
    facts: Mapping[str, Any]


def save(folder: Path, checkpoint: Checkpoint) -> Path:
    """Writes step-N.safetensors into `folder` (temporary name, fsync, rename), points `latest` to it, drops old ones."""
    arrays = {name: np.ascontiguousarray(array) for name, array in checkpoint.arrays.items()}
    tables = json.dumps(
        {"counters": checkpoint.counters, "config": checkpoint.config, "facts": checkpoint.facts}, sort_keys=True
    )
    content = to_bytes(arrays, metadata={"ddpgd": tables, "sha256": _sha256(arrays, tables)})
    path = folder / f"step-{checkpoint.counters['step']:08d}.safetensors"
    write_atomically(path, content)
    link = folder / f".latest.{os.getpid()}"
    link.unlink(missing_ok=True)
    link.symlink_to(path.name)
    link.replace(folder / "latest")
    for old in _newest_first(folder)[KEEP:]:
        old.unlink()
    return path


def forget_later(path: Path) -> None:
    """Drops what a run that goes on from `path` leaves behind: checkpoints of later steps, and files half written."""
    for later in (*_newest_first(path.parent), *path.parent.glob(".*")):
        if later.name > path.name or later.name.startswith("."):
            later.unlink(missing_ok=True)


def load(path: Path) -> Checkpoint:
    """Reads and verifies a checkpoint. InputError: it cannot be read; DamagedError: it is not what was written."""
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except SafetensorError as error:
        raise DamagedError(f"{path}: truncated or not a checkpoint ({error}); choose another one") from None
    except OSError as error:
        raise InputError(f"{path}: cannot read this checkpoint: {error.strerror or error}") from None
    if "ddpgd" not in metadata:
        raise DamagedError(f"{path}: a safetensors file, but not a checkpoint of ddpgd; choose another one")
    if _sha256(arrays, metadata["ddpgd"]) != metadata.get("sha256"):
        raise DamagedError(f"{path}: altered since it was written (its SHA-256 differs); choose another one")
    return Checkpoint(arrays, **json.loads(metadata["ddpgd"]))


def find(place: Path, say: Callable[[str], None]) -> tuple[Path, Checkpoint]:
    """The checkpoint at `place`: a file, or a run folder, whose newest undamaged one is taken; what is passed over is said."""
    try:
        is_folder, exists = place.is_dir(), place.exists()
    except OSError as error:
        raise InputError(f"{place}: cannot be looked at: {error.strerror}") from None
    if not exists:
        raise InputError(f"{place}: there is no such checkpoint or run folder")
    if not is_folder:
        return place.resolve(), load(place)
    folder = place / "checkpoints" if (place / "checkpoints").is_dir() else place
    for path in _newest_first(folder):
        try:
            return path.resolve(), load(path)
        except DamagedError as error:
            say(f"passed over: {error}")
    raise InputError(f"{place}: holds no undamaged checkpoint; name another place, or start anew")


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*.safetensors"), reverse=True)


def _sha256(arrays: Mapping[str, NDArray[Any]], tables: str) -> str:
    digest = hashlib.sha256(tables.encode())
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()

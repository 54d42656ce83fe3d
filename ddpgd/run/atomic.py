"""Files that appear whole or not at all."""

import contextlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from ddpgd.config.units import bytes_text

_TEMPORARY = re.compile(r"\.(config\.toml|metrics\.jsonl|summary\.json|latest|step-\d{8,}\.safetensors)\.\d+")


def write_atomically(path: Path, pieces: Iterable[bytes | memoryview]) -> None:
    """Writes under a temporary name, fsyncs, renames, and makes the rename durable where the file system can.

    Raises:
        OSError: it cannot be written; the error names `path` and how many bytes were reached.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    written = 0
    try:
        with temporary.open("wb") as file:
            for piece in pieces:
                written += file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        reason = f"{error.strerror or error}, after {bytes_text(written)}" if written else error.strerror
        raise OSError(error.errno, reason, str(path)) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_temporaries(folder: Path) -> None:
    """Removes what processes that were killed left half written. The caller holds the folder's lock."""
    for path in folder.iterdir():
        if _TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)

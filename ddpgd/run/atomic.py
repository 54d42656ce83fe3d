"""Files that appear whole or not at all."""

import contextlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from ddpgd.config.units import bytes_text

_TEMPORARY = re.compile(
    r"\.(config\.toml|metrics\.jsonl|(?:summary|ended|sweep|results)\.json|results\.csv|sweep\.svg|(?:report|sweep)\.html"
    r"|latest|best|step-\d{8,}\.safetensors)\.\d+"
)


def write_atomically(path: Path, pieces: Iterable[bytes | memoryview], num_bytes: int = 0) -> None:
    """Writes under a temporary name, fsyncs, renames, and makes the rename durable where the file system can.

    Args:
        path: The file; until the rename it stays as it was.
        pieces: What to write, in order.
        num_bytes: The size of a large file, for the message when it cannot be written.

    Raises:
        OSError: it cannot be written; the error names `path` and the size.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        reason = f"{error.strerror or error}{f' (it has {bytes_text(num_bytes)})' if num_bytes else ''}"
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
        if is_temporary(path.name):
            path.unlink(missing_ok=True)


def is_temporary(name: str) -> bool:
    """Returns whether a file of that name is one that was to become another, of a folder that has a lock."""
    return _TEMPORARY.fullmatch(name) is not None

"""Files that appear whole or not at all, and replace only files of their own kind."""

import contextlib
import errno
import os
import re
from collections.abc import Iterable
from pathlib import Path

from ddpgd.config.units import bytes_text
from ddpgd.errors import InputError

_TEMPORARY = re.compile(
    r"\.(config\.toml|metrics\.jsonl|(?:summary|ended|sweep|results)\.json|results\.csv|sweep\.svg|(?:report|sweep)\.html"
    r"|latest|best|step-\d{8,}\.safetensors)\.\d+"
)
_HEAD_BYTES = 2000
"""Bytes at the beginning of a file in which the sign of its kind stands."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Numbers of the errors of what has no room for a file."""


def write_atomically(path: Path, pieces: Iterable[bytes | memoryview], num_bytes: int = 0) -> None:
    """Writes under a temporary name, fsyncs, renames, and makes the rename durable where the file system can.

    Args:
        path: The file; until the rename it stays as it was.
        pieces: What to write, in order.
        num_bytes: The size of a large file, for the message when it cannot be written.

    Raises:
        OSError: it cannot be written; the error names `path`, and the size where there is no room for it.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    size = f" (it has {bytes_text(num_bytes)})" if num_bytes else ""
    try:
        with temporary.open("wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        reason = f"{error.strerror or error}{size if error.errno in FULL else ''}"
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


def check_replaceable(path: Path, flag: str, kind: str, sign: str) -> None:
    """Checks that a file can be written which a user named, and that none of another kind is there.

    Args:
        path: The file.
        flag: The flag that names it.
        kind: What is to be written, for messages, as in "a page of ddpgd".
        sign: Text within the first bytes of all files of that kind, in any case.

    Raises:
        InputError: It cannot be written, or another file is there.
    """
    try:
        if not path.parent.is_dir():
            raise InputError(f"{flag} {path}: there is no folder {path.parent}; make it, or name another file")
        if not path.exists():
            if not os.access(path.parent, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return
        if not path.is_file():
            raise InputError(f"{flag} {path}: is there already, and no file; name another one")
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except (OSError, ValueError) as error:
        raise _unwritable(path, flag, error) from None
    if sign.lower().encode() not in head.lower():
        raise InputError(f"{flag} {path}: is there already, and not {kind}; name another file, or remove it")


def write_text(path: Path, flag: str, text: str) -> None:
    """Writes a text to a file that `flag` names, whole or not at all. InputError: it cannot be written."""
    try:
        write_atomically(path, [text.encode(errors="replace")])
    except OSError as error:
        raise _unwritable(path, flag, error) from None


def _unwritable(path: Path, flag: str, error: OSError | ValueError) -> InputError:
    why = getattr(error, "strerror", None) or error
    return InputError(f"{flag} {path}: cannot be written: {why}; name another file")


def remove_temporaries(folder: Path) -> None:
    """Removes what processes that were killed left half written. The caller holds the folder's lock."""
    for path in folder.iterdir():
        if is_temporary(path.name):
            path.unlink(missing_ok=True)


def is_temporary(name: str) -> bool:
    """Returns whether a file of that name is one that was to become another, of a folder that has a lock."""
    return _TEMPORARY.fullmatch(name) is not None

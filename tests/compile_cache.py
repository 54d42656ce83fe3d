"""A folder for what tests compile, kept between runs and checkouts."""

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

KEPT_S = 30 * 24 * 3600.0
"""A file that no run has used for so long is removed."""


def folder() -> Path:
    """DDPGD_TEST_CACHE, or `ddpgd-tests` in the user's cache."""
    given = os.environ.get("DDPGD_TEST_CACHE")
    user = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(given) if given else Path(user) / "ddpgd-tests"


def digest(*parts: str | bytes) -> str:
    """A name for what `parts` say, each with its length."""
    whole = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        whole.update(len(data).to_bytes(8, "little") + data)
    return whole.hexdigest()[:24]


def used(path: Path) -> bool:
    """Tells whether the cache has `path`, and marks it as used."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Locks `path`, which need not be there: of two processes that want to make it, the second waits and finds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def remove_unused(now: float | None = None) -> None:
    """Removes files that no run has used for `KEPT_S`."""
    limit = (time.time() if now is None else now) - KEPT_S
    for path in folder().glob("*"):
        with suppress(OSError):
            if path.is_file() and path.stat().st_mtime < limit:
                path.unlink()

"""Location of the data, and download of MNIST, verified, into the user's cache."""

import hashlib
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ddpgd.data import mnist
from ddpgd.data.mirrors import SOURCES, Source, SourceError
from ddpgd.errors import InputError

SHA256: Mapping[str, str] = {
    mnist.TRAIN_IMAGES: "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    mnist.TRAIN_LABELS: "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    mnist.TEST_IMAGES: "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    mnist.TEST_LABELS: "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
MNIST_SHA256 = "0520e2432801015abc6ea333de1a682d223c9b19a439d9158d981bc92504df1d"
"""`Dataset.sha256` of MNIST itself."""
SYNTHETIC = "synthetic"
_OTHERWISE = "give a folder that holds MNIST with --data DIR, or drawn digits with --data synthetic"


@dataclass(frozen=True)
class Place:
    """Origin of the data.

    Attributes:
        directory: the folder to `load`, or None for the synthetic digits.
        is_cache: whether `fetch` has to fill it first.
    """

    directory: Path | None
    is_cache: bool


def locate(data: str | None, environment: Mapping[str, str]) -> Place:
    """Return the place that `--data` names, else `DDPGD_DATA`, else the cache. Touches no file.

    The word `synthetic` asks for drawn digits (a folder of that name is `./synthetic`); `~` is the home folder.

    Raises:
        InputError: for a name that is empty or that neither a file system nor a configuration file can hold.
    """
    if data is not None and not data.strip():
        raise InputError(f"--data got an empty name; wanted a folder or the word {SYNTHETIC}; {_OTHERWISE}")
    choice = data or environment.get("DDPGD_DATA")
    if choice and (not _is_utf8(choice) or "\0" in choice):
        raise InputError(f"--data got {choice!a}; wanted a folder whose name is UTF-8 text; rename it, or {_OTHERWISE}")
    if not choice:
        return Place(default_cache(environment), is_cache=True)
    if choice == SYNTHETIC:
        return Place(None, is_cache=False)
    return Place(Path(os.path.expanduser(choice)), is_cache=False)


def default_cache(environment: Mapping[str, str] = os.environ) -> Path:
    """Return `mnist` in the folder that `DDPGD_CACHE` names, else in the user's cache of the operating system."""
    import pooch  # type: ignore[import-untyped]  # slow to import, and most ranks are told where their data is

    try:
        base = environment.get("DDPGD_CACHE") or str(pooch.os_cache("ddpgd"))
    except RuntimeError:
        raise InputError(f"--data is not given, and there is no home folder for a cache; {_OTHERWISE}") from None
    return Path(os.path.expanduser(base)) / "mnist"


def _is_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def fetch(
    cache: Path,
    report: Callable[[str], None] = print,
    sources: Sequence[Source] = SOURCES,
    sums: Mapping[str, str] = SHA256,
) -> Path:
    """Make sure that the verified files lie in `cache`, plain.

    A source that fails is left for the next one, which gets only what is still missing. Files appear whole or not at
    all, so several processes may fetch at once.

    Args:
        cache: folder to fill; made if it is not there.
        report: is called with a line for each thing done.
        sources: asked in this order.
        sums: SHA-256 of each file's plain bytes, by name.

    Returns:
        `cache`.

    Raises:
        InputError: in one line, if no source had a file or the cache cannot be used.
    """
    tried = []
    try:
        missing = [name for name, digest in sums.items() if not _is_verified(cache / name, digest, report)]
        if missing:
            cache.mkdir(parents=True, exist_ok=True)
        for source in sources if missing else ():
            report(f"fetching MNIST ({len(missing)} files) from {source}")
            failure = _take(source, missing, cache, sums)
            if not missing:
                break
            tried.append(f"{source}: {failure}")
            report(tried[-1])
    except OSError as error:
        reason = error.strerror or error
        raise InputError(
            f"{cache}: no use as a cache ({reason}); name another with DDPGD_CACHE, or {_OTHERWISE}"
        ) from None
    if missing:
        raise InputError(f"could not fetch {', '.join(missing)} (tried {'; '.join(tried)}); {_OTHERWISE}")
    return cache


def _take(source: Source, missing: list[str], cache: Path, sums: Mapping[str, str]) -> str:
    """Stores files of `source` in `cache`, and takes their names out of `missing`; returns why it could not go on."""
    try:
        for name, content in source.files(tuple(missing)):
            _store(cache / name, content, sums[name])
            missing.remove(name)
    except SourceError as error:
        return str(error)
    return f"has no {', '.join(missing)}"


def check_fetched(data: mnist.Dataset) -> None:
    """Raise InputError if `data`, loaded from the cache, are not MNIST: a file changed after `fetch` verified it."""
    if data.sha256 != MNIST_SHA256:
        raise InputError(f"{data.source}: changed while it was read; start again, or {_OTHERWISE}")


def _is_verified(path: Path, wanted: str, report: Callable[[str], None]) -> bool:
    try:
        with path.open("rb") as file:
            verified = hashlib.file_digest(file, "sha256").hexdigest() == wanted
    except FileNotFoundError:
        return False
    if not verified:
        report(f"{path} is damaged: its SHA-256 is not that of MNIST; fetching it again")
    return verified


def _store(path: Path, content: bytes, wanted: str) -> None:
    if hashlib.sha256(content).hexdigest() != wanted:
        raise SourceError(f"its {path.name} is not MNIST's (SHA-256 differs)")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)

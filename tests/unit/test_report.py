"""`ddpgd report`: pages that need no other file, for runs that ended in every way; figures equal to plain counts."""

import doctest
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import ddpgd
from ddpgd.cli.arguments import parse
from ddpgd.cli.main import main
from ddpgd.config.schema import Config, from_table, resolve
from ddpgd.config.toml_file import read_toml
from ddpgd.data import synthetic
from ddpgd.errors import Interrupted, NonFiniteError
from ddpgd.results import curves, options, predictions, scales
from ddpgd.results.chart import Series, line_chart
from ddpgd.results.curves import of_layers
from ddpgd.results.dots import Dot, dot_chart
from ddpgd.results.scales import log_ticks, number_text, ticks
from ddpgd.run import checkpoint_search
from ddpgd.run.panels import LAYERS, points_of_layers
from ddpgd.training.counters import Record
from ddpgd.training.stopping import StopRequest
from html_pages import Page, page
from runs import digits, stopping_at, train, write_small_digits


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs on few digits: complete ones, one that was stopped, one that diverged."""
    runs = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "make", digits)
        train(runs / "one", lr=0.1, steps=30)
        train(runs / "two", world_size=2, lr=0.01, hidden=(), steps=20, weight_decay=0.0)
        with pytest.raises(NonFiniteError):
            train(runs / "huge", lr=1e30)
        patch.setattr(StopRequest, "__bool__", stopping_at(4))
        with pytest.raises(Interrupted):
            train(runs / "stopped")
    return runs


@pytest.fixture
def runs(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few_digits: None) -> Path:  # noqa: ARG001
    shutil.copytree(made, tmp_path / "runs", symlinks=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


def reported(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> Page:
    """The page that the command writes, and names in its last line."""
    assert main(["report", *map(str, arguments)]) == 0
    return page(Path(capsys.readouterr().out.splitlines()[-1]))


def test_the_page_of_a_run_has_every_section(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = reported(capsys, runs / "one")
    for title in (
        "Curves",
        "Time of a step",
        "Confusion matrix",
        "Most confident mistakes",
        "Weights of the first layer",
    ):
        assert title in found.words
    summary = ddpgd.read_summary(runs / "one")
    assert f"{100 * summary['test_accuracy']:.2f} %" in found.words
    assert "critical batch about" in found.words
    assert summary["params_sha256"] in found.words
    assert summary["hardware"] in found.words
    titles = re.findall(r"<figcaption>([^<]*)", (runs / "one" / "report.html").read_text())
    assert titles[:6] == [
        "Loss, mean",
        "Accuracy, %",
        "Learning rate",
        "Norm of the mean gradient",
        "Gradient noise scale, samples",
        "Throughput, samples/s",
    ]
    assert "Norm of the mean gradient, by layer" in titles
    assert (runs / "one" / "report.html").exists()


def test_a_network_without_hidden_layers_and_many_ranks(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = reported(capsys, runs / "two", "--out", "two.html")
    assert "All 10 units" in found.words
    assert "exchange" in found.words
    assert found.tags.count("img") >= 10


@pytest.mark.parametrize(("name", "state"), [("stopped", "interrupted"), ("huge", "diverged")])
def test_runs_that_ended_early(name: str, state: str, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = reported(capsys, runs / name)
    assert state in found.words
    assert "stopped after step" in found.words or "the gradient is not finite" in found.words
    assert ("no confusion matrix and no mistakes" in found.words) == (name == "huge")


def test_the_confusion_matrix_is_a_plain_count(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = digits()
    images = data.test_images.reshape(-1, *data.image_shape)
    answers = ddpgd.predict(runs / "one", images).argmax(axis=1)
    counts = np.zeros((10, 10), np.int64)
    for label, answer in zip(data.test_labels, answers, strict=True):
        counts[label, answer] += 1
    _, saved = checkpoint_search.find(runs / "one", print)
    found = predictions.answers(saved, data)
    assert (found.confusion() == counts).all()
    assert found.accuracy == ddpgd.read_summary(runs / "one")["test_accuracy"]
    reported(capsys, runs / "one")
    shown = re.findall(
        r'<span class="(?:right|wrong|none)"[^>]*>([\d,]+)</span>', (runs / "one" / "report.html").read_text()
    )
    assert [int(count.replace(",", "")) for count in shown] == counts.ravel().tolist()


def test_of_a_run_with_validation_samples_the_best_weights_are_shown(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = train(runs / "held", steps=30, evaluate_every=4, lr=0.3, validation=60)
    found = reported(capsys, runs / "held")
    for words in ("validation accuracy", "best step", f"The checkpoint after step {summary['best_step']}"):
        assert words in found.words
    _, saved = checkpoint_search.find_best(runs / "held", print)
    assert predictions.answers(saved, digits()).accuracy == summary["test_accuracy"]


def test_mistakes_are_the_surest_wrong_answers() -> None:
    labels = np.array([0, 1, 1, 0], np.uint8)
    probabilities = np.array([[0.4, 0.6], [0.9, 0.1], [0.2, 0.8], [0.1, 0.9]])
    found = predictions.Answers(probabilities, labels, np.zeros((4, 2, 2), np.uint8))
    assert found.mistakes(10) == [1, 3, 0]
    assert found.mistakes(2) == [1, 3]
    assert found.confusion().tolist() == [[0, 2], [1, 1]]


def test_without_data_the_page_says_so(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthetic, "make", lambda: digits(40))
    found = reported(capsys, runs / "one")
    assert "No confusion matrix and no mistakes" in found.words
    assert "not the data that it was trained on" in found.words
    assert "Weights of the first layer" in found.words


def test_data_that_are_given_and_do_not_fit_are_refused(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "small").mkdir()
    write_small_digits(tmp_path / "small")
    for data, line in (("small", "images of another shape"), ("nowhere", "there is no such folder")):
        assert main(["report", str(runs / "one"), "--data", data]) == 2
        assert line in capsys.readouterr().err
    assert not (runs / "one" / "report.html").exists()


@pytest.mark.parametrize("name", ["summary.json", "config.toml", "checkpoints/step-00000030.safetensors", "ended.json"])
def test_a_damaged_file_is_a_note(name: str, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = runs / ("stopped" if name == "ended.json" else "one")
    (run / name).write_bytes((run / name).read_bytes()[:-40] + b"\xff{")
    found = reported(capsys, run)
    assert Path(name).name in found.words or name == "ended.json"
    assert "Curves" in found.words


def test_damaged_or_missing_records_are_one_line(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / "one" / "metrics.jsonl").write_text('{"step": "x"}\n')
    (runs / "two" / "metrics.jsonl").unlink()
    for run in (runs / "one", runs / "two", runs):
        assert main(["report", str(run)]) == 2
        assert capsys.readouterr().err.count("\n") == 1
        assert not (run / "report.html").exists()


def test_only_pages_of_ours_are_replaced(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = runs / "one"
    reported(capsys, first)
    reported(capsys, first)
    (first / "report.html").write_text("<p>My own words</p>")
    assert main(["report", str(first)]) == 2
    assert "is there already, and not a page of ddpgd" in capsys.readouterr().err
    assert (first / "report.html").read_text() == "<p>My own words</p>"
    for out in (runs, "no/such/folder/a.html"):
        assert main(["report", str(first), "--out", str(out)]) == 2


def test_several_runs_are_compared(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = reported(capsys, *(runs / name for name in ("one", "two", "huge", "stopped")))
    assert "4 runs compared" in found.words
    for said in ("one", "two", "diverged", "interrupted", "--lr", "--hidden", "Test accuracy, %"):
        assert said in found.words
    assert (
        "--log-every"
        not in found.words.partition("Commands")[0].rpartition("Options that differ")[2].partition("Curves")[0]
    )
    assert Path("report.html").exists()


def test_runs_that_cannot_be_read_are_refused_before_the_page(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "nosuch"]) == 2
    assert "nosuch: not a run folder" in capsys.readouterr().err
    assert main(["report", str(runs / "one"), str(runs / "two"), "--data", "/nonexistent"]) == 2
    assert "--data is for the page of one run" in capsys.readouterr().err
    os.mkfifo("pipe")
    assert main(["report", str(runs / "one"), "--out", "pipe"]) == 2


def test_a_run_named_twice_is_one(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "Run one" in reported(capsys, "runs/one", runs / "one", "runs/../runs/one").words


def test_a_name_that_is_not_utf_8(runs: Path) -> None:
    name = b"runs/\xff".decode(errors="surrogateescape")
    (runs / "one").rename(name)
    done = subprocess.run([sys.executable, "-m", "ddpgd", "report", name], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"runs/\xff/report.html\n"), done.stderr


@pytest.mark.parametrize(
    ("change", "against"),
    [
        ({"train_s": ...}, "seconds"),
        ({"train_s": float("nan")}, "seconds"),
        ({"samples": None}, "samples"),
        ({"test_loss_mean": 1e200}, "step"),
    ],
)
def test_odd_records_are_drawn_as_far_as_they_go(change: dict[str, Any], against: str, runs: Path) -> None:
    path = runs / "one" / "metrics.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    records[-1] |= change
    lines = [json.dumps({name: value for name, value in one.items() if value is not ...}) for one in records]
    path.write_text("\n".join([*lines, ""]))
    assert main(["report", str(runs / "one"), "--against", against]) == 0
    assert main(["plot", str(runs / "one"), "--against", against, "--out", "a.svg"]) == 0


@pytest.mark.parametrize(("low", "high"), [(1e-300, 1e300), (5e-324, 1.7e308), (1.0, 1.0), (1.0, 1.000001)])
def test_any_losses_have_a_logarithmic_axis(low: float, high: float) -> None:
    figure = line_chart("t", "step", [Series("a", [(0.0, low), (1.0, high)])], is_log=True)
    assert "nan" not in figure
    assert "inf" not in figure
    assert 2 <= len(log_ticks(low, high)) <= 8 or low == high
    Page(figure)


def test_runs_of_one_name_are_told_apart(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(runs / "one", runs / "more" / "one", symlinks=True)
    found = reported(capsys, runs / "one", runs / "more" / "one")
    assert "None: all options are equal." in found.words
    assert str(runs / "more" / "one") in found.words


@pytest.mark.parametrize("name", ["one", "two", "stopped"])
def test_the_command_repeats_the_run(name: str, runs: Path) -> None:
    config = from_table(read_toml(str(runs / name / "config.toml")))
    words = shlex.split(options.command(config, 1))
    again = resolve(Config(**parse(words[1:])["given"]), 1)
    ignored = dict.fromkeys(("quiet", "run_dir", "resume"))
    assert options.differing([again, config]) == []
    assert {**again.__dict__, **ignored} == {**config.__dict__, **ignored}


def test_options_that_are_defaults_are_not_shown() -> None:
    assert options.command(resolve(Config(), 1), 1) == "ddpgd train"
    config = resolve(Config(optimizer="adam", accumulate=2, shard_optimizer="on", topk_masking=True, wire="topk"), 3)
    assert options.changed(config, 3).keys() == {"optimizer", "global_batch", "shard_optimizer", "topk_masking", "wire"}
    assert options.command(config, 3).startswith("mpirun -n 3 ddpgd train --global-batch 384")


def test_layers_are_drawn_whatever_their_figures_are_called() -> None:
    records: list[dict[str, Any]] = [
        {"step": step, "layer_param_norms": [1.0, None, 3.0 * step], "layer_hashes": {"a": "b"}, "lr": 0.1}
        for step in (1, 2)
    ]
    panel = LAYERS["layer_param_norms"]
    found = points_of_layers(records, "layer_param_norms", panel, "step")
    assert found == {0: [(1, 1.0), (2, 1.0)], 2: [(1, 3.0), (2, 6.0)]}
    (figure,) = of_layers(records, ["dense1", "dense2"], "step")
    assert "Norm of the params, by layer" in figure
    assert "dense1" in figure
    assert "layer 3" in figure


@pytest.mark.parametrize("low", [0.0, -3.7, 1e-9, 12.0, 1e6])
@pytest.mark.parametrize("width", [1e-7, 0.3, 1.0, 470.0, 6e7])
def test_ticks_are_round_and_inside(low: float, width: float) -> None:
    found = ticks(low, low + width)
    assert 2 <= len(found) <= 8
    assert all(low - 1e-6 * width <= tick <= low + width * (1 + 1e-6) for tick in found)
    steps = np.diff(found)
    assert np.allclose(steps, steps[0], rtol=1e-3)


@pytest.mark.parametrize(("low", "high"), [(0.07, 0.1), (1e-9, 1e3), (3.0, 3.1), (0.5, 2000.0)])
def test_logarithmic_ticks(low: float, high: float) -> None:
    found = log_ticks(low, high)
    assert 2 <= len(found) <= 8
    assert all(low * (1 - 1e-6) <= tick <= high * (1 + 1e-6) for tick in found)
    assert found == sorted(found)


def test_numbers_in_words() -> None:
    values = (0.0, 1.0, 0.5, 1234.0, 60000.0, 1.5e9, 2e-7, 97.75, 0.0123456)
    assert [number_text(value) for value in values] == [
        "0",
        "1",
        "0.5",
        "1,234",
        "60,000",
        "1.5e9",
        "2e-7",
        "97.75",
        "0.01235",
    ]


@pytest.mark.parametrize("module", [options, scales])
def test_examples(module: ModuleType) -> None:
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0


def test_a_long_line_is_thinned_and_keeps_its_extremes() -> None:
    points = [(float(step), 1.0 + (step == 77_777) * 8 - (step == 33_333) * 0.9) for step in range(100_000)]
    figure = line_chart("t", "step", [Series("a", points)])
    assert len(figure) < 60_000
    ys = [float(y) for y in re.findall(r"[ M][\d.]+,([\d.]+)", figure)]
    plain = line_chart("t", "step", [Series("a", [(0.0, 0.1), (99_999.0, 9.0)])])
    wanted = [float(y) for y in re.findall(r"[ M][\d.]+,([\d.]+)", plain)]
    assert (min(ys), max(ys)) == (min(wanted), max(wanted))


@pytest.mark.parametrize("number", [1, 2, 7, 25])
def test_names_do_not_overlap(number: int) -> None:
    series = [
        Series(f"run {one} with quite a long name", [(0.0, 1.0), (10.0, 1.0 + one / 1000)], one)
        for one in range(number)
    ]
    figure = line_chart("t", "step", series)
    places = sorted(float(y) for y in re.findall(r'class="name" x="[\d.]+" y="([\d.]+)"', figure))
    assert len(places) == number
    assert all(np.diff(places) >= 15.9)
    height = float(re.findall(r'viewBox="0 0 [\d.]+ ([\d.]+)"', figure)[0])
    assert places[0] > 0
    assert places[-1] < height
    Page(figure)


def test_one_point_and_none() -> None:
    assert line_chart("t", "step", [Series("a", [])]) == ""
    for is_log in (False, True):
        Page(line_chart("t", "step", [Series("a", [(1.0, 2.0)])], is_log))
        Page(line_chart("t <b>", "step & so", [Series("a < b", [(1.0, 0.0), (2.0, 0.0)])], is_log))


@pytest.mark.parametrize("accuracies", [[0.975], [1.0, 1.0], [0.5, 1.0]])
def test_no_axis_of_accuracies_goes_beyond_100_percent(accuracies: list[float]) -> None:
    records: list[Record] = [{"step": step, "test_accuracy": value} for step, value in enumerate(accuracies)]
    results = [100 * accuracy for accuracy in accuracies]
    dots = [Dot(float(number), result, "run") for number, result in enumerate(results)]
    figures = [*curves.of_run(records, "step", "step"), *curves.of_runs({"a": records}, "step")]
    figures += [dot_chart("accuracy, %", dots, most=100.0)]
    assert len(figures) == 3
    for figure in figures:
        scale = [float(text) for text in re.findall(r'text-anchor="end">([\d.]+)<', figure)]
        assert len(scale) > 1
        assert max(scale) <= 100

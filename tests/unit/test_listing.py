"""`ddpgd runs`: states, figures, order and forms of the listing, over runs that ended in every way."""

import csv
import io
import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from ddpgd.cli.main import main
from ddpgd.errors import Interrupted, NonFiniteError
from ddpgd.results import listing, row
from ddpgd.results.listing import SORTS
from ddpgd.run import folder as run_folder
from ddpgd.run.lock import RunLock
from ddpgd.run.records import read_last, read_records
from ddpgd.training.stopping import StopRequest
from mutations import mutated
from runs import stopping_at, train

FILES = ("summary.json", "config.toml", "metrics.jsonl", "ended.json", ".lock")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder `runs` with a run of each state, trained on few digits."""
    from ddpgd.data import synthetic
    from runs import digits

    runs = tmp_path_factory.mktemp("listing") / "runs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "make", digits)
        train(runs / "fast", lr=0.1)
        train(runs / "slow", world_size=2, lr=0.001, hidden=(5, 4), optimizer="adam")
        with pytest.raises(NonFiniteError):
            train(runs / "huge", lr=1e30)
        patch.setattr(StopRequest, "__bool__", stopping_at(4))
        with pytest.raises(Interrupted):
            train(runs / "stopped")
    shutil.copytree(runs / "fast", runs / "alive")
    (runs / "alive" / "summary.json").unlink()
    shutil.copytree(runs / "fast", runs / "hurt")
    (runs / "hurt" / "summary.json").write_text('{"complete": 1')
    (runs / "no-run").mkdir()
    (runs / "a-file").touch()
    return runs


@pytest.fixture
def runs(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path / "runs", symlinks=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["runs", *arguments]) == 0
    return capsys.readouterr().out


def test_a_line_for_each_run(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock = RunLock(runs / "alive")
    lock.acquire(print)
    said = listed(capsys)
    lock.release()
    heading, *found = said.splitlines()
    assert " ".join(heading.split()) == "name when hidden optimizer lr ranks steps accuracy loss seconds state"
    states = {line.split()[0]: next(word for word in line.split() if word.rstrip(":") in STATES) for line in found}
    assert {name: state.rstrip(":") for name, state in states.items()} == {
        "fast": "complete",
        "slow": "complete",
        "huge": "diverged",
        "stopped": "interrupted",
        "alive": "running",
        "hurt": "damaged",
    }
    assert len({line.index(" ", len(line.split()[0])) for line in found if line.startswith("slow")}) == 1
    slow = next(line.split() for line in found if line.startswith("slow"))
    assert slow[3:8] == ["5,4", "adam", "0.001", "2", "9"]


STATES = {row.COMPLETE, row.DIVERGES, row.RUNNING, row.INTERRUPTED, row.DAMAGED}


def test_figures_are_those_of_the_summary_or_of_the_last_records(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {one["name"]: one for one in json.loads(listed(capsys, "--json"))}
    whole = json.loads((runs / "fast" / "summary.json").read_text())
    keys = {"steps": "steps", "accuracy": "test_accuracy", "loss": "test_loss_mean", "seconds": "train_s"}
    assert {name: found["fast"][name] for name in keys} == {name: whole[key] for name, key in keys.items()}
    stopped = read_records(runs / "stopped")
    assert found["stopped"]["steps"] == stopped[-1]["step"]
    assert found["stopped"]["accuracy"] == [one["test_accuracy"] for one in stopped if "test_accuracy" in one][-1]
    assert "stopped after step" in found["stopped"]["reason"]
    assert "the gradient is not finite" in found["huge"]["reason"]
    assert "not a summary" in found["hurt"]["reason"]


def test_csv_has_the_same_values(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: ARG001
    as_json = json.loads(listed(capsys, "--json", "--sort", "name"))
    as_csv = list(csv.DictReader(io.StringIO(listed(capsys, "--csv", "--sort", "name"))))
    assert [{name: "" if value is None else str(value) for name, value in one.items()} for one in as_json] == as_csv


@pytest.mark.parametrize("key", SORTS)
def test_orders(key: str, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: ARG001
    found = json.loads(listed(capsys, "--json", "--sort", key))
    field = {"time": "seconds", "when": "started", "validation": "validation_accuracy"}.get(key, key)
    values = [one[field] for one in found]
    known = [value for value in values if value is not None]
    assert values == known + [None] * (len(values) - len(known))
    assert known == sorted(known, reverse=key in ("accuracy", "validation", "steps"))


def test_the_runs_of_a_sweep_and_of_this_folder(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sweep.json").touch()
    assert len(json.loads(listed(capsys, "--json", str(tmp_path)))) == 6
    monkeypatch.chdir(runs / "fast")
    assert [one["name"] for one in json.loads(listed(capsys, "--json", "."))] == ["fast"]


@pytest.mark.parametrize("name", ["a\x1b[31m", "a\nb", "a\u2028b", "a\udcff"])
def test_odd_names_are_one_line_and_one_row(name: str, runs: Path) -> None:
    (runs / "fast").rename(runs / name)
    said = listing.lines({"folders": [str(runs / name)], "sort": "name"})
    assert len(said) == 2
    assert "\n".join(said).isascii()
    as_csv = listing.lines({"folders": [str(runs / name)], "sort": "name", "csv": True})
    assert [one["name"] for one in csv.DictReader(io.StringIO("\n".join(as_csv), newline=""))] == [name]


def test_folders_and_single_runs(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(listed(capsys, "--json", str(runs / "fast"), str(runs), str(runs / "slow")))
    assert sorted(one["name"] for one in found) == sorted(["fast", "slow", "huge", "stopped", "alive", "hurt"])
    assert listed(capsys, str(runs / "no-run")) == f"no runs in {runs / 'no-run'}\n"


def test_a_folder_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments in ([], ["nowhere"]):
        assert main(["runs", *arguments]) == 2
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("name", FILES)
def test_damaged_files_are_a_line_never_a_traceback(name: str, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = runs / {"ended.json": "stopped", ".lock": "stopped"}.get(name, "fast")
    content = (base / name).read_bytes() if (base / name).exists() else b'{"host": "h", "pid": 1, "machine": "m"}'
    choose = random.Random(0)
    for number in range(60):
        (base / name).write_bytes(mutated(content, choose))
        found = json.loads(listed(capsys, "--json", str(base)))
        assert len(found) == 1, number
        assert found[0]["state"] in STATES


def test_a_run_that_goes_on_forgets_its_end(runs: Path, few_digits: None) -> None:  # noqa: ARG001
    assert (runs / "stopped" / "ended.json").exists()
    train(runs / "stopped", resume=str(runs / "stopped"))
    assert not (runs / "stopped" / "ended.json").exists()
    assert row.read_row(runs / "stopped").state == row.COMPLETE


def test_an_ending_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "ended.json").write_text("{}")
    assert run_folder.is_free(tmp_path / "run")


@pytest.mark.parametrize("num_bytes", [1, 50, 700, 5000, 1 << 20])
def test_the_last_records_are_whole(num_bytes: int, made: Path) -> None:
    everything: list[Any] = read_records(made / "fast")
    found = read_last(made / "fast", num_bytes)
    assert found == everything[len(everything) - len(found) :]
    assert len(found) == len(everything) or num_bytes < 1 << 20
    assert len(found) == 0 or num_bytes >= 700
